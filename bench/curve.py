"""Whether the learning curve foretells: accuracy with all rows, from half of them and fewer.

Rows of Banking77's train.csv are drawn at random, in nested parts; a logistic regression on their
embeddings is scored on all of test.csv. The law is fitted to the parts up to 50 % and asked for
100 %. `no floor` is the same fit of a law without a floor. Every total has ten rows a label or more
at its half: with fewer, `tutelage data curve` declines to answer.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from tutelage.data.curve import Point, forecast, smallest
from tutelage.data.linear import fit_linear
from tutelage.data.power_law import fit_laws

sys.path.insert(0, str(Path(__file__).resolve().parent))
import active
import common

PARTS = (0.08, 0.12, 0.17, 0.24, 0.35, 0.5, 1.0)
TOTALS = {2000: 10, 4000: 6, 0: 5}  # rows in all (0: every row) and how often they are drawn
QUICK = {2000: 5, 4000: 3, 0: 3}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print one JSON object alone")
    parser.add_argument("--quick", action="store_true", help="fewer draws")
    parser.add_argument("--embedder", default="minilm", help="minilm or tfidf")
    parser.add_argument("--data", type=Path, default=active.DATA)
    options = parser.parse_args()

    def tell(text: str) -> None:
        print(f"{time.process_time():7.1f} CPU-s  {text}", file=sys.stderr, flush=True)

    task = active.load(options.data, options.embedder)
    tell(f"{len(task.pool):,} train and {len(task.test):,} test rows embedded")
    rows: list[dict[str, Any]] = []
    for total, draws in (QUICK if options.quick else TOTALS).items():
        size = total or len(task.pool)
        rows += [measure(task, size, seed) for seed in range(draws)]
        tell(f"{size:,} rows, drawn {draws} times")
    every = [row for row in rows if row["rows"] == len(task.pool)]
    report = {
        "name": "curve",
        "machine": common.machine(),
        "embedder": options.embedder,
        "rows": rows,
        "headline": {
            "off_points_worst": max(row["off_points"] for row in every),
            "off_points_median": common.median([row["off_points"] for row in every]),
            "no_floor_off_points_median": common.median([r["no_floor_off"] for r in every]),
            "interval_holds": round(float(np.mean([row["inside"] for row in rows])), 3),
        },
    }
    if options.json:
        print(json.dumps(report))
        return
    print(common.table(rows))
    print("\n" + "\n".join(f"{key} {value}" for key, value in report["headline"].items()))


def measure(task: active.Task, total: int, seed: int) -> dict[str, Any]:
    """Return one line: what was expected at `total` rows, and what came."""
    order = np.random.default_rng(10_000 * total + seed).permutation(len(task.pool))[:total]
    wanted = np.array(task.test_labels)
    points = []
    for part in PARTS:
        used = order[: round(part * total)].tolist()
        model = fit_linear(task.pool[used], [task.pool_labels[i] for i in used])
        hits = (np.array(model.predict(task.test)) == wanted).astype(float)
        points.append(Point(len(used), 0, hits))
    labels = len(set(task.pool_labels))
    expected = forecast(points[:-1], total, labels=labels)
    measured = float(points[-1].hits.mean())
    return {
        "rows": total,
        "seed": seed,
        "rows_per_label": round(total / labels, 1),
        "at_half_%": round(100 * float(points[-2].hits.mean()), 1),
        "expected_%": round(100 * expected.accuracy, 1),
        "low_%": round(100 * expected.low, 1),
        "high_%": round(100 * expected.high, 1),
        "measured_%": round(100 * measured, 1),
        "off_points": round(100 * abs(expected.accuracy - measured), 2),
        "no_floor_off": round(100 * abs(without_floor(points[:-1], total, labels) - measured), 2),
        "inside": expected.low <= measured <= expected.high,
    }


def without_floor(points: list[Point], total: int, labels: int) -> float:
    """Return the accuracy that a law without a floor expects at `total` rows."""
    used = [point for point in points if point.rows >= smallest(labels)]
    errors = np.array([1 - float(point.hits.mean()) for point in used])
    counts = np.array([float(len(point.hits)) for point in used])
    law = fit_laws([point.rows for point in used], errors, counts, floors_tried=1).best()
    return 1 - law.error(total)


if __name__ == "__main__":
    main()
