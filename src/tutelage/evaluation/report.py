"""The whole evaluation as one plain JSON document; the text and HTML reports are made from it.

Nothing is computed here that is not already decided: figures are gathered, rows are sorted into
fixed, broken and both wrong, and the method is written down.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from tutelage.core.artifact import finite, library_versions
from tutelage.core.example import Example
from tutelage.evaluation import cost
from tutelage.evaluation.baseline import TITLE as TFIDF_TITLE
from tutelage.evaluation.candidates import BASE, CONSTRAINED, FEW_SHOT, TFIDF, TUNED
from tutelage.evaluation.forgetting import Forgetting
from tutelage.evaluation.gate import Evidence, Verdict, better_base, percent
from tutelage.evaluation.measures import COST
from tutelage.evaluation.report_changes import changes, spread
from tutelage.evaluation.scoring import Scored
from tutelage.evaluation.task import Task


@dataclass(frozen=True)
class Findings:
    """What the stages of an evaluation found, ready to be written down."""

    name: str
    task: Task
    evidence: Evidence
    verdict: Verdict
    batch_size: int
    seed: int
    shots: tuple[Example, ...] = ()
    seconds: dict[str, float] = field(default_factory=dict)
    lineage: Mapping[str, str] = field(default_factory=dict)  # what it was made from: name → hash
    more: Mapping[str, Any] = field(default_factory=dict)  # further keys of the document


def build(findings: Findings) -> dict[str, Any]:
    """Return the report: finite numbers, text, lists and dicts only."""
    evidence, task = findings.evidence, findings.task
    document = {
        "name": findings.name,
        "task": task.kind,
        "rows": len(task.rows),
        "clusters": len(set(task.clusters)),
        "verdict": {
            "outcome": findings.verdict.outcome,
            "sentence": findings.verdict.sentence,
            "criteria": [asdict(c) for c in findings.verdict.criteria],
        },
        "primary": primary(evidence),
        "candidates": [_candidate(task, scored) for scored in evidence.scored.values()],
        "cost": cost.document(evidence.scored),
        "comparisons": _comparisons(evidence),
        "forgetting": _forgetting(evidence.forgetting),
        "changed": changes(task, evidence.scored, _against(evidence)),
        "notes": notes(findings),
        "method": _method(findings),
        "lineage": dict(findings.lineage),
        "seconds": findings.seconds,
    }
    document = {**findings.more, **document}
    clean: dict[str, Any] = finite(document)
    return clean


def primary(evidence: Evidence) -> dict[str, Any]:
    """Return the headline figures: the three scores, and tuned minus the better base."""

    def mean(name: str) -> float | None:
        scored = evidence.scored.get(name)
        return scored.means[evidence.primary].estimate if scored else None

    against = better_base(evidence)
    comparison = evidence.comparisons.get(against)
    return {
        "metric": evidence.primary,
        "base": mean(BASE),
        "few_shot": mean(FEW_SHOT),
        "tuned": mean(TUNED),
        "against": against,
        "difference": comparison.difference.estimate if comparison else None,
        "difference_low": comparison.difference.low if comparison else None,
        "difference_high": comparison.difference.high if comparison else None,
        "confidence": evidence.confidence,
    }


def _candidate(task: Task, scored: Scored) -> dict[str, Any]:
    matrix = scored.confusion
    rows = [scored.rows[row.id] for row in task.rows if row.id in scored.rows]
    written = [row for row in rows if not row.failed] if scored.usage else []
    return {
        "name": scored.name,
        "title": scored.title,
        "metrics": {
            metric: {**asdict(mean), "unscored": scored.unscored(metric)}
            for metric, mean in scored.means.items()
            if metric != COST  # money has a part of its own
        },
        "extra": scored.extra,
        "usage": asdict(scored.usage) if scored.usage else None,
        "lengths": [row.completion_tokens for row in written],
        "latencies_ms": spread([row.latency_ms for row in written]),
        "first_tokens_ms": spread([row.first_token_ms for row in written]),
        "confusion": {"labels": list(matrix.labels), "counts": matrix.counts.tolist()}
        if matrix
        else None,
        "per_class": [asdict(c) for c in matrix.per_class()] if matrix else [],
    }


def _comparisons(evidence: Evidence) -> list[dict[str, Any]]:
    return [
        {
            "other": c.other,
            "title": evidence.scored[c.other].title,
            **asdict(c.difference),
            "p_holm": c.p_holm,
        }
        for c in evidence.comparisons.values()
    ]


def _forgetting(found: Forgetting | None) -> dict[str, Any] | None:
    return {"number": found.number, **asdict(found)} if found else None


def _against(evidence: Evidence) -> str | None:
    """Return whom the rows are compared with, or None where there is nobody."""
    return better_base(evidence) if evidence.comparisons else None


def notes(findings: Findings) -> list[str]:
    """Return what a reader should know and might not ask: rivals that win, answers cut, doubts."""
    evidence = findings.evidence
    found = []
    for name, what in (
        (TFIDF, f"{TFIDF_TITLE}, trained on the same rows,"),
        (BASE + CONSTRAINED, "The base model, held to the label list,"),
        (FEW_SHOT + CONSTRAINED, "The base model with examples, held to the label list,"),
    ):
        if name in evidence.scored and TUNED in evidence.scored:
            found += _rival(evidence, name, what)
    for name in (BASE, FEW_SHOT, TUNED):
        scored = evidence.scored.get(name)
        if scored and scored.usage and scored.usage.cut:
            found.append(
                f"{scored.title.capitalize()}: {scored.usage.cut} of {scored.usage.rows} answers "
                f"ran into the limit of {findings.task.decoding.max_tokens} tokens."
            )
    return found


def _rival(evidence: Evidence, name: str, what: str) -> list[str]:
    """Say so if a rival that needs no tuning does as well as the tuned model's free answers."""
    theirs = evidence.scored[name].means[evidence.primary].estimate
    ours = evidence.scored[TUNED].means[evidence.primary].estimate
    figures = f"{percent(theirs)} against {percent(ours)}"
    if theirs > ours:
        certain = name in evidence.comparisons and evidence.comparisons[name].difference.high < 0
        how = "beats the tuned model" if certain else "scores higher than the tuned model"
        return [f"{what} {how}: {figures}. Weigh it before you serve a tuned one."]
    return []


def _method(findings: Findings) -> dict[str, Any]:
    task = findings.task
    return {
        "confidence": findings.evidence.confidence,
        "seed": findings.seed,
        "batch_size": findings.batch_size,
        "max_new_tokens": task.decoding.max_tokens,
        "decoding": "greedy",
        "few_shot": [shot.id for shot in findings.shots],
        "train_rows": len(task.train),
        "versions": library_versions(),
    }
