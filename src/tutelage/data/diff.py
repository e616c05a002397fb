"""What changed from one dataset version to another: rows, labels, lengths, findings.

It compares and counts; diff_page.py shows it. A row that is in both versions has the same id. A
changed row is one that names its former self (`origin.parents`: a repair), or one whose input
stayed while the answer changed, or a near-duplicate of a row that went: a line corrected in its
file.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tutelage.core.example import SPLITS, Example, SplitName, normalise
from tutelage.data.dedup.near import NearDuplicates
from tutelage.data.stability import NOTABLE, by_chance, length_shares, stability
from tutelage.data.version import DROPPED, QUARANTINE, DatasetVersion

GONE = "no longer in the sources"
_COMPARED = 50_000  # rows that came or went, above which no near-duplicates are looked for
_LEAST_FOR_DRIFT = 50


@dataclass(frozen=True)
class Placed:
    """A row and its side; `why` says what took it out of the version, or made it what it is."""

    row: Example
    side: SplitName
    why: str = ""

    def as_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {
            "id": self.row.id,
            "side": self.side,
            "source": self.row.origin.source,
            "label": self.row.label,
            "input": self.row.input_text,
            "answer": self.row.answer,
            **({"why": self.why} if self.why else {}),
        }


@dataclass(frozen=True)
class Changed:
    """One row before and after."""

    before: Placed
    after: Placed

    def as_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {"before": self.before.as_dict(), "after": self.after.as_dict()}


@dataclass(frozen=True)
class Lengths:
    """Median and 90th percentile of a length in characters, before and after.

    `index` is the population stability index, `drifted` whether it is notable and no chance.
    """

    name: str
    median: tuple[float, float]
    high: tuple[float, float]
    index: float
    drifted: bool


@dataclass(frozen=True)
class VersionDiff:
    """All that changed. `before` and `after` are the manifests; `same` rows are in both."""

    before: Mapping[str, Any]
    after: Mapping[str, Any]
    same: int
    added: tuple[Placed, ...]
    removed: tuple[Placed, ...]
    changed: tuple[Changed, ...]
    moved: tuple[Changed, ...]  # rows on another side than before: there are none
    labels: dict[str, tuple[int, int]]
    lengths: tuple[Lengths, ...]
    findings: tuple[dict[str, Any], ...]  # id, severity, what, before, after

    @property
    def empty(self) -> bool:
        """Whether both versions hold the same rows on the same sides."""
        return not (self.added or self.removed or self.changed or self.moved)

    def counts(self) -> dict[str, int]:
        """Return how many rows were added, removed, changed, moved, and are the same."""
        return {
            "added": len(self.added),
            "removed": len(self.removed),
            "changed": len(self.changed),
            "moved": len(self.moved),
            "same": self.same,
        }

    def as_dict(self, shown: int = 20) -> dict[str, Any]:
        """Return plain JSON: all counts, and the first `shown` rows of each kind."""
        lists = {"added": self.added, "removed": self.removed, "changed": self.changed}
        return {
            "before": _name(self.before),
            "after": _name(self.after),
            "counts": self.counts(),
            "rows": {
                name: [item.as_dict() for item in items[:shown]]  # type: ignore[attr-defined]
                for name, items in (*lists.items(), ("moved", self.moved))
            },
            "labels": {label: {"before": a, "after": b} for label, (a, b) in self.labels.items()},
            "lengths": [
                {
                    "name": item.name,
                    "median": list(item.median),
                    "p90": list(item.high),
                    "stability": round(item.index, 4),
                    "drifted": item.drifted,
                }
                for item in self.lengths
            ],
            "findings": list(self.findings),
        }


def compare(before: DatasetVersion, after: DatasetVersion) -> VersionDiff:
    """Return what changed between two versions. Rows in both are not held in memory."""
    old, new = _Sketch(before), _Sketch(after)
    both = old.sides.keys() & new.sides.keys()
    gone = _pick(before, old.sides.keys() - both)
    came = _pick(after, new.sides.keys() - both)
    changed = _changes(gone, came)
    was = {item.before.row.id for item in changed}
    now = {item.after.row.id for item in changed}
    reasons = _reasons(after)
    moved = {key for key in both if old.sides[key] != new.sides[key]}
    return VersionDiff(
        before=before.manifest,
        after=after.manifest,
        same=len(both) - len(moved),
        added=tuple(item for item in came if item.row.id not in now),
        removed=tuple(
            Placed(item.row, item.side, reasons.get(item.row.id, GONE))
            for item in gone
            if item.row.id not in was
        ),
        changed=tuple(changed),
        moved=_moved(before, after, moved),
        labels=_labels(old, new),
        lengths=tuple(_lengths(old, new)),
        findings=tuple(_findings(before.manifest, after.manifest)),
    )


class _Sketch:
    """What is kept of all rows of a version: sides by id, labels, lengths."""

    def __init__(self, version: DatasetVersion) -> None:
        self.sides: dict[str, SplitName] = {}
        self.labels: Counter[str] = Counter()
        self.inputs: list[int] = []
        self.answers: list[int] = []
        for split in SPLITS:
            for row in version.stream(split):
                self.sides[row.id] = split
                if row.label is not None:
                    self.labels[row.label] += 1
                self.inputs.append(len(row.input_text))
                self.answers.append(len(row.answer or ""))


def _pick(version: DatasetVersion, wanted: Iterable[str]) -> list[Placed]:
    """Return the rows with these ids, in the order of the version."""
    ids = set(wanted)
    if not ids:
        return []
    return [Placed(row, side) for side in SPLITS for row in version.stream(side) if row.id in ids]


def _changes(gone: Sequence[Placed], came: Sequence[Placed]) -> list[Changed]:
    """Return the rows that came in the place of one that went, each used once."""
    left = {item.row.id: item for item in gone}
    found: list[Changed] = []
    rest: list[Placed] = []
    for item in came:
        parent = next((p for p in item.row.origin.parents if p in left), None)
        repaired = item.row.origin.kind != "augmented"
        if parent is not None and repaired:
            after = Placed(item.row, item.side, "repaired")
            found.append(Changed(left.pop(parent), after))
        else:
            rest.append(item)
    by_input: dict[str, list[str]] = {}
    for item in left.values():
        by_input.setdefault(normalise(item.row.input_text), []).append(item.row.id)
    fresh: list[Placed] = []
    for item in rest:
        held = by_input.get(normalise(item.row.input_text))
        if held:
            after = Placed(item.row, item.side, "another answer")
            found.append(Changed(left.pop(held.pop()), after))
        else:
            fresh.append(item)
    return [*found, *_edited(list(left.values()), fresh)]


def _edited(gone: Sequence[Placed], came: Sequence[Placed]) -> list[Changed]:
    """Return near-duplicates among rows that went and came, with the same label first."""
    if not gone or not came or len(gone) + len(came) > _COMPARED:
        return []
    texts = [item.row.input_text for item in (*gone, *came)]
    pairs = [
        (gone[i], came[j - len(gone)])
        for i, j in NearDuplicates(guard=False).pairs(texts).tolist()
        if i < len(gone) <= j
    ]
    used: set[str] = set()
    found = []
    for one, two in sorted(pairs, key=lambda pair: pair[0].row.label != pair[1].row.label):
        if used.isdisjoint((one.row.id, two.row.id)):
            used |= {one.row.id, two.row.id}
            found.append(Changed(one, Placed(two.row, two.side, "edited")))
    return found


def _moved(
    before: DatasetVersion, after: DatasetVersion, ids: Iterable[str]
) -> tuple[Changed, ...]:
    old = {item.row.id: item for item in _pick(before, ids)}
    return tuple(Changed(old[item.row.id], item) for item in _pick(after, old))


def _reasons(version: DatasetVersion) -> dict[str, str]:
    """Return why rows are not in a version, by example id."""
    found: dict[str, str] = {}
    for name in (DROPPED, QUARANTINE):
        path: Path = version.directory / name
        if path.is_file():
            with path.open(encoding="utf-8", newline="\n") as stream:
                for line in stream:
                    entry = json.loads(line)
                    if entry.get("id"):
                        found[entry["id"]] = str(entry["reason"])
    return found


def _labels(old: _Sketch, new: _Sketch) -> dict[str, tuple[int, int]]:
    """Return the counts of every label, those that changed most first."""
    both = {label: (old.labels[label], new.labels[label]) for label in old.labels | new.labels}
    order = sorted(both, key=lambda label: (-abs(both[label][1] - both[label][0]), label))
    return {label: both[label] for label in order}


def _lengths(old: _Sketch, new: _Sketch) -> Iterable[Lengths]:
    pairs = (("inputs", old.inputs, new.inputs), ("answers", old.answers, new.answers))
    for name, before, after in pairs:
        if not before or not after:
            continue
        one, two = np.array(before), np.array(after)
        shares = length_shares(one, two)
        index = stability(*shares)
        enough = min(len(one), len(two)) >= _LEAST_FOR_DRIFT
        yield Lengths(
            name,
            (float(np.median(one)), float(np.median(two))),
            (float(np.quantile(one, 0.9)), float(np.quantile(two, 0.9))),
            index,
            enough and index > max(NOTABLE, by_chance(len(shares[0]), len(one), len(two))),
        )


def _findings(old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterable[dict[str, Any]]:
    """Yield the kinds of findings whose count changed."""
    before = {entry["id"]: entry for entry in old.get("findings", ())}
    after = {entry["id"]: entry for entry in new.get("findings", ())}
    for key in sorted(before | after):
        counts = [int(part[key]["count"]) if key in part else 0 for part in (before, after)]
        if counts[0] != counts[1]:
            entry = after.get(key) or before[key]
            said = {name: entry[name] for name in ("id", "severity", "what")}
            yield {**said, "before": counts[0], "after": counts[1]}


def _name(manifest: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "hash": str(manifest["hash"])[:12],
        "created_at": manifest.get("created_at"),
        "counts": manifest.get("counts"),
    }
