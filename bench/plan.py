"""Is the plan true? Memory and seconds that `train --plan` promises against those of the run.

LoRA and full tuning of the demo model at three batch shapes. The plan is made in one process
(with its probe), the run in another, early stopping off, so that peak memory is the run's own.
Rows are real words drawn at random.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))
import common

SHAPES = (  # tokens all rows share, of their own, of the answer; rows a forward pass
    {"prefix": 256, "own": 64, "answer": 32, "micro_batch": 8},
    {"prefix": 0, "own": 128, "answer": 32, "micro_batch": 8},
    {"prefix": 512, "own": 64, "answer": 64, "micro_batch": 2},
)
TUNES = ("lora", "full")
TRAIN, VALIDATION, BATCH, EPOCHS = 32, 8, 8, 2


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print one JSON object alone")
    parser.add_argument("--quick", action="store_true", help="the first two shapes, one epoch")
    parser.add_argument("--shapes", type=int, nargs="*", choices=[1, 2, 3], help="those alone")
    parser.add_argument("--threads", type=int, default=common.cores())
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        print(json.dumps(work(json.loads(options.worker), options.threads)))
        return
    shapes = options.shapes or ([1, 2] if options.quick else [1, 2, 3])
    report = compare(shapes, epochs=1 if options.quick else EPOCHS, threads=options.threads)
    print(json.dumps(report) if options.json else common.table(report["rows"]))
    if not options.json:
        print(report["headline"])


def compare(shapes: list[int], *, epochs: int, threads: int) -> dict[str, Any]:
    """Return the report: one row a tuning and shape."""
    rows = []
    for tune in TUNES:
        for number in shapes:
            case = {**SHAPES[number - 1], "method": tune, "epochs": epochs}
            plan = _child(case | {"do": "plan"}, threads)
            run = _child(case | {"do": "run", "recipe": plan["recipe"]}, threads)
            rows.append(
                {
                    **case,
                    "planned_mb": plan["memory_mb"],
                    "peak_mb": run["peak_mb"],
                    "memory": round(plan["memory_mb"] / run["peak_mb"], 3),
                    "planned_s": plan["seconds"],
                    "run_s": run["seconds"],
                    "time": round(plan["seconds"] / run["seconds"], 3),
                }
            )
            print(rows[-1], plan["items"], file=sys.stderr)
    return {
        "name": "plan",
        "machine": {**common.machine(), "threads": threads},
        "rows": rows,
        "headline": {
            "worst_memory": max((row["memory"] for row in rows), key=lambda r: abs(r - 1)),
            "worst_time": max((row["time"] for row in rows), key=lambda r: abs(r - 1)),
        },
    }


def _child(case: dict[str, Any], threads: int) -> dict[str, Any]:
    arguments = ["--worker", json.dumps(case), "--threads", str(threads)]
    return common.child(__file__, arguments, threads=threads)


def work(case: dict[str, Any], threads: int) -> dict[str, Any]:
    """Make the plan, or do the run of one case."""
    import torch

    torch.set_num_threads(threads)
    with tempfile.TemporaryDirectory() as folder:
        return (_plan if case["do"] == "plan" else _run)(case, Path(folder))


def _job(case: dict[str, Any], recipe: Any, folder: Path) -> Any:
    from tutelage.core.example import Example, Message
    from tutelage.inference.models import locate_model
    from tutelage.inference.transformers import load_tokenizer
    from tutelage.training.job import TrainingJob

    source = locate_model("demo")
    words = _words(load_tokenizer(source))
    draw = random.Random(f"{case['prefix']}:{case['own']}")

    def row() -> Any:
        turns = (
            Message(role="user", content=" ".join(draw.choices(words, k=case["own"]))),
            Message(role="assistant", content=" ".join(draw.choices(words, k=case["answer"]))),
        )
        return Example(messages=turns)

    prompt = " ".join(draw.choices(words, k=case["prefix"])) or "Go on."
    rows = [row() for _ in range(TRAIN + VALIDATION)]
    return TrainingJob(source, rows[:TRAIN], rows[TRAIN:], prompt, recipe, folder / "run")


def _words(tokenizer: Any) -> list[str]:
    """Return words that are one token each after a space."""
    found = [t[1:] for t in tokenizer.get_vocab() if t[0] == "Ġ" and t[1:].isalpha() and len(t) > 3]
    return sorted(word for word in found if word.isascii())


def _plan(case: dict[str, Any], folder: Path) -> dict[str, Any]:
    from tutelage.core.config import Train
    from tutelage.inference.models import locate_model
    from tutelage.inference.transformers_prepare import prepare
    from tutelage.training.profile import profile_machine, profile_model
    from tutelage.training.recipe import Recipe
    from tutelage.workflows.training.plan import plan_job

    settings = Train(
        method=case["method"], epochs=case["epochs"], batch_size=BATCH, patience=1000,
        micro_batch=case["micro_batch"],
    )  # fmt: skip
    source = locate_model("demo")
    model = profile_model(source.name, prepare(source))
    job = _job(case, Recipe(method=case["method"], max_tokens=model.context), folder)
    made = plan_job(job, "generation", model, profile_machine(folder), settings)
    return {
        "memory_mb": made.memory.total_mb,
        "seconds": made.seconds,
        "items": made.memory.model_dump(),
        "recipe": made.recipe.model_dump(mode="json"),
    }


def _run(case: dict[str, Any], folder: Path) -> dict[str, Any]:
    from tutelage.training.recipe import Recipe
    from tutelage.training.session import train

    result = train(_job(case, Recipe.model_validate(case["recipe"]), folder))
    return {"peak_mb": round(result.peak_memory_mb * 2**20 / 1e6, 1), "seconds": result.seconds}


if __name__ == "__main__":
    main()
