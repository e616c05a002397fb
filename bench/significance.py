"""Whether intervals, verdicts and printed power are what they say: candidates compared with equals.

Every trial draws rows, scores of two candidates that are truly equal, and asks
`evaluation.significance` as an evaluation does. Counted are false "better" (the interval lies
above 0), how often intervals hold the truth, and, in a second draw whose true effect is the
smallest detectable one that the first printed, how often the effect is found. Four kinds of
scores: 0/1 and graded, each alone and in clusters of 1 to 12 rows that share what they are.
Rates, discordance and cluster effects differ from trial to trial, as they do between projects.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tutelage.evaluation import significance
from tutelage.evaluation.significance import mean_interval, paired_difference
from tutelage.evaluation.significance_cluster import cluster_codes
from tutelage.evaluation.significance_family import corrected
from tutelage.evaluation.significance_margin import non_inferior
from tutelage.evaluation.significance_power import power_of_rate, rows_needed
from tutelage.evaluation.significance_ppi import ppi_mean
from tutelage.evaluation.significance_resample import bootstrap_means, sign_flip

sys.path.insert(0, str(Path(__file__).resolve().parent))
import common

SIZES = (50, 100, 500)
BANDS = {"false_better": (0.0, 0.05), "coverage": (0.93, 0.97), "power": (0.75, 0.85)}
Array = NDArray[np.float64]
Generator = np.random.Generator


@dataclass(frozen=True)
class Drawn:
    """Scores of two candidates on the same rows, the clusters, and the true mean of each."""

    a: Array
    b: Array
    clusters: list[int] | None
    truth: float  # of b
    effect: float  # of a − b


Draw = Callable[[Generator, int, float, int], Drawn]  # (generator, rows, effect, trial)


def _sizes(generator: Generator, n: int) -> NDArray[np.int64]:
    """Return the cluster of each row: sizes 1 to 12, three on average, as near-duplicates have."""
    sizes = np.minimum(12, generator.geometric(1 / 3, size=n))
    return np.repeat(np.arange(n), sizes)[:n]


def _setting(trial: int) -> Generator:
    """Return the generator of what a trial's project is like: the same for both of its draws."""
    return np.random.default_rng([7, trial])


def rates(generator: Generator, n: int, effect: float, trial: int, grouped: bool = False) -> Drawn:
    """0/1 scores: a share of the rows differ; in clusters some differ together, to one side."""
    setting = _setting(trial)
    right, differ = setting.uniform(0.5, 0.9), setting.uniform(0.08, 0.4)
    differ = max(differ, effect)
    together = setting.uniform(0.2, 0.6) if grouped else 0.0
    codes = _sizes(generator, n) if grouped else np.arange(n)
    groups = int(codes.max()) + 1
    share = (1 + effect / differ) / 2
    shared = (generator.random(groups) < together)[codes]
    differs = np.where(shared, (generator.random(groups) < differ)[codes],
                       generator.random(n) < differ)  # fmt: skip
    wins = np.where(shared, (generator.random(groups) < share)[codes], generator.random(n) < share)
    both = np.where(shared, (generator.random(groups) < right)[codes], generator.random(n) < right)
    a = np.where(differs, wins, both).astype(float)
    b = np.where(differs, ~wins, both).astype(float)
    truth = differ * (1 - share) + (1 - differ) * right
    return Drawn(a, b, codes.tolist() if grouped else None, truth, effect)


def graded(generator: Generator, n: int, effect: float, trial: int, grouped: bool = False) -> Drawn:
    """Scores like a token F1: skewed, a quarter of them exactly 1; the effect is a shift."""
    setting = _setting(trial)
    together = setting.uniform(0.2, 0.6) if grouped else 0.0
    hard = setting.uniform(1.0, 4.0)
    codes = _sizes(generator, n) if grouped else np.arange(n)
    groups = int(codes.max()) + 1
    scores = []
    shared = generator.beta(hard, 1.5, size=groups)[codes]
    for _ in range(2):
        own = generator.beta(hard, 1.5, size=n)
        topic = generator.beta(hard, 1.5, size=groups)[codes]
        mixed = 0.4 * shared + 0.6 * np.where(
            generator.random(groups)[codes] < together, topic, own
        )
        scores.append(np.where(generator.random(n) < 0.25, 1.0, mixed))
    truth = 0.25 + 0.75 * hard / (hard + 1.5)
    return Drawn(scores[0] + effect, scores[1], codes.tolist() if grouped else None, truth, effect)


def _grouped(draw: Any) -> Draw:
    return lambda generator, n, effect, trial: draw(generator, n, effect, trial, True)


KINDS: dict[str, Draw] = {
    "0/1": rates,
    "graded": graded,
    "0/1, clusters": _grouped(rates),
    "graded, clusters": _grouped(graded),
}


def equals(kind: str, n: int, trials: int, seed: int) -> dict[str, Any]:
    """Compare equals `trials` times, and then what differs by what was said to be detectable."""
    better = covered = held = found = wide = 0
    effects = []
    draw = KINDS[kind]
    for trial in range(trials):
        generator = np.random.default_rng([seed, n, trial])
        rows = draw(generator, n, 0.0, trial)
        same = paired_difference(rows.a, rows.b, clusters=rows.clusters, seed=trial)
        better += same.low > 0
        covered += same.low <= 0 <= same.high
        mean = mean_interval(rows.b, clusters=rows.clusters, seed=trial)
        held += mean.low <= rows.truth <= mean.high
        effects.append(same.detectable)
        if same.detectable > 1:
            wide += 1
            continue
        rows = draw(generator, n, same.detectable, trial)
        other = paired_difference(rows.a, rows.b, clusters=rows.clusters, seed=trial)
        found += other.low > 0
    return {
        "scores": kind, "rows": n, "false_better": better / trials,
        "coverage_difference": covered / trials, "coverage_mean": held / trials,
        "detectable": round(float(np.median(effects)), 3),
        "power": round(found / max(1, trials - wide), 4),
    }  # fmt: skip


def margins(n: int, trials: int, seed: int) -> dict[str, Any]:
    """How often a candidate that is worse by exactly the margin passes as not worse."""
    passed, margin = 0, 0.05
    for trial in range(trials):
        generator = np.random.default_rng([seed, n, trial, 1])
        rows = rates(generator, n, margin, trial)
        found = non_inferior(rows.b, rows.a, margin, clusters=rows.clusters, seed=trial)
        passed += found.outcome == "pass"
    return {"rows": n, "false_not_worse": passed / trials}


def families(n: int, trials: int, seed: int, size: int = 8) -> dict[str, Any]:
    """How often any of eight equal metrics looks sure, with and without Holm's correction."""
    plain = holm = 0
    for trial in range(trials):
        generator = np.random.default_rng([seed, n, trial, 2])
        family = {}
        for metric in range(size):
            rows = rates(generator, n, 0.0, trial * size + metric)
            family[str(metric)] = paired_difference(rows.a, rows.b).p
        found = corrected(family).values()
        plain += any(c.p <= 0.05 for c in found)
        holm += any(c.sure for c in found)
    return {"rows": n, "metrics": size, "any_sure": plain / trials, "any_sure_holm": holm / trials}


def judged(n: int, trials: int, seed: int) -> dict[str, Any]:
    """Human scores of n rows and a judge's of 1,000: coverage, and the width it saves."""
    hits = alone = 0
    ratios = []
    for trial in range(trials):
        generator = np.random.default_rng([seed, n, trial, 3])
        setting = _setting(trial)
        right, agree = setting.uniform(0.5, 0.9), setting.uniform(0.7, 0.97)
        truth = (generator.random(1000) < right).astype(float)
        judge = np.where(generator.random(1000) < agree, truth, 1 - truth)
        both = ppi_mean(truth[:n], judge[:n], judge)
        single = ppi_mean(truth[:n], judge[:n], judge[:n])
        hits += both.low <= right <= both.high
        alone += single.low <= right <= single.high
        ratios.append((both.high - both.low) / (single.high - single.low))
    return {
        "human rows": n, "coverage": hits / trials, "coverage_humans": alone / trials,
        "width": round(float(np.median(ratios)), 3),
    }  # fmt: skip


def needed(trials: int, seed: int) -> list[dict[str, Any]]:
    """Whether the rows that are said to be needed do see the effect."""
    rows = []
    for effect, discordance in ((0.05, 0.08), (0.05, 0.2), (0.1, 0.3)):
        n = rows_needed(effect, discordance=discordance)
        found = 0
        generator = np.random.default_rng([seed, n])
        for _ in range(trials):
            draw = generator.random(n)
            a = (draw < (discordance + effect) / 2).astype(float)
            b = ((draw >= (discordance + effect) / 2) & (draw < discordance)).astype(float)
            found += paired_difference(a, b).low > 0
        rows.append({
            "effect": effect, "discordance": discordance, "rows needed": n,
            "power": found / trials,
            "power by formula": round(power_of_rate(effect, n, discordance), 3),
        })  # fmt: skip
    return rows


def speed(rows: int = 10_000, rounds: int = 10_000) -> dict[str, Any]:
    """Seconds of one paired bootstrap of that many rows and rounds, and with the sign-flip test."""
    d = np.random.default_rng(0).normal(0.01, 0.3, size=rows)
    started, used = time.perf_counter(), time.process_time()
    bootstrap_means(d, cluster_codes(None, rows), 0, rounds)
    alone = time.process_time() - used
    sign_flip(d, cluster_codes(None, rows), 0, rounds)
    return {
        "rows": rows, "rounds": rounds, "processor_s": round(alone, 2),
        "with_test_processor_s": round(time.process_time() - used, 2),
        "with_test_seconds": round(time.perf_counter() - started, 2),
    }  # fmt: skip


def outside(cells: Sequence[dict[str, Any]]) -> list[str]:
    """Return what lies outside its band, in words."""
    found = []
    for cell in cells:
        for name, value in cell.items():
            for band, (low, high) in BANDS.items():
                if name.startswith(band) and not low <= value <= high:
                    found.append(f"{name} {value:.3f} ({cell.get('scores', '')}, n = "
                                 f"{cell.get('rows', cell.get('human rows'))})")  # fmt: skip
    return found


def main() -> None:
    """Run all and print tables, or one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="1,000 trials instead of 4,000")
    parser.add_argument("--json", action="store_true", help="one JSON object alone")
    parser.add_argument("--trials", type=int, help="trials a cell")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    significance.ROUNDS = 2000  # resamples; 10,000 in an evaluation
    trials = options.trials or (1000 if options.quick else 4000)
    started = time.process_time()
    cells = [equals(kind, n, trials, options.seed) for kind in KINDS for n in SIZES]
    result: dict[str, Any] = {
        "trials": trials, "seed": options.seed, "equals": cells,
        "margin": [margins(n, trials, options.seed) for n in SIZES],
        "family": [families(n, min(trials, 1000), options.seed) for n in SIZES],
        "judge": [judged(n, trials, options.seed) for n in (50, 100, 200)],
        "rows_needed": needed(trials, options.seed), "bootstrap": speed(),
    }  # fmt: skip
    result["processor_s"] = round(time.process_time() - started, 1)
    coverage = [c[k] for c in cells for k in ("coverage_difference", "coverage_mean")]
    result["headline"] = {
        "false_better_max": max(c["false_better"] for c in cells),
        "coverage_min": min(coverage), "coverage_max": max(coverage),
        "power_min": min(c["power"] for c in cells), "power_max": max(c["power"] for c in cells),
        "bootstrap_processor_s": result["bootstrap"]["processor_s"],
        "outside": outside([*cells, *result["judge"], *result["rows_needed"]]),
    }  # fmt: skip
    if options.json:
        print(json.dumps(result | {"machine": common.machine()}))
        return
    for name in ("equals", "margin", "family", "judge", "rows_needed"):
        print(common.table(result[name]), end="\n\n")
    print(json.dumps(result["headline"], indent=1))
    print(f"{result['processor_s']} processor seconds")


if __name__ == "__main__":
    main()
