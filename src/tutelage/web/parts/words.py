"""Numbers and times as people read them. Plain text in, plain text out."""

from __future__ import annotations

import math
import re
from datetime import UTC, datetime

_STEPS = ((60, 1, "second"), (3600, 60, "minute"), (86_400, 3600, "hour"), (86_400 * 14, 86_400,
          "day"), (86_400 * 70, 86_400 * 7, "week"))  # fmt: skip
_NOTHING = "–"
_WORD = re.compile(r"(?:a\s|[a-z]['a-z]+[,.;?]?(?:\s|$))")
_NUMBER = re.compile(r"[+−-]?\d[\d,]*(\.\d+)?(e[+-]?\d+)?(\s?(%|ms|s))?")


def ago(at: datetime | None, now: datetime | None = None) -> str:
    """Return "3 minutes ago", "in 2 days", "just now", or the date where it is long ago."""
    if at is None:
        return "never"
    seconds = ((now or datetime.now(UTC)) - _aware(at)).total_seconds()
    spent = abs(seconds)
    if spent < 10:
        return "just now"
    for limit, unit, name in _STEPS:
        if spent < limit:
            count = int(spent // unit)
            words = f"{count} {name}{'s' if count != 1 else ''}"
            return f"{words} ago" if seconds > 0 else f"in {words}"
    return f"{_aware(at):%Y-%m-%d}"


def when(at: datetime | None) -> str:
    """Return a point in time to the minute, in UTC."""
    return _NOTHING if at is None else f"{_aware(at).astimezone(UTC):%Y-%m-%d %H:%M} UTC"


def percent(share: float | None, digits: int = 1) -> str:
    """Return a share of 1 in percent."""
    return _NOTHING if share is None or math.isnan(share) else f"{share * 100:.{digits}f}\u00a0%"


def number(value: float | None, digits: int | None = None) -> str:
    """Return a number with its thousands apart; digits None: as many as tell something."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return _NOTHING
    if digits is not None:
        return f"{value:,.{digits}f}"
    if float(value).is_integer():
        return f"{int(value):,}"
    return f"{value:,.1f}" if abs(value) >= 100 else f"{value:.3g}"


def duration(seconds: float | None) -> str:
    """Return a length of time: "0.4 s", "45 s", "3 min 20 s", "2 h 5 min", "3 d 4 h"."""
    if seconds is None or math.isnan(seconds):
        return _NOTHING
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    for large, small, above, below in ((86_400, 3600, "d", "h"), (3600, 60, "h", "min"),
                                       (60, 1, "min", "s")):  # fmt: skip
        if whole >= large:
            rest = whole % large // small
            return f"{whole // large} {above}" + (f" {rest} {below}" if rest else "")
    return f"{whole} s"


def milliseconds(value: float | None) -> str:
    """Return a latency given in milliseconds."""
    if value is None:
        return _NOTHING
    return f"{value:,.0f}\u00a0ms" if value >= 10 else f"{value:.1f}\u00a0ms"


def count(many: int, one: str, more: str | None = None) -> str:
    """Return "1 item", "1,234 items"."""
    return f"{many:,} {one if many == 1 else more or one + 's'}"


def short(text: str, limit: int = 80) -> str:
    """Return the text on one line, cut at a limit with an ellipsis."""
    line = " ".join(text.split())
    return line if len(line) <= limit else line[: limit - 1].rstrip() + "…"


def capital(text: str) -> str:
    """Return a sentence or a heading with a capital; a name such as icd-coder or p95 stays."""
    return text[:1].upper() + text[1:] if _WORD.match(text) else text


def key_name(key: str) -> str:
    """Return a key as it is printed on a button: "ctrl+Enter" as "Ctrl Enter"."""
    parts = key.split("+") if len(key) > 1 else [key]
    return " ".join(part[:1].upper() + part[1:] if len(part) > 1 else part for part in parts)


def is_number(text: str) -> bool:
    """Return whether a cell holds a number, with its unit or without; a dash stands for one."""
    return text == _NOTHING or bool(_NUMBER.fullmatch(text))


def _aware(at: datetime) -> datetime:
    return at if at.tzinfo is not None else at.replace(tzinfo=UTC)
