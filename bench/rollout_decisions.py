"""How often a rollout is stopped, rightly and wrongly: the sequential tests against a bare ratio.

Requests of both arms are drawn at random (log-normal latencies, rare errors) and put through
`release.rollback.judge` and `release.rollout.advance`. Four tables:

- fixed share: a run counts as stopped if any look, after any request, would have said fail. The
  bare ratio is the rule p99 > 1.2 x baseline, looked at every 50 canary requests: over all
  requests so far, or (window) over those since the last look.
- whole rollouts by the default steps 1, 5, 25, 100 %: promoted or rolled back, after how many
  canary requests.
- users: at a fixed share, where users keep their release and send requests in bursts; beside it
  the same requests judged as if each were another user's.
- live scores: a candidate as good as stable and one 5 points worse, with every answer scored and
  with one in fifty.
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

from common_rollouts import Log, Scenario, fixed, with_history
from tutelage.core.config import Deploy, Limits
from tutelage.release.arms import ArmLog
from tutelage.release.rollback import judge, unseen
from tutelage.release.rollout import Counts, RolloutPlan, RolloutState, advance
from tutelage.release.strategies.canary import Canary

sys.path.insert(0, str(Path(__file__).resolve().parent))
import common

LIMITS = Limits()
LOOK_EVERY = 50  # canary requests, for the bare ratio
MOST = 8000  # canary requests of a whole rollout

FIXED = (
    Scenario("equal", True),
    Scenario("equal", True, 0.25),
    Scenario("equal", True, 0.5),
    Scenario("at the limit, 1.2 x", True, 0.25, slower=1.2),
    Scenario("load swings 3 x", True, 0.25, swing=3.0),
    Scenario("outage of both arms", True, 0.25, outage=0.6),
    Scenario("2 x slower", False, slower=2.0),
    Scenario("2 x slower", False, 0.25, slower=2.0),
    Scenario("2 x slower, wide spread", False, 0.25, slower=2.0, spread=0.8),
    Scenario("1.5 x slower", False, slower=1.5),
    Scenario("1.5 x slower", False, 0.25, slower=1.5),
    Scenario("1.5 x slower, wide spread", False, 0.25, slower=1.5, spread=0.8),
    Scenario("5 % are 4 x slower", False, tail=(0.05, 4.0)),
    Scenario("2 x from half way", False, 0.25, slower=2.0, starts_at=0.5),
    Scenario("10 % errors", False, errors=0.10),
    Scenario("10 % errors", False, 0.25, errors=0.10),
    Scenario("5 % errors", False, errors=0.05),
    Scenario("20 % flagged", False, 0.25, flags=0.20),
)
WHOLE = (
    Scenario("equal", True),
    Scenario("at the limit, 1.2 x", True, slower=1.2),
    Scenario("load swings 3 x", True, swing=3.0),
    Scenario("outage of both arms", True, outage=0.6),
    Scenario("2 x slower", False, slower=2.0),
    Scenario("1.5 x slower", False, slower=1.5),
    Scenario("10 % errors", False, errors=0.10),
    Scenario("5 % errors", False, errors=0.05),
    Scenario("20 % flagged", False, flags=0.20),
)
USERS = (
    Scenario("500 users", True, 0.25, users=500),
    Scenario("500 users, bursts of 8", True, 0.25, users=500, burst=8, moment=0.5),
    Scenario("500 users, bursts of 20", True, 0.25, users=500, burst=20, moment=0.5),
    Scenario("500 users, a third 3 x slower", True, 0.25, users=500, heavy=0.33),
    Scenario("60 users, a third 3 x slower", True, 0.25, users=60, heavy=0.33),
    Scenario("2 x slower, 500 users", False, 0.25, slower=2.0, users=500),
    Scenario("2 x slower, bursts of 8", False, 0.25, slower=2.0, users=500, burst=8, moment=0.5),
    Scenario("2 x slower, 60 users", False, 0.25, slower=2.0, users=60, heavy=0.33),
    Scenario("10 % errors, bursts of 8", False, 0.25, errors=0.1, users=500, burst=8, moment=0.5),
)
SCORED = (
    Scenario("equal, all scored", True, scored=1.0),
    Scenario("5 points worse, all scored", False, scored=1.0, points=5.0),
    Scenario("15 points worse, all scored", False, scored=1.0, points=15.0),
    Scenario("5 points worse, 2 % scored", False, scored=0.02, points=5.0),
)


@dataclass(frozen=True)
class Size:
    """How much of it is run."""

    shared: tuple[int, int]  # runs of good and bad candidates at a fixed share
    good: int  # whole rollouts
    bad: int
    scored: int
    requests: int = 500  # canary requests of a run at a fixed share
    most: int = 1000  # the same where the harm is slow to show


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print one JSON object alone")
    parser.add_argument("--quick", action="store_true", help="fewer runs a scenario")
    parser.add_argument(
        "--only", choices=("fixed", "users", "whole", "scored"), help="one of the tables"
    )
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    size = Size((100, 40), 100, 40, 20) if options.quick else Size((300, 100), 1000, 200, 200)
    tables = [options.only] if options.only else list(TABLES)
    rows = [row for name in tables for row in TABLES[name](size, options.seed, options.json)]
    report = {
        "name": "rollout_decisions",
        "machine": common.machine(),
        "rows": rows,
        "headline": headline(rows),
    }
    if options.json:
        print(json.dumps(report))
        return
    for table in tables:
        of_it = [row for row in rows if row["table"] == table]
        hidden = ("table", "last_not_seen")
        shown = [{k: v for k, v in row.items() if k not in hidden} for row in of_it]
        print(f"{common.table(shown)}\n")
    print("\n".join(f"{key} {value}" for key, value in report["headline"].items()))


def fixed_rows(size: Size, seed: int, quiet: bool) -> list[dict[str, Any]]:
    """Return the rows at a fixed share."""
    rows = []
    for scenario in FIXED:
        runs = size.shared[0] if scenario.good else size.shared[1]
        requests = size.most if scenario.slower == 1.5 else size.requests
        rng = np.random.default_rng(seed)
        rows.append({"table": "fixed", **at_a_share(scenario, runs, requests, rng)})
        _told(rows[-1], quiet=quiet)
    return rows


def users_rows(size: Size, seed: int, quiet: bool) -> list[dict[str, Any]]:
    """Return the rows of users who ask more than once."""
    rows = []
    for scenario in USERS:
        runs = size.shared[0] if scenario.good else size.shared[1]
        rng = np.random.default_rng(seed)
        rows.append({"table": "users", **by_users(scenario, runs, size.most, rng)})
        _told(rows[-1], quiet=quiet)
    return rows


def whole_rows(size: Size, seed: int, quiet: bool) -> list[dict[str, Any]]:
    """Return the rows of whole rollouts."""
    rows, plan = [], Canary().plan(Deploy())
    for scenario in WHOLE:
        runs = size.good if scenario.good else size.bad
        rng = np.random.default_rng(seed)
        rows.append({"table": "whole", **rollouts(scenario, runs, plan, rng)})
        _told(rows[-1], quiet=quiet)
    return rows


def scored_rows(size: Size, seed: int, quiet: bool) -> list[dict[str, Any]]:
    """Return the rows of whole rollouts with live scores."""
    rows, plan = [], Canary().plan(Deploy())
    for scenario in SCORED:
        runs = size.scored if scenario.good else min(size.scored, size.bad)
        rng = np.random.default_rng(seed)
        rows.append({"table": "scored", **rollouts(scenario, runs, plan, rng)})
        _told(rows[-1], quiet=quiet)
    return rows


TABLES: dict[str, Callable[[Size, int, bool], list[dict[str, Any]]]] = {
    "fixed": fixed_rows,
    "users": users_rows,
    "whole": whole_rows,
    "scored": scored_rows,
}


def _told(row: dict[str, Any], *, quiet: bool) -> None:
    if not quiet:
        print(f"{row['table']}: {row['scenario']} done", file=sys.stderr, flush=True)


def headline(rows: list[dict[str, Any]]) -> dict[str, float]:
    """Return the figures that the documentation quotes, of the tables that were run."""
    at_share = [row for row in rows if row["table"] == "fixed"]
    good = [row for row in at_share if row["good"]]
    equal = [row for row in good if row["scenario"] == "equal"]
    found: dict[str, float] = {}
    if good:
        runs = sum(row["runs"] for row in good)
        stopped = sum(row["stopped_%"] * row["runs"] for row in good)
        bare = sum(row["bare_ratio_%"] for row in equal) / len(equal)
        found["false_rollbacks_%"] = round(stopped / runs, 3)
        found["bare_ratio_false_rollbacks_%"] = round(bare, 1)
    for key, (table, scenario, column, canary) in QUOTED.items():
        for row in rows:
            if (row["table"], row["scenario"]) == (table, scenario) and (
                canary is None or row["canary"] == canary
            ):
                found[key] = float(row[column])
    return found


QUOTED: dict[str, tuple[str, str, str, str | None]] = {
    "2x_caught_in_200_%": ("whole", "2 x slower", "caught_in_200_%", None),
    "10%_errors_caught_in_200_%": ("whole", "10 % errors", "caught_in_200_%", None),
    "1.5x_caught_in_1000_%": ("whole", "1.5 x slower", "caught_in_1000_%", None),
    "requests_to_catch_2x_at_5%": ("fixed", "2 x slower", "after_median", "5 %"),
    "requests_to_catch_10%_errors_at_5%": ("fixed", "10 % errors", "after_median", "5 %"),
    "equal_promoted_%": ("whole", "equal", "promoted_%", None),
    "equal_rolled_back_%": ("whole", "equal", "rolled_back_%", None),
    "outage_rolled_back_%": ("whole", "outage of both arms", "rolled_back_%", None),
    "equal_scored_promoted_%": ("scored", "equal, all scored", "promoted_%", None),
    "5_points_worse_promoted_%": ("scored", "5 points worse, all scored", "promoted_%", None),
}


def at_a_share(
    scenario: Scenario, runs: int, requests: int, rng: np.random.Generator
) -> dict[str, Any]:
    """Return one row: about `requests` canary requests a run at one share."""
    stops: list[int] = []
    tests: Counter[str] = Counter()
    bare = window = 0
    for _ in range(runs):
        log = fixed(scenario, requests, rng)
        baseline, canary = log.arms()
        bare += bare_ratio(baseline, canary)
        window += bare_ratio(baseline, canary, window=True)
        if judge(baseline, canary, LIMITS).verdict == "fail":
            stopped, name = first_stop(log, len(canary))
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
        "within_200_%": round(100 * sum(stop <= 200 for stop in late) / runs, 1),
        "after_median": float(np.median(late)) if late else float("nan"),
        "after_p90": round(float(np.quantile(late, 0.9)), 1) if late else float("nan"),
        "by": tests.most_common(1)[0][0] if tests else "",
        "bare_ratio_%": round(100 * bare / runs, 1),
        "bare_window_%": round(100 * window / runs, 1),
    }


def by_users(
    scenario: Scenario, runs: int, requests: int, rng: np.random.Generator
) -> dict[str, Any]:
    """Return one row: how often a candidate is stopped, with and without looking at users."""
    stopped = {True: 0, False: 0}
    for _ in range(runs):
        log = fixed(scenario, requests, rng)
        before = log.history()
        for by_user in stopped:
            known = before if by_user else replace(before, user=None)
            baseline, canary = log.arms(by_user=by_user)
            verdict = judge(with_history(baseline, known), canary, LIMITS)
            stopped[by_user] += verdict.verdict == "fail"
    return {
        "scenario": scenario.name,
        "good": scenario.good,
        "runs": runs,
        "canary_requests": requests,
        "stopped_%": round(100 * stopped[True] / runs, 2),
        "stopped_by_request_%": round(100 * stopped[False] / runs, 2),
    }


def first_stop(log: Log, total: int) -> tuple[int, str]:
    """Return after how many canary requests the verdict became fail, and by which test."""
    low, high = 0, total
    while high - low > 1:
        middle = (low + high) // 2
        failed = judge(*log.arms(middle), LIMITS).verdict == "fail"
        low, high = (low, middle) if failed else (middle, high)
    evidence = judge(*log.arms(high), LIMITS).evidence
    peaks = {name: test["peak"] for name, test in evidence.get("tests", {}).items()}
    return high, max(peaks, key=lambda name: peaks[name]) if peaks else "hard fault"


def rollouts(
    scenario: Scenario, runs: int, plan: RolloutPlan, rng: np.random.Generator
) -> dict[str, Any]:
    """Return one row: what became of whole rollouts by a plan."""
    ends: Counter[str] = Counter()
    seen: list[int] = []
    caught: list[int] = []
    hidden = ""
    for _ in range(runs):
        end, requests, hidden = journey(scenario, plan, rng)
        ends[end] += 1
        seen.append(requests)
        if end == "rolled_back":
            caught.append(requests)
    return {
        "scenario": scenario.name,
        "good": scenario.good,
        "runs": runs,
        **{f"{end}_%": round(100 * ends[end] / runs, 2)
           for end in ("promoted", "rolled_back", "waits")},
        "caught_in_200_%": round(100 * sum(n <= 200 for n in caught) / runs, 1),
        "caught_in_1000_%": round(100 * sum(n <= 1000 for n in caught) / runs, 1),
        "requests_median": float(np.median(seen)),
        "requests_p90": round(float(np.quantile(seen, 0.9)), 1),
        "last_not_seen": hidden,
    }  # fmt: skip


def journey(
    scenario: Scenario, plan: RolloutPlan, rng: np.random.Generator
) -> tuple[str, int, str]:
    """Return how one rollout ends, after how many canary requests, and what it did not see.

    It is looked at when a step has enough requests and then as more come; a fail of any moment
    before is a fail then too.
    """
    state = RolloutState(plan, "running")
    log = Log(scenario, rng, _expected(plan))
    before = log.history()
    here = total = 0
    hidden = ""
    while total < MOST:
        wanted = max(_needed(plan, state.step, here, total), _pace(total))
        got = log.draw(max(1, round(wanted / plan.steps[state.step] * 100)),
                       plan.steps[state.step] / 100, state.step)  # fmt: skip
        here, total = here + got, total + got
        baseline, canary = log.arms()
        baseline, scores = with_history(baseline, before), log.scores()
        verdict = judge(baseline, canary, LIMITS, scores)
        move = advance(state, verdict, Counts(here, total))
        if move is None:
            continue
        if move.to in ("promoted", "rolled_back"):
            return move.to, total, hidden
        if move.step != state.step:
            here = 0
            if move.weight >= 100:
                hidden = "; ".join(unseen(baseline, canary, LIMITS, scores))
        note = {str(move.evidence["note"])} if "note" in move.evidence else set()
        noted = frozenset() if move.step != state.step else state.noted | note
        state = RolloutState(plan, move.to, move.step, noted)
    return "waits", total, hidden


def _needed(plan: RolloutPlan, step: int, here: int, total: int) -> int:
    """Return how many canary requests are missing for the next step."""
    last = step == len(plan.steps) - 1
    to_all = last or plan.steps[step + 1] >= 100
    return max(plan.min_requests - here, plan.min_total - total if to_all else 0)


def _pace(total: int) -> int:
    """Return how many canary requests are drawn between two looks."""
    return 10 if total < 500 else 100


def _expected(plan: RolloutPlan) -> int:
    """Return about how many requests of both arms a rollout takes, without waiting."""
    last_small = plan.min_total - plan.min_requests * (len(plan.steps) - 2)
    small = sum(plan.min_requests / step for step in plan.steps[:-2])
    return round(100 * (small + last_small / plan.steps[-2]) + plan.min_requests)


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
