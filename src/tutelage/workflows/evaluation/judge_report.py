"""What judges said of an evaluation, as one plain document: for the terminal, JSON and Python."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from tutelage.core.artifact import Artifact, finite
from tutelage.evaluation.candidates import TUNED
from tutelage.evaluation.judges import duels, marks
from tutelage.evaluation.judges.asker import Verdicts
from tutelage.evaluation.judges.rubric import OVERALL, PREFERENCE, Criterion, versus
from tutelage.evaluation.judges.trust import JudgeTrust, measured, panel_id, trusted
from tutelage.evaluation.judges.win_rate import win_rate
from tutelage.evaluation.scorers.base import Score
from tutelage.evaluation.significance import mean_interval
from tutelage.evaluation.significance_ppi import ppi_mean
from tutelage.workflows.context import Context
from tutelage.workflows.evaluation.judge import Case, text_digest


def document(
    ctx: Context, evaluation: Artifact, case: Case, table: marks.Table, verdicts: Verdicts
) -> dict[str, Any]:
    """Return the figures of a case: finite numbers, text, lists and dicts only."""
    confidence = ctx.config.evaluate.confidence
    who = panel_id(case.judges, case.settings.panel)
    found: dict[str, Any] = {
        "evaluation": evaluation.short,
        "mode": case.rubric.mode,
        "judges": [judge.name for judge in case.judges],
        "rows": len(case.rows),
        "confidence": confidence,
        "rubric": _rubric(ctx, case, who),
        "spent": asdict(verdicts.spent),
    }
    if case.rubric.mode == "pairwise":
        found["pairs"] = [
            _pair(case, name, table[TUNED][versus(name)], confidence) for name in case.others
        ]
    else:
        found["candidates"] = [
            _candidate(ctx, case, (name, metrics), who, confidence)
            for name, metrics in table.items()
        ]
    found["suspected"] = _suspected(table)
    clean: dict[str, Any] = finite(found)
    return clean


def _rubric(ctx: Context, case: Case, who: str) -> list[dict[str, Any]]:
    """Return the criteria, each with whether its score may gate and why."""
    names = case.rubric.asked if case.rubric.mode == "pairwise" else ()
    entries: list[dict[str, Any]] = [{"name": name, "metric": name} for name in names]
    if not names:
        entries = [
            {"name": c.name, "metric": c.metric, "question": c.question, "levels": list(c.levels)}
            for c in case.rubric.criteria
        ]
    for entry in entries:
        ok, why = trusted(ctx.store, who, case.rubric, entry["metric"], case.settings)
        entry |= {"may_gate": ok, "trust": why}
    return entries


def _candidate(
    ctx: Context,
    case: Case,
    candidate: tuple[str, Mapping[str, Mapping[str, Score]]],
    who: str,
    confidence: float,
) -> dict[str, Any]:
    name, metrics = candidate
    by_metric = {c.metric: c for c in case.rubric.criteria}
    found: dict[str, Any] = {"name": name, "metrics": {}}
    for metric, scores in metrics.items():
        values = {item: s.value for item, s in scores.items() if s.value is not None}
        mean = mean_interval(
            list(values.values()), clusters=[case.clusters.get(i, i) for i in values],
            confidence=confidence,
        )  # fmt: skip
        entry = {**asdict(mean), "unscored": len(scores) - len(values)}
        if metric in by_metric:
            entry["disagreement"] = marks.disagreement(scores.values())
            entry["people"] = _people(ctx, case, (name, by_metric[metric]), who, values)
        found["metrics"][metric] = entry
    found["suspected"] = sum(marks.SUSPECTED in s.evidence for s in metrics[OVERALL].values())
    return found


def _people(
    ctx: Context,
    case: Case,
    what: tuple[str, Criterion],
    who: str,
    values: Mapping[str, float],
) -> dict[str, Any] | None:
    """Return the mean as experts would give it, from their few and the judge's many verdicts.

    None without at least two expert verdicts on these very answers.
    """
    name, criterion = what
    trust = measured(ctx.store, who, case.rubric.digest(criterion.name))
    given = _said(trust, name, case.texts[name]) if trust else {}
    known = [(item, level) for item, level in given.items() if item in values]
    if len(known) < 2:
        return None
    mean = ppi_mean(
        [criterion.value(said) for _, said in known],
        [values[item] for item, _ in known],
        list(values.values()),
        clusters=(
            [case.clusters.get(item, item) for item, _ in known],
            [case.clusters.get(item, item) for item in values],
        ),
        confidence=ctx.config.evaluate.confidence,
    )
    return asdict(mean)


def _said(trust: JudgeTrust, candidate: str, texts: Mapping[str, str]) -> dict[str, float]:
    """Return the experts' levels by example id, where the answer is still the one they saw."""
    return {
        item: float(said)
        for (item, whose, said, _), digest in zip(
            trust.figures["pairs"], trust.figures["texts"], strict=True
        )
        if whose == candidate and item in texts and text_digest(texts[item]) == digest
    }


def _pair(case: Case, other: str, scores: Mapping[str, Score], confidence: float) -> dict[str, Any]:
    """Return the win rates of the tuned model over another, and how the judge wavered."""
    ours, theirs = case.texts[TUNED], case.texts[other]
    values = {item: s.value for item, s in scores.items() if s.value is not None}
    asked = [scores[item].evidence for item in values if not scores[item].evidence["same"]]
    orders = sum(evidence["orders"] for evidence in asked)
    duels = sum(len(evidence.get("judges", {"": ""})) for evidence in asked)
    rate = win_rate(
        list(values.values()),
        [len(ours[item]) for item in values],
        [len(theirs[item]) for item in values],
        clusters=[case.clusters.get(item, item) for item in values],
        confidence=confidence,
    )
    return {
        "other": other,
        "metric": versus(other),
        **rate.as_dict(),
        "unscored": len(scores) - len(values),
        "same": len(values) - len(asked),
        "conflicts": sum(evidence["conflicts"] for evidence in asked),
        "conflict_rate": sum(e["conflicts"] for e in asked) / duels if duels else None,
        "first_rate": sum(e["first"] for e in asked) / orders if orders else None,
        "disagreement": marks.disagreement(scores.values()),
        "suspected": sum(marks.SUSPECTED in s.evidence for s in scores.values()),
        "preference": PREFERENCE,
    }


def _suspected(table: marks.Table) -> list[dict[str, str]]:
    """Return the answers that seem to speak to the judge, each once."""
    found: dict[tuple[str, str], str] = {}
    for candidate, metrics in table.items():
        for metric, given in metrics.items():
            for item, score in given.items():
                if marks.SUSPECTED in score.evidence:
                    theirs = score.evidence.get(duels.SIDE) == "theirs"
                    whose = metric.removeprefix(versus("")) if theirs else candidate
                    found[item, whose] = score.evidence[marks.SUSPECTED]
    return [{"item": i, "candidate": c, "why": why} for (i, c), why in found.items()]
