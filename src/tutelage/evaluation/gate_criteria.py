"""The criteria that tutelage.yaml lists: superiority, non-inferiority, bounds, rows that must pass.

Every criterion is one interval against one limit: wholly on the right side passes, wholly on the
wrong side fails, a limit inside the interval is not enough evidence. All criteria must hold for a
pass (an intersection–union test: Berger, Technometrics 1982, 24:295), so the verdict needs no
correction for their number. A `better` on a metric that is not the primary one is a claim of its
own that readers pick out, so those are corrected among themselves by Holm's method.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist

from tutelage.core.config_criteria import PRIMARY, Better, Bound, NotWorse, Requirement
from tutelage.core.errors import ConfigError, did_you_mean
from tutelage.evaluation.candidates import TUNED
from tutelage.evaluation.criterion import Criterion, Outcome, figures_of, percent, points, within
from tutelage.evaluation.golden import GoldenSet, failures
from tutelage.evaluation.measures import (
    MEASURES,
    Pairs,
    is_rate,
    level,
    lower_is_better,
    quantile_of,
    told,
)
from tutelage.evaluation.significance import Difference, Interval, detectable_difference, holm
from tutelage.evaluation.significance_cluster import z_score
from tutelage.evaluation.significance_power import rows_needed
from tutelage.evaluation.usage import BATCHES
from tutelage.evaluation.verdict import Evidence

_WHERE = "tutelage.yaml, evaluate.criteria"


def check_requirements(
    requirements: Sequence[Requirement], metrics: Sequence[str], candidates: Sequence[str]
) -> None:
    """Raise ConfigError for a criterion that names no known metric or candidate, or can't be."""
    known = [PRIMARY, *metrics, *MEASURES]
    for requirement in requirements:
        for name, names, kind in (
            (requirement.metric, known, "metric"),
            (requirement.than, list(candidates), "candidate"),
        ):
            if name is not None and name not in names:
                hint = did_you_mean(name, names)
                raise ConfigError(
                    f"criteria: there is no {kind} {name!r}",
                    where=_WHERE,
                    fix=f"{hint}Known here: {', '.join(names)}",
                )
        _check_limit(requirement)


def _check_limit(requirement: Requirement) -> None:
    limit = requirement.not_worse
    if limit is not None and limit.by is not None and quantile_of(limit.metric) is not None:
        raise ConfigError(
            f"criteria: {limit.metric} is compared by its ratio, not by a difference",
            where=_WHERE,
            fix="Write times: 1.2 in place of by",
        )
    if limit is not None and limit.times is not None and not lower_is_better(limit.metric):
        raise ConfigError(
            f"criteria: {limit.metric} is compared by its difference, not by a ratio",
            where=_WHERE,
            fix="Write by: 0.02 in place of times",
        )


def criteria_of(evidence: Evidence, requirements: Sequence[Requirement]) -> list[Criterion]:
    """Return a criterion for each requirement, in their order."""
    corrected = _corrected(evidence, requirements)
    return [
        _criterion(evidence, requirement, corrected.get(index))
        for index, requirement in enumerate(requirements)
    ]


def _criterion(
    evidence: Evidence, requirement: Requirement, corrected: tuple[float, int] | None
) -> Criterion:
    metric = _metric(evidence, requirement)
    if metric is not None and metric in evidence.untrusted:
        name, why = _name(evidence, requirement, metric), evidence.untrusted[metric]
        return Criterion(name, "not_enough_evidence", f"{metric} may not decide: {why}")
    if requirement.than is not None and requirement.than not in evidence.scored:
        called = evidence.called(requirement.than)
        return absent(_name(evidence, requirement, metric or evidence.primary), called)
    if requirement.better is not None:
        return _better(evidence, requirement.better, corrected)
    if requirement.not_worse is not None:
        return not_worse(evidence, requirement.not_worse)
    if requirement.golden is not None:
        return golden_criterion(requirement.golden, evidence.golden.get(requirement.golden))
    if requirement.must_pass is not None:
        ids = requirement.must_pass
        failed = failures(ids, evidence.scored[TUNED].scores[evidence.primary])
        return must_pass(len(ids), failed)
    return _bound(evidence, requirement)


def _metric(evidence: Evidence, requirement: Requirement) -> str | None:
    return evidence.primary if requirement.metric == PRIMARY else requirement.metric


def _name(evidence: Evidence, requirement: Requirement, metric: str) -> str:
    shown = "" if metric == evidence.primary else f" on {metric}"
    if requirement.than is not None:
        how = "better than" if requirement.better else "not worse than"
        return f"{how} {evidence.called(requirement.than)}{shown}"
    sign = "at least" if requirement.at_least else "at most"
    bound = requirement.at_least or requirement.at_most
    return f"{metric} {sign} {told(metric, bound.value) if bound else ''}"


def absent(name: str, called: str) -> Criterion:
    """Return that somebody whom a criterion names did not answer in this evaluation."""
    return Criterion(name, "not_enough_evidence", f"{called} was not asked in this evaluation")


def _nothing(name: str, metric: str) -> Criterion:
    return Criterion(name, "not_enough_evidence", f"{metric}: no row has a value for both")


def _too_few(name: str, metric: str, found: Interval) -> Criterion:
    sentence = (
        f"{metric}: {found.n} rows in fewer than {BATCHES} batches tell no spread; a smaller "
        "`evaluate.batch_size` makes more, and alone_p50 needs none"
    )
    figures = {"estimate": found.estimate, "n": found.n, "metric": metric}
    return Criterion(name, "not_enough_evidence", sentence, figures)


def _better(evidence: Evidence, asked: Better, corrected: tuple[float, int] | None) -> Criterion:
    requirement = Requirement(better=asked)
    metric = _metric(evidence, requirement) or evidence.primary
    name = _name(evidence, requirement, metric)
    pairs = Pairs.of(
        evidence.scored[TUNED], evidence.scored[asked.than], metric, evidence.rows
    )  # fmt: skip
    if len(pairs.ours) == 0:
        return _nothing(name, metric)
    if quantile_of(metric) is not None:
        return _faster(evidence, asked, pairs, name)
    d = pairs.gain(metric, confidence=evidence.confidence, seed=evidence.seed)
    outcome: Outcome = "not_enough_evidence"
    if d.low > asked.by:
        outcome = "pass"
    elif d.high <= asked.by:
        outcome = "fail"
    after = ""
    if corrected is not None:
        p, family = corrected
        after = f"; p = {p:.2g}, corrected for {family} claims"
        if outcome == "pass" and p > 1 - evidence.confidence:
            outcome = "not_enough_evidence"
    limit = f" by {_by(metric, asked.by)}" if asked.by else ""
    sentence = f"{_compared(evidence, metric, asked.than, d)}{limit and f'; asked for{limit}'}"
    sentence += f"{_power(evidence, metric, d, d.estimate - asked.by, outcome)}{after}"
    figures = {**figures_of(d), "limit": asked.by, "metric": metric, "than": asked.than}
    return Criterion(name, outcome, sentence, figures)


def _faster(evidence: Evidence, asked: Better, pairs: Pairs, name: str) -> Criterion:
    """Judge a quantile: the whole interval of the ratio must lie below 1."""
    metric = asked.metric
    ratio = pairs.ratio(metric, confidence=evidence.confidence, seed=evidence.seed)
    if math.isinf(ratio.high):
        return _too_few(name, metric, ratio)
    outcome: Outcome = "pass" if ratio.high < 1 else "fail" if ratio.low >= 1 else (
        "not_enough_evidence"
    )  # fmt: skip
    return Criterion(name, outcome, _ratio(evidence, metric, asked.than, ratio), vars(ratio).copy())


def not_worse(evidence: Evidence, asked: NotWorse, *, strict: bool = False) -> Criterion:
    """Return whether the candidate loses no more than the limit.

    `strict` fails what is surely worse, by however little.
    """
    requirement = Requirement(not_worse=asked)
    metric = _metric(evidence, requirement) or evidence.primary
    name = _name(evidence, requirement, metric)
    pairs = Pairs.of(evidence.scored[TUNED], evidence.scored[asked.than], metric, evidence.rows)
    if len(pairs.ours) == 0:
        return _nothing(name, metric)
    if asked.times is not None:
        ratio = pairs.ratio(metric, confidence=evidence.confidence, seed=evidence.seed)
        if math.isinf(ratio.high):
            return _too_few(name, metric, ratio)
        outcome = within(ratio.low, ratio.high, asked.times)
        sentence = f"{_ratio(evidence, metric, asked.than, ratio)}; limit × {asked.times:g}"
        return Criterion(name, outcome, sentence, {**vars(ratio), "limit": asked.times})
    limit = asked.by or 0.0
    d = pairs.gain(metric, confidence=evidence.confidence, seed=evidence.seed)
    outcome = "fail" if strict and d.high < 0 else within(-d.high, -d.low, limit)
    sentence = f"{_compared(evidence, metric, asked.than, d)}; may lose {_by(metric, limit)}"
    sentence += ", and nothing for certain" if strict else ""
    sentence += _power(evidence, metric, d, d.estimate + limit, outcome)
    figures = {**figures_of(d), "limit": -limit, "metric": metric, "than": asked.than}
    return Criterion(name, outcome, sentence, figures)


def _bound(evidence: Evidence, requirement: Requirement) -> Criterion:
    metric = _metric(evidence, requirement) or evidence.primary
    name = _name(evidence, requirement, metric)
    bound = requirement.at_least or requirement.at_most or Bound(value=0.0)
    found = level(
        evidence.scored[TUNED], metric, evidence.rows,
        confidence=evidence.confidence, seed=evidence.seed,
    )  # fmt: skip
    if found.n == 0:
        return Criterion(name, "not_enough_evidence", f"{metric}: no row has a value")
    if math.isinf(found.high):
        return _too_few(name, metric, found)
    if requirement.at_least:
        outcome = within(-found.high, -found.low, -bound.value)
        end = f"its lower end must reach {told(metric, bound.value)}"
    else:
        outcome = within(found.low, found.high, bound.value)
        end = f"its upper end may not pass {told(metric, bound.value)}"
    reach = max(found.estimate - found.low, found.high - found.estimate)
    apart = detectable_difference(reach / z_score(0.5 + evidence.confidence / 2))
    shown = f"{apart * 100:.1f} points" if is_rate(metric) else told(metric, apart)
    sentence = (
        f"{metric}: {told(metric, found.estimate)}, {percent(evidence.confidence)} interval "
        f"{told(metric, found.low)}…{told(metric, found.high)}, n = {found.n}; {end}; "
        f"smallest detectable distance from it {shown}"
    )
    figures = {**vars(found), "limit": bound.value, "metric": metric, "detectable": apart}
    return Criterion(name, outcome, sentence, figures)


def golden_criterion(name: str, found: GoldenSet | None) -> Criterion:
    """Return whether every row of a golden set passes, and what so few rows can't show."""
    title = f"golden set {name}"
    if found is None:
        sentence = f"{title}: not asked in this evaluation, or changed since; evaluate again"
        return Criterion(title, "not_enough_evidence", sentence)
    figures = {"rows": found.rows, "failed": list(found.failed)}
    if not found.failed:
        sentence = f"{title}: all {found.rows} rows pass (hard asserts; {found.power})"
        return Criterion(title, "pass", sentence, figures)
    named = "; ".join(f"“{text}”" for text in found.failed[:3])
    more = " …" if len(found.failed) > 3 else ""
    sentence = f"{title}: {len(found.failed)} of {found.rows} rows fail: {named}{more}"
    return Criterion(title, "fail", sentence, figures)


def must_pass(asked: int, failed: Sequence[str]) -> Criterion:
    """Return whether every row that may not fail passes."""
    if not failed:
        return Criterion("must-pass rows", "pass", f"must-pass rows: all {asked} pass")
    named = ", ".join(i[:12] for i in failed[:5]) + (" …" if len(failed) > 5 else "")
    sentence = f"must-pass rows: {len(failed)} of {asked} fail ({named})"
    return Criterion("must-pass rows", "fail", sentence, {"failed": list(failed)})


def _corrected(
    evidence: Evidence, requirements: Sequence[Requirement]
) -> dict[int, tuple[float, int]]:
    """Return Holm's p and the family's size for each superiority claim beside the primary one."""
    found: dict[int, float] = {}
    for index, requirement in enumerate(requirements):
        asked, metric = requirement.better, _metric(evidence, requirement)
        if asked is None or metric is None or metric == evidence.primary:
            continue
        if asked.than not in evidence.scored or metric in evidence.untrusted:
            continue
        if quantile_of(metric) is not None:
            continue
        ours, theirs = evidence.scored[TUNED], evidence.scored[asked.than]
        pairs = Pairs.of(ours, theirs, metric, evidence.rows)
        if len(pairs.ours):
            d = pairs.gain(metric, confidence=evidence.confidence, seed=evidence.seed)
            found[index] = _p_value(d, asked.by)
    adjusted = holm(list(found.values()))
    return {
        index: (p, len(found)) for index, p in zip(found, adjusted, strict=True)
    }  # fmt: skip


def _p_value(d: Difference, by: float) -> float:
    """Return the two-sided p of no gain beyond `by`: the difference's own, or by its error."""
    if by == 0:
        return d.p
    if not d.se > 0:
        return 0.0 if d.estimate > by else 1.0
    return 2 * (1 - NormalDist().cdf(abs(d.estimate - by) / d.se))


def _compared(evidence: Evidence, metric: str, than: str, d: Difference) -> str:
    ours, theirs = (
        level(evidence.scored[name], metric, evidence.rows,
              confidence=evidence.confidence, seed=evidence.seed).estimate
        for name in (TUNED, than)
    )  # fmt: skip
    grouped = f" in {d.clusters} clusters" if d.clusters < d.n else ""
    return (
        f"{metric}: tuned {told(metric, ours)} vs {evidence.called(than)} {told(metric, theirs)}: "
        f"gain {_signed(metric, d.estimate)}, {percent(evidence.confidence)} interval "
        f"{_signed(metric, d.low)}…{_signed(metric, d.high)}, n = {d.n}{grouped}"
    )


def _ratio(evidence: Evidence, metric: str, than: str, ratio: object) -> str:
    r = vars(ratio)
    return (
        f"{metric}: tuned over {evidence.called(than)} × {r['estimate']:.2f}, "
        f"{percent(evidence.confidence)} interval {r['low']:.2f}…{r['high']:.2f}, n = {r['n']}"
    )


def _power(
    evidence: Evidence, metric: str, d: Difference, distance: float, outcome: Outcome
) -> str:
    """Return what could have been found, and how many rows would settle what is open."""
    shown = _by(metric, d.detectable) if math.isfinite(d.detectable) else "unknown"
    sentence = f"; smallest detectable difference {shown}"
    if outcome == "not_enough_evidence" and distance > 0 and d.se > 0:
        spread = d.se * math.sqrt(d.n)  # what clusters add is in the standard error
        rows = rows_needed(distance, sd=spread, confidence=evidence.confidence)
        if rows > d.n:
            sentence += f"; if it holds, about {rows:,} rows would show it"
    return sentence


def _by(metric: str, value: float) -> str:
    return f"{value * 100:.1f} points" if is_rate(metric) else told(metric, value)


def _signed(metric: str, value: float) -> str:
    if is_rate(metric):
        return f"{points(value, 1)} points"
    return f"{'+' if value > 0 else '−' if value < 0 else ''}{told(metric, abs(value))}"
