"""Curate: read, check, clean, deduplicate, split, certify, freeze. Every loss has its reason."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from sqlalchemy import select

from tutelage.core.artifact import Artifact, describe, hash_file
from tutelage.core.events import Event
from tutelage.core.example import SPLITS, Example, SplitName
from tutelage.data import card
from tutelage.data.assign import assign, cluster_rows, inherit_sides
from tutelage.data.augment.join import join
from tutelage.data.findings import Finding, reason, summarise
from tutelage.data.leakage import LeakCertificate, leak_certificate
from tutelage.data.pipeline import Dropped
from tutelage.data.readers.files import find_files, shown
from tutelage.data.version import DatasetVersion, VersionDraft, write_version
from tutelage.store.artifacts import SplitRow
from tutelage.workflows.context import Context, StageOutcome, run_stage
from tutelage.workflows.data import augment as augmented
from tutelage.workflows.data.check import (
    Checked,
    all_findings,
    first_waiting,
    read_and_check,
    waiting_rows,
)
from tutelage.workflows.data.repairs import active

STAGE = "curate"


@dataclass
class _Curated(Checked):
    """What curation has found so far."""

    sides: dict[SplitName, list[Example]] = field(default_factory=dict)
    clusters: dict[str, str] = field(default_factory=dict)
    leak: LeakCertificate | None = None


def curate(ctx: Context) -> StageOutcome:
    """Return the frozen dataset version of the project's sources.

    Rows that can't be used are in quarantine.jsonl and counted in meta["quarantined"]; the good
    ones go on. Raises DataError if what is left can't teach anything.
    """
    root = ctx.workspace.root
    config = ctx.config
    sources = find_files(root, config.data.sources, [], config.task)
    inputs = {
        "sources": {shown(path, root): hash_file(path) for path in sources},
        "data": config.data.model_dump(mode="json"),
        "task": config.task,
        "output": config.output.model_dump(mode="json"),
        "repairs": [asdict(repair) for repair in active(ctx)],
        "augmented": augmented.fingerprint(ctx),
    }
    return run_stage(ctx, STAGE, inputs, lambda: _work(ctx))


def quarantine_sentence(meta: Mapping[str, Any]) -> str | None:
    """Return the sentence about rows that wait for a person, or None if there are none."""
    count = meta["quarantined"]
    if not count:
        return None
    rows = "1 row is" if count == 1 else f"{count:,} rows are"
    good = sum(meta["counts"].values())
    return f"{rows} in quarantine, the other {good:,} are kept; first: {meta['first_quarantined']}"


def _work(ctx: Context) -> Artifact:
    checked = read_and_check(ctx)
    curated = _Curated(checked.read, checked.result)
    _split(ctx, curated)
    _join_augmented(ctx, curated)
    version = _write(ctx, curated)
    _freeze(ctx, curated)
    return _artifact(ctx, version, curated)


def _split(ctx: Context, curated: _Curated) -> None:
    """Cluster, give sides, and hold the result against the certificate."""
    rows = curated.result.kept
    curated.clusters = cluster_rows(rows, ctx.config.data.dedup.threshold)
    with ctx.store.session() as session:
        frozen = {row.example_id: row.split for row in session.scalars(select(SplitRow))}
    inherit_sides(rows, frozen)  # type: ignore[arg-type]
    given = assign(rows, curated.clusters, ctx.config.data.splits, frozen)  # type: ignore[arg-type]
    curated.result.dropped += given.dropped
    sides: dict[SplitName, list[Example]] = {split: [] for split in SPLITS}
    for row in rows:
        if row.id in given.sides:
            sides[given.sides[row.id]].append(row)
    curated.sides = sides
    _purge(curated)
    for split in SPLITS:
        if not sides[split]:
            curated.result.findings.append(Finding("D10-S02", f"{split} has no rows"))


def _join_augmented(ctx: Context, curated: _Curated) -> None:
    """Add the teacher's rows to train, each in its parent's cluster; they are never frozen."""
    joined = join(augmented.augmented_rows(ctx), curated.sides)
    curated.result.dropped += joined.dropped
    curated.sides["train"] += joined.kept
    for row in joined.kept:
        parent = next(iter(row.origin.parents), row.id)
        curated.clusters[row.id] = curated.clusters.get(parent, row.id)


def _purge(curated: _Curated) -> None:
    """Leave out train rows that the certificate still finds near a test row; certify again."""
    train, test = curated.sides["train"], curated.sides["test"]
    found = _certify(train, test)
    while found.near:
        twins = {pair.train: pair for pair in found.pairs}
        for index in sorted(twins, reverse=True):
            pair = twins[index]
            row, twin = train.pop(index), test[pair.test]
            why = reason("D10-X01", f"cosine {pair.cosine:.2f} with a test row")
            curated.result.dropped.append(Dropped(row, "D10-X01", why, twin.id))
        found = _certify(train, test)
    curated.leak = found


def _certify(train: list[Example], test: list[Example]) -> LeakCertificate:
    return leak_certificate([row.input_text for row in train], [row.input_text for row in test])


def _write(ctx: Context, curated: _Curated) -> DatasetVersion:
    quarantine = waiting_rows(curated)
    dropped = [item.as_dict() for item in curated.result.dropped]
    sizes: dict[str, int] = {}
    for name in curated.clusters.values():
        sizes[name] = sizes.get(name, 0) + 1
    meta = {
        "project": ctx.config.name,
        "detected": curated.read.detected,
        "steps": curated.result.steps,
        "findings": summarise(all_findings(curated)),
        "leak": curated.leak.as_dict() if curated.leak else None,
        "lost": {"dropped": len(dropped), "quarantined": len(quarantine)},
        "clusters": {
            "count": sum(size > 1 for size in sizes.values()),
            "largest": max(sizes.values(), default=0),
        },
    }
    draft = VersionDraft(curated.sides, curated.clusters, dropped, quarantine, meta)

    def render(manifest: dict[str, Any]) -> dict[str, str]:
        shown = {**manifest, "left_out": [*quarantine, *dropped]}
        return {
            "report.html": card.html_report(shown, curated.sides, curated.clusters),
            "report.txt": card.text_report(manifest),
        }

    return write_version(ctx.workspace.artifacts / "datasets", draft, render)


def _freeze(ctx: Context, curated: _Curated) -> None:
    """Keep the side of every row for ever, in one transaction."""
    with ctx.store.begin() as session:
        known = set(session.scalars(select(SplitRow.example_id)))
        session.add_all(
            SplitRow(example_id=row.id, split=split, cluster=curated.clusters[row.id])
            for split in SPLITS
            for row in curated.sides[split]
            if row.id not in known and row.origin.kind != "augmented"
        )


def _artifact(ctx: Context, version: DatasetVersion, curated: _Curated) -> Artifact:
    manifest = version.manifest
    labels: dict[str, int] = {}
    for row in version.all_rows():
        if row.label is not None:
            labels[row.label] = labels.get(row.label, 0) + 1
    path = ctx.workspace.relative(version.directory)
    quarantine = waiting_rows(curated)
    meta = {
        "counts": manifest["counts"],
        "labels": labels,
        "leak": manifest["leak"],
        "clusters": manifest["clusters"],
        "dropped": manifest["lost"]["dropped"],
        "quarantined": len(quarantine),
        "first_quarantined": first_waiting(quarantine),
        "report": f"{path}/report.html",
    }
    ctx.emit(
        Event(STAGE, "note", f"leak certificate: {curated.leak.text() if curated.leak else ''}")
    )
    told = quarantine_sentence(meta)
    if told is not None:
        ctx.emit(Event(STAGE, "warning", f"{told} ({path}/quarantine.jsonl)"))
    counts = ", ".join(f"{manifest['counts'][split]} {split}" for split in SPLITS)
    ctx.emit(Event(STAGE, "done", f"dataset {version.hash[:12]}: {counts}"))
    return describe(
        "dataset", version.hash, path, meta=json.loads(json.dumps(meta)),
    )  # fmt: skip
