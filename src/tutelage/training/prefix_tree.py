"""The tree of shared token prefixes of one optimizer step, and its layout as one flat stream.

Works on token ids alone: it says which tokens are computed once and which loss terms hang on
them. It runs no model (shared_step.py does).

A node is a run of tokens that all rows below it have in common; the root forest may hold any
number of levels (system prompt, then document, then question). Two rules keep the maths exact:

* A position whose own token is supervised as part of the answer is never shared.
* A loss term belongs to the node that holds the position *before* its target. A branch point
  that predicts several first tokens therefore keeps one term per target, in its own stream.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property

MIN_SHARED = 8  # tokens: shorter runs cost more bookkeeping than they save
MAX_RATIO = 0.95  # unique / total: above it sharing does not pay


@dataclass(frozen=True)
class Row:
    """One encoded example: `weights[t]` is the weight of predicting `ids[t]` from what precedes.

    `answer_start` is the first position of the answer; nothing from there on is ever shared.
    `odds`: not the tokens are learned but the base model's odds of them (base_odds.py).
    """

    id: str
    ids: tuple[int, ...]
    weights: tuple[float, ...]
    answer_start: int
    odds: bool = False

    @cached_property
    def weight(self) -> float:
        """The sum of the token weights: what the step's loss is divided by."""
        return sum(self.weights[1:])

    @cached_property
    def targets(self) -> tuple[int, ...]:
        """The positions that are predicted; nothing precedes the first token."""
        return tuple(place for place, weight in enumerate(self.weights) if weight and place)

    @property
    def computed(self) -> int:
        """Tokens that must be fed: all up to the one before the last supervised target."""
        return self.targets[-1] if self.targets else 0


@dataclass
class Node:
    """Tokens at depths `start` … `start + len(ids)`; `terms` maps (offset, target) to weight.

    `owners` says which rows a term is of: (row's id, its weight in that row).
    """

    start: int
    ids: tuple[int, ...]
    terms: dict[tuple[int, int], float] = field(default_factory=dict)
    owners: dict[tuple[int, int], list[tuple[str, float]]] = field(default_factory=dict)
    children: list[Node] = field(default_factory=list)

    def walk(self) -> Iterator[Node]:
        """Yield this node and all below it, parents before children, depth first."""
        yield self
        for child in self.children:
            yield from child.walk()

    @property
    def size(self) -> int:
        """Tokens in this node and below it."""
        return sum(len(node.ids) for node in self.walk())


@dataclass(frozen=True)
class Forest:
    """All rows of one step. `total` counts tokens without sharing, `unique` with it."""

    roots: list[Node]
    total: int
    unique: int
    weight: float

    @property
    def pays(self) -> bool:
        """Whether enough tokens are shared to be worth it."""
        return self.unique <= MAX_RATIO * self.total


def build_forest(rows: Sequence[Row], *, min_shared: int = MIN_SHARED) -> Forest:
    """Return the forest of `rows`; rows without a supervised token add nothing."""
    live = [row for row in rows if row.computed > 0]
    roots = _branch(live, 0, min_shared)
    return Forest(
        roots=roots,
        total=sum(row.computed for row in live),
        unique=sum(root.size for root in roots),
        weight=sum(row.weight for row in live),
    )


def _branch(rows: Sequence[Row], depth: int, min_shared: int) -> list[Node]:
    """Return the nodes that cover `rows` from `depth` on; all rows agree before it."""
    groups: dict[int, list[Row]] = {}
    nodes: list[Node] = []
    for row in rows:
        if depth < _shareable(row):
            groups.setdefault(row.ids[depth], []).append(row)
        else:
            nodes += _leaf(row, depth)
    for group in groups.values():
        nodes += _grow(group, depth, min_shared)
    return nodes


def _grow(rows: Sequence[Row], depth: int, min_shared: int) -> list[Node]:
    """Return the nodes that cover `rows` from `depth` on; all agree in at least one token more.

    A run that is too short to be shared is computed anew for each part of the rows that agrees
    for longer.
    """
    if len(rows) == 1:
        return _leaf(rows[0], depth)
    end = _common(rows, depth)
    if end - depth >= min_shared:
        node = Node(depth, rows[0].ids[depth:end])
        for row in rows:
            _add_terms(node, row)
        node.children = _branch(rows, end, min_shared)
        return [node]
    nodes: list[Node] = []
    parts: dict[int, list[Row]] = {}
    for row in rows:
        if end < _shareable(row):
            parts.setdefault(row.ids[end], []).append(row)
        else:
            nodes += _leaf(row, depth)
    for part in parts.values():
        nodes += _grow(part, depth, min_shared)
    return nodes


def _shareable(row: Row) -> int:
    return min(row.answer_start, row.computed)


def _common(rows: Sequence[Row], depth: int) -> int:
    """Return the depth up to which all rows carry the same shareable tokens."""
    limit = min(_shareable(row) for row in rows)
    parts = [row.ids[depth:limit] for row in rows]
    low, high = min(parts), max(parts)  # what these two share, all that lie between share too
    pairs = enumerate(zip(low, high, strict=True), depth)
    return next((position for position, (one, other) in pairs if one != other), limit)


def _leaf(row: Row, depth: int) -> list[Node]:
    """Return the node of what only this row has, or nothing if no position is left."""
    if depth >= row.computed:
        return []
    node = Node(depth, row.ids[depth : row.computed])
    _add_terms(node, row)
    return [node]


def _add_terms(node: Node, row: Row) -> None:
    """Give `node` the row's loss terms that are predicted from its positions.

    Equal terms of several rows (prompt loss on shared tokens) become one with the summed weight:
    the same as counting each row's own.
    """
    first = bisect_left(row.targets, node.start + 1)
    for target in row.targets[first : bisect_right(row.targets, node.start + len(node.ids))]:
        key = (target - node.start - 1, row.ids[target])
        node.terms[key] = node.terms.get(key, 0.0) + row.weights[target]
        node.owners.setdefault(key, []).append((row.id, row.weights[target]))


@dataclass(frozen=True)
class Span:
    """Rows of the stream: a node's tokens are [start, end), it and all below it [start, stop)."""

    start: int
    end: int
    stop: int


@dataclass(frozen=True)
class Stream:
    """Nodes laid out depth first in one row of T tokens, so every subtree is one slice.

    `terms` are (position in the stream, target token, weight); `owners` has the rows of each.
    """

    ids: list[int]  # T
    positions: list[int]  # T, depth of each token in its own row
    spans: list[Span]
    terms: list[tuple[int, int, float]]
    owners: list[list[tuple[str, float]]]


def lay_out(nodes: Sequence[Node], *, deep: bool = True) -> Stream:
    """Return the stream of `nodes` with everything below them, or the nodes alone."""
    stream = Stream([], [], [], [], [])
    for node in nodes:
        _place(stream, node, deep)
    return stream


def _place(stream: Stream, node: Node, deep: bool) -> None:
    start = len(stream.ids)
    stream.ids.extend(node.ids)
    stream.positions.extend(range(node.start, node.start + len(node.ids)))
    for (offset, target), weight in node.terms.items():
        stream.terms.append((start + offset, target, weight))
        stream.owners.append(node.owners[(offset, target)])
    end, slot = len(stream.ids), len(stream.spans)
    stream.spans.append(Span(start, end, end))
    if deep:
        for child in node.children:
            _place(stream, child, deep)
        stream.spans[slot] = Span(start, end, len(stream.ids))


def pack(nodes: Sequence[Node], budget: int) -> Iterator[list[Node]]:
    """Yield groups of subtrees of at most `budget` tokens; a larger subtree comes alone."""
    group: list[Node] = []
    room = budget
    for node in sorted(nodes, key=lambda n: n.size):
        if group and node.size > room:
            yield group
            group, room = [], budget
        group.append(node)
        room -= node.size
    if group:
        yield group
