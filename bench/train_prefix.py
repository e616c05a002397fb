"""Seconds per optimizer step of LoRA training with a shared prompt: ours against TRL's SFTTrainer.

Both train the same rows on the same demo model with the same number of threads, in processes of
their own that take turns. Rows are real words drawn at random; only the completion is supervised.
`trl` has gradient checkpointing off, `trl_default` has it on as TRL's default is; each headline
number is against whichever of the two does better at it.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))
import common

PREFIXES = (0, 256, 512, 1024)
USER, COMPLETION, BATCH = 64, 32, 8
RANK, ALPHA, RATE = 16, 32, 1e-3
Batches = list[list[dict[str, list[int]]]]


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print one JSON object alone")
    parser.add_argument("--quick", action="store_true", help="one round of one step, not three")
    parser.add_argument("--threads", type=int, default=common.cores())
    parser.add_argument("--prefixes", type=int, nargs="*", default=list(PREFIXES))
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    parser.add_argument("--steps", type=int, default=1, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        print(json.dumps(work(options.worker, options.prefixes[0], options.steps, options.threads)))
        return
    report = compare(options.prefixes, quick=options.quick, threads=options.threads)
    if options.json:
        print(json.dumps(report))
        return
    print(common.table(report["rows"]))
    print(report["headline"])


def compare(prefixes: list[int], *, quick: bool, threads: int) -> dict[str, Any]:
    """Return the report: medians over rounds of alternating processes."""
    rows, headline = [], {}
    for prefix in prefixes:
        sides = ["ours", "trl"] if quick and prefix != 256 else ["ours", "trl", "trl_default"]
        results: dict[str, list[dict[str, Any]]] = {side: [] for side in sides}
        for _ in range(1 if quick else 3):
            for side in sides:
                arguments = ["--worker", side, "--prefixes", str(prefix), "--threads", str(threads)]
                arguments += ["--steps", "1" if quick else "2"]
                results[side].append(common.child(__file__, arguments, threads=threads))
                print(f"prefix {prefix} {side}: {results[side][-1]}", file=sys.stderr)
        row = summary(prefix, results)
        rows.append(row)
        headline[f"vs_trl_{prefix}"] = row["ratio"]
        if prefix == 256:
            smallest = min(row[f"{side}_mb"] for side in sides if side != "ours")
            headline["memory_256"] = round(row["ours_mb"] / smallest, 3)
    return {
        "name": "train_prefix",
        "machine": {**common.machine(), "threads": threads},
        "rows": rows,
        "headline": headline,
    }


def summary(prefix: int, results: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """Return one table row: median seconds and MB of each side, the ratio, the losses' gap."""
    row: dict[str, Any] = {"prefix": prefix, "user": USER, "completion": COMPLETION}
    for side, runs in results.items():
        row[f"{side}_s"] = common.median([s for run in runs for s in run["seconds"]])
        row[f"{side}_mb"] = common.median([run["peak_mb"] for run in runs])
    fastest = min(row[f"{side}_s"] for side in results if side != "ours")
    row["ratio"] = round(fastest / row["ours_s"], 2)
    gaps = [a - b for a, b in zip(*(results[s][0]["losses"] for s in ("ours", "trl")), strict=True)]
    row["loss_gap"] = float(f"{max(map(abs, gaps)):.1e}")
    return row


def work(side: str, prefix: int, steps: int, threads: int) -> dict[str, Any]:
    """Train one short warm-up step and `steps` timed ones; return seconds, losses, peak memory."""
    import torch

    torch.set_num_threads(threads)
    model, tokenizer = load_demo()
    batches = draw_rows(tokenizer, 0, 1) + draw_rows(tokenizer, prefix, steps)
    before = common.peak_memory_mb()
    run = train_ours if side == "ours" else train_trl
    options = {} if side == "ours" else {"checkpointing": side == "trl_default"}
    seconds, losses = run(model, tokenizer, batches, **options)
    return {
        "seconds": seconds[1:],
        "losses": losses,
        "peak_mb": common.peak_memory_mb(),
        "loaded_mb": before,
    }


def load_demo() -> tuple[Any, Any]:
    """Return the demo model in fp32 and its tokenizer."""
    from tutelage.inference.models import locate_model
    from tutelage.inference.transformers import load_model, load_tokenizer

    source = locate_model("demo")
    return load_model(source, dtype="float32"), load_tokenizer(source)


def draw_rows(tokenizer: Any, prefix: int, batches: int) -> Batches:
    """Return `batches` lists of BATCH rows of whole-word tokens with one prefix for all."""
    words = sorted(
        index
        for token, index in tokenizer.get_vocab().items()
        if token[0] == "Ġ" and token[1:].isascii() and token[1:].isalpha() and len(token) > 3
    )
    generator = random.Random(prefix)
    shared = generator.choices(words, k=prefix)
    drawn = []
    for _ in range(batches):
        batch = []
        for _ in range(BATCH):
            prompt = shared + generator.choices(words, k=USER)
            completion = generator.choices(words, k=COMPLETION)
            labels = [-100] * len(prompt) + completion
            batch.append({"input_ids": prompt + completion, "labels": labels})
        drawn.append(batch)
    return drawn


def lora(model: Any) -> Any:
    """Return `model` with the adapter that both sides train, equal to the last bit."""
    import torch
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(7)
    config = LoraConfig(
        r=RANK, lora_alpha=ALPHA, target_modules="all-linear", task_type="CAUSAL_LM"
    )
    return get_peft_model(model, config)


def train_ours(model: Any, tokenizer: Any, batches: Batches) -> tuple[list[float], list[float]]:
    """Return seconds and loss of each optimizer step of the shared-prefix path."""
    import torch

    from tutelage.training.prefix_tree import Row
    from tutelage.training.shared_step import SharedStep

    model = lora(model).train()
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=RATE, weight_decay=0.0)
    step = SharedStep(model)
    seconds, losses = [], []
    for batch in batches:
        rows = [
            Row(
                id=str(index),
                ids=tuple(row["input_ids"]),
                weights=tuple(float(label >= 0) for label in row["labels"]),
                answer_start=len(row["input_ids"]) - COMPLETION,
            )
            for index, row in enumerate(batch)
        ]
        started = time.perf_counter()
        losses.append(step(rows, BATCH).loss)
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        seconds.append(time.perf_counter() - started)
    return seconds, losses


def train_trl(
    model: Any,
    tokenizer: Any,
    batches: Batches,
    *,
    checkpointing: bool,
) -> tuple[list[float], list[float]]:
    """Return seconds and loss of each optimizer step of TRL's SFTTrainer."""
    from datasets import Dataset  # type: ignore[import-untyped]
    from transformers import TrainerCallback
    from trl import SFTConfig, SFTTrainer

    marks: list[float] = []
    losses: list[float] = []

    class Clock(TrainerCallback):  # type: ignore[misc]
        def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            marks.append(time.perf_counter())

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            marks.append(time.perf_counter())

        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
            if logs and "loss" in logs:
                losses.append(float(logs["loss"]))

    with tempfile.TemporaryDirectory() as directory:
        settings = SFTConfig(
            output_dir=directory,
            per_device_train_batch_size=BATCH,
            max_steps=len(batches),
            learning_rate=RATE,
            lr_scheduler_type="constant",
            weight_decay=0.0,
            max_grad_norm=1.0,
            gradient_checkpointing=checkpointing,
            bf16=False,
            use_cpu=True,
            max_length=None,
            logging_steps=1,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            shuffle_dataset=False,
            train_sampling_strategy="sequential",
        )
        rows = Dataset.from_list([row for batch in batches for row in batch])
        trainer = SFTTrainer(
            model=lora(model),
            args=settings,
            train_dataset=rows,
            processing_class=tokenizer,
            callbacks=[Clock()],
        )
        trainer.train()
    seconds = [end - start for start, end in zip(marks[::2], marks[1::2], strict=True)]
    return seconds, losses


if __name__ == "__main__":
    main()
