"""What helps against forgetting: the demo's task with part of the change kept, and with replay.

Every cell trains the demo project's plan (ICD-10 chapters, the demo model) with one thing changed:
nothing replayed and the whole change kept, or back towards the base, or one row in ten replayed
(what the plan does), their words in place of the base's odds, and so on. Measured are accuracy on
real descriptions that are in no split, the drop of the chance of right answers to general
questions, and general-text perplexity over the base's. A measured cell is kept under --cache and
not trained again, so the table can be made in pieces.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))
import common

os.environ |= common.QUIET  # before torch is loaded
TEST_PER_LABEL = 12


@dataclass(frozen=True)
class Cell:
    """One run: share of replayed rows, their kinds, and what of the plan is changed."""

    name: str
    share: float = 0.0
    kinds: tuple[str, ...] = ("chat",)
    changes: dict[str, Any] = field(default_factory=dict)
    seed: int = 7


BOTH = ("chat", "text")
CELLS = (
    Cell("nothing", changes={"interpolate": False}),
    Cell("back", changes={"interpolate": True}),
    Cell("plan", 0.10, BOTH),
    Cell("plan and back", 0.10, BOTH, {"interpolate": True}),
    Cell("words", 0.10, BOTH, {"replay_loss": "text"}),
    Cell("chat", 0.10),
    Cell("text", 0.10, ("text",)),
    Cell("5 %", 0.05, BOTH),
    Cell("20 %", 0.20, BOTH),
    Cell("rate 5e-4", 0.10, BOTH, {"learning_rate": 5e-4}),
    Cell("rank 8", 0.10, BOTH, {"rank": 8, "alpha": 16.0}),
    Cell("2 epochs", 0.10, BOTH, {"epochs": 2.0}),
)
QUICK = ("nothing", "plan")


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print one JSON object alone")
    parser.add_argument("--quick", action="store_true", help="two cells")
    parser.add_argument(
        "--only", nargs="*", choices=[cell.name for cell in CELLS], help="names of cells"
    )
    parser.add_argument("--table", action="store_true", help="measure nothing, show what was")
    parser.add_argument("--seeds", type=int, nargs="*", default=[7])
    parser.add_argument("--cache", type=Path, default=Path(tempfile.gettempdir()) / "bench-replay")
    options = parser.parse_args()
    wanted = options.only or (QUICK if options.quick else [cell.name for cell in CELLS])
    bench = Bench(options.cache)
    for seed in [] if options.table else options.seeds:
        for name in wanted:
            cell = next(cell for cell in CELLS if cell.name == name)
            bench.measure(replace(cell, seed=seed))
    report = bench.report([cell.name for cell in CELLS if cell.name in wanted], options.seeds)
    if options.json:
        print(json.dumps(report))
        return
    if not report["rows"]:
        raise SystemExit("no cell was measured yet")
    print(common.table(report["rows"]))
    print("\n" + "\n".join(f"{key} {value}" for key, value in report["headline"].items()))


class Bench:
    """The demo project, its test rows, and the cells measured so far."""

    def __init__(self, cache: Path) -> None:
        self.cache = cache
        self.project: Any = None

    def measure(self, cell: Cell) -> None:
        """Measure `cell` unless it was measured before."""
        path = self._path(cell.name, cell.seed)
        if path.exists():
            return
        if self.project is None:
            self.project = Project(self.cache)
        started = time.monotonic()
        found = self.project.run(cell)
        print(f"{cell.name} seed {cell.seed}: {found}", file=sys.stderr, flush=True)
        found["cell_seconds"] = round(time.monotonic() - started, 1)
        path.write_text(json.dumps({**found, "cell": asdict(cell)}))

    def report(self, names: list[str], seeds: list[int]) -> dict[str, Any]:
        """Return the table: means over the seeds that were measured."""
        rows = []
        for name in names:
            paths = [self._path(name, seed) for seed in seeds]
            runs = [json.loads(path.read_text()) for path in paths if path.exists()]
            if not runs:
                continue

            def mean(key: str, runs: list[dict[str, Any]] = runs) -> float:
                return sum(run[key] for run in runs) / len(runs)

            rows.append({
                "cell": name,
                "seeds": len(runs),
                "replayed": runs[0]["replayed"],
                "accuracy_%": round(100 * mean("accuracy"), 1),
                "chance_drop_%": round(100 * mean("chance_drop"), 2),
                "hits_drop_%": round(100 * mean("hits_drop"), 2),
                "perplexity_ratio": round(mean("perplexity_ratio"), 3),
                "kept_%": round(100 * mean("share")),
                "best_step": round(mean("best_step")),
                "steps": round(mean("steps")),
                "train_s": round(mean("seconds"), 1),
            })  # fmt: skip
        inside = [r for r in rows if r["chance_drop_%"] <= 2 and r["perplexity_ratio"] <= 1.10]
        best = max(inside, key=lambda row: row["accuracy_%"], default=None)
        headline = {"inside_default_guards": len(inside), "best_inside": best and best["cell"]}
        return {
            "name": "replay",
            "machine": common.machine(),
            "rows": rows,
            "headline": headline,
        }

    def _path(self, name: str, seed: int) -> Path:
        return self.cache / "cells" / f"{slug(name)}-{seed}.json"


def slug(name: str) -> str:
    """Return a cell's name as a file can have it."""
    return "".join(c if c.isalnum() else "-" for c in name)


class Project:
    """The demo project, curated and planned once."""

    def __init__(self, cache: Path) -> None:
        import torch

        from tutelage.data.version import load_version
        from tutelage.workflows.context import open_context
        from tutelage.workflows.curate import curate
        from tutelage.workflows.demo.demo import write_demo
        from tutelage.workflows.training.plan import plan

        torch.set_num_threads(common.cores())
        (cache / "cells").mkdir(parents=True, exist_ok=True)
        write_demo(cache / "project")
        self.ctx = open_context(cache / "project")
        dataset = curate(self.ctx).artifact
        self.version = load_version(self.ctx.path_of(dataset))
        kept = cache / "recipe.json"
        self.recipe = self._recipe(kept, lambda: plan(self.ctx, dataset, probe=False))
        self.test = self._test_rows()
        self.replay, self.runs = cache / "replay", cache / "runs"
        self.base = self._base(cache / "base.json")

    def _recipe(self, path: Path, make: Any) -> Any:
        """Return the plan's recipe, the same for all cells of a cache."""
        from tutelage.training.recipe import Recipe

        if not path.exists():
            path.write_text(make().recipe.model_dump_json())
        return Recipe.model_validate_json(path.read_bytes())

    def _test_rows(self) -> list[Any]:
        from tutelage.core.example import Example, Message, normalise
        from tutelage.workflows.demo.demo import demo_rows

        output = self.ctx.config.output.format()
        known = {normalise(row.input_text) for row in self.version.all_rows()}
        left: dict[str, int] = {}
        rows = []
        for text, label in demo_rows(per_chapter=60, seed=11):
            if normalise(text) in known or left.get(label, 0) >= TEST_PER_LABEL:
                continue
            left[label] = left.get(label, 0) + 1
            turns = (
                Message(role="user", content=text),
                Message(role="assistant", content=output.render(label)),
            )
            rows.append(Example(messages=turns, label=label))
        return rows

    def _source(self) -> Any:
        from tutelage.inference.models import locate_model

        return locate_model(self.ctx.config.model)

    def _base(self, path: Path) -> Any:
        from tutelage.evaluation.forgetting import ProbeResult, measure
        from tutelage.inference.transformers import TransformersGenerator

        if not path.exists():
            engine = TransformersGenerator(self._source())
            marks = {**measure(engine).as_dict(), "accuracy": self.score(engine)}
            path.write_text(json.dumps(marks))
            engine.close()
        kept = json.loads(path.read_text())
        print(f"base accuracy {kept.pop('accuracy'):.3f}", file=sys.stderr)
        return ProbeResult(**kept)

    def score(self, engine: Any) -> float:
        """Return the accuracy over the test rows, labels weighed by likelihood."""
        from tutelage.inference.base import Prompt
        from tutelage.inference.chat import conversation

        output, labels = self.ctx.config.output, list(self.ctx.config.output.labels or ())
        answers = [output.format().render(label) for label in labels]
        prompt = self.ctx.config.prompt
        prompts = [Prompt(conversation(r, prompt, engine.specials)) for r in self.test]
        scores = engine.score_labels(prompts, answers, whole=False)
        right = [labels[i] == row.label for i, row in zip(scores.argmax(1), self.test, strict=True)]
        return float(sum(right) / len(right))

    def rehearsal(self, cell: Cell) -> list[Any]:
        """Return the cell's replayed rows, in equal parts of its kinds."""
        from tutelage.training.replay import own_samples, replay_count

        count = replay_count(len(self.version.rows("train")), cell.share)
        rows: list[Any] = []
        for index, kind in enumerate(cell.kinds):
            part = count // len(cell.kinds) + (index < count % len(cell.kinds))
            rows += own_samples(self._source(), kind, part, self.replay) if part else []
        return rows

    def run(self, cell: Cell) -> dict[str, Any]:
        """Train the cell and return what it measures."""
        from tutelage.evaluation.forgetting import compare, measure
        from tutelage.inference.transformers import TransformersGenerator
        from tutelage.training.job import TrainingJob
        from tutelage.training.replay import mix
        from tutelage.training.session import train

        changes = {**cell.changes, "seed": cell.seed, "checkpoint_every": 4}
        recipe = self.recipe.model_copy(update=changes)
        replayed = self.rehearsal(cell)
        folder = self.runs / f"{slug(cell.name)}-{cell.seed}"  # a run that was cut off goes on
        job = TrainingJob(
            model=self._source(),
            train=mix(self.version.rows("train"), replayed, cell.seed),
            validation=self.version.rows("validation"),
            prompt=self.ctx.config.prompt,
            recipe=recipe,
            run_dir=folder,
            output=self.ctx.config.output.format(),
        )
        result = train(job)
        engine = TransformersGenerator(self._source(), adapter=result.adapter_dir)
        accuracy = self.score(engine)
        lost = compare(self.base, measure(engine))
        engine.close()
        shutil.rmtree(folder)
        return {
            "replayed": len(replayed),
            "accuracy": accuracy,
            "chance_drop": lost.chance_drop.estimate,
            "hits_drop": lost.accuracy_drop.estimate,
            "perplexity_ratio": lost.perplexity_ratio.estimate,
            "share": result.interpolation["share"],
            "best_step": result.best_step,
            "steps": result.steps,
            "seconds": result.seconds,
        }


if __name__ == "__main__":
    main()
