"""The gate's criteria on what tuning may not cost: general knowledge and general English.

Each is non-inferiority: the whole interval of the loss has to lie within its limit.
"""

from __future__ import annotations

from tutelage.core.config import Guards
from tutelage.evaluation.criterion import Criterion, figures_of, percent, points, within
from tutelage.evaluation.forgetting import Forgetting


def forgetting_criteria(found: Forgetting, guards: Guards, confidence: float) -> list[Criterion]:
    """Return one criterion for each kind of ability that was measured."""
    return [_knowledge(found, guards, confidence), _language(found, guards, confidence)]


def _knowledge(found: Forgetting, guards: Guards, confidence: float) -> Criterion:
    """Judge the chance of the right answer; a certain drop of the count fails by itself."""
    chance, count = found.chance_drop, found.accuracy_drop
    limit = guards.forgetting
    outcome = within(chance.low, chance.high, limit)
    if count.low > limit:
        outcome = "fail"
    sentence = (
        f"general knowledge: chance of the right answer {percent(found.base_chance, 1)} → "
        f"{percent(found.tuned_chance, 1)}: {points(-chance.estimate, 1)} points, "
        f"{percent(confidence)} interval {points(-chance.high, 1)}…{points(-chance.low, 1)}, "
        f"n = {chance.n}; limit −{limit * 100:g}; smallest detectable drop "
        f"{chance.detectable * 100:.1f} points ({_counted(found)})"
    )
    figures = {**figures_of(chance), "limit": limit, "count_drop": figures_of(count)}
    return Criterion("keeps general knowledge", outcome, sentence, figures)


def _counted(found: Forgetting) -> str:
    n = found.accuracy_drop.n
    before = round(found.base_accuracy.estimate * n)
    after = round(found.tuned_accuracy.estimate * n)
    return f"right answers {before} → {after} of {n}"


def _language(found: Forgetting, guards: Guards, confidence: float) -> Criterion:
    ratio, limit = found.perplexity_ratio, guards.perplexity
    sentence = (
        f"general English: perplexity {found.base_perplexity:.1f} → "
        f"{found.tuned_perplexity:.1f}: × {ratio.estimate:.3f}, {percent(confidence)} interval "
        f"{ratio.low:.3f}…{ratio.high:.3f}, n = {ratio.n} texts; limit × {limit:g}; "
        f"smallest detectable rise × {found.perplexity_detectable:.3f}"
    )
    figures = {
        "estimate": ratio.estimate, "low": ratio.low, "high": ratio.high, "n": ratio.n,
        "limit": limit, "detectable": found.perplexity_detectable,
    }  # fmt: skip
    outcome = within(ratio.low, ratio.high, limit)
    return Criterion("keeps general English", outcome, sentence, figures)
