"""The decision: criteria in plain sentences, each pass, fail or not enough evidence.

Superiority on the primary metric: the whole interval of (tuned − base) lies above 0, against the
bare base *and* the base with examples; against the stable release, which serves, a loss must stay
within a limit and may not be certain. Guards are non-inferiority: the whole interval of the loss
lies within the limit. A limit inside the interval is "not enough evidence", never a silent pass.
Every criterion prints the smallest difference that it could have found with 80 % power. All must
hold at once (an intersection–union test), so none needs a correction for their number.

Time is the exception: a batch on a busy machine says little about answers in production, so it
fails only what is surely slower, and leaves the rest to the canary, which measures live requests.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from tutelage.core.config import Guards
from tutelage.core.config_criteria import NotWorse, Requirement
from tutelage.evaluation.candidates import BASE, FEW_SHOT, STABLE, TUNED
from tutelage.evaluation.criterion import (
    Criterion,
    Outcome,
    figures_of,
    percent,
    points,
    within,
)
from tutelage.evaluation.gate_criteria import absent, criteria_of, must_pass, not_worse
from tutelage.evaluation.gate_forgetting import forgetting_criteria
from tutelage.evaluation.usage import Slowdown
from tutelage.evaluation.verdict import EXIT_CODES, Evidence, Verdict

__all__ = [
    "EXIT_CODES", "Criterion", "Evidence", "Outcome", "Verdict", "better_base", "decide",
    "percent", "points", "within",
]  # fmt: skip

UNSCORED_LIMIT = 0.05  # share of test rows that may lack a score


def decide(evidence: Evidence, guards: Guards, requirements: Sequence[Requirement] = ()) -> Verdict:
    """Return the verdict of the tuned candidate.

    `requirements` take the place of the comparisons with the base and the stable release; the
    guards hold all the same.
    """
    if TUNED not in evidence.scored:
        sentence = "There is no tuned model yet: these are the base model's figures."
        return Verdict("not_enough_evidence", sentence, ())
    if requirements:
        criteria = criteria_of(evidence, requirements)
    else:
        criteria = _comparisons(evidence, guards)
    if evidence.forgetting is not None:
        criteria += forgetting_criteria(evidence.forgetting, guards, evidence.confidence)
    if evidence.latency is not None:
        criteria.append(_latency(evidence, evidence.latency, guards))
    if evidence.must_pass:
        criteria.append(must_pass(len(evidence.must_pass), evidence.must_fail))
    unscored = _unscored(evidence)
    if unscored is not None:
        criteria.append(unscored)
    outcomes = {criterion.outcome for criterion in criteria}
    outcome: Outcome = "pass"
    if "fail" in outcomes:
        outcome = "fail"
    elif "not_enough_evidence" in outcomes:
        outcome = "not_enough_evidence"
    better = not requirements and not evidence.against
    return Verdict(outcome, _headline(outcome, criteria, better), tuple(criteria))


def _comparisons(evidence: Evidence, guards: Guards) -> list[Criterion]:
    """Return the default: better than what it must beat, not worse than the stable release."""
    both = [name for name in (BASE, FEW_SHOT) if name in evidence.comparisons]
    rivals = evidence.against or tuple(both)
    found = [
        _superior(evidence, name)
        if name in evidence.comparisons
        else absent(f"better than {evidence.called(name)}", evidence.called(name))
        for name in rivals
    ]
    if STABLE in evidence.comparisons and STABLE not in rivals:
        found.append(not_worse(evidence, NotWorse(than=STABLE, by=guards.stable), strict=True))
    return found


def better_base(evidence: Evidence) -> str:
    """Return the stronger of base and few-shot on the primary metric: what tuned must beat."""
    names = [name for name in (BASE, FEW_SHOT) if name in evidence.scored]
    return max(names, key=lambda name: _mean(evidence, name))


def _mean(evidence: Evidence, name: str) -> float:
    value = evidence.scored[name].means[evidence.primary].estimate
    return -math.inf if math.isnan(value) else value


def _superior(evidence: Evidence, name: str) -> Criterion:
    d = evidence.comparisons[name].difference
    if d.n == 0:
        return Criterion(
            f"better than {evidence.called(name)}",
            "not_enough_evidence",
            f"tuned vs {evidence.called(name)}: no row was scored for both",
        )
    outcome: Outcome = "not_enough_evidence"
    if d.low > 0:
        outcome = "pass"
    elif d.high <= 0:
        outcome = "fail"
    ours, theirs = _mean(evidence, TUNED), _mean(evidence, name)
    grouped = f" in {d.clusters} clusters" if d.clusters < d.n else ""
    power = (
        f"smallest detectable difference {d.detectable * 100:.0f} points"
        if math.isfinite(d.detectable)
        else "too few to see any difference"
    )
    sentence = (
        f"{evidence.primary}: tuned {percent(ours)} vs {evidence.called(name)} {percent(theirs)}: "
        f"{points(d.estimate)} points, {percent(evidence.confidence)} interval "
        f"{points(d.low)}…{points(d.high)}, n = {d.n}{grouped}; {power}"
    )
    return Criterion(f"better than {evidence.called(name)}", outcome, sentence, figures_of(d))


def _latency(evidence: Evidence, slower: Slowdown, guards: Guards) -> Criterion:
    ratio, times = slower.ratio, _times(evidence, alone=slower.alone)
    what = "one at a time, median" if slower.alone else "95th percentile"
    sentence = (
        f"time an answer, {what}: {times}: × {ratio.estimate:.2f}, "
        f"{percent(evidence.confidence)} interval {ratio.low:.2f}…{ratio.high:.2f}; "
        f"limit × {guards.latency_p95:g}; fails only what is surely slower, live traffic decides"
    )
    figures = {
        "estimate": ratio.estimate, "low": ratio.low, "high": ratio.high, "n": ratio.n,
        "limit": guards.latency_p95,
    }  # fmt: skip
    outcome: Outcome = "fail" if ratio.low > guards.latency_p95 else "pass"
    return Criterion("answers in time", outcome, sentence, figures)


def _times(evidence: Evidence, *, alone: bool) -> str:
    """Return the base model's time and the tuned model's, in words."""
    ours, base = evidence.scored[TUNED].usage, evidence.scored[BASE].usage
    if ours is None or base is None:
        return "measured"
    if not alone:
        return f"{base.p95_ms:.0f} → {ours.p95_ms:.0f} ms"
    if ours.alone is None or base.alone is None:
        return "measured"
    return f"{base.alone.p50_ms:.0f} → {ours.alone.p50_ms:.0f} ms"


def _unscored(evidence: Evidence) -> Criterion | None:
    worst = 0
    for name in (BASE, FEW_SHOT, TUNED):
        if name in evidence.scored:
            worst = max(worst, evidence.scored[name].unscored(evidence.primary))
    total = len(evidence.scored[TUNED].scores[evidence.primary])
    if worst == 0:
        return None
    sentence = f"unscored rows: up to {worst} of {total} have no score and are left out"
    small = worst <= UNSCORED_LIMIT * total
    outcome: Outcome = "pass" if small else "not_enough_evidence"
    return Criterion("rows scored", outcome, sentence, {"unscored": worst, "rows": total})


def _headline(outcome: Outcome, criteria: Sequence[Criterion], better: bool) -> str:
    """Return the verdict in one sentence; what stands in its way is named."""
    if outcome == "pass" and better:
        return "The tuned model is better than the base model, and stays within every limit."
    if outcome == "pass":
        return "The tuned model meets every criterion and stays within every limit."
    against = [c.name for c in criteria if c.outcome == outcome]
    joined = " and " if outcome == "fail" else " or "
    listed = joined.join(f"“{name}”" for name in against)
    if outcome == "fail":
        return f"The tuned model does not pass: it fails {listed}."
    return f"The evidence is too thin to decide: {listed} could go either way."
