"""Whether a turn of the loop is due, and when the next one is: from settings and facts alone.

No clock, no store: workflows/improve/schedule.py gathers the facts and acts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, time, timedelta

from tutelage.core.config_improve import Improve
from tutelage.core.durations import seconds
from tutelage.feedback.cron import next_time

RETRY_S = 3600.0  # after a turn went wrong, doubled with every further try, up to a day
_LONGEST_RETRY_S = 86_400.0


@dataclass(frozen=True)
class Seen:
    """What is known of the loop: when it last turned, and what has happened since.

    `began` is when the project could first turn: its first data set. `drift` is the sentence of an
    alarm that no turn has answered yet.
    """

    began: datetime | None
    last: datetime | None = None  # when the last turn began
    labels: int = 0  # answers that were corrected or given since
    drift: str | None = None


@dataclass(frozen=True)
class Due:
    """The decision in words; `next_at` is when the clock alone will call for a turn."""

    now: bool
    reason: str
    next_at: datetime | None = None


def due(settings: Improve, seen: Seen, now: datetime) -> Due:
    """Return whether a turn shall begin now, and why or why not. Times carry their zones.

    Drift goes before labels, labels before the clock; quiet hours put all of them off.
    Raises ConfigError for a cron line that means nothing.
    """
    if not settings.starts_by_itself:
        return Due(False, "nothing starts a turn by itself: set improve.every, cron, on_drift "
                          "or on_labels")  # fmt: skip
    if seen.began is None:
        return Due(False, "there is no data set yet: `tutelage run` makes the first")
    next_at = _next_at(settings, seen.last or seen.began)
    reason = _reason(settings, seen, now, next_at)
    if reason is None:
        return Due(False, _not_yet(settings, seen, next_at), next_at)
    until = quiet_until(settings.quiet, now)
    if until is not None:
        return Due(False, f"{reason}, but quiet hours are until {until:%H:%M}", until)
    return Due(True, reason, next_at)


def _reason(settings: Improve, seen: Seen, now: datetime, next_at: datetime | None) -> str | None:
    if settings.on_drift and seen.drift is not None:
        return f"drift: {seen.drift}"
    if settings.on_labels is not None and seen.labels >= settings.on_labels:
        return f"{seen.labels} new labels, {settings.on_labels} start a turn"
    if next_at is not None and now >= next_at:
        how = f"every {settings.every}" if settings.every else f"cron {settings.cron!r}"
        return f"{how}: due since {local(next_at)}"
    return None


def _not_yet(settings: Improve, seen: Seen, next_at: datetime | None) -> str:
    parts = []
    if next_at is not None:
        parts.append(f"the next turn by the clock is at {local(next_at)}")
    if settings.on_labels is not None:
        parts.append(f"{seen.labels} of {settings.on_labels} new labels are there")
    if settings.on_drift:
        parts.append("no drift alarm stands")
    return "; ".join(parts)


def _next_at(settings: Improve, since: datetime) -> datetime | None:
    """Return when the clock calls for the first turn after `since`; None without a clock."""
    if settings.every is not None:
        return since + timedelta(seconds=seconds(settings.every))
    if settings.cron is None:
        return None
    return next_time(settings.cron, since)


def quiet_until(spans: Sequence[str], now: datetime) -> datetime | None:
    """Return when the quiet hours that hold now end, in local time; None if none do.

    `spans` are such as 22:00-06:00; one that ends before it begins goes over midnight.
    """
    end = local = now.astimezone()
    for _ in spans:  # one may begin where another ends
        end = max([found for span in spans if (found := _end(span, end))], default=end)
    return end if end > local else None


def _end(span: str, at: datetime) -> datetime | None:
    """Return when a span that holds `at` ends, or None if it does not hold it."""
    begin, end = (time.fromisoformat(part) for part in span.split("-"))
    over_midnight, clock = begin >= end, at.time()
    if not (clock >= begin or clock < end if over_midnight else begin <= clock < end):
        return None
    day = at.date() + timedelta(days=1 if over_midnight and clock >= begin else 0)
    return datetime.combine(day, end).astimezone()  # the hour of that day, in summer time or not


def retry_at(failed_at: datetime, tries: int) -> datetime:
    """Return when a turn that went wrong `tries` times is tried again: 1 h, 2 h, 4 h, ... a day."""
    wait = min(_LONGEST_RETRY_S, RETRY_S * 2 ** max(0, tries - 1))
    return failed_at + timedelta(seconds=wait)


def local(at: datetime) -> str:
    """Return a moment as the machine's clock shows it, with its zone."""
    return f"{at.astimezone():%Y-%m-%d %H:%M %Z}"
