"""Which split each row goes to: whole clusters, stratified by label or by time, frozen for ever.

A cluster is everything that must stay on one side: near-duplicates and rows of one group. Sides
given earlier are never changed. Where a new row ties two frozen sides together, the lower one's
rows (train before validation before test) are left out, so that a test row never leaks. A new
production row whose own side is another than its cluster's is left out itself.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tutelage.core.config import Splits
from tutelage.core.example import SPLITS, Example, SplitName
from tutelage.data.assign_time import by_time
from tutelage.data.dedup.cosine import similar_pairs
from tutelage.data.dedup.near import NearDuplicates, clusters
from tutelage.data.dedup.tfidf import count_grams, weigh
from tutelage.data.findings import Finding, reason
from tutelage.data.pipeline import Dropped

_HASHED = re.compile(r"[0-9a-f]{64}")
_COSINE = 0.85  # looser than the certificate's 0.90, whose vectors are fitted on one side alone
_FAR = 0.05  # difference between a share asked for and the one given that is worth saying
_FAR_ROWS = 2  # and this many rows
_ABOVE: dict[SplitName, int] = {"train": 0, "validation": 1, "test": 2}
_FIRST: tuple[SplitName, ...] = ("test", "validation", "train")  # where all else is equal


@dataclass
class Assignment:
    """The side of every row that stays, by example id, what was left out, and what to say."""

    sides: dict[str, SplitName] = field(default_factory=dict)
    dropped: list[Dropped] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)


def cluster_rows(rows: Sequence[Example], threshold: float = 80.0) -> dict[str, str]:
    """Return the cluster (the id of its first row) of every row, by example id.

    Joined are near-duplicates by letters (without the number guard: "5 mg" and "50 mg" may both
    be kept, but never on two sides), by tf-idf cosine, and rows with the same group.
    """
    texts = [row.input_text for row in rows]
    first: dict[str, int] = {}
    groups = [
        (first.setdefault(group_key(row), index), index)
        for index, row in enumerate(rows)
        if row.group is not None
    ]
    near = NearDuplicates(threshold, guard=False).pairs(texts)
    pairs = np.concatenate([near.reshape(-1, 2), np.array(groups, dtype=np.int64).reshape(-1, 2)])
    roots = clusters(len(rows), pairs)
    matrix = weigh(*count_grams(texts))[0]
    left, right, _ = similar_pairs(matrix, matrix, _COSINE, roots)
    roots = clusters(len(rows), np.concatenate([pairs, np.stack([left, right], axis=1)]))
    return {row.id: rows[root].id for row, root in zip(rows, roots, strict=True)}


def group_key(row: Example) -> str:
    """Return the name of a row's group that imported rows and production records share.

    A record keeps only the SHA-256 of its group, so that no name of a person lies in the log.
    """
    group = row.group or ""
    return group if _HASHED.fullmatch(group) else hashlib.sha256(group.encode()).hexdigest()


def inherit_sides(rows: Sequence[Example], frozen: dict[str, SplitName]) -> None:
    """Give repaired rows, which have new ids, the side of the rows they were (`frozen` grows)."""
    for row in rows:
        if row.id not in frozen:
            sides = [frozen[parent] for parent in row.origin.parents if parent in frozen]
            if sides:
                frozen[row.id] = max(sides, key=_ABOVE.__getitem__)


def assign(
    rows: Sequence[Example],
    named: Mapping[str, str],
    splits: Splits,
    frozen: Mapping[str, SplitName],
    departed: Sequence[Example] = (),
    arrived: Mapping[str, SplitName] | None = None,
) -> Assignment:
    """Return the side of every row. `named` maps example id to cluster, `frozen` id to side.

    `departed` are rows of the version before that are gone: new rows of their clusters, such as a
    corrected line, take their side. `arrived` is the side of new production rows; where another
    side has their cluster already, they are left out.
    """
    units: dict[str, list[Example]] = defaultdict(list)
    for row in rows:
        units[named[row.id]].append(row)
    heirs: dict[str, set[SplitName]] = defaultdict(set)
    for row in departed:
        heirs[named[row.id]].add(frozen[row.id])
    arrived = arrived or {}
    own = {**arrived, **frozen}
    result = Assignment()
    fresh: list[list[Example]] = []
    for name, unit in units.items():
        sides = {frozen[row.id] for row in unit if row.id in frozen} or heirs.get(name)
        sides = sides or {arrived[row.id] for row in unit if row.id in arrived}
        if sides:
            _settle(unit, max(sides, key=_ABOVE.__getitem__), own, result)
        else:
            fresh.append(unit)
    fresh.sort(key=_order)
    if splits.time:
        old = [
            [row for row in unit if row.id in frozen and row.origin.kind != "production"]
            for unit in units.values()
        ]
        given, findings = by_time(fresh, [unit for unit in old if unit], splits, frozen)
        result.sides |= given
        result.findings += findings
    else:
        _stratified(fresh, splits, rows, result)
    return result


def share_findings(sides: Mapping[SplitName, Sequence[Example]], splits: Splits) -> list[Finding]:
    """Return what is to be said of sides that are empty, far from their share, or lack a label."""
    asked: dict[SplitName, float] = _shares(splits)
    total = sum(len(sides[side]) for side in SPLITS)
    found = []
    for side in SPLITS:
        count = len(sides[side])
        off = abs(count - asked[side] * total)
        if not count and asked[side] > 0:
            found.append(Finding("D10-S02", f"{side} has no rows"))
        elif total and off > max(_FAR * total, _FAR_ROWS):
            detail = f"{side} has {count / total:.0%} of the rows, {asked[side]:.0%} were asked for"
            found.append(Finding("D10-S01", detail))
    if asked["test"] > 0 and sides["test"]:
        labels = Counter(row.label for side in SPLITS for row in sides[side])
        tested = {row.label for row in sides["test"]}
        for label, count in sorted((k, v) for k, v in labels.items() if k is not None):
            if label not in tested:
                rows = "its only row is" if count == 1 else f"its {count:,} rows are"
                found.append(Finding("D10-S03", f"{label!r}: {rows} on the other sides"))
    return found


def empty_sides(counts: Mapping[str, int], largest: int, splits: Splits) -> str | None:
    """Return which sides have a share but no rows, and why, or None; `largest` is of a cluster."""
    empty = [side for side, share in _shares(splits).items() if share > 0 and not counts[side]]
    if not empty:
        return None
    why = one_cluster(counts, largest) or "bring more rows, or change data.splits"
    return f"{' and '.join(empty)} {'are' if len(empty) > 1 else 'is'} empty: {why}"


def one_cluster(counts: Mapping[str, int], largest: int) -> str | None:
    """Return what to do if all rows stay together in the largest cluster, or None."""
    total = sum(counts.values())
    if total < 2 or largest < total:
        return None
    return (
        f"all {total:,} rows are in one cluster (near-duplicates of each other, or one group), "
        "which stays on one side; bring rows that differ"
    )


def _settle(
    unit: list[Example], side: SplitName, own: Mapping[str, SplitName], result: Assignment
) -> None:
    """Give a cluster a side; rows with another side of their `own` are left out."""
    anchor = next((row for row in unit if own.get(row.id) == side), unit[0])
    for row in unit:
        if own.get(row.id, side) == side:
            result.sides[row.id] = side
            continue
        why = reason("D10-X01", f"a twin of {anchor.origin.source or anchor.id} in {side}")
        result.dropped.append(Dropped(row, "D10-X01", why, anchor.id))


def _shares(splits: Splits) -> dict[SplitName, float]:
    return {"train": splits.train, "validation": splits.validation, "test": splits.test}


def _stratified(
    units: list[list[Example]], splits: Splits, rows: Sequence[Example], result: Assignment
) -> None:
    """Give each cluster to the side that lacks most rows of its label, the rarest label first.

    Iterative stratification (Sechidis, Tsoumakas, Vlahavas 2011) with clusters in the place of
    items: a cluster may hold several labels, and all of them are counted. Large clusters go
    first, while there is still room to make up for them. Where two sides lack the same, test
    comes before validation unless it is full. A label of one or two rows is trained on; from
    three rows on it is tested as well, as far as clusters allow.
    """
    open_sides = [side for side in _FIRST if _shares(splits)[side] > 0]
    gone = {item.example.id for item in result.dropped}
    lack = _Lack(splits, [row for row in rows if row.id not in gone], result.sides)
    holders: dict[str | None, list[list[Example]]] = defaultdict(list)
    for unit in units:
        for label in dict.fromkeys(row.label for row in unit):
            holders[label].append(unit)
    sizes = {label: sum(len(unit) for unit in held) for label, held in holders.items()}
    for label in sorted(holders, key=lambda name: (sizes[name], str(name))):
        for unit in sorted(holders[label], key=len, reverse=True):
            if unit[0].id in result.sides:
                continue
            side = max(open_sides, key=lambda s: lack.order(s, label))
            lack.take(side, unit)
            result.sides.update({row.id: side for row in unit})


class _Lack:
    """How many rows each side lacks of each label, and of all."""

    def __init__(
        self, splits: Splits, rows: Sequence[Example], sides: Mapping[str, SplitName]
    ) -> None:
        labels = Counter(row.label for row in rows)
        shares = _shares(splits)
        self._of: dict[Any, float] = {
            (side, label): shares[side] * count
            for side in SPLITS
            for label, count in labels.items()
        }
        self._all = {side: shares[side] * len(rows) for side in SPLITS}
        for row in rows:
            if row.id in sides:
                self._count(sides[row.id], row)

    def order(self, side: SplitName, label: str | None) -> tuple[float, bool, int]:
        """Return the key by which a side is preferred for a cluster with `label`."""
        return round(self._of[side, label], 9), self._all[side] > 1e-9, -_FIRST.index(side)

    def take(self, side: SplitName, unit: Sequence[Example]) -> None:
        """Count the rows of a cluster."""
        for row in unit:
            self._count(side, row)

    def _count(self, side: SplitName, row: Example) -> None:
        self._of[side, row.label] -= 1
        self._all[side] -= 1


def _order(unit: list[Example]) -> str:
    """Return a fixed shuffle key: it depends on the rows alone."""
    return hashlib.sha256(min(row.id for row in unit).encode()).hexdigest()
