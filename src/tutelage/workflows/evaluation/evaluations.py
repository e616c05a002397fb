"""The evaluations that were made, read for people: the list, several side by side, every row.

No model is asked and nothing is judged again: what is shown is what was kept.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import ColumnElement, func, select

from tutelage.core.artifact import Artifact
from tutelage.core.errors import DataError
from tutelage.core.example import Example
from tutelage.data.version import load_version
from tutelage.store.artifacts import ArtifactRow
from tutelage.store.scores import EvaluationRow, ScoreRow
from tutelage.workflows.context import Context
from tutelage.workflows.evaluation.evaluate_reload import KIND, read_answers, read_document
from tutelage.workflows.evaluation.gate import dataset_of, find_evaluation

WORSE, BETTER, BOTH_LOW, BOTH_HIGH = "worse", "better", "both_low", "both_high"
GROUPS = (WORSE, BETTER, BOTH_LOW, BOTH_HIGH)
_LOW = 0.5  # an unchanged score below this is a low one


@dataclass(frozen=True)
class RowView:
    """One test row as two candidates answered it. `group` is empty where one has no score."""

    id: str
    input: str
    expected: str | None
    label: str | None
    ours: str | None
    theirs: str | None
    score: float | None
    other: float | None
    group: str
    why: str = field(default="", repr=False)

    @property
    def change(self) -> float:
        """How much higher our score is, 0 where there are not two."""
        return (self.score or 0.0) - (self.other or 0.0) if self.group else 0.0


def listing(
    ctx: Context, *, verdict: str | None = None, start: int = 0, count: int = 50
) -> tuple[int, list[dict[str, Any]]]:
    """Return how many evaluations there are, and `count` of them from `start`, newest first."""
    wanted: list[ColumnElement[bool]] = [ArtifactRow.kind == KIND]
    if verdict is not None:
        ids = select(EvaluationRow.id).where(EvaluationRow.verdict == verdict)
        wanted.append(ArtifactRow.hash.in_(ids))
    query = (
        select(ArtifactRow)
        .where(*wanted)
        .order_by(ArtifactRow.created_at.desc(), ArtifactRow.hash)
        .offset(start)
        .limit(count)
    )
    with ctx.store.session() as session:
        total = session.scalar(select(func.count()).select_from(ArtifactRow).where(*wanted)) or 0
        return total, [_entry(row) for row in session.scalars(query)]


def whole(ctx: Context, prefix: str) -> dict[str, Any]:
    """Return an evaluation's report document with its `id` and `made_at`.

    Raises DataError if there is none that starts so, or its file can't be read.
    """
    found = find_evaluation(ctx, prefix)
    return {**read_document(ctx, found), "id": found.hash, "made_at": found.created_at}


def report_page(ctx: Context, prefix: str) -> str:
    """Return the full report as one self-contained HTML page, as it was written."""
    path = ctx.path_of(find_evaluation(ctx, prefix)) / "report.html"
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise DataError(
            "the report can't be read", where=str(path), fix="Run `tutelage evaluate` again"
        ) from error


def side_by_side(ctx: Context, prefixes: Sequence[str]) -> dict[str, Any]:
    """Return several evaluations as columns: verdict and every metric of the one on trial.

    `metrics` are lines: name, and a cell a column with estimate, low, high, n, or None.
    """
    documents = [whole(ctx, prefix) for prefix in prefixes]
    subjects = [_subject(document) for document in documents]
    names = dict.fromkeys(name for found in subjects for name in found.get("metrics", {}))
    primaries = [document["primary"]["metric"] for document in documents]
    ordered = sorted(names, key=lambda name: name not in primaries)
    columns = [
        {
            "id": document["id"],
            "title": found.get("title", "base model"),
            "candidate": (document.get("candidate") or {}).get("name") or found.get("name", ""),
            "verdict": document["verdict"]["outcome"],
            "sentence": document["verdict"]["sentence"],
            "rows": document["rows"],
            "dataset": (document.get("lineage") or {}).get("dataset version", ""),
            "made_at": document["made_at"],
        }
        for document, found in zip(documents, subjects, strict=True)
    ]
    metrics = [
        {"name": name, "cells": [found.get("metrics", {}).get(name) for found in subjects]}
        for name in ordered
    ]
    return {"columns": columns, "metrics": metrics, "primary": primaries[0] if primaries else ""}


def rows(ctx: Context, prefix: str, ours: str, theirs: str) -> list[RowView]:
    """Return every test row of an evaluation as two of its candidates answered it.

    The scores are of the primary metric, as the store has them. Rows whose text was erased or is
    gone have an empty input.
    """
    evaluation = find_evaluation(ctx, prefix)
    metric = str(evaluation.meta["primary"]["metric"])
    answers = read_answers(ctx, evaluation)
    known = {name: answers.get(name, {}) for name in (ours, theirs)}
    scores = {name: _scores(ctx, evaluation.hash, name, metric) for name in (ours, theirs)}
    texts = _texts(ctx, evaluation)
    ids = dict.fromkeys([*scores[ours], *known[ours], *scores[theirs], *known[theirs]])
    found = []
    for item in ids:
        example = texts.get(item)
        mine, other = scores[ours].get(item), scores[theirs].get(item)
        value, before = mine and mine[0], other and other[0]
        ours_said, theirs_said = known[ours].get(item), known[theirs].get(item)
        found.append(
            RowView(
                id=item,
                input=example.input_text if example else "",
                expected=example.answer if example else None,
                label=example.label if example else None,
                ours=ours_said.text if ours_said else None,
                theirs=theirs_said.text if theirs_said else None,
                score=value,
                other=before,
                group=_group(value, before),
                why=str((mine[1].get("why") or "") if mine else ""),
            )
        )
    return found


def pick(
    found: Sequence[RowView], *, group: str = "", text: str = "", order: str = "change"
) -> list[RowView]:
    """Return the rows of a group that hold a text, the largest changes first.

    `order` may also be best or worst: our highest or lowest scores first.
    """
    needle = text.casefold().strip()
    kept = [
        row
        for row in found
        if (not group or row.group == group) and (not needle or needle in _haystack(row))
    ]
    if order == "change":
        return sorted(kept, key=lambda row: (-abs(row.change), row.change))
    scored = [row for row in kept if row.score is not None]
    sign = -1.0 if order == "best" else 1.0
    return sorted(scored, key=lambda row: sign * (row.score or 0.0))


def counts(found: Sequence[RowView]) -> dict[str, int]:
    """Return how many rows are in each group."""
    total = dict.fromkeys(GROUPS, 0)
    for row in found:
        if row.group:
            total[row.group] += 1
    return total


def _entry(row: ArtifactRow) -> dict[str, Any]:
    meta, primary = row.meta, row.meta.get("primary") or {}
    who = meta.get("candidate") or {}
    ours = primary.get("tuned")
    return {
        "id": row.hash,
        "candidate": who.get("title") or who.get("name") or "base model",
        "name": who.get("name") or "",
        "verdict": str(meta.get("verdict") or ""),
        "sentence": str(meta.get("sentence") or ""),
        "metric": primary.get("metric") or "",
        "score": primary.get("base") if ours is None else ours,
        "difference": primary.get("difference"),
        "low": primary.get("difference_low"),
        "high": primary.get("difference_high"),
        "against": primary.get("against") or "",
        "rows": meta.get("rows"),
        "made_at": row.created_at,
    }


def _subject(document: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the candidate on trial, the base model where none is."""
    named = {entry["name"]: entry for entry in document.get("candidates", ())}
    found: Mapping[str, Any] = named.get("tuned") or named.get("base") or {}
    return found


def _scores(
    ctx: Context, evaluation: str, candidate: str, metric: str
) -> dict[str, tuple[float | None, Mapping[str, Any]]]:
    query = select(ScoreRow.item, ScoreRow.value, ScoreRow.evidence).where(
        ScoreRow.evaluation == evaluation,
        ScoreRow.candidate == candidate,
        ScoreRow.metric == metric,
    )
    with ctx.store.session() as session:
        return {item: (value, why or {}) for item, value, why in session.execute(query)}


def _texts(ctx: Context, evaluation: Artifact) -> dict[str, Example]:
    try:
        version = load_version(ctx.path_of(dataset_of(ctx, evaluation)))
        return {row.id: row for row in version.rows("test")}
    except (DataError, OSError):
        return {}


def _group(value: float | None, before: float | None) -> str:
    if value is None or before is None:
        return ""
    if value != before:
        return BETTER if value > before else WORSE
    return BOTH_LOW if value < _LOW else BOTH_HIGH


def _haystack(row: RowView) -> str:
    parts = (row.id, row.input, row.expected, row.label, row.ours, row.theirs)
    return "\n".join(part for part in parts if part).casefold()
