"""How often an A/B report is wrong although it is looked at all the time, and how soon it is right.

Users come back as they like and are unlike each other; their answers are drawn at random, and the
report's own functions look at them again and again. Three tables:

- no difference: the share of tests in which any look excluded the truth, for our intervals and
  for the usual 95 % interval (1.96 standard errors, clustered by user, or not).
- a difference: the share of tests that find it, and after how many users (median).
- the split: false alarms of the test for sample ratio mismatch, and how soon it sees a lost tenth.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tutelage.feedback.ab.balance import ALPHA, log_e_path
from tutelage.feedback.ab.effect import BURN_IN, Design, Values, arm_of, effect_of, scale_of

sys.path.insert(0, str(Path(__file__).resolve().parent))
import common

RISK = 0.05
LOOKS = 60


@dataclass(frozen=True)
class Case:
    """How answers are drawn: users' own rates are Beta(mean k, (1 - mean) k)."""

    name: str
    requests: int
    users: int
    mean: float | None  # of the stable release's answers, 0..1; None: log-normal amounts
    alike: float = 1e6  # k: the smaller, the less users are alike
    heavy: float = 1.0  # of the Dirichlet law of requests over users: the smaller, the heavier
    split: float = 0.5
    told: float = 1.0  # share of the answers that have a value
    better: float = 0.0  # the candidate's mean minus the stable release's


NULL = (
    Case("one answer a user, half good", 3000, 100_000, 0.5),
    Case("one answer a user, 2 % good", 3000, 100_000, 0.02),
    Case("one answer a user, 10 % get the candidate", 4000, 100_000, 0.9, split=0.1),
    Case("users return and differ", 5000, 500, 0.5, alike=1.0),
    Case("a few users send most", 5000, 500, 0.7, alike=2.0, heavy=0.3),
    Case("5 % of the answers are rated", 12_000, 1500, 0.7, alike=3.0, told=0.05),
    Case("log-normal amounts, users differ", 4000, 400, None),
)
REAL = (
    Case("0.70 to 0.80, one answer a user", 4000, 100_000, 0.7, better=0.1),
    Case("0.70 to 0.75, one answer a user", 8000, 100_000, 0.7, better=0.05),
    Case("0.70 to 0.80, users return", 8000, 2000, 0.7, alike=3.0, better=0.1),
)


def draw(case: Case, rng: np.random.Generator) -> tuple[Values, np.ndarray]:
    """Return the values of one test in order, and how many users had come at each."""
    weights = rng.dirichlet(np.full(case.users, case.heavy))
    user = rng.choice(case.users, case.requests, p=weights)
    _, first, codes = np.unique(user, return_index=True, return_inverse=True)
    rank = np.empty(len(first), dtype=np.int64)
    rank[np.argsort(first)] = np.arange(len(first))
    user = rank[codes]
    arms = rng.random(len(first)) < case.split
    if case.mean is None:
        value = rng.normal(0, 0.5, len(first))[user] + rng.lognormal(0, 1, case.requests)
    else:
        mean = case.mean + case.better * arms
        rate = rng.beta(mean * case.alike, (1 - mean) * case.alike)
        value = (rng.random(case.requests) < rate[user]).astype(float)
    keep = rng.random(case.requests) < case.told
    at = np.arange(case.requests, dtype=float)
    come = np.maximum.accumulate(user) + 1
    return Values(user[keep], arms[user][keep], value[keep], at[keep]), come[keep]


def looks(case: Case, rng: np.random.Generator) -> dict[str, int | None]:
    """Return after how many users each rule first excluded "no difference" (None: never)."""
    values, come = draw(case, rng)
    bounded = case.mean is not None
    scale = scale_of(values, come, Design(case.split, RISK), bounded=bounded)
    found: dict[str, int | None] = {"ours": None, "usual": None, "not clustered": None}
    if scale is None:
        return found
    places = np.arange(len(values))
    for end in np.unique(np.geomspace(scale.since, len(values), LOOKS).astype(int)):
        some = values.only(places < end)
        effect = effect_of(some, scale, RISK, bounded=bounded)
        one = Values(some.at.astype(np.int64), some.candidate, some.value, some.at)
        plain = sum(arm_of(one.only(one.candidate == arm), bounded=bounded).variance
                    for arm in (False, True))  # fmt: skip
        clustered = effect.stable.variance + effect.candidate.variance
        hits = {
            "ours": effect.decided != 0,
            "usual": abs(effect.difference) > 1.96 * clustered**0.5,
            "not clustered": abs(effect.difference) > 1.96 * plain**0.5,
        }
        for name, hit in hits.items():
            if hit and found[name] is None:
                found[name] = int(come[end - 1])
    return found


def rows_of(cases: tuple[Case, ...], runs: int, seed: int) -> list[dict[str, Any]]:
    """Return a row a case: the share of tests with a hit by each rule, and our median users."""
    rows = []
    for case in cases:
        rng = np.random.default_rng(seed)
        found = [looks(case, rng) for _ in range(runs)]
        row: dict[str, Any] = {"case": case.name, "tests": runs}
        for rule in ("ours", "usual", "not clustered"):
            row[rule] = sum(one[rule] is not None for one in found) / runs
        when = [one["ours"] for one in found if one["ours"] is not None]
        row["median_users"] = float(np.median(when)) if when else None
        rows.append(row)
        print(_line(row), file=sys.stderr)
    return rows


def splits(runs: int, seed: int) -> list[dict[str, Any]]:
    """Return how often the split's test alarms, looked at after each of 20,000 users."""
    rows = []
    for name, asked, real in (
        ("as asked, 50 %", 0.5, 0.5),
        ("as asked, 5 %", 0.05, 0.05),
        ("a tenth of the candidate's users lost, 50 %", 0.5, 0.9 / 1.9),
        ("a third lost, 50 %", 0.5, 2 / 5),
    ):
        rng = np.random.default_rng(seed)
        when = []
        for _ in range(runs):
            path = log_e_path(rng.random(20_000) < real, asked)
            hit = path >= np.log(1 / ALPHA)
            when.append(int(np.argmax(hit)) + 1 if hit.any() else None)
        seen = [at for at in when if at is not None]
        rows.append(
            {
                "case": f"split: {name}",
                "tests": runs,
                "ours": len(seen) / runs,
                "median_users": float(np.median(seen)) if seen else None,
            }
        )
        print(_line(rows[-1]), file=sys.stderr)
    return rows


def _line(row: dict[str, Any]) -> str:
    usual = f"{row['usual']:7.1%} {row['not clustered']:7.1%}" if "usual" in row else " " * 15
    users = "" if row["median_users"] is None else f"{row['median_users']:,.0f} users"
    return f"{row['case']:<52} {row['tests']:>6} {row['ours']:7.1%} {usual}  {users}"


def main() -> None:
    """Print the tables, or one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="200 tests a case")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--seed", type=int, default=7)
    asked = parser.parse_args()
    runs = 200 if asked.quick else 2000
    heads = f"{'case':<52} {'tests':>6} {'ours':>7} {'usual':>7} {'plain':>7}  median"
    print(heads, file=sys.stderr)
    null = rows_of(NULL, runs, asked.seed)
    real = rows_of(REAL, max(50, runs // 4), asked.seed)
    split = splits(runs, asked.seed)
    headline = {
        "false_worst": max(row["ours"] for row in null),
        "false_usual_worst": max(row["usual"] for row in null),
        "found_least": min(row["ours"] for row in real),
        "split_false_worst": max(row["ours"] for row in split[:2]),
        "burn_in": BURN_IN,
    }
    if asked.json:
        rows = [*null, *real, *split]
        found = {"name": "ab", "machine": common.machine(), "rows": rows, "headline": headline}
        print(json.dumps(found))
    else:
        print("\n".join(f"{name}: {value:.3g}" for name, value in headline.items()))


if __name__ == "__main__":
    main()
