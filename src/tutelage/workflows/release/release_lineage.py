"""From an answer back to where it comes from: release, prompt, adapter, plan, code, rows, people.

`what` is a record's id (the response's), a release, or the start of any output's hash.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from sqlalchemy import select

from tutelage.core.artifact import Artifact
from tutelage.core.errors import DataError
from tutelage.data.version import is_buried, load_version
from tutelage.release import bundle
from tutelage.release.lineage import Node, lineage, render
from tutelage.store.artifacts import ArtifactRow
from tutelage.store.records import RecordRow
from tutelage.store.releases import PromptEventRow, PromptRow, ReleaseRow
from tutelage.workflows.context import Context, find_artifact
from tutelage.workflows.release.release_card import authors

_ORDER = {"adapter": 0, "dataset": 1, "evaluation": 2}  # what stands first has its parents below
_TOLD = ("method", "rank", "alpha", "learning_rate", "epochs", "batch_size", "seed")


def trace(ctx: Context, what: str, *, rows: bool = False) -> dict[str, Any]:
    """Return the tree as plain data, with `text` for people; `rows` lists every train row.

    Raises DataError if nothing is called so.
    """
    with ctx.store.session() as session:
        record = session.get(RecordRow, what)
    root = _record(ctx, record) if record else _node(ctx, _resolve(ctx, what))
    data: dict[str, Any] = {"what": what, "tree": root.as_dict(), "text": render(root)}
    if rows:
        data["rows"] = _rows(ctx, root)
    return data


def resolve(ctx: Context, what: str) -> str:
    """Return the id of the record, release or output that `what` names; DataError if nothing is."""
    with ctx.store.session() as session:
        record = session.get(RecordRow, what)
    return record.id if record else _resolve(ctx, what)


def _resolve(ctx: Context, what: str) -> str:
    """Return the full hash of the release or output that `what` names."""
    try:
        return bundle.get_release(ctx.store, what).id
    except DataError as error:
        found: list[str] = []
        if re.fullmatch(r"[0-9a-f]{4,64}", what):
            query = select(ArtifactRow.hash).where(ArtifactRow.hash.startswith(what)).limit(2)
            with ctx.store.session() as session:
                found = list(session.scalars(query))
        if len(found) == 1:
            return found[0]
        raise DataError(f"there is no record, release or output {what!r}", fix=error.fix) from error


def _record(ctx: Context, record: RecordRow) -> Node:
    facts = [
        ("at", record.at.isoformat(timespec="seconds")),
        ("deployment", f"{record.deployment} ({record.arm})"),
        ("status", str(record.status)),
    ]
    if record.rollout:
        facts.append(("rollout", f"rollout {record.rollout}, step {(record.step or 0) + 1}"))
    return Node(record.id, "record", facts=tuple(facts), parents=(_node(ctx, record.release),))


def _node(ctx: Context, digest: str) -> Node:
    with ctx.store.session() as session:
        row = session.get(ReleaseRow, digest)
        known = session.get(ArtifactRow, digest)
    if row is None:
        return _deepen(ctx, [lineage(ctx.store, digest)], set())[0]
    tree = (
        lineage(ctx.store, digest)
        if known is not None
        else Node(digest, "release", row.path, (("name", row.name),))
    )
    manifest = bundle.manifest_of(row)
    base = Node(manifest.base.digest, "base model", facts=(("name", manifest.base.name),))
    parts = [base]
    if manifest.prompt:
        parts.append(_prompt(ctx, manifest.prompt_hash))
    return replace(tree, parents=(*parts, *_deepen(ctx, tree.parents, {digest})))


def _deepen(ctx: Context, nodes: Sequence[Node], seen: set[str]) -> list[Node]:
    """Return the nodes with plan, code, rows and people below them; each output stands once."""
    found = []
    for node in sorted(nodes, key=lambda n: (_ORDER.get(n.kind, len(_ORDER)), n.hash)):
        if node.hash in seen:
            continue
        seen.add(node.hash)
        found.append(replace(node, parents=(*_parts(ctx, node), *_deepen(ctx, node.parents, seen))))
    return found


def _parts(ctx: Context, node: Node) -> list[Node]:
    artifact = find_artifact(ctx.store, node.hash)
    if artifact is None:
        return []
    if node.kind == "adapter":
        return _adapter_parts(ctx, artifact)
    return _dataset_parts(ctx, artifact) if node.kind == "dataset" else []


def _adapter_parts(ctx: Context, adapter: Artifact) -> list[Node]:
    parts = []
    recipe = adapter.meta.get("recipe") or {}
    told = ", ".join(f"{k} {recipe[k]}" for k in _TOLD if recipe.get(k) is not None)
    if told:
        parts.append(Node("", "plan", f"{adapter.path}/plan.json", (("summary", told),)))
    if adapter.meta.get("origin") == "imported":
        parts.append(Node("", "origin", facts=(("summary", "imported, trained elsewhere"),)))
    versions = ", ".join(f"{name} {number}" for name, number in adapter.versions.items())
    return [*parts, Node("", "code", facts=(("summary", versions),))] if versions else parts


def _dataset_parts(ctx: Context, dataset: Artifact) -> list[Node]:
    folder = ctx.path_of(dataset)
    if not folder.is_dir():
        return []
    if is_buried(folder):
        return [Node("", "erased", facts=(("summary", "its rows were erased on a user's wish"),))]
    kinds: Counter[str] = Counter()
    people: Counter[str] = Counter()
    version = load_version(folder)
    for row in version.stream("train"):
        kinds[row.origin.kind] += 1
        people.update(authors(row.origin.author))
    parts = [Node("", "train rows", facts=(("summary", _counted(kinds)),))]
    if people:
        parts.append(Node("", "people", facts=(("summary", _counted(people)),)))
    files = () if dataset.meta.get("sources") else version.manifest.get("sources") or ()
    return [*parts, *(Node("", "file", facts=(("name", str(name)),)) for name in files)]


def _prompt(ctx: Context, digest: str) -> Node:
    with ctx.store.session() as session:
        row = session.get(PromptRow, digest)
        query = (
            select(PromptEventRow)
            .where(
                PromptEventRow.version == digest,
                PromptEventRow.action.in_(("published", "restored")),
            )
            .order_by(PromptEventRow.id.desc())
            .limit(1)
        )
        event = session.scalars(query).first()
    if row is None:
        return Node(digest, "prompt")
    facts = [("name", f"version {row.number}")]
    if event is not None:
        when = event.at.isoformat(timespec="seconds")
        by = f" by {event.author}" if event.author else ""
        note = f": {event.note}" if event.note else ""
        facts.append(("published", f"{event.action}{by} {when}{note}"))
    return Node(digest, "prompt", facts=tuple(facts))


def _rows(ctx: Context, root: Node) -> list[dict[str, Any]]:
    """Return every train row under the tree with where it came from and who worked on it."""
    found: dict[str, dict[str, Any]] = {}
    for node in _all(root):
        artifact = find_artifact(ctx.store, node.hash) if node.kind == "dataset" else None
        if artifact is None or not ctx.path_of(artifact).is_dir():
            continue
        if is_buried(ctx.path_of(artifact)):
            continue
        for row in load_version(ctx.path_of(artifact)).stream("train"):
            origin = json.loads(row.origin.model_dump_json())
            found[row.id] = {
                "id": row.id, "dataset": artifact.short, "label": row.label,
                **{key: origin[key] for key in ("kind", "source", "parents")},
                "people": authors(row.origin.author),
            }  # fmt: skip
    return list(found.values())


def _all(node: Node) -> list[Node]:
    return [node, *(deeper for parent in node.parents for deeper in _all(parent))]


def _counted(counts: Counter[str]) -> str:
    return ", ".join(f"{count:,} {name}" for name, count in counts.most_common())
