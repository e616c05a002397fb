"""Splits by time: the oldest clusters are trained on, the newest are tested on.

The first split draws two borders in time. Later rows keep to them: what is newer than the border
of test goes to test, so that no row of train is newer than what it is tested on. A cluster
counts as old as its newest row, and rows of one moment stay together. A new row in the cluster of
a row with a side joins it there, whatever its time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from itertools import groupby

from tutelage.core.config import Splits
from tutelage.core.example import SPLITS, Example, SplitName
from tutelage.data.findings import Finding

Unit = Sequence[Example]
_YEAR_ONE = datetime.min.replace(tzinfo=UTC).timestamp()
_LATE = 0.1  # share of train's clusters that may have lost their older rows since they were split


def by_time(
    fresh: Sequence[Unit],
    old: Sequence[Unit],
    splits: Splits,
    frozen: Mapping[str, SplitName],
) -> tuple[dict[str, SplitName], list[Finding]]:
    """Return the side of every row of the `fresh` clusters, by example id, and what to say.

    `old` are the rows with a side, cluster by cluster; `frozen` maps example id to side.
    """
    if not old:
        return _shared_out(fresh, splits), []
    validation, test = _borders(old, frozen)
    if not _follows_time(old, frozen, min(validation, test)):
        detail = "rows that were split before data.splits.time was set keep their side"
        return _shared_out(fresh, splits), [Finding("D10-T02", detail)]
    sides: dict[str, SplitName] = {}
    for unit in fresh:
        last = max(moment(row) for row in unit)
        side: SplitName = "test" if last >= test else "train"
        if validation <= last < test:
            side = "validation"
        sides.update({row.id: side for row in unit})
    late = sum(side == "test" for side in sides.values())
    if not late:
        return sides, []
    what = "1 new row is" if late == 1 else f"{late:,} new rows are"
    since = datetime.fromtimestamp(test, UTC).isoformat(timespec="seconds")
    return sides, [Finding("D10-T01", f"{what} tested on: test begins at {since}")]


def _borders(old: Sequence[Unit], frozen: Mapping[str, SplitName]) -> tuple[float, float]:
    """Return the times from which on clusters belong to validation and to test."""
    border = {side: float("inf") for side in SPLITS}
    for unit in old:
        for side in {frozen[row.id] for row in unit}:
            last = max(moment(row) for row in unit if frozen[row.id] == side)
            border[side] = min(border[side], last)
    return border["validation"], border["test"]


def _follows_time(old: Sequence[Unit], frozen: Mapping[str, SplitName], border: float) -> bool:
    """Return whether the clusters of train began before the border, but for a few."""
    starts = [
        min(moment(row) for row in unit)
        for unit in old
        if any(frozen[row.id] == "train" for row in unit)
    ]
    late = sum(start >= border for start in starts)
    return late <= _LATE * len(starts)


def _shared_out(units: Sequence[Unit], splits: Splits) -> dict[str, SplitName]:
    """Return the sides of a first split: borders where the shares of rows are reached."""
    dated = sorted(((max(moment(row) for row in unit), unit) for unit in units), key=lambda p: p[0])
    total = sum(len(unit) for unit in units)
    sides: dict[str, SplitName] = {}
    done = 0
    for _, same in groupby(dated, key=lambda pair: pair[0]):
        rows = [row for _, unit in same for row in unit]
        middle = (done + len(rows) / 2) / total
        side: SplitName = "train"
        if middle > splits.train:
            side = "validation" if middle <= splits.train + splits.validation else "test"
        sides.update({row.id: side for row in rows})
        done += len(rows)
    return sides


def moment(row: Example) -> float:
    """Return a row's time in seconds since 1970, UTC if no zone is given; no time is year one."""
    if row.time is None:
        return _YEAR_ONE
    when = datetime.fromisoformat(row.time)
    return (when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp()
