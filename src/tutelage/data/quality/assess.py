"""One look at the quality of the rows: what stands out, which labels are in doubt, and the report.

It flags and counts, and drops nothing. Embedding is the caller's: vectors come in.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tutelage.core.config import Quality
from tutelage.core.example import Example
from tutelage.data.filters.base import at
from tutelage.data.filters.refusal import is_refusal
from tutelage.data.findings import Finding
from tutelage.data.quality.label_errors import LabelErrors, find_label_errors
from tutelage.data.quality.outliers import Outliers, find_outliers
from tutelage.data.quality.rank import Evidence, Ranking, rank_rows
from tutelage.data.quality.space import Space, clusters_of, make_space, text_of

SHOWN = 20  # rows of a kind that the manifest and the report hold
_SIGNALS = {  # the finding of each signal
    "letters": "D5-W01",
    "neighbours": "D5-E01",
    "topic": "D5-E01",
    "input length": "D5-L01",
    "answer length": "D5-L01",
    "loss": "D5-P01",
}


@dataclass(frozen=True)
class Assessment:
    """What was found about `rows`. `outliers` or `labels` is None where it was not looked for."""

    rows: Sequence[Example]
    space: Space
    embedder: str
    outliers: Outliers | None
    labels: LabelErrors | None


def assess(
    rows: Sequence[Example],
    vectors: NDArray[np.float32],
    quality: Quality,
    *,
    embedder: str,
    fitted: bool,
    clusters: Mapping[str, str],
    losses: NDArray[np.float64] | None = None,
) -> Assessment:
    """Return what stands out among `rows`; `vectors` are of text_of(row), shape (N, D).

    `fitted` says that the vectors were made from these texts alone (tf-idf), `clusters` maps
    example ids to near-duplicate clusters, `losses` are the base model's (outliers.py).
    """
    texts = [text_of(row) for row in rows]
    space = make_space(texts, vectors, fitted=fitted, clusters=clusters_of(rows, clusters))
    found = None
    if quality.outliers:
        free = all(row.label is None for row in rows)
        answers = [row.answer or "" for row in rows] if free else None
        found = find_outliers(space, answers=answers, losses=losses)
    labels = None
    if quality.label_errors:
        skip = np.array([is_refusal(row.answer or "") for row in rows], dtype=bool)
        if found is not None:
            skip |= found.flagged
        labels = find_label_errors(space, [row.label for row in rows], skip=skip)
    return Assessment(rows, space, embedder, found, labels)


def quality_findings(found: Assessment) -> tuple[list[Finding], dict[str, Any]]:
    """Return the findings about single rows and labels, and the summary for the manifest."""
    findings: list[Finding] = []
    summary: dict[str, Any] = {"embedder": found.embedder, "outliers": None, "label_errors": None}
    if found.outliers is not None:
        far = found.outliers.far()
        findings += [at(found.rows[o.index], _SIGNALS[o.signal], o.reason) for o in far]
        summary["outliers"] = {"flagged": len(far), "top": outlier_rows(found, SHOWN)}
    if found.labels is not None:
        doubts = [doubt for doubt in found.labels.doubts if doubt.flagged]
        findings += [
            at(found.rows[d.index], "D12-L01", f"labelled {d.given!r}, but {d.reason}")
            for d in doubts
        ]
        findings += [
            Finding("D12-L02", f"{label!r} has {count} {'row' if count == 1 else 'rows'}")
            for label, count in found.labels.too_few.items()
        ]
        summary["label_errors"] = {
            "judged": found.labels.judged,
            "flagged": found.labels.flagged,
            "accuracy": round(found.labels.accuracy, 4),
            "too_few": found.labels.too_few,
            "confusions": [list(pair) for pair in found.labels.confusions[:SHOWN]],
            "top": label_rows(found, SHOWN),
        }
    return findings, summary


def rank(
    found: Assessment,
    *,
    findings: Sequence[Finding] = (),
    judged: Mapping[str, float] | None = None,
    difficulty: Mapping[str, float] | None = None,
    reliability: Mapping[str, float] | None = None,
) -> Ranking:
    """Return the rows' scores from what was assessed and whatever else is known of them."""
    by_id: dict[str, list[str]] = {}
    for finding in findings:
        if finding.example:
            by_id.setdefault(finding.example, []).append(finding.id)
    evidence = Evidence(
        found.outliers, found.labels, by_id, judged or {}, difficulty or {}, reliability or {}
    )
    return rank_rows(found.rows, found.space, evidence)


def outlier_rows(found: Assessment, count: int) -> list[dict[str, Any]]:
    """Return the most unusual rows as JSON-able rows: where, id, text, label, reason, score."""
    if found.outliers is None:
        return []
    return [
        {
            **place(found.rows[outlier.index]),
            "signal": outlier.signal,
            "reason": outlier.reason,
            "score": round(outlier.score, 2),
            "flagged": outlier.flagged,
        }
        for outlier in found.outliers.top(count)
    ]


def label_rows(found: Assessment, count: int) -> list[dict[str, Any]]:
    """Return the labels in doubt, most doubtful first: where, id, given, suggested, reason."""
    if found.labels is None:
        return []
    return [
        {
            **place(found.rows[doubt.index]),
            "suggested": doubt.suggested,
            "given_probability": round(doubt.given_probability, 4),
            "suggested_probability": round(doubt.suggested_probability, 4),
            "agreeing": doubt.agreeing,
            "voters": doubt.voters,
            "reason": doubt.reason,
            "score": round(doubt.score, 2),
            "flagged": doubt.flagged,
        }
        for doubt in found.labels.doubts[:count]
    ]


def place(row: Example) -> dict[str, Any]:
    """Return how people find a row again: where (file:line), id, text, label."""
    return {
        "where": row.origin.source,
        "id": row.id,
        "text": text_of(row)[:300],
        "label": row.label,
    }
