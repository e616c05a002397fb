"""Clusters of rows that say the same, with what a person needs to decide on them.

Three kinds: `exact` (one input; the answers may differ), `near` (but for typos and word order) and
`semantic` (similar in meaning: to look at). It does not change a row.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, get_args

from tutelage.core.artifact import content_hash
from tutelage.core.example import Example, normalise
from tutelage.data.dedup.base import Pairs
from tutelage.data.dedup.exact import input_key
from tutelage.data.dedup.near import NearDuplicates, clusters
from tutelage.data.dedup.semantic import stars

Kind = Literal["exact", "near", "semantic"]
KINDS: tuple[Kind, ...] = get_args(Kind)
LEFT_OUT = "left out"


@dataclass(frozen=True)
class Member:
    """One row of a cluster. `copies` are the places of its exact copies, which were left out."""

    example: Example
    side: str  # train, validation, test, or "left out"
    copies: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        row = self.example
        return {
            "id": row.id,
            "side": self.side,
            "source": row.origin.source,
            "copies": list(self.copies),
            "label": row.label,
            "input": row.input_text,
            "answer": row.answer,
        }


@dataclass(frozen=True)
class Cluster:
    """Rows that say the same; the first is the one that the others were found to resemble."""

    kind: Kind
    members: tuple[Member, ...]

    @cached_property
    def id(self) -> str:
        """The kind's first letter and 8 hex digits of the members' ids: another set, another id."""
        ids = sorted(member.example.id for member in self.members)
        return f"{self.kind[0]}{content_hash(ids)[:8]}"

    @property
    def rows(self) -> int:
        """Rows of the sources, exact copies included."""
        return sum(1 + len(member.copies) for member in self.members)

    @property
    def labels(self) -> dict[str, int]:
        """Rows by label, most first; a row without a label counts under its answer."""
        return _counted(m.example.label or m.example.answer or "" for m in self.members)

    @property
    def sides(self) -> dict[str, int]:
        """Rows by side of the split."""
        return _counted(member.side for member in self.members)

    @property
    def mixed(self) -> bool:
        """Whether the rows have several labels; without labels, several answers to one input."""
        labels = {member.example.label for member in self.members} - {None}
        if labels:
            return len(labels) > 1
        answers = {normalise(member.example.answer or "") for member in self.members}
        is_text = self.members[0].example.is_text
        return self.kind == "exact" and not is_text and len(answers) > 1

    @property
    def contradictory(self) -> bool:
        """Whether rows that say the same are mixed; rows that are only similar may well be."""
        return self.kind != "semantic" and self.mixed

    def as_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {
            "id": self.id,
            "kind": self.kind,
            "rows": self.rows,
            "mixed": self.mixed,
            "contradictory": self.contradictory,
            "labels": self.labels,
            "sides": self.sides,
            "members": [member.as_dict() for member in self.members],
        }


def exact_and_near(members: Sequence[Member], threshold: float = 80.0) -> list[Cluster]:
    """Return the exact and near clusters in order: what a report shows, without an embedder."""
    texts = [member.example.input_text for member in members]
    near = near_clusters(members, NearDuplicates(threshold).pairs(texts))
    return ordered([*exact_clusters(members), *near])


def exact_clusters(members: Sequence[Member]) -> list[Cluster]:
    """Return the rows with one input, and those whose copies were left out."""
    groups: dict[str, list[Member]] = defaultdict(list)
    for member in members:
        groups[input_key(member.example)].append(member)
    return [
        Cluster("exact", tuple(group))
        for group in groups.values()
        if len(group) > 1 or group[0].copies
    ]


def near_clusters(members: Sequence[Member], pairs: Pairs) -> list[Cluster]:
    """Return the stars of near-duplicate pairs that hold more than one input."""
    return [c for c in _stars("near", members, pairs) if _inputs(c) > 1]


def semantic_clusters(members: Sequence[Member], pairs: Pairs, near: Pairs) -> list[Cluster]:
    """Return the stars of similar rows that are more than one cluster of near-duplicates."""
    roots = clusters(len(members), near)
    place = {id(member): root for member, root in zip(members, roots, strict=True)}
    found = _stars("semantic", members, pairs)
    return [c for c in found if len({place[id(m)] for m in c.members}) > 1 and _inputs(c) > 1]


def ordered(found: Sequence[Cluster]) -> list[Cluster]:
    """Return contradictions first, then exact, near and semantic, mixed and large ones first."""
    return sorted(
        found, key=lambda c: (not c.contradictory, KINDS.index(c.kind), not c.mixed, -c.rows, c.id)
    )


def members_of(
    rows: Sequence[Example], sides: Mapping[str, str], dropped: Sequence[Mapping[str, Any]]
) -> list[Member]:
    """Return the rows of a version as members, and the rows it left out as duplicates.

    `dropped` are rows of dropped.jsonl: exact copies join the row that was kept; contradictions
    and near-duplicates that were left out are members of their own.
    """
    copies: dict[str, list[str]] = defaultdict(list)
    left: list[Example] = []
    for row in dropped:
        if row["finding"] == "D4-E01":
            example = Example.model_validate(row["row"])
            copies[str(row["cause"])].append(example.origin.source)
        elif row["finding"] in ("D4-K02", "D4-N02"):
            left.append(Example.model_validate(row["row"]))
    everyone = list({row.id: row for row in (*left, *rows)}.values())
    return [
        Member(row, sides.get(row.id, LEFT_OUT), tuple(copies.get(row.id, ()))) for row in everyone
    ]


def _stars(kind: Kind, members: Sequence[Member], pairs: Pairs) -> list[Cluster]:
    return [Cluster(kind, tuple(members[i] for i in star)) for star in stars(len(members), pairs)]


def _inputs(cluster: Cluster) -> int:
    return len({input_key(member.example) for member in cluster.members})


def _counted(values: Any) -> dict[str, int]:
    return dict(Counter(values).most_common())
