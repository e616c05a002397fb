"""Curate: read, check, clean, deduplicate, split, certify, freeze. Every loss has its reason."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any

from tutelage.core.artifact import Artifact, describe, hash_file
from tutelage.core.errors import DataError
from tutelage.core.events import Event
from tutelage.core.example import SPLITS, Example, SplitName
from tutelage.data import card
from tutelage.data.assign import empty_sides
from tutelage.data.augment.join import join
from tutelage.data.findings import Finding, summarise
from tutelage.data.leakage import LeakCertificate
from tutelage.data.readers.files import find_files, shown
from tutelage.data.version import (
    FINDINGS,
    DatasetVersion,
    VersionDraft,
    json_lines,
    write_version,
)
from tutelage.workflows.context import Context, StageOutcome, run_stage
from tutelage.workflows.data import augment as augmented
from tutelage.workflows.data.check import (
    Checked,
    all_findings,
    first_waiting,
    read_and_check,
    skipped_rows,
    waiting_rows,
)
from tutelage.workflows.data.inspection import Inspection, inspect
from tutelage.workflows.data.progress import tell
from tutelage.workflows.data.quality import best_train_rows
from tutelage.workflows.data.repairs import active
from tutelage.workflows.data.report_parts import report_parts
from tutelage.workflows.data.sides import Sides, freeze, give_sides, hold_apart
from tutelage.workflows.data.versions import lineage
from tutelage.workflows.feedback import segment

STAGE = "curate"


@dataclass
class _Curated(Checked):
    """What curation has found so far."""

    sides: dict[SplitName, list[Example]] = field(default_factory=dict)
    clusters: dict[str, str] = field(default_factory=dict)
    leaks: dict[str, LeakCertificate] = field(default_factory=dict)
    seen: Inspection = field(default_factory=Inspection)


def curate(ctx: Context) -> StageOutcome:
    """Return the frozen dataset version of the project's sources.

    Rows that can't be used are in quarantine.jsonl and counted in meta["quarantined"]; the good
    ones go on. Records that are twins of held-out rows leave training first. Raises DataError if
    what is left can't teach anything.
    """
    segment.hold_apart(ctx)
    root = ctx.workspace.root
    config = ctx.config
    paths = find_files(root, config.data.sources, [], config.task)
    sources = {shown(path, root): hash_file(path) for path in paths}
    inputs = {
        "sources": sources,
        "data": config.data.model_dump(mode="json"),
        "task": config.task,
        "output": config.output.model_dump(mode="json"),
        "repairs": [asdict(repair) for repair in active(ctx)],
        "augmented": augmented.fingerprint(ctx),
        **segment.fingerprint(ctx),
    }
    return run_stage(ctx, STAGE, inputs, lambda: _work(ctx, sources))


def quarantine_sentence(meta: Mapping[str, Any]) -> str | None:
    """Return the sentence about rows that wait for a person, or None if there are none."""
    count = meta["quarantined"]
    if not count:
        return None
    rows = "1 row is" if count == 1 else f"{count:,} rows are"
    good = sum(meta["counts"].values())
    return f"{rows} in quarantine, the other {good:,} are kept; first: {meta['first_quarantined']}"


def _work(ctx: Context, sources: Mapping[str, str]) -> Artifact:
    announce = partial(tell, ctx)
    checked = read_and_check(ctx, keep=True)
    curated = _Curated(checked.read, checked.result, checked.privacy)
    sides = give_sides(ctx, checked.result.kept, announce, checked.renamed)
    _join_augmented(ctx, curated, sides)
    _keep_best(ctx, curated, sides)
    hold_apart(ctx, sides, announce)
    _require_train(ctx, sides)
    curated.sides, curated.clusters, curated.leaks = sides.rows, sides.clusters, sides.leaks
    curated.result.dropped += sides.dropped
    curated.result.findings += sides.findings
    announce("quality")
    rows = [row for split in SPLITS for row in curated.sides[split]]
    curated.seen = inspect(ctx, rows, curated.clusters)
    curated.result.findings += curated.seen.findings
    announce("version")
    version = _write(ctx, curated, lineage(ctx, sources))
    announce("freeze")
    freeze(ctx.store, sides)
    return _artifact(ctx, version, curated)


def _require_train(ctx: Context, sides: Sides) -> None:
    """Raise DataError if the project asks that no row be trained on, before that is frozen."""
    if not sides.rows["train"] and not ctx.config.data.splits.train:
        raise DataError(
            "no row would be left to train on, and a row's side is kept for ever",
            where="data.splits.train",
            fix="Give train a share above 0, such as 0.7",
        )


def _join_augmented(ctx: Context, curated: _Curated, sides: Sides) -> None:
    """Add the teacher's rows to train, each in its parent's cluster; they are never frozen."""
    joined = join(augmented.augmented_rows(ctx), sides.rows)
    curated.result.dropped += joined.dropped
    sides.rows["train"] += joined.kept
    for row in joined.kept:
        parent = next(iter(row.origin.parents), row.id)
        sides.clusters[row.id] = sides.clusters.get(parent, row.id)


def _keep_best(ctx: Context, curated: _Curated, sides: Sides) -> None:
    """Leave out of train what data.quality.best has no room for; other sides are not touched."""
    train, findings = sides.rows["train"], curated.result.findings
    sides.rows["train"], dropped = best_train_rows(ctx, train, sides.clusters, findings)
    curated.result.dropped += dropped
    curated.result.findings += [
        Finding(item.finding_id, item.reason, item.example.origin.source, item.example.id)
        for item in dropped
    ]


def _write(ctx: Context, curated: _Curated, made_from: dict[str, Any]) -> DatasetVersion:
    quarantine = waiting_rows(curated)
    dropped = [*skipped_rows(curated), *(item.as_dict() for item in curated.result.dropped)]
    sizes: dict[str, int] = {}
    for name in curated.clusters.values():
        sizes[name] = sizes.get(name, 0) + 1
    findings = all_findings(curated)
    meta = {
        "project": ctx.config.name,
        **made_from,
        "detected": curated.read.detected,
        "steps": curated.result.steps,
        "findings": summarise(findings),
        "leak": curated.leaks["train-test"].as_dict(),
        "leaks": {name: leak.as_dict() for name, leak in curated.leaks.items()},
        "privacy": curated.privacy.summary.as_dict() if curated.privacy else None,
        "quality": curated.seen.summary,
        "lost": {"dropped": len(dropped), "quarantined": len(quarantine)},
        "clusters": {
            "count": sum(size > 1 for size in sizes.values()),
            "largest": max(sizes.values(), default=0),
        },
    }
    draft = VersionDraft(curated.sides, curated.clusters, dropped, quarantine, meta)

    def render(manifest: dict[str, Any]) -> dict[str, str]:
        shown = {**manifest, "left_out": [*quarantine, *dropped]}
        parts = report_parts(ctx, curated.sides, dropped, manifest)
        parts += curated.seen.sections
        return {
            "report.html": card.html_report(shown, curated.sides, curated.clusters, parts),
            "report.txt": card.text_report(manifest),
            FINDINGS: json_lines(found.as_dict() for found in findings),
        }

    return write_version(ctx.workspace.artifacts / "datasets", draft, render)


def _artifact(ctx: Context, version: DatasetVersion, curated: _Curated) -> Artifact:
    manifest = version.manifest
    labels: dict[str, int] = {}
    for row in (row for split in SPLITS for row in curated.sides[split]):
        if row.label is not None:
            labels[row.label] = labels.get(row.label, 0) + 1
    path = ctx.workspace.relative(version.directory)
    quarantine = waiting_rows(curated)
    meta = {
        "counts": manifest["counts"],
        "labels": labels,
        "leak": manifest["leak"],
        "leaks": manifest["leaks"],
        "clusters": manifest["clusters"],
        "dropped": manifest["lost"]["dropped"],
        "quarantined": len(quarantine),
        "first_quarantined": first_waiting(quarantine),
        "report": f"{path}/report.html",
    }
    ctx.emit(Event(STAGE, "note", f"leak certificate: {curated.leaks['train-test'].text()}"))
    told = quarantine_sentence(meta)
    if told is not None:
        ctx.emit(Event(STAGE, "warning", f"{told} ({path}/quarantine.jsonl)"))
    largest = manifest["clusters"]["largest"]
    empty = empty_sides(manifest["counts"], largest, ctx.config.data.splits)
    if empty is not None:
        ctx.emit(Event(STAGE, "warning", empty))
    counts = ", ".join(f"{manifest['counts'][split]} {split}" for split in SPLITS)
    ctx.emit(Event(STAGE, "done", f"dataset {version.hash[:12]}: {counts}"))
    return describe(
        "dataset",
        version.hash,
        path,
        parents=[parent for parent in manifest["parents"] if parent != version.hash],
        meta=json.loads(json.dumps(meta)),
    )
