"""How many labels active learning saves: accuracy by number of labels, chosen rows against random.

Pool: Banking77's train.csv (labels hidden until a row is chosen), test: its test.csv. Both arms
fit the same classifier, a logistic regression on the same embeddings with the same settings. The
chosen rows come from `tutelage.data.active.suggest_rows` with strategy auto, in batches of 50. The
target is random's mean accuracy at N labels; ours counts from where it stays at or above it.
`margin` and `entropy` are the usual peers: a random start, then the rows of least margin or
highest entropy.
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tutelage.data.active import Known, Pool, suggest_rows
from tutelage.data.linear import fit_linear
from tutelage.inference.embed import load_embedder

sys.path.insert(0, str(Path(__file__).resolve().parent))
import common

DATA = Path(__file__).resolve().parents[2] / "shared" / "data" / "banking77"
BATCH = 50
TARGETS = (300, 500, 700, 1000, 1500)
QUICK = (300, 500, 700, 1000)
Curve = list[tuple[int, float]]  # (labels, accuracy)


@dataclass(frozen=True)
class Task:
    """Unit vectors and labels of the pool and of the test rows."""

    pool: NDArray[np.float32]
    pool_labels: list[str]
    test: NDArray[np.float32]
    test_labels: list[str]

    def accuracy(self, chosen: list[int]) -> float:
        """Return the test accuracy of the classifier fitted on the chosen rows."""
        model = fit_linear(self.pool[chosen], [self.pool_labels[i] for i in chosen])
        found = model.predict(self.test)
        return sum(a == b for a, b in zip(found, self.test_labels, strict=True)) / len(found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print one JSON object alone")
    parser.add_argument("--quick", action="store_true", help="fewer targets, no peers")
    parser.add_argument("--embedder", default="minilm", help="minilm or tfidf")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--data", type=Path, default=DATA)
    options = parser.parse_args()

    def tell(text: str) -> None:
        print(f"{time.process_time():7.1f} CPU-s  {text}", file=sys.stderr, flush=True)

    task = load(options.data, options.embedder)
    tell(f"{len(task.pool):,} pool and {len(task.test):,} test rows embedded")
    targets = QUICK if options.quick else TARGETS
    arms = {"random": drawn, "ours": chosen}
    if not options.quick:
        arms |= {"margin": by_margin, "entropy": by_entropy}
    curves: dict[str, list[Curve]] = {}
    for name, arm in arms.items():
        last = max(targets) if name == "random" else round(0.8 * max(targets))
        curves[name] = [arm(task, seed, last) for seed in range(options.seeds)]
        tell(f"{name}: {options.seeds} seeds up to {last} labels")
    rows = [row(curves, target) for target in targets]
    report = {
        "name": "active",
        "machine": common.machine(),
        "embedder": options.embedder,
        "rows": rows,
        "curves": {name: mean_curve(found) for name, found in curves.items()},
        "headline": {"label_ratio": headline(curves, targets)},
    }
    if options.json:
        print(json.dumps(report))
        return
    print(common.table(rows))
    print("\n" + common.table(curve_table(curves)))
    print(f"\nlabel_ratio {report['headline']['label_ratio']}")


def load(folder: Path, embedder: str) -> Task:
    """Return Banking77 with all texts embedded in one call."""
    parts = []
    for name in ("train.csv", "test.csv"):
        with (folder / name).open(encoding="utf-8", newline="") as stream:
            parts.append([(r["text"].strip(), r["category"]) for r in csv.DictReader(stream)])
    texts = [text for part in parts for text, _ in part]
    vectors = load_embedder(embedder, len(texts)).embed(texts)
    cut = len(parts[0])
    labels = [[label for _, label in part] for part in parts]
    return Task(vectors[:cut], labels[0], vectors[cut:], labels[1])


def drawn(task: Task, seed: int, last: int) -> Curve:
    """Return the curve of rows drawn at random, nested."""
    order = np.random.default_rng(1000 + seed).permutation(len(task.pool)).tolist()
    counts = [n for n in range(BATCH, last + 1, BATCH) if n <= 500 or n % 100 == 0]
    return [(n, task.accuracy(order[:n])) for n in counts]


def chosen(task: Task, seed: int, last: int) -> Curve:
    """Return the curve of rows that Tutelage suggests, batch after batch."""

    def pick(have: list[int], seed: int) -> list[int]:
        rest = np.setdiff1d(np.arange(len(task.pool)), have)
        known = Known(task.pool[have], [task.pool_labels[i] for i in have])
        found = suggest_rows(Pool(task.pool[rest]), known, BATCH, seed=seed)
        return [int(rest[pick.index]) for pick in found.picks]

    return grow(task, [], pick, seed, last)


def by_margin(task: Task, seed: int, last: int) -> Curve:
    """Return the curve of the rows with the least margin."""
    return by(task, seed, last, lambda p: np.diff(np.partition(p, -2, axis=1)[:, -2:])[:, 0])


def by_entropy(task: Task, seed: int, last: int) -> Curve:
    """Return the curve of the rows with the highest entropy."""
    return by(task, seed, last, lambda p: (p * np.log(np.maximum(p, 1e-12))).sum(axis=1))


def by(task: Task, seed: int, last: int, rank: Callable[[NDArray[Any]], NDArray[Any]]) -> Curve:
    """Return the curve of a peer: a random start, then the rows of lowest `rank`."""

    def pick(have: list[int], seed: int) -> list[int]:
        model = fit_linear(task.pool[have], [task.pool_labels[i] for i in have])
        rest = np.setdiff1d(np.arange(len(task.pool)), have)
        return rest[np.argsort(rank(model.probabilities(task.pool[rest])))[:BATCH]].tolist()

    start = np.random.default_rng(1000 + seed).permutation(len(task.pool))[: 2 * BATCH]
    return grow(task, start.tolist(), pick, seed, last)


def grow(
    task: Task,
    have: list[int],
    pick: Callable[[list[int], int], list[int]],
    seed: int,
    last: int,
) -> Curve:
    """Return the curve of a loop that picks, labels and fits until `last` labels."""
    curve = [(len(have), task.accuracy(have))] if have else []
    while len(have) < last:
        have = have + pick(have, 1000 * seed + len(have))
        curve.append((len(have), task.accuracy(have)))
    return curve


def mean_curve(curves: list[Curve]) -> Curve:
    """Return the mean accuracy over seeds; all curves have the same label counts."""
    return [
        (points[0][0], round(float(np.mean([a for _, a in points])), 4))
        for points in zip(*curves, strict=True)
    ]


def labels_needed(curve: Curve, accuracy: float) -> float:
    """Return the label count from which on the curve stays at or above `accuracy`, or infinity.

    Between two rounds the curve is a straight line.
    """
    below = [index for index, (_, value) in enumerate(curve) if value < accuracy]
    if not below:
        return curve[0][0]
    if below[-1] == len(curve) - 1:
        return float("inf")
    (n0, a0), (n1, a1) = curve[below[-1]], curve[below[-1] + 1]
    return n0 + (accuracy - a0) / (a1 - a0) * (n1 - n0)


def ratios(curves: dict[str, list[Curve]], name: str, target: int) -> list[float]:
    """Return labels needed by an arm over `target`, one a seed."""
    goal = dict(mean_curve(curves["random"]))[target]
    return [labels_needed(curve, goal) / target for curve in curves[name]]


def row(curves: dict[str, list[Curve]], target: int) -> dict[str, Any]:
    """Return one line of the table: a target, and what each arm needs for its accuracy."""
    ours = ratios(curves, "ours", target)
    line: dict[str, Any] = {
        "random_labels": target,
        "accuracy": dict(mean_curve(curves["random"]))[target],
        "ours_labels": round(float(np.median(ours)) * target),
        "ratio": round(float(np.median(ours)), 3),
        "ratio_worst_seed": round(max(ours), 3),
    }
    for name in ("margin", "entropy"):
        if name in curves:
            found = float(np.median(ratios(curves, name, target)))
            line[f"{name}_ratio"] = round(found, 3) if np.isfinite(found) else None
    return line


def headline(curves: dict[str, list[Curve]], targets: tuple[int, ...]) -> float:
    """Return the median over seeds and targets of ours over random's labels."""
    return round(float(np.median([r for t in targets for r in ratios(curves, "ours", t)])), 3)


def curve_table(curves: dict[str, list[Curve]]) -> list[dict[str, Any]]:
    """Return accuracy by number of labels, a column an arm."""
    means = {name: dict(mean_curve(found)) for name, found in curves.items()}
    counts = sorted(set().union(*(set(found) for found in means.values())))
    return [
        {"labels": n, **{name: found.get(n, "") for name, found in means.items()}}
        for n in counts
        if n <= 500 or n % 100 == 0
    ]


if __name__ == "__main__":
    main()
