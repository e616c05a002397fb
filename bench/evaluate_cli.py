"""Minutes of `tutelage evaluate`, `gate` and `compare` on Banking77, as typed: 1,000 test rows.

A project of its own: rows of the files drawn evenly over the 77 labels, split by the program, an
adapter of the demo model trained for a few steps so that it writes labels. The prompt names the
labels, and answers are held to the list (`evaluate.answers: list`). Then the three commands, each
in a process of its own, start and model loading included. Training is not timed.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import yaml

sys.path.insert(0, str(Path(__file__).resolve().parent))
import common

DATA = Path(__file__).resolve().parents[2] / "shared" / "data" / "banking77"
ASK = "Classify the customer's message. Reply with exactly one label of this list and nothing else."
DONE = {"evaluate": (0, 1, 3), "gate": (0, 1, 3), "compare": (0,)}  # verdicts, not failures


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print one JSON object alone")
    parser.add_argument("--quick", action="store_true", help="100 test rows")
    parser.add_argument("--rows", type=int, help="test rows [1,000; quick 100]")
    parser.add_argument("--answers", default="list", choices=("list", "free", "both"))
    parser.add_argument("--epochs", type=float, default=0.2)
    parser.add_argument("--keep", type=Path, help="work in this folder, and leave it")
    parser.add_argument("--prepare", action="store_true", help="stop before what is timed")
    options = parser.parse_args()
    if not DATA.is_dir():
        raise SystemExit("the Banking77 rows are not at shared/data/banking77 beside the checkout")
    with tempfile.TemporaryDirectory() as made:
        report = measure(options.keep or Path(made), options)
    if options.json:
        print(json.dumps(report))
        return
    print(common.table(report["rows"]))
    print(report["headline"])


def measure(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Return the seconds of each command, and what `evaluate` found."""
    if not (folder / ".tutelage").is_dir():
        write_project(folder, options)
        tutelage(folder, "data", "split")
        tutelage(folder, "train", "--json")
    rows: list[dict[str, Any]] = []
    if options.prepare:
        return {"name": "evaluate_cli", "machine": common.machine(), "rows": rows, "headline": {}}
    for command, names in (("evaluate", []), ("gate", []), ("compare", ["tuned", "base"])):
        began = time.perf_counter()
        said = json.loads(tutelage(folder, command, *names, "--json"))
        rows.append({"command": command, "seconds": round(time.perf_counter() - began, 1)})
        print(rows[-1], json.dumps(said)[:1500], file=sys.stderr, flush=True)
    total = sum(row["seconds"] for row in rows)
    headline = {"minutes": round(total / 60, 2), "evaluate_s": rows[0]["seconds"]}
    return {
        "name": "evaluate_cli", "machine": common.machine(), "rows": rows, "headline": headline,
    }  # fmt: skip


def write_project(folder: Path, options: argparse.Namespace) -> None:
    """Write the rows and tutelage.yaml; twice as many rows as are tested, evenly over labels."""
    test = options.rows or (100 if options.quick else 1000)
    by_label: dict[str, list[str]] = defaultdict(list)
    for name in ("train.csv", "test.csv"):
        with (DATA / name).open(encoding="utf-8", newline="") as lines:
            for row in csv.DictReader(lines):
                by_label[row["category"]].append(row["text"])
    draw = random.Random(1)
    each = -(-2 * test // len(by_label))
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "rows.csv").open("w", encoding="utf-8", newline="") as out:
        writer = csv.writer(out)
        writer.writerow(["text", "label"])
        for label, texts in sorted(by_label.items()):
            writer.writerows((t, label) for t in draw.sample(texts, min(each, len(texts))))
    settings = {
        "name": "banking", "task": "classification", "model": "demo",
        "prompt": "\n".join([ASK, "", *sorted(by_label)]),
        "output": {"labels": sorted(by_label)},
        "data": {
            "sources": ["rows.csv"],
            "columns": {"input": "text", "output": "label"},
            "splits": {"train": 0.4, "validation": 0.1, "test": 0.5},
        },
        "train": {"epochs": options.epochs, "force": True, "tracker": "none"},
        "evaluate": {"answers": options.answers},
    }  # fmt: skip
    (folder / "tutelage.yaml").write_text(yaml.safe_dump(settings), encoding="utf-8")


def tutelage(folder: Path, *words: str) -> str:
    """Run a command in the project; return what it printed."""
    done = subprocess.run(
        [sys.executable, "-m", "tutelage", *words],
        cwd=folder, env={**os.environ, **common.QUIET}, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    if done.returncode not in DONE.get(words[0], (0,)):
        raise SystemExit(f"`tutelage {' '.join(words)}` ended with {done.returncode}")
    return done.stdout


if __name__ == "__main__":
    main()
