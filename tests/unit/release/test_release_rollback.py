"""The judge: good releases stay, bad ones go, and neither by chance. Seeds are fixed."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tutelage.core.config import Limits
from tutelage.release.arms import ArmLog, Sample, at_own_pace
from tutelage.release.rollback import TESTS, judge
from tutelage.release.verdict import StepVerdict

LIMITS = Limits()


def arms(
    rng: np.random.Generator,
    canary_requests: int,
    *,
    weight: float = 0.1,
    slower: float = 1.0,
    errors: float = 0.002,
    flags: float = 0.01,
    both: float = 0.002,
) -> tuple[ArmLog, ArmLog]:
    """Return (baseline, canary) with log-normal latencies; `both`: the baseline's error rate."""
    count = round(canary_requests / weight)
    canary = rng.random(count) < weight
    latency = 400 * rng.lognormal(0, 0.4, count) * np.where(canary, slower, 1)
    failed = rng.random(count) < np.where(canary, errors, both)
    flagged = rng.random(count) < np.where(canary, flags, 0.01)
    at = np.arange(count, dtype=np.float64)
    step = np.zeros(count, np.int64)

    def arm(keep: np.ndarray) -> ArmLog:  # type: ignore[type-arg]
        return ArmLog(at[keep], latency[keep], failed[keep], flagged[keep], step[keep])

    return arm(~canary), arm(canary)


def share_failed(runs: int, requests: int, seed: int, **case: float) -> float:
    """Return the share of runs that any look at any time would have stopped."""
    rng = np.random.default_rng(seed)
    found = [judge(*arms(rng, requests, **case), LIMITS).verdict for _ in range(runs)]
    return found.count("fail") / runs


@pytest.mark.parametrize(
    "case",
    [
        {},
        {"weight": 0.5},
        {"slower": 1.2, "weight": 0.25},
        {"both": 0.3, "errors": 0.3, "weight": 0.25},
    ],
    ids=["equal", "equal half", "at the limit", "outage of both arms"],
)
def test_good_candidates_are_not_stopped_however_often_one_looks(case: dict[str, float]) -> None:
    assert share_failed(60, 300, seed=3, **case) <= 0.02


@pytest.mark.parametrize(
    ("case", "within"),
    [
        ({"slower": 2.0, "weight": 0.05}, 40),
        ({"slower": 2.0, "weight": 0.25}, 60),
        ({"slower": 1.5, "weight": 0.05}, 200),
        ({"errors": 0.10, "weight": 0.05}, 80),
        ({"flags": 0.20, "weight": 0.05}, 80),
    ],
    ids=["2x at 5 %", "2x at 25 %", "1.5x", "10 % errors", "20 % flagged"],
)
def test_bad_candidates_are_caught_soon(case: dict[str, float], within: int) -> None:
    assert share_failed(30, within, seed=5, **case) >= 0.85


def of_users(
    rng: np.random.Generator, *, users: int, burst: int = 1, heavy: float = 0.0, slower: float = 1.0
) -> tuple[ArmLog, ArmLog]:
    """Return both arms over users who keep theirs; what one sends in a row is slow or fast
    together, and `heavy` of them always ask for what takes three times as long.
    """
    count, before = 4000, 500
    bursts = (count + before) // burst + 1
    user = np.repeat(rng.integers(0, users, bursts), burst)[: count + before]
    moment = np.repeat(rng.lognormal(0, 0.5 * (burst > 1), bursts), burst)[: count + before]
    own = np.where(rng.random(users) < heavy, 3.0, 1.0)[user]
    step = np.where(np.arange(count + before) < before, -1, 0)
    canary = (rng.random(users) < 0.25)[user] & (step == 0)
    latency = 400 * own * moment * rng.lognormal(0, 0.4, len(user)) * np.where(canary, slower, 1)
    none, at = np.zeros(len(user), bool), np.arange(len(user), dtype=np.float64)

    def arm(of: np.ndarray) -> ArmLog:  # type: ignore[type-arg]
        return ArmLog(at[of], latency[of], none[of], none[of], step[of], user=user[of])

    return arm(~canary), arm(canary)


@pytest.mark.parametrize(
    "users",
    [{"users": 500, "burst": 8}, {"users": 500, "burst": 20}, {"users": 60, "heavy": 0.33}],
    ids=["bursts of 8", "bursts of 20", "few who differ"],
)
def test_users_who_ask_often_do_not_stop_a_good_candidate(users: dict[str, Any]) -> None:
    """Were each request somebody else's, 5 to 10 of 100 would be stopped."""
    rng = np.random.default_rng(7)
    found = [judge(*of_users(rng, **users), LIMITS).verdict for _ in range(60)]
    assert found.count("fail") <= 1
    slow = [judge(*of_users(rng, slower=2.0, **users), LIMITS).verdict for _ in range(10)]
    assert slow.count("fail") >= 3


def test_a_user_s_pace_before_the_rollout_is_taken_out_of_both_arms() -> None:
    old = [Sample(-100 + i, 300.0 if i % 2 else 100.0, step=-1, user=i % 2) for i in range(80)]
    now = [Sample(i, 300.0 if i % 2 else 100.0, user=i % 2) for i in range(4)]
    new = [Sample(9, 100.0, user=2), Sample(10, 100.0)]
    baseline, canary = at_own_pace(ArmLog.of(old + now), ArmLog.of(now + new))
    middle = np.sqrt(100.0 * 300.0)
    assert baseline.latency_ms == pytest.approx(np.full(84, middle), rel=0.03)
    assert canary.latency_ms[:4] == pytest.approx(np.full(4, middle), rel=0.03)
    assert list(canary.latency_ms[4:]) == [100.0, 100.0]  # nothing is known of them


def test_a_fail_says_what_was_seen() -> None:
    found = judge(*arms(np.random.default_rng(0), 100, slower=2.5), LIMITS)
    assert found.verdict == "fail"
    assert any("slower than 1.2 × the baseline's p90" in reason for reason in found.reasons)
    assert set(found.evidence["tests"]) == set(TESTS) - {"scores"}
    assert found.evidence["threshold"] == pytest.approx(700)
    assert found.evidence["canary"]["latency_ms_p50"] > found.evidence["baseline"]["latency_ms_p50"]


def test_a_fail_stays_a_fail() -> None:
    rng = np.random.default_rng(0)
    baseline, bad = arms(rng, 80, slower=2.5)
    more_baseline, good = arms(rng, 400)
    shift = baseline.at.max() + 1

    def joined(a: ArmLog, b: ArmLog) -> ArmLog:
        fields = ("latency_ms", "failed", "flagged", "step")
        parts = {name: np.concatenate((getattr(a, name), getattr(b, name))) for name in fields}
        return ArmLog(at=np.concatenate((a.at, b.at + shift)), **parts)

    assert judge(baseline, bad, LIMITS).verdict == "fail"
    assert judge(joined(baseline, more_baseline), joined(bad, good), LIMITS).verdict == "fail"


def samples(count: int, *, failed: bool = False, step: int = 0, start: float = 0.0) -> list[Sample]:
    return [Sample(start + i, 100.0 + i % 7, failed, step=step) for i in range(count)]


NONE = ArmLog.of([])


def test_no_request_yet_is_no_data() -> None:
    found = judge(ArmLog.of(samples(50)), NONE, LIMITS)
    assert (found.verdict, found.reasons) == ("no_data", ("the candidate has no request yet",))
    before = ArmLog.of(samples(50, step=-1))
    assert judge(before, NONE, LIMITS).verdict == "no_data"


@pytest.mark.parametrize(("broken", "name"), [("baseline", "baseline"), ("canary", "candidate")])
def test_a_log_that_is_no_log_is_a_collector_error(broken: str, name: str) -> None:
    logs = {"baseline": ArmLog.of(samples(20)), "canary": ArmLog.of(samples(20))}
    logs[broken] = ArmLog.of([Sample(0, float("nan"))])
    found = judge(logs["baseline"], logs["canary"], LIMITS)
    assert found.verdict == "collector_error"
    assert found.reasons == (f"the {name}'s log holds latencies that are no numbers",)
    logs[broken] = ArmLog.of((), problem="the request log can't be read (disk I/O error)")
    assert judge(logs["baseline"], logs["canary"], LIMITS).verdict == "collector_error"


def test_five_failures_at_the_start_are_enough() -> None:
    bad = ArmLog.of(samples(5, failed=True))
    found = judge(ArmLog.of(samples(5)), bad, LIMITS)
    assert found == StepVerdict(
        "fail", ("the candidate's first 5 requests all failed",), found.evidence
    )
    assert (
        judge(ArmLog.of(samples(5)), ArmLog.of(samples(4, failed=True)), LIMITS).verdict != "fail"
    )


def test_five_failures_in_an_outage_of_both_arms_are_not() -> None:
    bad = ArmLog.of(samples(5, failed=True))
    found = judge(bad, bad, LIMITS)
    assert found.verdict == "inconclusive"
    assert found.reasons == ("100.0 % of the candidate's requests failed, over 5.0 %",)


def test_memory_must_be_over_twice_running() -> None:
    good, baseline = ArmLog.of(samples(20)), ArmLog.of(samples(60))
    for memory, verdict in [((0.97,), "pass"), ((0.97, 0.9), "pass"), ((0.5, 0.96, 0.97), "fail")]:
        full = replace(good, memory={"GPU memory": memory})
        assert judge(baseline, full, LIMITS).verdict == verdict
    full = replace(good, memory={"GPU memory": (0.96, 0.97), "KV cache": (0.2, 0.3)})
    found = judge(baseline, full, LIMITS)
    assert found.reasons == ("GPU memory at 96 % and 97 %, twice over 95 %",)


def test_memory_that_was_full_before_is_not_the_candidate_s_fault() -> None:
    good, baseline = ArmLog.of(samples(20)), ArmLog.of(samples(60))
    full = replace(good, memory={"memory": (0.96, 0.97)})
    before = replace(baseline, memory={"memory": (0.96,)})
    assert judge(before, full, LIMITS).verdict == "pass"
    fine = replace(baseline, memory={"memory": (0.5,)})
    assert judge(fine, full, LIMITS).verdict == "fail"


def test_a_named_fault_needs_no_statistics() -> None:
    fault = "the engine crashed during the rollout"
    found = judge(NONE, ArmLog.of([], fault=fault), LIMITS)
    assert (found.verdict, found.reasons) == ("fail", (fault,))


def test_without_a_baseline_the_error_rate_alone_is_judged() -> None:
    rng = np.random.default_rng(1)
    ok = ArmLog.of(Sample(i, 100, bool(rng.random() < 0.02), step=3) for i in range(300))
    assert judge(NONE, ok, LIMITS).verdict == "pass"
    bad = ArmLog.of(Sample(i, 100, bool(rng.random() < 0.25), step=3) for i in range(300))
    found = judge(NONE, bad, LIMITS)
    assert found.verdict == "fail"
    assert found.reasons[0].startswith("error_rate: ")


def test_history_places_the_thresholds_from_the_first_request() -> None:
    rng = np.random.default_rng(4)
    baseline, canary = arms(rng, 12, weight=0.25, slower=3.0)
    old = [Sample(-600 + i, 400 * rng.lognormal(0, 0.4), step=-1) for i in range(500)]
    cold = judge(baseline, canary, LIMITS).evidence["tests"]["latency_p90"]["requests"]
    rows = [Sample(*values) for values in zip(
        baseline.at, baseline.latency_ms, baseline.failed, baseline.flagged, baseline.step,
        strict=True)]  # fmt: skip
    warm = judge(ArmLog.of(old + rows), canary, LIMITS).evidence
    assert warm["tests"]["latency_p90"]["requests"] > cold
    assert warm["baseline"]["requests"] == len(baseline)
