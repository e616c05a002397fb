"""Live evaluation: how often it is wrong, how soon it is right, and what it costs.

- lives: releases whose answers are right as often as those of the release before (false alarms in
  their whole life, looked at after every score), and releases that are worse from the start or
  from some score on (how many scores until it is told). Everything is drawn anew in each life, the
  release before included. "without drop": any fall counts, however small. "bare" is the usual
  interval of 95 % (two proportions, Wald), looked at after every score; any fall counts there too.
- bounds: how often the shown bounds ever miss the true mean.
- speed: answers a second that are drawn, checked and kept (SQLite, no judge), and what one look at
  a release with so many scores takes.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tutelage.core.artifact import utc_now
from tutelage.core.config_live import LiveEvaluation
from tutelage.feedback.live.bounds import fall_capital, lower_bound, mean_bounds

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parent))
import common

Floats = NDArray[np.float64]
BEFORE = 2_000  # scores of the release before
SETTINGS = LiveEvaluation(checks=["format"])


@dataclass(frozen=True)
class Life:
    """One kind of release: its mean before and after the change, against `usual`."""

    name: str
    usual: float
    after: float
    change: int = 0  # scores before it changes

    @property
    def good(self) -> bool:
        return self.after >= self.usual

    def draw(self, rng: np.random.Generator, scores: int) -> Floats:
        fine = rng.random(self.change) < self.usual
        rest = rng.random(scores - self.change) < self.after
        return np.concatenate((fine, rest)).astype(float)


LIVES = (
    Life("as good, 95 %", 0.95, 0.95),
    Life("as good, 80 %", 0.80, 0.80),
    Life("20 points worse", 0.95, 0.75),
    Life("10 points worse", 0.95, 0.85),
    Life("5 points worse", 0.95, 0.90),
    Life("10 points worse after 2,000 scores", 0.95, 0.85, 2_000),
)


def lives(runs: int, scores: int, seed: int) -> Iterator[dict[str, Any]]:
    """Yield a row for each kind of release."""
    part = SETTINGS.alpha / 2
    for life in LIVES:
        rng = np.random.default_rng(seed)
        told: list[int] = []
        naive = strict = 0
        for _ in range(runs):
            before = (rng.random(BEFORE) < life.usual).astype(float)
            values = life.draw(rng, scores)
            known = lower_bound(Counter(before.tolist()), part)
            path = fall_capital(values, known - SETTINGS.drop)
            over = np.flatnonzero(path >= np.log(1 / part))
            if len(over):
                told.append(int(over[0]) + 1 - life.change)
            strict += bool(fall_capital(values, known).max() >= np.log(1 / part))
            naive += bare(values, before)
        late = [count for count in told if count > 0]
        yield {
            "table": "lives", "name": life.name, "good": life.good, "runs": runs,
            "scores": scores, "told": len(told) / runs, "told_without_drop": strict / runs,
            "bare_told": naive / runs,
            "median": float(np.median(late)) if late else None,
            "p90": float(np.quantile(late, 0.9)) if late else None,
        }  # fmt: skip


def bare(values: Floats, before: Floats) -> bool:
    """Return whether the usual interval of the difference is ever under zero, from 30 scores on."""
    n = np.arange(1, len(values) + 1)
    mean, other = np.cumsum(values) / n, before.mean()
    spread = mean * (1 - mean) / n + other * (1 - other) / len(before)
    return bool((mean + 1.96 * np.sqrt(spread) < other)[29:].any())


def bounds(runs: int, scores: int, seed: int) -> Iterator[dict[str, Any]]:
    """Yield how often the bounds miss, at 40 looks spread over a life."""
    looks = np.unique(np.geomspace(1, scores, 40).astype(int))
    for mean in (0.5, 0.9, 0.99):
        rng = np.random.default_rng(seed)
        missed, widths = 0, []
        for _ in range(runs):
            values = (rng.random(scores) < mean).astype(float)
            found = [mean_bounds(Counter(values[:n].tolist()), 0.05) for n in looks]
            missed += any(not one.low <= mean <= one.high for one in found)
            widths.append(found[-1].high - found[-1].low)
        yield {
            "table": "bounds", "mean": mean, "runs": runs, "scores": scores,
            "missed": missed / runs, "width": float(np.mean(widths)),
        }  # fmt: skip


def speed(answers: int) -> dict[str, Any]:
    """Return what scoring and looking take, in a store of its own."""
    from tests.unit.feedback.live_rows import WARM, live_project, log_answers

    from tutelage.feedback.live.scoring import Scoring
    from tutelage.workflows.feedback.live_evaluation import make_parts

    with tempfile.TemporaryDirectory() as folder:
        ctx = live_project(Path(folder) / "project", {"share": 1.0})
        log_answers(ctx, [WARM] * answers)
        worker = Scoring(ctx.store, make_parts(ctx))
        began, used = time.perf_counter(), time.process_time()
        worker.draw(utc_now() - timedelta(days=1))
        while worker.step():
            pass
        took, cpu = time.perf_counter() - began, time.process_time() - used
        ctx.store.close()
    values = np.random.default_rng(0).random(100_000) < 0.9
    began = time.perf_counter()
    fall_capital(values, 0.85)
    look = time.perf_counter() - began
    return {
        "table": "speed", "answers": answers, "answers_per_s": answers / took,
        "cpu_ms_an_answer": 1000 * cpu / answers, "look_at_100000_scores_s": look,
    }  # fmt: skip


def main() -> None:
    """Run the tables; print them, or one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=400, help="lives of each kind")
    parser.add_argument("--scores", type=int, default=5_000, help="scores of a life")
    parser.add_argument("--answers", type=int, default=5_000, help="answers that are scored")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--quick", action="store_true", help="a quarter of the lives")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    if given.quick:
        given.runs, given.answers = 100, 1_000
    rows = []
    for row in (
        *lives(given.runs, given.scores, given.seed),
        *bounds(given.runs // 2, given.scores, given.seed),
        speed(given.answers),
    ):
        rows.append(row)
        if not given.json:
            print(json.dumps(row))
    good = [row for row in rows if row.get("good")]
    harm = next(row for row in rows if row.get("name") == "10 points worse")
    headline = {
        "false_alarms_a_life": max(row["told_without_drop"] for row in good),
        "bare_false_alarms_a_life": max(row["bare_told"] for row in good),
        "scores_to_tell_10_points": harm["median"],
        "answers_per_s": rows[-1]["answers_per_s"],
    }
    if given.json:
        shown = {"name": "live", "machine": common.machine(), "rows": rows, "headline": headline}
        print(json.dumps(shown))
    else:
        print(json.dumps(headline))


if __name__ == "__main__":
    main()
