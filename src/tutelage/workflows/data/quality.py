"""Outliers, labels in doubt, the ranking and the best rows of the project's newest version.

Nothing here drops a row: people's decisions become repairs, and `data.quality.best` makes the
next version train on fewer rows.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tutelage.core import html
from tutelage.core.errors import DataError, did_you_mean
from tutelage.core.events import Event
from tutelage.core.example import SPLITS, Example, SplitName
from tutelage.core.lines import lines_of
from tutelage.core.workspace import atomic_write
from tutelage.data.findings import Finding
from tutelage.data.pipeline import Dropped
from tutelage.data.quality.assess import (
    Assessment,
    assess,
    label_rows,
    outlier_rows,
    place,
    rank,
)
from tutelage.data.quality.label_errors import LEAST_A_CLASS
from tutelage.data.quality.outliers import LEAST_ROWS
from tutelage.data.quality.rank import Ranking
from tutelage.data.quality.report import sections
from tutelage.data.quality.select import select_best
from tutelage.data.quality.space import text_of
from tutelage.data.repairs import Repair
from tutelage.data.version import FINDINGS, DatasetVersion, load_version
from tutelage.inference.embed import load_embedder, resolve
from tutelage.inference.embed_cache import embed_cached
from tutelage.workflows.context import Context
from tutelage.workflows.data import row_scores
from tutelage.workflows.data.repairs import record
from tutelage.workflows.outputs import require_output

STAGE = "quality"


def assess_rows(
    ctx: Context,
    rows: Sequence[Example],
    clusters: Mapping[str, str],
    *,
    losses: Mapping[str, float] | None = None,
) -> Assessment:
    """Return what stands out among `rows`; vectors are kept, so a second look is quick.

    `clusters` maps example ids to near-duplicate clusters, `losses` to the base model's loss.
    """
    quality = ctx.config.data.quality
    texts = [text_of(row) for row in rows]
    embedder = load_embedder(
        quality.embedder, len(texts), endpoint=quality.endpoint, root=ctx.workspace.root
    )
    vectors = embed_cached(
        embedder,
        texts,
        ctx.workspace.home / "embeddings",
        lambda done, total: ctx.emit(Event(STAGE, "progress", "embedding rows", done, total)),
    )
    known = None
    if losses is not None:
        known = np.array([losses.get(row.id, np.nan) for row in rows], dtype=np.float64)
    return assess(
        rows,
        vectors,
        quality,
        embedder=resolve(quality.embedder, len(texts)),
        fitted=embedder.fingerprint is None,
        clusters=clusters,
        losses=known,
    )


def assess_version(
    ctx: Context, splits: Sequence[SplitName] = SPLITS, *, loss: bool = False
) -> Assessment:
    """Return what stands out among the newest version's rows; `loss` asks the base model too.

    It looks for outliers and label errors even where tutelage.yaml turns the findings off.
    """
    version = _version(ctx)
    rows = [row for split in splits for row in version.rows(split)]
    found = row_scores.losses(ctx, rows) if loss else None
    return assess_rows(_looking(ctx), rows, version.clusters, losses=found)


def outliers(
    ctx: Context, count: int = 20, *, splits: Sequence[SplitName] = SPLITS, loss: bool = False
) -> dict[str, Any]:
    """Return the most unusual rows: {rows, flagged, embedder, outliers: [...]} (assess.py)."""
    found = assess_version(ctx, splits, loss=loss)
    return {**_about(found), **_outlier_part(found, count)}


def label_errors(ctx: Context, count: int = 20) -> dict[str, Any]:
    """Return the labels in doubt: {rows, judged, flagged, accuracy, label_errors: [...], …}.

    `judged` is 0 where no two labels have 10 rows. Raises DataError if no row has a label.
    """
    found = assess_version(ctx)
    _require_labels(found.rows)
    return {**_about(found), **_label_part(found, count)}


def fix_labels(
    ctx: Context, labels: Mapping[str, str], *, author: str | None = None
) -> dict[str, Any]:
    """Record corrected labels by row (an id, its beginning, or file:line): {batch, fixed: [...]}.

    The next `tutelage data split` applies them. Raises DataError for an unknown row or label.
    """
    rows = _version(ctx).all_rows()
    _require_labels(rows)
    known = sorted({row.label for row in rows if row.label} | set(ctx.config.output.labels or ()))
    fixed: list[dict[str, Any]] = []
    repairs: list[Repair] = []
    for name, label in labels.items():
        row = find_row(rows, name)
        if label not in known:
            hint = did_you_mean(label, known)
            raise DataError(
                f"{label!r} is not a label of this project",
                where=row.origin.source or row.id,
                fix=f"{hint}Known: {', '.join(known[:12])}{', …' if len(known) > 12 else ''}",
            )
        if row.origin.kind == "augmented":
            raise DataError(
                "the row was written by a teacher, so its label can't be repaired",
                where=row.id,
                fix="Take its batch out with `tutelage data augment --remove`",
            )
        fixed.append({**place(row), "new_label": label})
        if label != row.label:
            repairs.append(Repair(row.id, "label", label, "label in doubt", author))
    batch = record(ctx, repairs) if repairs else None
    return {"batch": batch, "fixed": fixed, "changed": len(repairs)}


def find_row(rows: Sequence[Example], name: str) -> Example:
    """Return the row whose id begins with `name`, or that came from file:line `name`."""
    wanted = name.strip()
    hits = [row for row in rows if row.origin.source == wanted]
    if not hits and len(wanted) >= 4:
        hits = [row for row in rows if row.id.startswith(wanted.lower())]
    if len(hits) == 1:
        return hits[0]
    what = f"{len(hits)} rows are called {name!r}" if hits else f"there is no row {name!r}"
    raise DataError(what, fix="`tutelage data label-errors` shows the ids and places of the rows")


def ranking(
    ctx: Context, count: int = 20, *, judge: bool = False, loss: bool = False
) -> dict[str, Any]:
    """Return the best and the worst train rows with the parts of their scores.

    `judge` asks the judge of tutelage.yaml, `loss` the base model; what they say is kept and
    counts in later rankings and selections too.
    """
    version = _version(ctx)
    rows = version.rows("train")
    if judge:
        row_scores.judge_marks(ctx, rows)
    if loss:
        row_scores.difficulties(ctx, rows)
    found, scores = rank_train(ctx, rows, version.clusters, _findings(version))
    order = scores.order.tolist()
    return {
        **_about(found),
        "best": [_scored(found, scores, index) for index in order[:count]],
        "worst": [_scored(found, scores, index) for index in order[::-1][:count]],
    }


def rank_train(
    ctx: Context,
    rows: Sequence[Example],
    clusters: Mapping[str, str],
    findings: Sequence[Finding] = (),
) -> tuple[Assessment, Ranking]:
    """Return the assessment and ranking of train rows, made from train rows alone.

    Kept marks of the judge, kept difficulties and the experts' reliability count.
    """
    from tutelage.workflows.data.experts_review import people

    found = assess_rows(_looking(ctx), rows, clusters)
    reliable = {one["name"]: one["accuracy"] for one in people(ctx) if one["accuracy"] is not None}
    scores = rank(
        found,
        findings=findings,
        judged=row_scores.kept_scores(ctx, "judge"),
        difficulty=row_scores.kept_scores(ctx, "difficulty"),
        reliability=reliable,
    )
    return found, scores


def best_train_rows(
    ctx: Context,
    rows: Sequence[Example],
    clusters: Mapping[str, str],
    findings: Sequence[Finding] = (),
    *,
    count: int | None = None,
) -> tuple[list[Example], list[Dropped]]:
    """Return the train rows that stay and those left out for better ones (D12-S01).

    `count` is data.quality.best unless given; without one all rows stay. Validation and test
    rows must not be among `rows`.
    """
    best = count if count is not None else ctx.config.data.quality.best
    if best is None or len(rows) <= best:
        return list(rows), []
    found, scores = rank_train(ctx, rows, clusters, findings)
    chosen = select_best(rows, best, scores, found.space)
    return [rows[index] for index in chosen.kept], chosen.dropped


def selection(ctx: Context, count: int) -> dict[str, Any]:
    """Return what training on the best `count` train rows would keep and leave out, and why.

    {train, kept, left_out, by_label: {label: [kept, all]}, stay: [...], left: [...]}.
    """
    version = _version(ctx)
    rows = version.rows("train")
    found, scores = rank_train(ctx, rows, version.clusters, _findings(version))
    chosen = select_best(rows, count, scores, found.space)
    before = Counter(row.label for row in rows)
    after = Counter(rows[index].label for index in chosen.kept)
    return {
        "train": len(rows),
        "kept": len(chosen.kept),
        "left_out": len(chosen.dropped),
        "by_label": {
            label: [after[label], before[label]] for label in sorted(k for k in before if k)
        },
        "stay": [_scored(found, scores, index) for index in chosen.kept],
        "left": [
            {**place(item.example), "reason": item.reason, "cause": item.cause}
            for item in chosen.dropped
        ],
    }


def doubtful_ids(ctx: Context, count: int) -> list[str]:
    """Return the ids of the `count` rows whose labels are most in doubt, for experts to look at."""
    return [row["id"] for row in label_rows(assess_version(ctx), count)]


def outlier_ids(ctx: Context, count: int) -> list[str]:
    """Return the ids of the `count` most unusual rows, for experts to look at."""
    return [row["id"] for row in outlier_rows(assess_version(ctx), count)]


def write_page(ctx: Context) -> Path:
    """Write the report on quality as one HTML page under .tutelage/reports; return its path."""
    found = assess_version(ctx)
    path = ctx.workspace.home / "reports" / "quality.html"
    cards = sections(found) or [html.section("Quality", html.paragraph("Too few rows to judge."))]
    atomic_write(path, html.page(f"{ctx.config.name}: quality of the rows", cards).encode())
    return path


def _version(ctx: Context) -> DatasetVersion:
    return load_version(ctx.path_of(require_output(ctx, "curate")))


def _looking(ctx: Context) -> Context:
    """Return the context with both looks turned on: the user asked for them."""
    quality = ctx.config.data.quality.model_copy(update={"outliers": True, "label_errors": True})
    data = ctx.config.data.model_copy(update={"quality": quality})
    config = ctx.config.model_copy(update={"data": data})
    return Context(ctx.workspace, config, ctx.store, ctx.emit)


def _findings(version: DatasetVersion) -> list[Finding]:
    """Return the findings about single rows that the version keeps."""
    path = version.directory / FINDINGS
    if not path.is_file():
        return []
    entries = (json.loads(line) for line in lines_of(path.read_text(encoding="utf-8")))
    return [
        Finding(entry["finding"], entry["detail"], entry["where"], entry["id"])
        for entry in entries
        if entry["id"]
    ]


def _require_labels(rows: Sequence[Example]) -> None:
    if not any(row.label is not None for row in rows):
        raise DataError(
            "no row has a label, so there are none to doubt",
            fix="`tutelage data outliers` and `tutelage data rank` work without labels",
        )


def _about(found: Assessment) -> dict[str, Any]:
    return {"rows": len(found.rows), "embedder": found.embedder}


def _outlier_part(found: Assessment, count: int) -> dict[str, Any]:
    flagged = int(found.outliers.flagged.sum()) if found.outliers is not None else 0
    return {
        "enough": len(found.rows) >= LEAST_ROWS,
        "flagged": flagged,
        "outliers": outlier_rows(found, count),
    }


def _label_part(found: Assessment, count: int) -> dict[str, Any]:
    labels = found.labels
    if labels is None:
        return {"judged": 0, "flagged": 0, "least_a_class": LEAST_A_CLASS, "label_errors": []}
    return {
        "judged": labels.judged,
        "flagged": labels.flagged,
        "accuracy": round(labels.accuracy, 4),
        "too_few": labels.too_few,
        "least_a_class": LEAST_A_CLASS,
        "confusions": [list(pair) for pair in labels.confusions[:count]],
        "label_errors": label_rows(found, count),
    }


def _scored(found: Assessment, scores: Ranking, index: int) -> dict[str, Any]:
    return {
        **place(found.rows[index]),
        "score": round(float(scores.scores[index]), 3),
        "parts": scores.parts_of(index),
        "reason": scores.weakest(index),
    }
