"""The span of time that a report covers, from how people say it: 7d, 2026-11-01."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from tutelage.core.artifact import utc_now
from tutelage.core.durations import seconds
from tutelage.core.errors import DataError

_DEFAULT = "30d"


def span(since: str | None, until: str | None) -> tuple[datetime, datetime]:
    """Return the two ends, in UTC. Raises DataError for what is no time, or ends before it begins.

    A day as `until` is counted to its end; unset is now. `since` may be a length such as 7d.
    """
    end = _moment(until, last=True) if until else utc_now()
    begin = _begin(since or _DEFAULT, end)
    if begin >= end:
        raise DataError(
            f"the time from {begin:%Y-%m-%d %H:%M} to {end:%Y-%m-%d %H:%M} is empty",
            fix="Let it begin before it ends",
        )
    return begin, end


def _begin(text: str, end: datetime) -> datetime:
    try:
        return end - timedelta(seconds=seconds(text))
    except ValueError:
        return _moment(text)
    except OverflowError:
        return datetime.min.replace(tzinfo=UTC)


def _moment(text: str, *, last: bool = False) -> datetime:
    try:
        found = datetime.fromisoformat(text)
        found = found if found.tzinfo else found.replace(tzinfo=UTC)
        if last and len(text) <= len("2026-11-26"):
            found += timedelta(days=1)
        return found.astimezone(UTC)
    except (ValueError, OverflowError):  # the second: at the calendar's ends
        raise DataError(
            f"{text!r} is no time", fix="Write 7d, 2026-11-26 or a full ISO time"
        ) from None
