"""Seconds per optimizer step of DPO with a shared prompt: ours against TRL's DPOTrainer.

Both train a LoRA adapter of the demo model on the same pairs, with the same number of threads, in
processes of their own that take turns. A pair is a question after instructions that all pairs
share, and two answers. `trl` measures the reference in every step, `trl_precomputed` once before
training as ours does; both have gradient checkpointing off.
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

PREFIXES = (0, 256, 512)
USER, ANSWER, BATCH = 64, 32, 8  # tokens, tokens, pairs a step
RANK, ALPHA, RATE, BETA = 16, 32, 1e-4, 0.1
SIDES = ("ours", "trl", "trl_precomputed")
Pairs = list[tuple[list[int], list[int], list[int]]]  # prompt, better and worse answer


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print one JSON object alone")
    parser.add_argument("--quick", action="store_true", help="one round of one step, 256 alone")
    parser.add_argument("--threads", type=int, default=common.cores())
    parser.add_argument("--prefixes", type=int, nargs="*")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    parser.add_argument("--steps", type=int, default=1, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        print(json.dumps(work(options.worker, options.prefixes[0], options.steps, options.threads)))
        return
    prefixes = options.prefixes or ([256] if options.quick else list(PREFIXES))
    report = compare(prefixes, quick=options.quick, threads=options.threads)
    if options.json:
        print(json.dumps(report))
        return
    print(common.table(report["rows"]))
    print(report["headline"])


def compare(prefixes: list[int], *, quick: bool, threads: int) -> dict[str, Any]:
    """Return the report: medians over rounds of alternating processes."""
    rows = []
    for prefix in prefixes:
        results: dict[str, list[dict[str, Any]]] = {side: [] for side in SIDES}
        for _ in range(1 if quick else 3):
            for side in SIDES:
                arguments = ["--worker", side, "--prefixes", str(prefix), "--threads", str(threads)]
                arguments += ["--steps", "1" if quick else "2"]
                results[side].append(common.child(__file__, arguments, threads=threads))
                print(f"prefix {prefix} {side}: {results[side][-1]}", file=sys.stderr)
        rows.append(summary(prefix, results))
    return {
        "name": "preference_step",
        "machine": {**common.machine(), "threads": threads},
        "rows": rows,
        "headline": {f"vs_trl_{row['prefix']}": row["ratio"] for row in rows},
    }


def summary(prefix: int, results: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """Return one table row: median seconds and MB of each side, the ratio, the losses' gap."""
    row: dict[str, Any] = {"prefix": prefix, "user": USER, "answer": ANSWER}
    for side, runs in results.items():
        row[f"{side}_s"] = common.median([s for run in runs for s in run["seconds"]])
        row[f"{side}_mb"] = common.median([run["peak_mb"] for run in runs])
    row["unique"], row["total"] = results["ours"][0]["tokens"]
    fastest = min(row[f"{side}_s"] for side in SIDES if side != "ours")
    row["ratio"] = round(fastest / row["ours_s"], 2)
    gaps = [
        abs(a - b) for a, b in zip(*(results[s][0]["losses"] for s in ("ours", "trl")), strict=True)
    ]
    row["loss_gap"] = float(f"{max(gaps):.1e}")
    return row


def work(side: str, prefix: int, steps: int, threads: int) -> dict[str, Any]:
    """Train one short warm-up step and `steps` timed ones; return seconds, losses, memory."""
    import torch

    torch.set_num_threads(threads)
    model, tokenizer = load_demo()
    batches = [draw(tokenizer, 0, 0), *(draw(tokenizer, prefix, n) for n in range(1, steps + 1))]
    if side == "ours":
        found = train_ours(model, batches)
    else:
        found = train_trl(model, tokenizer, batches, precomputed=side == "trl_precomputed")
    return {**found, "seconds": found["seconds"][1:], "peak_mb": common.peak_memory_mb()}


def load_demo() -> tuple[Any, Any]:
    """Return the demo model in fp32 and its tokenizer."""
    from tutelage.inference.models import locate_model
    from tutelage.inference.transformers import load_model, load_tokenizer

    source = locate_model("demo")
    return load_model(source, dtype="float32"), load_tokenizer(source)


def lora(model: Any) -> Any:
    """Return `model` with the adapter that all sides train, equal to the last bit."""
    import torch
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(7)
    config = LoraConfig(
        r=RANK, lora_alpha=ALPHA, target_modules="all-linear", task_type="CAUSAL_LM"
    )
    return get_peft_model(model, config)


def draw(tokenizer: Any, prefix: int, seed: int) -> Pairs:
    """Return BATCH pairs of whole words; the instructions are one for all steps."""
    words = sorted(
        index
        for token, index in tokenizer.get_vocab().items()
        if token[0] == "Ġ" and token[1:].isascii() and token[1:].isalpha() and len(token) > 3
    )
    shared = random.Random(prefix).choices(words, k=prefix)
    own = random.Random(f"{prefix}:{seed}")
    end = [tokenizer.eos_token_id]
    return [
        (
            shared + own.choices(words, k=USER),
            own.choices(words, k=ANSWER - 1) + end,
            own.choices(words, k=ANSWER - 1) + end,
        )
        for _ in range(BATCH)
    ]


def train_ours(model: Any, batches: list[Pairs]) -> dict[str, Any]:
    """Return seconds and loss of each step, and what the reference took."""
    import torch

    from tutelage.core.events import silent
    from tutelage.training.methods.dpo import Dpo, PairItem
    from tutelage.training.methods.preference import answer_row
    from tutelage.training.recipe import Recipe

    model = lora(model).train()
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=RATE, weight_decay=0.0)
    items = [
        [
            PairItem(
                f"{number}:{index}",
                answer_row(f"{number}:{index}+", prompt, better),
                answer_row(f"{number}:{index}-", prompt, worse),
            )
            for index, (prompt, better, worse) in enumerate(batch)
        ]
        for number, batch in enumerate(batches)
    ]
    recipe = Recipe(method="dpo", batch_size=BATCH, micro_batch=BATCH, beta=BETA)
    started = time.perf_counter()
    step, report = Dpo().step(model, [item for part in items for item in part], recipe, silent)
    reference = time.perf_counter() - started
    if not report["shared"] and len(batches[-1][0][0]) > USER:
        raise SystemExit(f"prefixes were not shared: {report}")
    seconds, losses, tokens = [], [], (0, 0)
    for part in items:
        started = time.perf_counter()
        found = step(part, BATCH)
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        seconds.append(time.perf_counter() - started)
        losses.append(found.loss)
        tokens = (found.unique, found.total)
    return {"seconds": seconds, "losses": losses, "tokens": tokens, "reference_s": reference}


def train_trl(
    model: Any, tokenizer: Any, batches: list[Pairs], *, precomputed: bool
) -> dict[str, Any]:
    """Return seconds and loss of each step of TRL's DPOTrainer."""
    from datasets import Dataset
    from transformers import TrainerCallback
    from trl import DPOConfig, DPOTrainer

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

    names = ("prompt", "chosen", "rejected")
    data = [
        {name: tokenizer.decode(ids) for name, ids in zip(names, pair, strict=True)}
        for batch in batches
        for pair in batch
    ]
    with tempfile.TemporaryDirectory() as directory:
        settings = DPOConfig(
            output_dir=directory,
            per_device_train_batch_size=BATCH,
            max_steps=len(batches),
            learning_rate=RATE,
            beta=BETA,
            lr_scheduler_type="constant",
            weight_decay=0.0,
            max_grad_norm=1.0,
            gradient_checkpointing=False,
            precompute_ref_log_probs=precomputed,
            bf16=False,
            use_cpu=True,
            max_length=None,
            logging_steps=1,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            train_sampling_strategy="sequential",
        )
        trainer = DPOTrainer(
            model=lora(model),
            args=settings,
            train_dataset=Dataset.from_list(data),
            processing_class=tokenizer,
            callbacks=[Clock()],
        )
        trainer.train()
    seconds = [end - start for start, end in zip(marks[::2], marks[1::2], strict=True)]
    return {"seconds": seconds, "losses": losses}


if __name__ == "__main__":
    main()
