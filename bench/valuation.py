"""Whether harmful rows are found: a tenth of the training labels is wrong, drawn at random.

Banking77's train.csv. `auc` is the chance that a row with a wrong label is ranked below a right one
(0.5 by chance), `precision` the share of wrong ones among as many rows of the lowest value.
`knn`: KNN-Shapley on embeddings, all 77 labels. `gradient`: 8 labels, 32 rows each, a LoRA adapter
trained on the wrong labels too, on the demo model (minutes; not with --quick).
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tutelage.data.valuation import knn_shapley

sys.path.insert(0, str(Path(__file__).resolve().parent))
import active
import common

SIZES = ((700, 200), (3000, 600), (7000, 1500))  # train and validation rows
LABELS = (
    "card_arrival", "lost_or_stolen_card", "exchange_rate", "pin_blocked", "top_up_failed",
    "cancel_transfer", "age_limit", "cash_withdrawal_charge",
)  # fmt: skip
EACH = 32
SETTINGS = """\
name: bank
task: classification
model: demo
prompt: Name the intent of the bank customer's message.
output: {field: intent}
data: {columns: {input: text, output: category}, quality: {embedder: tfidf}}
train: {tracker: none}
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print one JSON object alone")
    parser.add_argument("--quick", action="store_true", help="neighbours only, three draws")
    parser.add_argument("--embedder", default="minilm", help="minilm or tfidf")
    parser.add_argument("--data", type=Path, default=active.DATA)
    options = parser.parse_args()
    task = active.load(options.data, options.embedder)
    rows = [by_neighbours(task, *size, 3 if options.quick else 5) for size in SIZES]
    if not options.quick:
        rows.append(by_gradient(options.data, seed=5))
    report = {
        "name": "valuation",
        "machine": common.machine(),
        "embedder": options.embedder,
        "rows": rows,
        "headline": {f"{row['method']}_auc_{row['train']}": row["auc"] for row in rows},
    }
    if options.json:
        print(json.dumps(report))
        return
    print(common.table(rows))


def by_neighbours(task: active.Task, train: int, validation: int, draws: int) -> dict[str, Any]:
    """Return one line: means over draws of rows and wrong labels."""
    names = np.unique(task.pool_labels)
    found = []
    started = time.process_time()
    for seed in range(draws):
        rng = np.random.default_rng(seed)
        part = rng.permutation(len(task.pool))[: train + validation]
        labels = np.array(task.pool_labels)[part]
        wrong = np.zeros(train, dtype=bool)
        wrong[rng.choice(train, train // 10, replace=False)] = True
        for i in np.flatnonzero(wrong):
            labels[i] = rng.choice(names[names != labels[i]])
        own, asked = labels[:train].tolist(), labels[train:].tolist()
        vectors = task.pool[part]
        values = knn_shapley(vectors[:train], own, vectors[train:], asked)
        found.append(ranked(values.tolist(), wrong.tolist()))
    auc, precision = np.mean(found, axis=0)
    seconds = (time.process_time() - started) / draws
    return line("knn", train, validation, (float(auc), float(precision)), seconds)


def by_gradient(data: Path, seed: int) -> dict[str, Any]:
    """Train the demo model on rows with wrong labels, and value them by its gradients."""
    from tutelage.workflows.context import open_context
    from tutelage.workflows.curate import curate
    from tutelage.workflows.data.learning import value
    from tutelage.workflows.training.train import train

    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        wrong = write_rows(data, root / "data" / "rows.csv", seed)
        (root / "tutelage.yaml").write_text(SETTINGS, encoding="utf-8")
        ctx = open_context(root)
        train(ctx, curate(ctx).artifact)
        started = time.process_time()
        found = value(ctx, method="gradient")
        seconds = time.process_time() - started
        values = [row.value for row in found.rows]
        marks = [int(row.source.rpartition(":")[2]) in wrong for row in found.rows]
        ctx.store.close()
    return line("gradient", len(values), found.validation, ranked(values, marks), seconds)


def write_rows(data: Path, path: Path, seed: int) -> set[int]:
    """Write 8 × 32 rows, a tenth with a wrong label; return the lines of those."""
    rng = np.random.default_rng(seed)
    with (data / "train.csv").open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    rows = [rows[i] for i in rng.permutation(len(rows))]
    kept = [row for name in LABELS for row in [r for r in rows if r["category"] == name][:EACH]]
    kept = [kept[i] for i in rng.permutation(len(kept))]
    for row in kept:
        row["text"] = " ".join(row["text"].split())  # one line a row: places are line numbers
    wrong = rng.choice(len(kept), len(kept) // 10, replace=False)
    for i in wrong:
        kept[i]["category"] = str(rng.choice([n for n in LABELS if n != kept[i]["category"]]))
    path.parent.mkdir(parents=True)
    with path.open("w", encoding="utf-8", newline="") as stream:
        table = csv.DictWriter(stream, ["text", "category"])
        table.writeheader()
        table.writerows(kept)
    return {int(i) + 2 for i in wrong}


def ranked(values: Sequence[float], wrong: Sequence[bool]) -> tuple[float, float]:
    """Return the AUC of "wrong rows have low values", and the precision among the lowest."""
    from sklearn.metrics import roc_auc_score

    lowest = np.argsort(values, kind="stable")[: sum(wrong)]
    auc = roc_auc_score(wrong, [-value for value in values])
    return float(auc), float(np.mean(np.array(wrong)[lowest]))


def line(
    method: str, train: int, validation: int, found: tuple[float, float], seconds: float
) -> dict[str, Any]:
    """Return one line of the table."""
    return {
        "method": method,
        "train": train,
        "validation": validation,
        "auc": round(found[0], 3),
        "precision": round(found[1], 3),
        "cpu_s": round(seconds, 1),
    }


if __name__ == "__main__":
    main()
