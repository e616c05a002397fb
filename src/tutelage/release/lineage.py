"""Where an output comes from: its parents, theirs, down to the dataset and the source files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from tutelage.core.errors import DataError
from tutelage.store.artifacts import ArtifactRow, ParentRow
from tutelage.store.base import Store

_FACTS = ("name", "verdict", "counts", "method", "summary")


@dataclass(frozen=True)
class Node:
    """One output and what it was made from. A parent that no row describes has kind "unknown"."""

    hash: str
    kind: str
    path: str = ""
    facts: tuple[tuple[str, str], ...] = ()
    sources: tuple[str, ...] = ()  # files, for a dataset
    parents: tuple[Node, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Return the tree as plain data."""
        return {
            "hash": self.hash,
            "kind": self.kind,
            "path": self.path,
            "facts": dict(self.facts),
            "sources": list(self.sources),
            "parents": [parent.as_dict() for parent in self.parents],
        }


def lineage(store: Store, digest: str) -> Node:
    """Return the tree above the artifact with this full hash. Raises DataError if there is none."""
    with store.session() as session:
        if session.get(ArtifactRow, digest) is None:
            raise DataError(f"there is no artifact {digest[:12]!r}", fix="Run `tutelage status`")
        return _node(session, digest, frozenset())


def render(node: Node) -> str:
    """Return the tree as indented text, one output a line, the newest on top."""
    return "\n".join(_lines(node, "", ""))


def _node(session: Session, digest: str, above: frozenset[str]) -> Node:
    row = session.get(ArtifactRow, digest)
    if row is None or digest in above:
        return Node(digest, "unknown" if row is None else row.kind)
    query = select(ParentRow.parent).where(ParentRow.child == digest).order_by(ParentRow.parent)
    parents = [_node(session, p, above | {digest}) for p in session.scalars(query)]
    return Node(
        digest,
        row.kind,
        row.path,
        _facts(row.meta),
        _sources(row.meta),
        tuple(sorted(parents, key=lambda n: (n.kind, n.hash))),
    )


def _facts(meta: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    found = []
    for key in _FACTS:
        value = meta.get(key)
        if isinstance(value, Mapping):
            value = ", ".join(f"{v} {k}" for k, v in value.items() if isinstance(v, (int, float)))
        if value not in (None, ""):
            found.append((key, str(value)))
    return tuple(found)


def _sources(meta: Mapping[str, Any]) -> tuple[str, ...]:
    sources = meta.get("sources") or ()
    names = sources.keys() if isinstance(sources, Mapping) else sources
    return tuple(str(name) for name in names)


def _lines(node: Node, first: str, rest: str) -> list[str]:
    facts = "; ".join(value for _, value in node.facts)
    name = node.hash if node.kind == "record" else node.hash[:12]
    head = f"{node.kind} {name}".strip()
    lines = [f"{first}{head}{'  ' + facts if facts else ''}"]
    below: list[Node | str] = [*node.parents, *node.sources]
    for index, child in enumerate(below):
        last = index == len(below) - 1
        turn, tail = (rest + ("└─ " if last else "├─ ")), (rest + ("   " if last else "│  "))
        if isinstance(child, str):
            lines.append(f"{turn}file {child}")
        else:
            lines.extend(_lines(child, turn, tail))
    return lines
