"""Which split each row goes to: whole clusters, stratified by label, frozen for ever.

A cluster is everything that must stay on one side: near-duplicates and rows of one group. Sides
given earlier are never changed. Where a new row ties two frozen sides together, the lower one's
rows (train before validation before test) are left out, so that a test row never leaks.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from tutelage.core.config import Splits
from tutelage.core.example import SPLITS, Example, SplitName
from tutelage.data.dedup.cosine import similar_pairs
from tutelage.data.dedup.near import NearDuplicates, clusters
from tutelage.data.dedup.tfidf import vectorise
from tutelage.data.findings import reason
from tutelage.data.pipeline import Dropped

_COSINE = 0.85  # looser than the certificate's 0.90, whose vectors are fitted on train alone
_ABOVE: dict[SplitName, int] = {"train": 0, "validation": 1, "test": 2}


@dataclass
class Assignment:
    """The side of every row that stays, by example id, and what was left out."""

    sides: dict[str, SplitName] = field(default_factory=dict)
    dropped: list[Dropped] = field(default_factory=list)


def cluster_rows(rows: Sequence[Example], threshold: float = 80.0) -> dict[str, str]:
    """Return the cluster (the id of its first row) of every row, by example id.

    Joined are near-duplicates by letters (without the number guard: "5 mg" and "50 mg" may both
    be kept, but never on two sides), by tf-idf cosine, and rows with the same group.
    """
    texts = [row.input_text for row in rows]
    found = NearDuplicates(threshold, guard=False).pairs(texts)
    pairs = [(i, j) for i, j in found.tolist()]
    matrix = vectorise([text.lower() for text in texts])[0]
    left, right, _ = similar_pairs(matrix, matrix, _COSINE)
    pairs += [(int(i), int(j)) for i, j in zip(left, right, strict=True)]
    first: dict[str, int] = {}
    for index, row in enumerate(rows):
        if row.group is not None:
            pairs.append((first.setdefault(row.group, index), index))
    roots = clusters(len(rows), pairs)
    return {row.id: rows[root].id for row, root in zip(rows, roots, strict=True)}


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
) -> Assignment:
    """Return the side of every row. `named` maps example id to cluster, `frozen` id to side."""
    units: dict[str, list[Example]] = defaultdict(list)
    for row in rows:
        units[named[row.id]].append(row)
    result = Assignment()
    fresh: list[list[Example]] = []
    for unit in units.values():
        sides = {frozen[row.id] for row in unit if row.id in frozen}
        if sides:
            _settle(unit, max(sides, key=_ABOVE.__getitem__), frozen, result)
        else:
            fresh.append(unit)
    taken = Counter((result.sides[r.id], r.label) for r in rows if r.id in result.sides)
    if splits.time:
        _by_time(fresh, splits, taken, result)
    else:
        _stratified(fresh, splits, taken, result)
    return result


def _settle(
    unit: list[Example], side: SplitName, frozen: Mapping[str, SplitName], result: Assignment
) -> None:
    """Give a cluster with frozen rows the highest of their sides; others' rows are left out."""
    anchor = next(row for row in unit if frozen.get(row.id) == side)
    for row in unit:
        own = frozen.get(row.id, side)
        if own == side:
            result.sides[row.id] = side
            continue
        why = reason("D10-X01", f"a twin of {anchor.origin.source or anchor.id} in {side}")
        result.dropped.append(Dropped(row, "D10-X01", why, anchor.id))


def _shares(splits: Splits) -> dict[SplitName, float]:
    return {"train": splits.train, "validation": splits.validation, "test": splits.test}


def _stratified(
    units: list[list[Example]],
    splits: Splits,
    taken: Counter[tuple[SplitName, str | None]],
    result: Assignment,
) -> None:
    """Give each cluster, large ones first, to the side that lacks most rows of its label."""
    shares = _shares(splits)
    strata: dict[str | None, list[list[Example]]] = defaultdict(list)
    for unit in units:
        strata[Counter(row.label for row in unit).most_common(1)[0][0]].append(unit)
    overall: Counter[SplitName] = Counter()
    for (side, _), count in taken.items():
        overall[side] += count
    total = sum(overall.values()) + sum(len(unit) for unit in units)
    for label in sorted(strata, key=str):
        group = sorted(strata[label], key=lambda unit: (-len(unit), _order(unit)))
        have = {side: taken[side, label] for side in SPLITS}
        rows = sum(have.values()) + sum(len(unit) for unit in group)
        for unit in group:
            side = max(
                (side for side in SPLITS if shares[side] > 0),
                key=lambda s: (
                    round(shares[s] * rows - have[s], 9),
                    shares[s] * total - overall[s],
                ),
            )
            have[side] += len(unit)
            overall[side] += len(unit)
            result.sides.update({row.id: side for row in unit})


def _by_time(
    units: list[list[Example]],
    splits: Splits,
    taken: Counter[tuple[SplitName, str | None]],
    result: Assignment,
) -> None:
    """Give the oldest clusters to train and the newest to test, by each cluster's newest row."""
    shares = _shares(splits)
    ordered = sorted(units, key=lambda u: (max(row.time or "" for row in u), _order(u)))
    total = sum(len(unit) for unit in units)
    done = 0
    for unit in ordered:
        middle = (done + len(unit) / 2) / max(1, total)
        side: SplitName = "train"
        if middle > shares["train"]:
            side = "validation" if middle <= shares["train"] + shares["validation"] else "test"
        result.sides.update({row.id: side for row in unit})
        done += len(unit)


def _order(unit: list[Example]) -> str:
    """Return a fixed shuffle key: it depends on the rows alone."""
    return hashlib.sha256(min(row.id for row in unit).encode()).hexdigest()
