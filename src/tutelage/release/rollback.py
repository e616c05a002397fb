"""Decide from the log whether a candidate may go on: sequential tests that may always be looked at.

No clock and no IO: the caller brings what both arms saw, `judge` says pass, fail, inconclusive,
no_data or collector_error, and why. The statistics are in sequential.py and means.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tutelage.core.config import Limits
from tutelage.release import power
from tutelage.release import sequential as seq
from tutelage.release.arms import ArmLog, Merged, ScoreLog, at_own_pace, failures
from tutelage.release.quality import score_tests
from tutelage.release.verdict import StepVerdict


@dataclass(frozen=True)
class Outcome:
    """One sequential test. It fails for good when `e` has ever reached the threshold 1/alpha_i.

    `observed` bad canary requests against `expected` if the arms were equal, of the `requests` that
    blocks took, one of each user. After each block `path` is the logarithm of e, and `seen` how
    many canary requests there were.
    """

    name: str
    e: float  # now
    peak: float  # the highest it ever was
    observed: int
    expected: float
    requests: int
    says: str  # what a bad request is, in words
    path: NDArray[np.float64] = field(compare=False)  # (B,)
    seen: NDArray[np.int64] = field(compare=False)  # (B,)


TESTS = ("latency_p50", "latency_p90", "latency_p99", "errors", "flags", "error_rate", "scores")
QUANTILES = (0.5, 0.9, 0.99)
_WARY = 0.5  # the share of the needed log evidence from which a step is no longer taken
_FIRST = 5


def judge(
    baseline: ArmLog, canary: ArmLog, limits: Limits, scores: ScoreLog | None = None
) -> StepVerdict:
    """Return the verdict on everything both arms have done since the rollout began.

    Seven tests share `limits.alpha` (Bonferroni): canary latencies over `limits.latency` exceed the
    concurrent baseline's p50, p90, p99 more often than the baseline does; canary requests fail or
    are refused by the engine more often; are flagged more often; fail at a rate over
    `limits.error_rate` where no baseline is beside them (the last step); scores of its answers are
    lower. Latencies are taken over what each user's were before. Each may be looked at after every
    request (sequential.py): with a candidate that is no worse, the probability that any ever says
    fail is at most alpha. Some faults need no statistics: see `hard_faults`.
    """
    problem = baseline.problem or canary.problem or _unreadable(baseline, canary)
    if problem:
        return StepVerdict("collector_error", (problem,), {"problem": problem})
    faults = hard_faults(baseline, canary, limits)
    live = canary.live
    if faults:
        return StepVerdict("fail", tuple(faults), {"faults": faults, **_counts(baseline, canary)})
    if not live.any() and not len(canary.refused):
        reason = "the candidate has no request yet"
        return StepVerdict("no_data", (reason,), _counts(baseline, canary))
    tests = run_tests(baseline, canary, limits)
    marks = score_tests(scores or {}, limits, len(TESTS), int(live.sum()))
    threshold = len(TESTS) / limits.alpha
    evidence = {
        "threshold": threshold,
        "tests": {t.name: _test_dict(t) for t in tests},
        **({"scores": {m.metric: m.as_dict() for m in marks}} if marks else {}),
        **_counts(baseline, canary),
    }
    failed = [_sentence(t, threshold) for t in tests if t.peak >= threshold]
    failed += [m.sentence() for m in marks if m.failed]
    if failed:
        return StepVerdict("fail", tuple(failed), evidence)
    if not live.any():
        users = "one user" if len(canary.refused) == 1 else f"{len(canary.refused)} users"
        reason = f"the engine refused every request of the candidate, from {users}"
        return StepVerdict("no_data", (reason,), evidence)
    wary = [_sentence(t, threshold) for t in tests if t.e >= threshold**_WARY]
    wary += [m.sentence() for m in marks if m.wary]
    if wary:
        return StepVerdict("inconclusive", tuple(wary), evidence)
    rate = float(canary.failed[live].mean())
    if rate > limits.error_rate:
        reason = (
            f"{rate * 100:.1f} % of the candidate's requests failed, "
            f"over {limits.error_rate * 100:.1f} %"
        )
        return StepVerdict("inconclusive", (reason,), evidence)
    withheld = "; ".join(m.withheld for m in marks if m.withheld)
    return StepVerdict("pass", ("no test speaks against the candidate",), evidence, withheld)


def unseen(
    baseline: ArmLog, canary: ArmLog, limits: Limits, scores: ScoreLog | None = None
) -> list[str]:
    """Return, kind by kind, the harm that these requests would not have shown (power.py)."""
    return power.unseen(baseline, canary, limits, scores or {}, len(TESTS))


def hard_faults(baseline: ArmLog, canary: ArmLog, limits: Limits) -> list[str]:
    """Return what ends a rollout at once: a named fault, all of the canary's first five requests
    failed (unless the baseline's newest five failed too), memory twice running over the limit
    (unless it was over it before the candidate came).
    """
    faults = [canary.fault] if canary.fault else []
    first = canary.failed[canary.live][:_FIRST]
    outage = len(baseline) >= _FIRST and bool(baseline.failed[-_FIRST:].all())
    if len(first) == _FIRST and first.all() and not outage:
        faults.append(f"the candidate's first {_FIRST} requests all failed")
    for kind, samples in canary.memory.items():
        newest, before = samples[-2:], baseline.memory.get(kind, ())
        full = bool(before) and before[-1] > limits.memory
        if len(newest) == 2 and min(newest) > limits.memory and not full:
            used = f"{newest[0] * 100:.0f} % and {newest[1] * 100:.0f} %"
            faults.append(f"{kind} at {used}, twice over {limits.memory * 100:.0f} %")
    return faults


def run_tests(baseline: ArmLog, canary: ArmLog, limits: Limits) -> list[Outcome]:
    """Return the figures of the tests on requests, in the order of TESTS."""
    baseline, canary = at_own_pace(baseline, canary)
    old = ~baseline.live
    history = baseline.latency_ms[old & ~baseline.failed]
    now = Merged.of(baseline, canary, limits.latency)
    answered, ends = now.only(~now.failed).in_blocks()  # a quick failure is no quick answer
    limit_QN = seq.thresholds(answered.latency, answered.canary, ends, QUANTILES, history)
    tests = []
    for name, q, limit_N in zip(TESTS, QUANTILES, limit_QN, strict=False):
        ready = np.isfinite(limit_N)
        says = f"slower than {limits.latency:g} × the baseline's p{q * 100:.0f}"
        tests.append(_share(name, says, answered.latency > limit_N, answered.canary & ready, ends))
    failed, ours, users = failures(baseline, canary)
    kept, ends = seq.cut(ours, users)
    says = "failed or were refused"
    tests.append(_share("errors", says, failed[kept], ours[kept], ends))
    now, ends = now.in_blocks()
    tests.append(_share("flags", "flagged by an output check", now.flagged, now.canary, ends))
    tests.append(_rate(now, ends, limits.error_rate))
    return tests


def _share(
    name: str,
    says: str,
    bad: NDArray[np.bool_],
    canary: NDArray[np.bool_],
    ends: NDArray[np.int64],
) -> Outcome:
    path = seq.share_test(bad, canary, ends)
    return Outcome(
        name,
        seq.shown(path[-1] if len(path) else 0.0),
        seq.shown(path.max(initial=0.0)),
        int((bad & canary).sum()),
        seq.expected_bad(bad, canary, ends),
        int(canary.sum()),
        says,
        path,
        np.cumsum(seq.block_sums(canary, ends)),
    )


def _rate(now: Merged, ends: NDArray[np.int64], limit: float) -> Outcome:
    """Return the test of the canary's own error rate, over blocks that held no baseline request:
    where there is one, it is the better measure, and an outage of both arms proves nothing.
    """
    sizes = np.diff(np.concatenate(([0], ends)))
    alone = np.repeat(seq.block_sums(now.canary, ends) == sizes, sizes)
    failed = now.failed[alone]
    path = seq.rate_test(failed, limit)
    return Outcome(
        "error_rate",
        seq.shown(path[-1] if len(path) else 0.0),
        seq.shown(path.max(initial=0.0)),
        int(failed.sum()),
        limit * len(failed),
        len(failed),
        "without a baseline beside them failed",
        path,
        np.arange(1, len(failed) + 1),
    )


def _sentence(test: Outcome, threshold: float) -> str:
    against = "the limit allows" if test.name == "error_rate" else "expected"
    return (
        f"{test.name}: {test.observed} of {test.requests} candidate requests {test.says}, "
        f"{test.expected:.1f} {against} (e = {test.peak:.3g}, fails at {threshold:g})"
    )


def _test_dict(test: Outcome) -> dict[str, Any]:
    return {
        "e": test.e,
        "peak": test.peak,
        "observed": test.observed,
        "expected": round(test.expected, 3),
        "requests": test.requests,
    }


def _counts(baseline: ArmLog, canary: ArmLog) -> dict[str, Any]:
    return {"baseline": _arm_dict(baseline), "canary": _arm_dict(canary)}


def _arm_dict(arm: ArmLog) -> dict[str, Any]:
    latency = arm.latency_ms[arm.live & ~arm.failed]
    shown = np.quantile(latency, (0.5, 0.9, 0.99)) if len(latency) else (None, None, None)
    names = ("latency_ms_p50", "latency_ms_p90", "latency_ms_p99")
    return {
        "requests": int(arm.live.sum()),
        "failed": int(arm.failed[arm.live].sum()),
        "flagged": int(arm.flagged[arm.live].sum()),
        **{n: None if v is None else round(float(v), 2) for n, v in zip(names, shown, strict=True)},
        **({"refused": len(arm.refused)} if len(arm.refused) else {}),
        **_memory_dict(arm.memory),
    }


def _memory_dict(memory: Mapping[str, tuple[float, ...]]) -> dict[str, Any]:
    newest = {kind: round(samples[-1], 4) for kind, samples in memory.items() if samples}
    return {"memory": newest} if newest else {}


def _unreadable(baseline: ArmLog, canary: ArmLog) -> str | None:
    for name, arm in (("baseline", baseline), ("candidate", canary)):
        if not np.isfinite(arm.latency_ms).all() or (arm.latency_ms < 0).any():
            return f"the {name}'s log holds latencies that are no numbers"
        if not np.isfinite(arm.at).all():
            return f"the {name}'s log holds times that are no numbers"
    return None
