"""How often a rollout is stopped, rightly and wrongly: the sequential tests against a bare ratio.

Requests of both arms are drawn at random (log-normal latencies, rare errors) and put through
`release.rollback.judge`. A run counts as stopped if any look, after any request, would have said
fail. The bare ratio is the rule p99 > 1.2 x baseline, looked at every 50 canary requests: over all
requests so far, or (window) over those since the last look.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tutelage.core.config import Limits
from tutelage.release.rollback import ArmLog, judge

sys.path.insert(0, str(Path(__file__).resolve().parent))
import common

LIMITS = Limits()
MEDIAN_MS, SPREAD = 400.0, 0.4  # of the baseline's log-normal latency
BASE_ERRORS = 0.002
LOOK_EVERY = 50  # canary requests, for the bare ratio


@dataclass(frozen=True)
class Scenario:
    """One kind of candidate. `good` ones should never be stopped."""

    name: str
    good: bool
    weight: float = 0.05  # share of the requests that the canary gets
    slower: float = 1.0  # factor on every canary latency
    tail: tuple[float, float] = (0.0, 1.0)  # share of canary requests, and the factor on them
    errors: float = BASE_ERRORS  # of the canary
    outage: float = 0.0  # share of both arms' requests in the middle that fails
    swing: float = 0.0  # both arms' load rises and falls by this factor
    starts_at: float = 0.0  # the harm starts after this share of the run


SCENARIOS = (
    Scenario("equal", True),
    Scenario("equal", True, 0.25),
    Scenario("equal", True, 0.5),
    Scenario("at the limit, 1.2 x", True, 0.25, slower=1.2),
    Scenario("load swings 3 x", True, 0.25, swing=3.0),
    Scenario("outage of both arms", True, 0.25, outage=0.6),
    Scenario("2 x slower", False, slower=2.0),
    Scenario("2 x slower", False, 0.25, slower=2.0),
    Scenario("2 x slower", False, 0.5, slower=2.0),
    Scenario("1.5 x slower", False, slower=1.5),
    Scenario("1.5 x slower", False, 0.25, slower=1.5),
    Scenario("5 % are 4 x slower", False, tail=(0.05, 4.0)),
    Scenario("2 x from half way", False, 0.25, slower=2.0, starts_at=0.5),
    Scenario("10 % errors", False, errors=0.10),
    Scenario("10 % errors", False, 0.25, errors=0.10),
    Scenario("5 % errors", False, errors=0.05),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print one JSON object alone")
    parser.add_argument("--quick", action="store_true", help="fewer runs a scenario")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    good, bad, requests = (300, 60, 400) if options.quick else (1000, 150, 500)
    rows = []
    for scenario in SCENARIOS:
        runs = good if scenario.good else bad
        rows.append(measure(scenario, runs, requests, np.random.default_rng(options.seed)))
        if not options.json:
            print(f"{scenario.name} ({scenario.weight:.0%}) done", file=sys.stderr, flush=True)
    report = {
        "name": "rollout_decisions",
        "machine": common.machine(),
        "rows": rows,
        "headline": headline(rows),
    }
    if options.json:
        print(json.dumps(report))
        return
    print(common.table(rows))
    print("\n" + "\n".join(f"{key} {value}" for key, value in headline(rows).items()))


def headline(rows: list[dict[str, Any]]) -> dict[str, float]:
    """Return the figures that the documentation quotes."""
    good = [row for row in rows if row["good"]]
    runs = sum(row["runs"] for row in good)
    wrong = sum(row["stopped_%"] * row["runs"] for row in good) / runs
    equal = [row for row in good if row["scenario"] == "equal"]

    def after(scenario: str, canary: str) -> float:
        found = (r for r in rows if (r["scenario"], r["canary"]) == (scenario, canary))
        return float(next(found)["after_median"])

    def mean(column: str) -> float:
        return round(float(np.mean([row[column] for row in equal])), 1)

    return {
        "false_rollbacks_%": round(wrong, 3),
        "bare_ratio_false_rollbacks_%": round(
            sum(r["bare_ratio_%"] for r in equal) / len(equal), 1
        ),
        "requests_to_catch_2x_at_5%": after("2 x slower", "5 %"),
        "requests_to_catch_10%_errors_at_5%": after("10 % errors", "5 %"),
        "requests_to_catch_10%_errors_at_25%": after("10 % errors", "25 %"),
    }


def measure(
    scenario: Scenario, runs: int, requests: int, rng: np.random.Generator
) -> dict[str, Any]:
    """Return one row of the table: `requests` canary requests a run."""
    stops: list[int] = []
    tests: Counter[str] = Counter()
    bare = window = 0
    for _ in range(runs):
        baseline, canary = draw(scenario, requests, rng)
        bare += bare_ratio(baseline, canary)
        window += bare_ratio(baseline, canary, window=True)
        found = judge(baseline, canary, LIMITS)
        if found.verdict == "fail":
            stopped, name = first_stop(baseline, canary)
            stops.append(stopped)
            tests[name] += 1
    begun = round(scenario.starts_at * requests)
    late = [max(0, stop - begun) for stop in stops]
    return {
        "scenario": scenario.name,
        "canary": f"{scenario.weight:.0%}".replace("%", " %"),
        "good": scenario.good,
        "runs": runs,
        "stopped_%": round(100 * len(stops) / runs, 2),
        "after_median": float(np.median(late)) if late else float("nan"),
        "after_p90": float(np.quantile(late, 0.9)) if late else float("nan"),
        "by": tests.most_common(1)[0][0] if tests else "",
        "bare_ratio_%": round(100 * bare / runs, 1),
        "bare_window_%": round(100 * window / runs, 1),
    }


def draw(scenario: Scenario, requests: int, rng: np.random.Generator) -> tuple[ArmLog, ArmLog]:
    """Return both arms' logs, with `requests` canary requests on average."""
    count = round(requests / scenario.weight)
    at = np.arange(count, dtype=np.float64)
    place = at / count
    is_canary = rng.random(count) < scenario.weight
    harmed = is_canary & (place >= scenario.starts_at)
    latency = MEDIAN_MS * rng.lognormal(0.0, SPREAD, count)
    if scenario.swing:
        latency *= 1 + (scenario.swing - 1) * (0.5 + 0.5 * np.sin(place * 6 * np.pi))
    share, factor = scenario.tail
    latency = np.where(harmed & (rng.random(count) < share), latency * factor, latency)
    latency = np.where(harmed, latency * scenario.slower, latency)
    rate = np.where(harmed, scenario.errors, BASE_ERRORS)
    if scenario.outage:
        rate = np.where((place > 0.4) & (place < 0.6), scenario.outage, rate)
    failed = rng.random(count) < rate

    def arm(keep: NDArray[np.bool_]) -> ArmLog:
        none, step = np.zeros(int(keep.sum()), bool), np.zeros(int(keep.sum()), np.int64)
        return ArmLog(at[keep], latency[keep], failed[keep], none, step)

    return arm(~is_canary), arm(is_canary)


def first_stop(baseline: ArmLog, canary: ArmLog) -> tuple[int, str]:
    """Return after how many canary requests the verdict became fail, and by which test."""
    low, high = 0, len(canary)
    while high - low > 1:
        middle = (low + high) // 2
        seen = upto(baseline, canary, middle)
        low, high = (low, middle) if judge(*seen, LIMITS).verdict == "fail" else (middle, high)
    evidence = judge(*upto(baseline, canary, high), LIMITS).evidence
    peaks = {name: test["peak"] for name, test in evidence.get("tests", {}).items()}
    return high, max(peaks, key=lambda name: peaks[name]) if peaks else "hard fault"


def upto(baseline: ArmLog, canary: ArmLog, count: int) -> tuple[ArmLog, ArmLog]:
    """Return what both logs held when the canary had `count` requests."""
    last = canary.at[count - 1]
    return cut(baseline, baseline.at <= last), cut(canary, canary.at <= last)


def cut(arm: ArmLog, keep: NDArray[np.bool_]) -> ArmLog:
    """Return the part of a log that `keep` marks."""
    pick: Callable[[NDArray[Any]], NDArray[Any]] = lambda values: values[keep]  # noqa: E731
    return replace(
        arm,
        at=pick(arm.at),
        latency_ms=pick(arm.latency_ms),
        failed=pick(arm.failed),
        flagged=pick(arm.flagged),
        step=pick(arm.step),
    )


def bare_ratio(baseline: ArmLog, canary: ArmLog, *, window: bool = False) -> bool:
    """Return whether p99 > 1.2 x baseline at any look; `window`: of what came since the last."""
    for count in range(LOOK_EVERY, len(canary) + 1, LOOK_EVERY):
        begin = count - LOOK_EVERY if window else 0
        since, until = canary.at[begin], canary.at[count - 1]
        beside = baseline.latency_ms[(baseline.at >= since) & (baseline.at <= until)]
        if len(beside) < LOOK_EVERY // 2:
            continue
        ours = np.quantile(canary.latency_ms[begin:count], 0.99)
        if ours > LIMITS.latency * np.quantile(beside, 0.99):
            return True
    return False


if __name__ == "__main__":
    main()
