"""When a cron line is due next, as cron reads it and on the clock that hangs on the wall.

Days of the week count from Sunday (0 and 7), and a line that names days of the month and of the
week means either. APScheduler finds the moments; it counts from Monday and means both.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from tutelage.core.errors import ConfigError

_DAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")


def next_time(line: str, since: datetime) -> datetime:
    """Return the first moment after `since` that a line of five parts names in local time, in UTC.

    An hour that summer time skips comes an hour later. Raises ConfigError for a line that means
    nothing, or a day that never comes.
    """
    wall = since.astimezone().replace(tzinfo=UTC, fold=0) + timedelta(microseconds=1)
    try:
        found = [at for one in _lines(line) if (at := _next(one, wall)) is not None]
    except ValueError as error:
        raise _wrong(line, str(error)) from error
    if not found:
        raise _wrong(line, "such a day never comes")
    return _moment(min(found).replace(tzinfo=None))


def _moment(wall: datetime) -> datetime:
    """Return when clocks show `wall` first; where they skip it, as if they had not changed."""
    found = wall.astimezone(UTC)
    shown = found.astimezone().replace(tzinfo=None) == wall
    return found if shown else wall.replace(fold=1).astimezone(UTC)


def _wrong(line: str, why: str) -> ConfigError:
    return ConfigError(
        f"{line!r} is no cron line ({why})",
        where="improve.cron",
        fix='Write minute hour day month weekday, such as "0 3 1 * *" for the first of a month',
    )


def _lines(line: str) -> list[tuple[str, ...]]:
    """Return the lines that mean `line` where days of the month and of the week both must hold."""
    minute, hour, day, month, weekday = line.split()
    week = _weekdays(weekday)
    if day.startswith("*") or week.startswith("*"):
        return [(minute, hour, day, month, week)]
    return [(minute, hour, day, month, "*"), (minute, hour, "*", month, week)]


def _weekdays(field: str) -> str:
    """Return the days of the week by their names."""
    if field == "*":
        return field
    found: list[str] = []
    for part in field.lower().split(","):
        span, _, step = part.partition("/")
        first, _, last = ("0-6" if span == "*" else span).partition("-")
        begin, end = _weekday(first), _weekday(last or first)
        end += 7 if end < begin else 0
        found += [_DAYS[day % 7] for day in range(begin, end + 1, int(step or 1))]
    return ",".join(dict.fromkeys(found))


def _weekday(word: str) -> int:
    if word in _DAYS:
        return _DAYS.index(word)
    if word.isdecimal() and int(word) <= 7:
        return int(word)
    raise ValueError(f"{word!r} is no day of the week")


def _next(parts: tuple[str, ...], wall: datetime) -> datetime | None:
    from apscheduler.triggers.cron import CronTrigger

    minute, hour, day, month, weekday = parts
    trigger = CronTrigger(
        minute=minute, hour=hour, day=day, month=month, day_of_week=weekday, timezone=UTC
    )
    found: datetime | None = trigger.get_next_fire_time(None, wall)
    return found
