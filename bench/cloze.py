"""Few rows, many labels: supervised decoding, cloze patterns and a head on the same examples.

Ten intents of Banking77 that are easily confused (`--quick`: five), N rows of each to train on, two
of each to stop by, twenty of each of its test file to count right answers on; the demo model, each
method as the planner sets it. A measured cell is kept under --cache, and a run that was cut off
goes on from there, so the table can be made in pieces.
"""

from __future__ import annotations

import argparse
import csv
import json
import random
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))
import common

DATA = Path(__file__).resolve().parents[2] / "shared" / "data" / "banking77"
INTENTS = (
    "card_arrival", "card_delivery_estimate", "card_not_working", "declined_card_payment",
    "lost_or_stolen_card", "activate_my_card", "card_linking", "get_physical_card",
    "order_physical_card", "virtual_card_not_working",
)  # fmt: skip
PROMPT = "Name the intent of the customer's message. Answer with JSON and nothing else."
VALIDATION, TEST = 2, 20  # rows an intent
METHODS = ("lora", "cloze", "classify")


@dataclass(frozen=True)
class Cell:
    """One run: the method, how many intents, train rows of each, the seed of rows and training."""

    method: str
    intents: int
    per_label: int
    seed: int

    @property
    def name(self) -> str:
        return f"{self.method}-{self.intents}x{self.per_label}-{self.seed}"

    @property
    def labels(self) -> tuple[str, ...]:
        return INTENTS[: self.intents]


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print one JSON object alone")
    parser.add_argument("--quick", action="store_true", help="2 and 4 rows of 5 intents, one seed")
    parser.add_argument("--only", choices=METHODS, nargs="*", default=METHODS, help="methods")
    parser.add_argument("--cache", type=Path, help="folder that keeps measured cells")
    options = parser.parse_args()
    if not DATA.is_dir():
        raise SystemExit(f"the real rows are not at {DATA.parent.name}/ beside the checkout")
    intents, sizes, seeds = (5, (2, 4), (1,)) if options.quick else (10, (2, 4, 8), (1, 2, 3))
    cache = options.cache or Path(tempfile.mkdtemp())
    cache.mkdir(parents=True, exist_ok=True)
    cells = [
        Cell(m, intents, n, s) for n in sizes for s in seeds for m in METHODS if m in options.only
    ]
    found = [measured(cell, cache) for cell in cells]
    rows = [row for n in sizes for row in averages([f for f in found if f["per_label"] == n])]
    report = {
        "name": "cloze",
        "machine": common.machine(),
        "rows": rows,
        "headline": {f"{r['method']}_{r['rows']}_rows": r["accuracy_%"] for r in rows},
    }
    if options.json:
        print(json.dumps(report))
        return
    print(common.table(rows))
    print(report["headline"])


def averages(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return a row of the table for each method, the mean over seeds."""
    made = []
    for method in METHODS:
        runs = [run for run in found if run["method"] == method]
        if not runs:
            continue

        def mean(key: str, runs: list[dict[str, Any]] = runs) -> float:
            return float(sum(run[key] for run in runs) / len(runs))

        made.append({
            "method": method,
            "rows": runs[0]["rows"],
            "seeds": len(runs),
            "accuracy_%": round(100 * mean("accuracy"), 1),
            "written_%": round(100 * mean("written"), 1),
            "loss": round(mean("loss"), 3),
            "best_step": round(mean("best_step"), 1),
            "steps": round(mean("steps")),
            "train_s": round(mean("train_s"), 1),
            "ms_an_answer": round(mean("ms_an_answer"), 1),
        })  # fmt: skip
    return made


def measured(cell: Cell, cache: Path) -> dict[str, Any]:
    """Return the cell's figures, measured now unless they are kept."""
    path = cache / f"{cell.name}.json"
    if not path.exists():
        print(cell.name, file=sys.stderr, flush=True)
        path.write_text(json.dumps({**asdict(cell), **measure(cell, cache)}))
    kept: dict[str, Any] = json.loads(path.read_text())
    return kept


def measure(cell: Cell, folder: Path) -> dict[str, Any]:
    """Train the cell and count its right answers, chosen from the list and as it writes them.

    A run that was cut off goes on from its checkpoint in `folder`.
    """
    import numpy as np
    import torch

    from tutelage.core.output import OutputFormat
    from tutelage.inference.base import Decoding, Prompt
    from tutelage.inference.chat import conversation
    from tutelage.inference.models import locate_model
    from tutelage.inference.transformers import TransformersGenerator
    from tutelage.training.job import TrainingJob
    from tutelage.training.session import train

    torch.set_num_threads(common.cores())
    output = OutputFormat("intent", cell.labels)
    parts = draw(cell, output)
    source = locate_model("demo")
    recipe = planned(cell, source, parts, folder)
    job = TrainingJob(
        source, parts["train"], parts["validation"], PROMPT, recipe, folder / cell.name,
        output=output,
    )  # fmt: skip
    result = train(job)
    engine = TransformersGenerator(source, adapter=result.adapter_dir)
    decoding = Decoding(max_tokens=24)
    prompts = [Prompt(conversation(row, PROMPT), decoding) for row in parts["test"]]
    answers = [output.render(label) for label in cell.labels]
    truth = np.array([cell.labels.index(row.label) for row in parts["test"]])
    started = time.perf_counter()
    scores = engine.score_labels(prompts, answers, whole=False)
    answer_ms = 1000 * (time.perf_counter() - started) / len(prompts)
    if cell.method == "lora":
        written = [output.parse(made.text).label for made in engine.generate(prompts)]
    else:  # they write what they choose
        written = [cell.labels[index] for index in scores.argmax(axis=1)]
    engine.close()
    logs = scores - np.logaddexp.reduce(scores, axis=1, keepdims=True)
    return {
        "rows": len(parts["train"]),
        "accuracy": float((scores.argmax(axis=1) == truth).mean()),
        "written": float(
            np.mean([cell.labels[i] == w for i, w in zip(truth, written, strict=True)])
        ),
        "loss": float(-logs[np.arange(len(truth)), truth].mean()),
        "best_step": result.best_step,
        "steps": result.steps,
        "train_s": result.seconds,
        "ms_an_answer": answer_ms,
        "recipe": recipe.model_dump(mode="json"),
    }


def draw(cell: Cell, output: Any) -> dict[str, list[Any]]:
    """Return the cell's rows: train and validation of one file, test of the other."""
    from tutelage.core.example import Example, Message

    def example(text: str, label: str) -> Any:
        turns = (
            Message(role="user", content=text),
            Message(role="assistant", content=output.render(label)),
        )
        return Example(messages=turns, label=label)

    generator = random.Random(cell.seed)
    parts: dict[str, list[Any]] = {"train": [], "validation": [], "test": []}
    for label in cell.labels:
        known = texts("train.csv", label)
        # The same validation rows for every size, and the smaller sizes inside the larger ones.
        picked = generator.sample(known, VALIDATION + 8)
        parts["validation"] += [example(t, label) for t in picked[:VALIDATION]]
        parts["train"] += [example(t, label) for t in picked[VALIDATION:][: cell.per_label]]
        test = random.Random(0).sample(texts("test.csv", label), TEST)
        parts["test"] += [example(t, label) for t in test]
    return parts


def texts(name: str, label: str) -> list[str]:
    """Return the texts of one intent, in the file's order."""
    with (DATA / name).open(newline="", encoding="utf-8") as stream:
        return [row["text"].strip() for row in csv.DictReader(stream) if row["category"] == label]


def planned(cell: Cell, source: Any, parts: dict[str, list[Any]], folder: Path) -> Any:
    """Return the recipe that the planner makes for the cell's rows and method."""
    from tutelage.core.config import Train
    from tutelage.inference.transformers import load_tokenizer
    from tutelage.inference.transformers_prepare import prepare
    from tutelage.training.encode import encode
    from tutelage.training.planner import make_plan
    from tutelage.training.profile import profile_data, profile_machine, profile_model

    rows = encode(parts["train"], load_tokenizer(source), PROMPT, max_tokens=2048).rows
    data = profile_data(
        rows, task="classification", labels=cell.intents, validation_rows=len(parts["validation"])
    )
    overrides = Train(method=cell.method, seed=cell.seed, force=True)  # so few rows are refused
    model = profile_model(source.name, prepare(source))
    return make_plan(data, model, profile_machine(folder), overrides).recipe


if __name__ == "__main__":
    main()
