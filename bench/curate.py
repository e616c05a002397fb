"""Seconds and memory of curation, step by step: 10,003 real rows, and 100,000 short ones.

The first set is Banking77's train file as it is. The second holds every real row of Banking77 and
of the sentences of Wikipedia, 20 % near-duplicates (a typo, a swap, another case), 2 % exact
copies, and for the rest sentences spliced from the halves of two real ones. Each set goes through
`curate` with default settings in a fresh project and a process of its own; then a twentieth of
its rows is changed and it goes through again, as a next version.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import random
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))
import common

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
SMALL = 10_003  # rows of Banking77's train file
NEAR, COPIES = 0.20, 0.02  # shares of the larger set
CONFIG = """\
name: bench
task: classification
model: demo
data: {sources: [data/rows.csv], columns: {input: text, output: category}}
"""

Row = tuple[str, str]


def main() -> None:
    """Parse the arguments, run one worker a size, print the table or one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=100_000, help="rows of the larger set")
    parser.add_argument("--quick", action="store_true", help="the smaller set alone")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--worker", type=int, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.worker is not None:
        print(json.dumps(measure(asked.worker, asked.seed)))
        return
    sizes = [SMALL] if asked.quick else [SMALL, asked.rows]
    found = [
        common.child(__file__, ["--worker", str(size), "--seed", str(asked.seed)], threads=2)
        for size in sizes
    ]
    headline: dict[str, float] = {
        "seconds_10k": found[0]["seconds"],
        "cpu_10k": found[0]["cpu_seconds"],
        "peak_mb_10k": found[0]["peak_mb"],
    }
    if len(found) > 1 and asked.rows == 100_000:
        headline |= {
            "seconds_100k": found[1]["seconds"],
            "cpu_100k": found[1]["cpu_seconds"],
            "peak_mb_100k": found[1]["peak_mb"],
        }
    result = {"name": "curate", "machine": common.machine(), "rows": found, "headline": headline}
    if asked.json:
        print(json.dumps(result))
        return
    steps = ("steps", "next_steps")
    print(common.table([{k: v for k, v in row.items() if k not in steps} for row in found]))
    for row in found:
        for key, what in zip(steps, ("", ", the next version"), strict=True):
            print(f"\n{row['rows']:,} rows{what}, step by step")
            print(common.table([{"step": name, **spent} for name, spent in row[key].items()]))


def measure(count: int, seed: int) -> dict[str, Any]:
    """Return wall and processor seconds a step, and the peak memory, of one curation."""
    from tutelage.core.events import Event
    from tutelage.workflows.context import open_context
    from tutelage.workflows.curate import curate

    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        (root / "data").mkdir()
        (root / "tutelage.yaml").write_text(CONFIG, encoding="utf-8")
        made = rows(count, seed)
        write_csv(root / "data" / "rows.csv", made)
        marks: list[tuple[str, float, float]] = [("open", time.monotonic(), _cpu())]

        def listen(event: Event) -> None:
            if event.kind == "progress" and event.message:
                marks.append((event.message, time.monotonic(), _cpu()))

        context = open_context(root, listen)
        outcome = curate(context)
        end = ("end", time.monotonic(), _cpu())
        first = [*marks, end]
        counts = outcome.artifact.meta["counts"]
        peak = common.peak_memory_mb()
        write_csv(root / "data" / "rows.csv", changed(made, seed))
        marks = [("open", time.monotonic(), _cpu())]
        curate(context)
        again = [*marks, ("end", time.monotonic(), _cpu())]
        context.store.close()
    return {
        "rows": count,
        "kept": sum(counts.values()),
        "near_leaks": sum(leak["near"] for leak in outcome.artifact.meta["leaks"].values()),
        "seconds": round(end[1] - first[0][1], 1),
        "cpu_seconds": round(end[2] - first[0][2], 1),
        "peak_mb": round(peak),
        "next_seconds": round(again[-1][1] - again[0][1], 1),
        "next_cpu_seconds": round(again[-1][2] - again[0][2], 1),
        "next_peak_mb": round(common.peak_memory_mb()),
        "steps": _spent(first),
        "next_steps": _spent(again),
    }


def changed(made: list[Row], seed: int) -> list[Row]:
    """Return the rows with one in twenty edited, and one in twenty replaced by another."""
    rng = random.Random(seed + 1)
    found = list(made)
    for at in rng.sample(range(len(made)), len(made) // 10):
        text, label = made[at]
        other = made[rng.randrange(len(made))][0]
        found[at] = (_vary(text, rng), label) if at % 2 else (_splice(other, text), label)
    return found


def _spent(marks: list[tuple[str, float, float]]) -> dict[str, dict[str, float]]:
    steps: dict[str, dict[str, float]] = {}
    for (name, wall, cpu), (_, wall_after, cpu_after) in pairwise(marks):
        step = steps.setdefault(name, {"seconds": 0.0, "cpu_seconds": 0.0})
        step["seconds"] = round(step["seconds"] + wall_after - wall, 2)
        step["cpu_seconds"] = round(step["cpu_seconds"] + cpu_after - cpu, 2)
    return steps


def _cpu() -> float:
    spent = os.times()
    return spent.user + spent.system


def rows(count: int, seed: int) -> list[Row]:
    """Return `count` (text, label) rows; up to SMALL they are Banking77's train file."""
    train = _banking("train.csv")
    if count <= len(train):
        return train[:count]
    rng = random.Random(seed)
    wiki = (DATA / "general" / "wiki_sentences.txt").read_text(encoding="utf-8").splitlines()
    real = [*train, *_banking("test.csv"), *((line, "general") for line in wiki if line.strip())]
    made = real[: round(count * (1 - NEAR - COPIES))]
    seen = {text for text, _ in made}
    while len(made) < round(count * (1 - NEAR - COPIES)):
        one, two = rng.choice(real), rng.choice(real)
        text = _splice(one[0], two[0])
        if text not in seen:
            seen.add(text)
            made.append((text, one[1]))
    near = [(_vary(text, rng), label) for text, label in rng.sample(made, round(count * NEAR))]
    copies = rng.sample(made, count - len(made) - len(near))
    found = [*made, *near, *copies]
    rng.shuffle(found)
    return found


def _banking(name: str) -> list[Row]:
    with (DATA / "banking77" / name).open(newline="", encoding="utf-8") as stream:
        return [(row["text"], row["category"]) for row in csv.DictReader(stream)]


def _splice(one: str, two: str) -> str:
    """Return the first half of one text's words and the second half of the other's."""
    head, tail = one.split(), two.split()
    return " ".join([*head[: (len(head) + 1) // 2], *tail[len(tail) // 2 :]])


def _vary(text: str, rng: random.Random) -> str:
    """Return the text with one change that a person at a keyboard makes."""
    words = text.split(" ")
    at = rng.randrange(len(text))
    kind = rng.randrange(4)
    if kind == 0 and len(words) > 2:
        place = rng.randrange(len(words) - 1)
        words[place], words[place + 1] = words[place + 1], words[place]
        return " ".join(words)
    if kind == 1:
        return text[:at] + text[at + 1 :]
    if kind == 2:
        return text[:at] + rng.choice("etaoinshr") + text[at:]
    return text.upper() if text[:1].islower() else text.lower()


def write_csv(path: Path, made: list[Row]) -> None:
    """Write the rows with a header, as a user brings them."""
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(("text", "category"))
        writer.writerows(made)


if __name__ == "__main__":
    main()
