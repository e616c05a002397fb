"""The gate's criteria on what tuning may not cost: general knowledge, general English, own probes.

Each is non-inferiority: the whole interval of the loss has to lie within its limit. A project's
own probes are held to the limits of the built-in ones, each set by itself. All must hold, so none
is corrected for their number.
"""

from __future__ import annotations

from tutelage.core.config import Guards
from tutelage.evaluation.criterion import Criterion, figures_of, percent, points, within
from tutelage.evaluation.forgetting import Drop, Forgetting
from tutelage.evaluation.significance import Difference, Interval


def forgetting_criteria(found: Forgetting, guards: Guards, confidence: float) -> list[Criterion]:
    """Return one criterion for each kind of ability that was measured."""
    criteria = [_knowledge(found, guards, confidence), _language(found, guards, confidence)]
    if guards.kl is not None:
        criteria.append(_close(found, guards.kl, confidence))
    for one in found.own:
        criteria += _own(one, guards, confidence)
    return criteria


def _knowledge(found: Forgetting, guards: Guards, confidence: float) -> Criterion:
    """Judge the chance of the right answer; a certain drop of the count fails by itself."""
    chances = found.base_chance, found.tuned_chance
    n = found.accuracy_drop.n
    before = round(found.base_accuracy.estimate * n)
    after = round(found.tuned_accuracy.estimate * n)
    criterion = _chance(
        ("keeps general knowledge", "general knowledge"), chances,
        (found.chance_drop, found.accuracy_drop), guards, confidence,
    )  # fmt: skip
    sentence = f"{criterion.sentence} (right answers {before} → {after} of {n})"
    return Criterion(criterion.name, criterion.outcome, sentence, criterion.figures)


def _chance(
    names: tuple[str, str],
    chances: tuple[float, float],
    drops: tuple[Difference, Difference],
    guards: Guards,
    confidence: float,
) -> Criterion:
    """Return the criterion on questions; `names` are its own and what the sentence begins with."""
    chance, count = drops
    limit = guards.forgetting
    outcome = within(chance.low, chance.high, limit)
    if count.low > limit:
        outcome = "fail"
    sentence = (
        f"{names[1]}: chance of the right answer {percent(chances[0], 1)} → "
        f"{percent(chances[1], 1)}: {points(-chance.estimate, 1)} points, "
        f"{percent(confidence)} interval {points(-chance.high, 1)}…{points(-chance.low, 1)}, "
        f"n = {chance.n}; limit −{limit * 100:g}; smallest detectable drop "
        f"{_told(chance.detectable, f'{chance.detectable * 100:.1f} points')}"
    )
    figures = {**figures_of(chance), "limit": limit, "count_drop": figures_of(count)}
    return Criterion(names[0], outcome, sentence, figures)


def _language(found: Forgetting, guards: Guards, confidence: float) -> Criterion:
    start = (
        f"general English: perplexity {found.base_perplexity:.1f} → {found.tuned_perplexity:.1f}: "
    )
    return _ratio(
        ("keeps general English", start), found.perplexity_ratio, found.perplexity_detectable,
        guards, confidence,
    )  # fmt: skip


def _ratio(
    names: tuple[str, str], ratio: Interval, detectable: float, guards: Guards, confidence: float
) -> Criterion:
    limit = guards.perplexity
    sentence = (
        f"{names[1]}× {ratio.estimate:.3f}, {percent(confidence)} interval "
        f"{ratio.low:.3f}…{ratio.high:.3f}, n = {ratio.n} texts; limit × {limit:g}; "
        f"smallest detectable rise {_told(detectable - 1, f'× {detectable:.3f}')}"
    )
    figures = {**vars(ratio), "limit": limit, "detectable": detectable}
    return Criterion(names[0], within(ratio.low, ratio.high, limit), sentence, figures)


def _told(detectable: float, text: str) -> str:
    """Return `text`, or that so few rows can't tell even a change of 100 %."""
    return text if detectable < 1 else "unknown: too few to tell"


def _close(found: Forgetting, limit: float, confidence: float) -> Criterion:
    """Judge how far the next-token distribution moved on general texts."""
    name, kl = "stays close to the base", found.kl
    if kl is None or found.kl_detectable is None:
        why = "KL divergence from the base: not measured by this engine or in this evaluation"
        return Criterion(name, "not_enough_evidence", why, {"limit": limit})
    sentence = (
        f"KL divergence from the base: {kl.estimate:.4f} nats a token of general text, "
        f"{percent(confidence)} interval {max(0.0, kl.low):.4f}…{kl.high:.4f}, n = {kl.n} texts; "
        f"limit {limit:g}; smallest detectable distance from it {found.kl_detectable:.4f}"
    )
    figures = {**vars(kl), "limit": limit, "detectable": found.kl_detectable}
    return Criterion(name, within(kl.low, kl.high, limit), sentence, figures)


def _own(found: Drop, guards: Guards, confidence: float) -> list[Criterion]:
    """Return a criterion for the questions of an own set, and one for its texts."""
    criteria = []
    chances = found.base_chance, found.tuned_chance
    if found.chance_drop is not None and found.accuracy_drop is not None:
        criteria.append(
            _chance(
                (f"keeps {found.name}", found.name), (chances[0] or 0.0, chances[1] or 0.0),
                (found.chance_drop, found.accuracy_drop), guards, confidence,
            )
        )  # fmt: skip
    if found.perplexity_ratio is not None and found.perplexity_detectable is not None:
        names = f"keeps the texts of {found.name}", f"texts of {found.name}: perplexity "
        ratio, smallest = found.perplexity_ratio, found.perplexity_detectable
        criteria.append(_ratio(names, ratio, smallest, guards, confidence))
    return criteria
