"""Processor seconds of cleaning and of the three validation layers, on real rows.

Banking77's questions are short, MTS-Dialog's conversations long; rows are repeated with a number
until there are enough of them. What refusal detection raises on real answers is counted too, and
what it finds of refusals that are planted among real rows.
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from tests.planted import plant, read_banking77

import common
from tutelage.core.example import Example, Message, Origin
from tutelage.core.output import OutputFormat
from tutelage.data.clean import CleanStep
from tutelage.data.filters.base import FilterSettings, FilterStep, load_filters
from tutelage.data.filters.refusal import is_refusal

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
_NOTES = ("TrainingSet", "ValidationSet", "TestSet-1-MEDIQA-Chat-2023")


def main() -> None:
    """Parse the arguments, measure, print the tables or one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000, 100_000])
    parser.add_argument("--quick", action="store_true", help="10,000 rows alone")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    sizes = [10_000] if asked.quick else asked.rows
    rows = [measure(name, size) for name in ("banking77", "mts-dialog") for size in sizes]
    refusals = [*false_alarms(), *(planted(seed) for seed in asked.seeds)]
    headline = {f"{row['set']}_{row['rows']}": row["cpu_seconds"] for row in rows}
    result = {"name": "layers", "machine": common.machine(), "rows": [*rows, *refusals],
              "headline": headline}  # fmt: skip
    if asked.json:
        print(json.dumps(result))
        return
    print(common.table(rows))
    print(common.table(refusals))


def measure(name: str, count: int) -> dict[str, Any]:
    """Return processor seconds a step over `count` rows."""
    pairs = read_banking77(DATA) if name == "banking77" else notes()
    closed = name == "banking77"
    output = OutputFormat(labels=tuple(sorted({a for _, a in pairs}))) if closed else OutputFormat()
    task = "classification" if closed else "summarization"
    rows = [_example(*pairs[i % len(pairs)], i, closed) for i in range(count)]
    settings = FilterSettings(task=task, output=output, language="en", max_tokens=4000)
    layers = [FilterStep(key, layer) for key, layer in load_filters(settings).items()]
    spent: dict[str, float] = {}
    for step in (CleanStep(task, output), *layers):
        start = time.process_time()
        rows = step.run(rows).kept
        spent[step.name] = round(time.process_time() - start, 2)
    total = round(sum(spent.values()), 2)
    return {"set": name, "rows": count, "kept": len(rows), "cpu_seconds": total, **spent}


def _example(text: str, answer: str, number: int, closed: bool) -> Example:
    turns = (
        Message(role="user", content=f"{text} {number}"),
        Message(role="assistant", content=answer),
    )
    label = answer if closed else None
    return Example(messages=turns, label=label, origin=Origin(source=f"rows.csv:{number + 2}"))


def notes() -> list[tuple[str, str]]:
    """Return (dialogue, note) of MTS-Dialog."""
    found = []
    for name in _NOTES:
        path = DATA / "mts-dialog" / f"MTS-Dialog-{name}.csv"
        with path.open(newline="", encoding="utf-8") as stream:
            found += [(row["dialogue"], row["section_text"]) for row in csv.DictReader(stream)]
    return found


def false_alarms() -> list[dict[str, Any]]:
    """Return how many real answers, none of which refuses, are taken for a refusal."""
    cases = json.loads((DATA / "pubmedqa" / "ori_pqal.json").read_text(encoding="utf-8"))
    labels = sorted({label for _, label in read_banking77(DATA)})
    sets = {
        "pubmedqa long answers": [case["LONG_ANSWER"] for case in cases.values()],
        "mts-dialog notes": [note for _, note in notes()],
        "banking77 labels": [*labels, *(label.replace("_", " ") for label in labels)],
    }
    return [
        {"refusals in": name, "answers": len(answers), "found": sum(map(is_refusal, answers)),
         "planted": 0}
        for name, answers in sets.items()
    ]  # fmt: skip


def planted(seed: int) -> dict[str, Any]:
    """Return what is found of the refusals planted among Banking77's rows."""
    made = plant(read_banking77(DATA), seed)
    found = Counter(
        place in made.refusals for place, row in enumerate(made.rows) if is_refusal(row[1])
    )
    name = f"banking77, planted with seed {seed} ({found[False]} false)"
    return {"refusals in": name, "answers": len(made.rows), "found": found.total(),
            "planted": len(made.refusals)}  # fmt: skip


if __name__ == "__main__":
    main()
