"""The Retry-After header (RFC 9110, section 10.2.3): how long a server asks to be left alone."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime


def retry_after_s(text: str | None, *, longest_s: float, now: datetime) -> float | None:
    """Return the seconds that the header asks for, as a number or as a date, `longest_s` at most.

    None if it says nothing that can be understood. Some APIs send fractions.
    """
    text = (text or "").strip()
    try:
        asked = float(text) if text.isascii() else math.nan
    except ValueError:
        try:
            at = parsedate_to_datetime(text)
        except (ValueError, OverflowError):
            return None
        at = at if at.tzinfo else at.replace(tzinfo=UTC)
        return min(max(0.0, (at - now).total_seconds()), longest_s)
    return min(asked, longest_s) if asked >= 0 else None
