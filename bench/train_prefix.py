"""Seconds per optimizer step of LoRA training with a shared prompt: ours against TRL and Unsloth.

All train the same rows on the same demo model with the same number of threads, in processes of
their own that take turns: 8 rows a step, in one micro-batch of 8 or in eight of 1. Rows are real
words drawn at random; only the completion is supervised. Each side is run as it is fastest and as
it is smallest: `trl` has gradient checkpointing off, `trl_lean` has it on as TRL's default is, and
`ours_lean` has train.checkpointing on. Speed is compared with the faster of TRL's two, memory
like with like. `floor` is the time that the matrix products of the step would take at the rate
this machine multiplies large fp32 matrices at.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))
import common

HERE = Path(__file__).resolve().parent
PEER = HERE / "peers" / "sft.py"
UNSLOTH = HERE / ".venvs" / "unsloth" / "bin" / "python"
PREFIXES = (0, 128, 256, 512, 1024)
USER, COMPLETION, BATCH = 64, 32, 8
RANK, RATE = 16, 1e-3
SIDES = ("ours", "ours_lean", "trl", "trl_lean", "unsloth")
TRL_MB_A_TOKEN = 2.5  # what TRL keeps without checkpointing, measured at 1,024
Batches = list[list[dict[str, list[int]]]]


@dataclass(frozen=True)
class Cell:
    """One row of the table."""

    prefix: int
    micro: int = BATCH
    precision: str = "fp32"

    @property
    def rows_tokens(self) -> int:
        """Tokens of a micro-batch without sharing."""
        return self.micro * (self.prefix + USER + COMPLETION)


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print one JSON object alone")
    parser.add_argument("--quick", action="store_true", help="four cells, one round of one step")
    parser.add_argument("--threads", type=int, default=common.cores())
    parser.add_argument("--prefixes", type=int, nargs="*", default=None)
    parser.add_argument("--micro", type=int, nargs="*", default=None, choices=[1, 2, 4, 8])
    parser.add_argument("--precisions", nargs="*", default=None, choices=["fp32", "bf16"])
    parser.add_argument("--sides", nargs="*", default=None, choices=SIDES)
    parser.add_argument("--rounds", type=int, default=None)
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        print(json.dumps(work(json.loads(options.worker))))
        return
    report = compare(options)
    if options.json:
        print(json.dumps(report))
        return
    print(common.table(report["rows"]))
    print(report["headline"])


def cells(options: argparse.Namespace) -> list[Cell]:
    """Return what is measured; a quick run leaves micro-batches of one, bf16 and 128 out."""
    prefixes = options.prefixes or ((0, 256, 512, 1024) if options.quick else PREFIXES)
    micro = options.micro or ((BATCH,) if options.quick else (BATCH, 1))
    precisions = options.precisions or (("fp32",) if options.quick else ("fp32", "bf16"))
    return [Cell(p, m, f) for f in precisions for m in micro for p in prefixes]


def sides(cell: Cell, options: argparse.Namespace) -> list[str]:
    """Return who takes part; a quick run has the lean sides at 256 alone.

    Where TRL's activations do not fit the memory it keeps checkpointing on.
    """
    chosen = list(options.sides or SIDES)
    if options.quick and not options.sides:
        chosen = [*SIDES] if cell.prefix == 256 else ["ours", "trl"]
    if "trl" in chosen and TRL_MB_A_TOKEN * cell.rows_tokens > _memory_mb():
        chosen = [side for side in chosen if side != "trl"]
        chosen += [] if "trl_lean" in chosen else ["trl_lean"]
    if not UNSLOTH.exists() or cell.precision != "fp32":
        chosen = [side for side in chosen if side != "unsloth"]
    return chosen


def _memory_mb() -> float:
    import psutil

    return float(psutil.virtual_memory().available) / 2**20


def compare(options: argparse.Namespace) -> dict[str, Any]:
    """Return the report: medians over rounds of alternating processes."""
    rounds = options.rounds or (1 if options.quick else 3)
    table, headline = [], {}
    with tempfile.TemporaryDirectory() as directory:
        runner = Runner(Path(directory), options.threads, steps=1 if options.quick else 2)
        for cell in cells(options):
            results: dict[str, list[dict[str, Any]]] = {s: [] for s in sides(cell, options)}
            for _ in range(rounds):
                for side, runs in results.items():
                    runs.append(runner.run(side, cell))
                    print(f"{cell} {side}: {runs[-1]}", file=sys.stderr, flush=True)
            row = summary(cell, results) | {"floor": runner.floor(cell)}
            table.append(row)
            headline |= headline_of(cell, row)
        machine = {**common.machine(), "threads": options.threads, "sgemm_gflops": runner.rate}
    return {"name": "train_prefix", "machine": machine, "rows": table, "headline": headline}


def headline_of(cell: Cell, row: dict[str, Any]) -> dict[str, float]:
    """Return the headline numbers that one cell gives."""
    found: dict[str, float] = {}
    if cell.micro == BATCH and cell.precision == "fp32":
        found |= {f"vs_{peer}_{cell.prefix}": row.get(f"vs_{peer}") for peer in ("trl", "unsloth")}
        if cell.prefix == 256:
            found["memory_256"] = row.get("memory")
    return {key: value for key, value in found.items() if value is not None}


def summary(cell: Cell, results: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """Return one table row: median seconds and MB of each side, ratios, the losses' gap.

    `memory` is ours over TRL's without checkpointing, `memory_lean` with it, both below 1 if ours
    takes less.
    """
    row: dict[str, Any] = {**vars(cell)}
    for side, runs in results.items():
        row[f"{side}_s"] = common.median([s for run in runs for s in run["seconds"]])
        row[f"{side}_cpu_s"] = common.median([s for run in runs for s in run["processor"]])
        row[f"{side}_mb"] = round(common.median([run["peak_mb"] for run in runs]))
    for peer in ("trl", "unsloth"):
        times = [row[f"{side}_s"] for side in results if side.startswith(peer)]
        if times and "ours" in results:
            row[f"vs_{peer}"] = round(min(times) / row["ours_s"], 2)
    for name, ours, theirs in (("memory", "ours", "trl"), ("memory_lean", "ours_lean", "trl_lean")):
        if ours in results and theirs in results:
            row[name] = round(row[f"{ours}_mb"] / row[f"{theirs}_mb"], 3)
    first = [runs[0]["losses"] for runs in results.values()]
    row["loss_gap"] = float(f"{max(max(x) - min(x) for x in zip(*first, strict=True)):.1e}")
    return row


class Runner:
    """Runs one side of one cell in a process of its own."""

    def __init__(self, directory: Path, threads: int, *, steps: int) -> None:
        self._directory, self._threads, self._steps = directory, threads, steps
        facts = self._work({"side": "facts", "threads": threads})
        self._model, self.rate = facts["model"], facts["sgemm_gflops"]
        self._facts = facts

    def run(self, side: str, cell: Cell) -> dict[str, Any]:
        """Return seconds of each step, losses and peak memory of one fresh process."""
        rows = self._rows(cell.prefix)
        if side.startswith("ours"):
            wish = {**vars(cell), "side": side, "rows": str(rows), "threads": self._threads}
            return self._work(wish)
        arguments = ["--peer", side.split("_")[0], "--model", self._model, "--rows", str(rows)]
        arguments += ["--micro", str(cell.micro), "--rank", str(RANK), "--rate", str(RATE)]
        arguments += ["--precision", cell.precision, "--threads", str(self._threads)]
        arguments += ["--checkpointing"] if side.endswith("_lean") else []
        python = str(UNSLOTH) if side == "unsloth" else sys.executable
        return common.child(str(PEER), arguments, threads=self._threads, python=python)

    def floor(self, cell: Cell) -> float:
        """Return the seconds of the step's matrix products at the measured rate.

        2 FLOPs a weight and token forward, 2 for the input's gradient (frozen weights have none of
        their own), 6 a weight of the adapter; attention 4 and 10 a pair of query and key and
        head size; the output head at the completion's positions alone.
        """
        facts, own = self._facts, USER + COMPLETION - 1
        unique = cell.prefix + BATCH * own
        pairs = cell.prefix**2 / 2 + BATCH * (own * cell.prefix + own**2 / 2)
        flops = 4 * facts["linear"] * unique + 6 * facts["adapter"] * unique
        flops += 14 * facts["layers"] * facts["attention_width"] * pairs
        flops += 4 * facts["head"] * BATCH * COMPLETION
        return round(flops / (self.rate * 1e9), 3)

    def _rows(self, prefix: int) -> Path:
        path = self._directory / f"rows-{prefix}.json"
        if not path.exists():
            wish = {"side": "rows", "prefix": prefix, "steps": self._steps, "path": str(path)}
            self._work(wish)
        return path

    def _work(self, wish: dict[str, Any]) -> dict[str, Any]:
        return common.child(__file__, ["--worker", json.dumps(wish)], threads=self._threads)


def work(wish: dict[str, Any]) -> dict[str, Any]:
    """Do one worker's part: `facts` of model and machine, the `rows` of a prefix, or our steps."""
    if wish["side"] == "facts":
        return facts(wish["threads"])
    if wish["side"] == "rows":
        batches = draw_rows(0, 1) + draw_rows(wish["prefix"], wish["steps"])
        Path(wish["path"]).write_text(json.dumps(batches))
        return {}
    return train_ours(wish)


def facts(threads: int) -> dict[str, Any]:
    """Return the demo's folder and sizes, and GFLOP/s of a large fp32 matrix product."""
    import torch

    from tutelage.inference.models import locate_model
    from tutelage.inference.transformers_prepare import prepare

    torch.set_num_threads(threads)
    one, other = torch.randn(2048, 1536), torch.randn(1536, 1536)
    times = []
    for _ in range(12):
        started = time.perf_counter()
        one @ other
        times.append(time.perf_counter() - started)
    folder = prepare(locate_model("demo"))
    config = json.loads((folder / "config.json").read_text())
    hidden, inner, layers = (
        config[k] for k in ("hidden_size", "intermediate_size", "num_hidden_layers")
    )
    narrow = hidden * config["num_key_value_heads"] // config["num_attention_heads"]
    shapes = [(hidden, hidden)] * 2 + [(hidden, narrow)] * 2 + [(hidden, inner)] * 3
    return {
        "model": str(folder),
        "layers": layers,
        "attention_width": hidden,
        "linear": layers * sum(i * o for i, o in shapes),
        "adapter": layers * RANK * sum(i + o for i, o in shapes),
        "head": hidden * config["vocab_size"],
        "sgemm_gflops": round(2 * 2048 * 1536**2 / min(times[2:]) / 1e9, 1),
    }


def draw_rows(prefix: int, batches: int) -> Batches:
    """Return `batches` lists of BATCH rows of whole-word tokens with one prefix for all."""
    from tutelage.inference.models import locate_model
    from tutelage.inference.transformers import load_tokenizer

    words = sorted(
        index
        for token, index in load_tokenizer(locate_model("demo")).get_vocab().items()
        if token[0] == "Ġ" and token[1:].isascii() and token[1:].isalpha() and len(token) > 3
    )
    generator = random.Random(prefix)
    shared = generator.choices(words, k=prefix)

    def row() -> dict[str, list[int]]:
        prompt = shared + generator.choices(words, k=USER)
        completion = generator.choices(words, k=COMPLETION)
        return {"input_ids": prompt + completion, "labels": [-100] * len(prompt) + completion}

    return [[row() for _ in range(BATCH)] for _ in range(batches)]


def train_ours(wish: dict[str, Any]) -> dict[str, Any]:
    """Return seconds, losses and peak memory of our steps, built of the parts a run is built of."""
    import torch

    from tutelage.inference.models import locate_model
    from tutelage.inference.transformers import load_model
    from tutelage.training.adapters import attach_lora
    from tutelage.training.kernels import set_checkpointing
    from tutelage.training.precision import autocast, halve_frozen
    from tutelage.training.recipe import Recipe
    from tutelage.training.shared_step import SharedStep

    torch.set_num_threads(wish["threads"])
    model = load_model(locate_model("demo"), dtype="float32")
    model = attach_lora(model, Recipe(rank=RANK, alpha=2.0 * RANK, seed=7)).train()
    if wish["side"] == "ours_lean":
        set_checkpointing(model)
    step = SharedStep(model)
    halve_frozen(model, wish["precision"])
    before = common.peak_memory_mb()
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=RATE, weight_decay=0.0)
    clock, losses = common.Clock(), []
    for rows in read_rows(Path(wish["rows"])):
        clock.start()
        with autocast(model, wish["precision"]):
            losses.append(step(rows, wish["micro"]).loss)
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        clock.stop()
    peak = common.peak_memory_mb()
    return {**clock.steps(), "losses": losses, "peak_mb": peak, "loaded_mb": before}


def read_rows(path: Path) -> Iterator[list[Any]]:
    """Yield the rows of each optimizer step as our encoder would give them."""
    from tutelage.training.prefix_tree import Row

    for batch in json.loads(path.read_text()):
        yield [
            Row(
                id=str(index),
                ids=tuple(row["input_ids"]),
                weights=tuple(float(label >= 0) for label in row["labels"]),
                answer_start=len(row["input_ids"]) - COMPLETION,
            )
            for index, row in enumerate(batch)
        ]


if __name__ == "__main__":
    main()
