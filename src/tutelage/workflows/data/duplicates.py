"""Find clusters of duplicates in the newest dataset version, and decide on a whole cluster.

A decision becomes one batch of repairs, which `tutelage data repairs --undo` takes back. What was
found is kept under .tutelage/cache, so that a second look costs nothing.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tutelage.core.artifact import content_hash
from tutelage.core.errors import DataError, did_you_mean
from tutelage.core.events import Event
from tutelage.core.example import SPLITS, Example
from tutelage.core.workspace import atomic_write
from tutelage.data.dedup import page, view
from tutelage.data.dedup.near import NearDuplicates
from tutelage.data.dedup.semantic import close_pairs, threshold_of
from tutelage.data.dedup.view import KINDS, Cluster, Kind, Member
from tutelage.data.repairs import Repair
from tutelage.data.version import DROPPED, DatasetVersion, load_version
from tutelage.inference.embed import load_embedder, resolve
from tutelage.inference.embed_cache import embed_cached
from tutelage.workflows.context import Context
from tutelage.workflows.data.repairs import record
from tutelage.workflows.outputs import require_output

STAGE = "dedup"
_FORM = 3  # raised when what is kept on disk, or how it is found, changes


@dataclass(frozen=True)
class Decision:
    """What to do with the rows of a cluster. `keep`: first, longest, or the id of the row to keep.

    `label` and `answer` are given to every row that stays.
    """

    keep: str | None = None
    drop: bool = False
    label: str | None = None
    answer: str | None = None
    reason: str = ""

    @property
    def made(self) -> bool:
        """Whether anything was decided."""
        return self.drop or any(v is not None for v in (self.keep, self.label, self.answer))


def find(ctx: Context, kind: str | None = None) -> list[Cluster]:
    """Return the clusters of the newest version: contradictions first, then large ones.

    `kind` is exact, near or semantic; unset: all. Raises DataError if no version was frozen yet.
    """
    kinds = [one for one in KINDS if kind in (None, one)]
    if not kinds:
        raise DataError(f"{kind!r} is no kind of duplicates", fix=f"Use {', '.join(KINDS)}")
    version = _version(ctx)
    members = _members(version)
    found = view.exact_clusters(members) if "exact" in kinds else []
    for one in kinds:
        if one != "exact":
            found += _kept(ctx, version, one, members)
    return view.ordered(found)


def pick(ctx: Context, cluster_id: str) -> Cluster:
    """Return the cluster with this id; raise DataError if the newest version has none such."""
    kind = next((kind for kind in KINDS if kind[0] == cluster_id[:1]), None)
    for cluster in find(ctx, kind) if kind else []:
        if cluster.id == cluster_id:
            return cluster
    raise DataError(
        f"there is no cluster {cluster_id!r} in the newest dataset version",
        fix="`tutelage data dedup` lists the clusters; a cluster whose rows changed has a new id",
    )


def similar_to(ctx: Context, example_id: str, threshold: float | None = None) -> Cluster:
    """Return a row, then the rows like it, closest first: near-duplicates and similar ones.

    `example_id` may be cut to its first digits. Raises DataError for an unknown one.
    """
    members = _members(_version(ctx))
    rows = [member.example for member in members]
    centre = _row_of(rows, example_id)
    near = set(
        NearDuplicates(ctx.config.data.dedup.threshold).like(
            rows[centre].input_text, [row.input_text for row in rows]
        )
    )
    vectors, usual = _embed(ctx, rows)
    cosines = vectors @ vectors[centre]
    least = usual if threshold is None else threshold
    chosen = near | set(np.flatnonzero(cosines >= least).tolist())
    chosen.discard(centre)
    order = [centre, *sorted(chosen, key=lambda i: (-float(cosines[i]), i))]
    return Cluster("semantic", tuple(members[i] for i in order))


def plan_repairs(ctx: Context, cluster: Cluster, decision: Decision) -> list[Repair]:
    """Return the repairs that carry out a decision; rows that already are as decided get none.

    Raises DataError for a decision that says nothing, or two things, or names what there is not.
    """
    _check(ctx, cluster, decision)
    kept = _keeper(cluster, decision.keep) if decision.keep is not None else None
    why = decision.reason or f"{cluster.kind} duplicates, cluster {cluster.id}"
    repairs: list[Repair] = []
    for member in cluster.members:
        row = member.example
        if decision.drop or (kept is not None and row.id != kept.id):
            repairs.append(Repair(row.id, "drop", "", why))
        elif decision.label is not None and row.label != decision.label:
            repairs.append(Repair(row.id, "label", decision.label, why))
        elif decision.answer is not None and row.answer != decision.answer:
            repairs.append(Repair(row.id, "answer", decision.answer, why))
    return repairs


def apply(ctx: Context, cluster: Cluster, decision: Decision) -> str | None:
    """Keep a decision on a cluster as one batch of repairs; return it, or None if none needed."""
    repairs = plan_repairs(ctx, cluster, decision)
    return record(ctx, repairs) if repairs else None


def write_page(ctx: Context, found: Sequence[Cluster], shown: int = page.SHOWN) -> Path:
    """Write the clusters as one HTML page under .tutelage/reports; return its path."""
    path = ctx.workspace.home / "reports" / "duplicates.html"
    text = page.page(found, project=ctx.config.name, shown=shown)
    atomic_write(path, text.encode("utf-8"))
    return path


def _version(ctx: Context) -> DatasetVersion:
    return load_version(ctx.path_of(require_output(ctx, "curate")))


def _members(version: DatasetVersion) -> list[Member]:
    sides = {row.id: split for split in SPLITS for row in version.rows(split)}
    path = version.directory / DROPPED
    with path.open(encoding="utf-8", newline="\n") as stream:
        dropped = [json.loads(line) for line in stream]
    return view.members_of(version.all_rows(), sides, dropped)


def _kept(
    ctx: Context, version: DatasetVersion, kind: Kind, members: Sequence[Member]
) -> list[Cluster]:
    """Return the near or semantic clusters, from disk if they were found before."""
    data = ctx.config.data
    settings: dict[str, Any] = {"near": data.dedup.threshold}
    if kind == "semantic":
        endpoint = data.quality.endpoint.model_dump() if data.quality.endpoint else None
        name = resolve(data.quality.embedder, len(members))
        settings |= {"cosine": data.dedup.semantic, "embedder": name, "endpoint": endpoint}
    digest = content_hash([_FORM, kind, version.hash, settings])[:16]
    path = ctx.workspace.home / "cache" / f"{kind}-{digest}.json"
    by_id = {member.example.id: member for member in members}
    try:
        ids = json.loads(path.read_text(encoding="utf-8"))
        return [Cluster(kind, tuple(by_id[i] for i in cluster)) for cluster in ids]
    except (OSError, ValueError, KeyError, TypeError):
        pass
    found = _near(ctx, members) if kind == "near" else _semantic(ctx, members)
    ids = [[member.example.id for member in cluster.members] for cluster in found]
    atomic_write(path, json.dumps(ids).encode("utf-8"))
    return found


def _near(ctx: Context, members: Sequence[Member]) -> list[Cluster]:
    ctx.emit(Event(STAGE, "note", f"comparing the letters of {len(members):,} rows"))
    texts = [member.example.input_text for member in members]
    pairs = NearDuplicates(ctx.config.data.dedup.threshold).pairs(texts)
    return view.near_clusters(members, pairs)


def _semantic(ctx: Context, members: Sequence[Member]) -> list[Cluster]:
    rows = [member.example for member in members]
    vectors, usual = _embed(ctx, rows)
    threshold = ctx.config.data.dedup.semantic
    pairs, _ = close_pairs(
        vectors,
        usual if threshold is None else threshold,
        on_block=lambda done, total: ctx.emit(
            Event(STAGE, "progress", "comparing all pairs", done, total)
        ),
    )
    near = NearDuplicates(ctx.config.data.dedup.threshold).pairs([r.input_text for r in rows])
    return view.semantic_clusters(members, pairs, near)


def _embed(ctx: Context, rows: Sequence[Example]) -> tuple[NDArray[np.float32], float]:
    """Return unit vectors of the inputs, shape (N, D), and the cosine that calls them similar."""
    quality = ctx.config.data.quality
    embedder = load_embedder(
        quality.embedder, len(rows), endpoint=quality.endpoint, root=ctx.workspace.root
    )
    vectors = embed_cached(
        embedder,
        [row.input_text for row in rows],
        ctx.workspace.home / "embeddings",
        lambda done, total: ctx.emit(Event(STAGE, "progress", "embedding rows", done, total)),
    )
    return vectors, threshold_of(embedder)


def _row_of(rows: Sequence[Example], example_id: str) -> int:
    """Return the position of the row whose id begins so; raise DataError unless there is one."""
    found = [i for i, row in enumerate(rows) if row.id.startswith(example_id)]
    if example_id and len(found) == 1:
        return found[0]
    many = f"{len(found):,} rows have an id that begins with" if found else "there is no row"
    raise DataError(
        f"{many} {example_id!r}",
        fix="Give more digits of the id" if found else "`tutelage data dedup` shows the rows' ids",
    )


def _keeper(cluster: Cluster, keep: str) -> Example:
    """Return the row to keep: the first of the sources, the longest, or the one with this id."""
    rows = [member.example for member in cluster.members]
    if keep == "first":
        return min(rows, key=_place)
    if keep == "longest":
        return max(rows, key=lambda row: (len(row.input_text), [-x for x in _place(row)[1:]]))
    return rows[_row_of(rows, keep)]


def _place(row: Example) -> tuple[str, int]:
    file, _, line = row.origin.source.rpartition(":")
    return (file, int(line)) if line.isdigit() else (row.origin.source, 0)


def _check(ctx: Context, cluster: Cluster, decision: Decision) -> None:
    """Raise DataError if the decision can't be carried out on this cluster."""
    if not decision.made:
        raise DataError("nothing was decided", fix="Use --keep, --drop, --label or --answer")
    if decision.drop and replace(decision, drop=False).made:
        raise DataError("--drop removes every row of the cluster", fix="Use it alone")
    if decision.label is not None and decision.answer is not None:
        raise DataError("a label and an answer were given", fix="Use --label or --answer, not both")
    known = ctx.config.output.labels or []
    labelled = any(member.example.label is not None for member in cluster.members)
    label = decision.label
    if decision.answer is not None and labelled:
        parsed = ctx.config.output.format().parse(decision.answer)
        if parsed.problem:
            raise DataError(f"the answer can't be used: {parsed.problem}", fix="Use --label NAME")
        label = parsed.label
    if label is not None and not labelled:
        raise DataError("these rows have no label", fix="Use --answer TEXT to give them an answer")
    if label is not None and known and label not in known:
        hint = did_you_mean(label, known)
        raise DataError(
            f"{label!r} is not one of output.labels", fix=f"{hint}Known: {', '.join(known)}"
        )
