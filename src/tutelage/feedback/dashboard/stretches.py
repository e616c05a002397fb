"""Cut a span of time into hours, days or weeks, in UTC; weeks begin on Monday."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

from tutelage.core.errors import DataError, did_you_mean

LENGTHS = {"hour": 3_600, "day": 86_400, "week": 7 * 86_400}  # seconds
_MONDAY = 4 * 86_400  # 1970-01-05
_MOST = 2_000  # stretches


@dataclass(frozen=True)
class Stretches:
    """Equal stretches from `start` on (seconds since 1970), `count` of them."""

    every: str
    start: int
    count: int

    @property
    def length(self) -> int:
        """Seconds of one."""
        return LENGTHS[self.every]

    def place(self, at: float) -> int | None:
        """Return the stretch that holds a time; None if none does."""
        index = int((at - self.start) // self.length)
        return index if 0 <= index < self.count else None

    def begin(self, index: int) -> datetime:
        """Return when a stretch begins."""
        return datetime.fromtimestamp(self.start + index * self.length, UTC)


def stretches(since: datetime, until: datetime, every: str | None = None) -> Stretches:
    """Return the stretches that hold the span. Raises DataError for an unknown or too fine `every`.

    Unset, they are hours up to two days, days up to 120, else weeks.
    """
    span = (until - since).total_seconds()
    name = every or ("hour" if span <= 2 * 86_400 else "day" if span <= 120 * 86_400 else "week")
    if name not in LENGTHS:
        raise DataError(
            f"time can't be cut by {name!r}",
            fix=f"{did_you_mean(name, LENGTHS)}Known: {', '.join(LENGTHS)}",
        )
    length, shift = LENGTHS[name], _MONDAY if name == "week" else 0
    start = int((since.timestamp() - shift) // length) * length + shift
    count = int(-(-(until.timestamp() - start) // length))
    if count > _MOST:
        raise DataError(
            f"{count:,} {name}s are too many to show", fix="Ask for longer ones, or a shorter time"
        )
    return Stretches(name, start, max(1, count))
