"""A LoRA step on a GPU with a shared prompt: ours with and without sharing, TRL, Unsloth, QLoRA.

Random weights in Llama's shapes, bf16, rank 16 on all linear layers, completion-only loss, every
optimizer step in micro-batches of the same rows on every side. Tokens a second count every row's
tokens, shared or not: what the user wanted trained. Utilisation counts the FLOPs that are done: 4
a weight and token (the frozen weights have no gradient of their own) and 12 a query, key and
channel of attention, over the measured rate of a large matrix product.

`ours` is the program's step, `plain` that without sharing, through the model's own layers, and
`qlora` the same over packed weights. `trl` is SFTTrainer as it comes, gradient checkpointing off
as on every side. `unsloth` is its model and kernels in a bare loop, the trainer's own time not
counted.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import importlib.util
import json
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

_HERE = Path(__file__).resolve()
sys.path[:0] = [str(_HERE.parents[1]), str(_HERE.parents[2] / "src")]
import common  # noqa: E402

SHAPES = {  # vocabulary, hidden, inner, layers, heads, key heads
    "1B": (128_256, 2_048, 8_192, 16, 32, 8),
    "8B": (128_256, 4_096, 14_336, 32, 32, 8),
    "tiny": (512, 64, 128, 2, 4, 2),
}
MICRO_TOKENS = {"1B": 16_384, "8B": 4_608, "tiny": 4_096}  # what an 80 GB card holds everywhere
OWN, COMPLETION, RANK, WARM, TIMED, ENOUGH = 64, 64, 16, 2, 5, 15.0
CELLS = [(b, p) for b in (16, 64) for p in (0, 512, 1024, 2048)]
QUICK = [(16, 0), (16, 1024)]
SIDES = ("ours", "plain", "qlora", "trl", "unsloth")


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print one JSON object alone")
    parser.add_argument("--quick", action="store_true", help="1B, two cells")
    parser.add_argument("--models", nargs="*", choices=list(SHAPES))
    parser.add_argument("--cells", nargs="*", help="batch and prefix, as in 16,1024")
    parser.add_argument("--sides", nargs="*", choices=SIDES, default=SIDES)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--unsloth-path", default="", help="a folder for PYTHONPATH of its side")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        print(json.dumps({"rows": work(json.loads(options.worker))}))
        return
    small = options.device == "cpu"
    models = options.models or (["tiny"] if small else ["1B"] if options.quick else ["1B", "8B"])
    cells = QUICK if options.quick else CELLS
    if options.cells:
        cells = [(int(b), int(p)) for b, p in (cell.split(",") for cell in options.cells)]
    rows: list[dict[str, Any]] = []
    for model in models:
        for side in options.sides:
            rows += _side(model, side, cells, options)
    report = {
        "name": "gpu_train",
        "machine": {**common.machine(), **_gpu(options.device)},
        "rows": rows,
        "headline": headline(rows),
    }
    print(json.dumps(report) if options.json else common.table(rows))
    if not options.json:
        print(report["headline"])


def _side(model: str, side: str, cells: Any, options: Any) -> list[dict[str, Any]]:
    """Return one row a cell of one side; a side that can't run says why."""
    if side in ("plain", "qlora"):
        cells = [cell for cell in cells if cell[1] == 0]
    case = {"model": model, "side": side, "device": options.device, "cells": cells}
    path = options.unsloth_path if side == "unsloth" else ""
    missing = _missing(side, options.device, path)
    try:
        if missing:
            raise RuntimeError(missing)
        found = common.child(__file__, ["--worker", json.dumps(case | {"path": path})], threads=8)
        rows: list[dict[str, Any]] = found["rows"]
    except RuntimeError as error:
        problem = str(error).strip().splitlines()[-1][:300]
        rows = [{"model": model, "side": side, "problem": problem}]
    for row in rows:
        print(row, file=sys.stderr, flush=True)
    return rows


def _missing(side: str, device: str, path: str) -> str:
    needs = {"trl": "trl", "unsloth": "unsloth", "qlora": "bitsandbytes"}.get(side)
    if needs and not path and importlib.util.find_spec(needs) is None:
        return f"{needs} is not installed"
    return "needs a GPU" if side in ("unsloth", "qlora") and device == "cpu" else ""


def headline(rows: list[dict[str, Any]]) -> dict[str, float]:
    """Return ours over the best peer, without sharing and with 1,024 shared tokens."""
    found = {}
    for model in dict.fromkeys(row["model"] for row in rows):
        for batch, prefix in CELLS:
            here = [r for r in rows if "tokens_per_s" in r and r["model"] == model]
            here = [r for r in here if (r["batch"], r["prefix"]) == (batch, prefix)]
            peers = [r for r in here if r["side"] in ("trl", "unsloth")]
            for ours in [r for r in here if r["side"] == "ours"] if peers else []:
                name = f"{model}_{batch}_{prefix}"
                best = max(r["tokens_per_s"] for r in peers)
                least = min(r["peak_gib"] for r in peers)
                found[f"speed_{name}"] = round(ours["tokens_per_s"] / best, 2)
                found[f"memory_{name}"] = round(ours["peak_gib"] / max(1e-9, least), 3)
    return found


def work(case: dict[str, Any]) -> list[dict[str, Any]]:
    """Run one side in all its cells."""
    if case["path"]:
        sys.path.insert(0, case["path"])
    import torch

    torch.manual_seed(0)
    rate = _matmul_rate(case["device"])
    model = _unsloth(case) if case["side"] == "unsloth" else _model(case)
    found = []
    for batch, prefix in case["cells"]:
        cell = {k: case[k] for k in ("model", "side", "device")} | {
            "batch": batch, "prefix": prefix,
        }  # fmt: skip
        cell["micro"] = _micro(cell)
        gc.collect()
        _reset(case["device"])
        try:
            found.append(cell | _measure(model, cell, rate))
        except torch.OutOfMemoryError:
            found.append(cell | {"problem": "out of memory"})
        model.zero_grad(set_to_none=True)
    return found


def _micro(cell: dict[str, Any]) -> int:
    """Return the rows of a micro-batch, a power of two that divides the batch."""
    fit = MICRO_TOKENS[cell["model"]] // (cell["prefix"] + OWN + COMPLETION)
    return max(size for size in (1, 2, 4, 8, 16, 32, 64) if size <= max(1, fit))


def _measure(model: Any, cell: dict[str, Any], rate: float) -> dict[str, Any]:
    rows = _rows(cell)
    cell["micro"] = min(cell["micro"], len(rows))
    run = {"trl": _trl, "unsloth": _bare}.get(cell["side"], _ours)
    seconds, facts = run(model, rows, cell)
    took = statistics.median(seconds[WARM:])
    tokens = sum(len(row) for row, _ in rows)
    flops = _flops(cell, facts.get("computed", tokens))
    return {
        "seconds": round(took, 4),
        "tokens_per_s": round(tokens / took, 1),
        "peak_gib": round(_peak(cell["device"]), 2),
        "utilisation": round(flops / took / rate, 3),
        "matmul_tflops": round(rate / 1e12, 1),
        **facts,
    }


def _rows(case: dict[str, Any]) -> list[tuple[list[int], list[int]]]:
    """Return (ids, labels) of the step's rows."""
    vocab = SHAPES[case["model"]][0]
    draw = random.Random(case["prefix"])
    shared = [draw.randrange(10, vocab) for _ in range(case["prefix"])]
    rows = []
    for _ in range(case["batch"]):
        own = [draw.randrange(10, vocab) for _ in range(OWN)]
        answer = [draw.randrange(10, vocab) for _ in range(COMPLETION)]
        ids = [*shared, *own, *answer]
        rows.append((ids, [-100] * (len(ids) - COMPLETION) + answer))
    return rows


def _config(case: dict[str, Any]) -> Any:
    from transformers import LlamaConfig

    vocab, hidden, inner, layers, heads, kv = SHAPES[case["model"]]
    return LlamaConfig(
        vocab_size=vocab, hidden_size=hidden, intermediate_size=inner, num_hidden_layers=layers,
        num_attention_heads=heads, num_key_value_heads=kv, max_position_embeddings=8192,
        tie_word_embeddings=case["model"] == "1B", attn_implementation="sdpa",
        bos_token_id=0, eos_token_id=1, pad_token_id=0,
    )  # fmt: skip


def _model(case: dict[str, Any]) -> Any:
    """Return the model with its adapter, on the device, in the numbers of its side."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    wide = case["device"] == "cpu" or case["side"] in ("ours", "plain", "qlora")
    with torch.device(case["device"]):
        model = AutoModelForCausalLM.from_config(
            _config(case), dtype=torch.float32 if wide else torch.bfloat16
        )
    if case["side"] == "qlora":
        model = _quantised(model)
    lora = LoraConfig(
        r=RANK, lora_alpha=2 * RANK, target_modules="all-linear", task_type="CAUSAL_LM"
    )
    model = get_peft_model(model, lora)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.01)
    if wide:
        from tutelage.training.precision import halve_frozen

        halve_frozen(model, _precision(case))
    if case["device"] != "cpu":
        torch.cuda.empty_cache()
    return model


def _precision(case: dict[str, Any]) -> str:
    return "fp32" if case["device"] == "cpu" else "bf16"


def _quantised(model: Any) -> Any:
    """Return the model with its linear layers in NF4, doubly quantised."""
    import bitsandbytes as bnb
    import torch

    for module in list(model.modules()):
        for child_name, child in list(module.named_children()):
            if isinstance(child, torch.nn.Linear) and child_name != "lm_head":
                packed = bnb.nn.Linear4bit(
                    child.in_features, child.out_features, bias=False, quant_type="nf4",
                    compress_statistics=True, compute_dtype=torch.bfloat16, device="meta",
                )  # fmt: skip
                packed.weight = bnb.nn.Params4bit(
                    child.weight.data.cpu(), requires_grad=False, quant_type="nf4",
                    compress_statistics=True,
                )  # fmt: skip
                setattr(module, child_name, packed.to(child.weight.device))
                child.weight = None
    return model


def _unsloth(case: dict[str, Any]) -> Any:
    """Return Unsloth's model of the same shape, random weights read from a folder, with LoRA."""
    from unsloth import FastLanguageModel  # type: ignore[import-not-found]  # isort: skip
    import torch
    from transformers import AutoModelForCausalLM

    with tempfile.TemporaryDirectory() as folder:
        with torch.device(case["device"]):
            model = AutoModelForCausalLM.from_config(_config(case), dtype=torch.bfloat16)
        model.save_pretrained(folder)
        _Tokens().save_pretrained(folder)
        del model
        gc.collect()
        torch.cuda.empty_cache()
        model, _ = FastLanguageModel.from_pretrained(
            folder, max_seq_length=4096, dtype=torch.bfloat16, load_in_4bit=False,
            local_files_only=True,
        )  # fmt: skip
    names = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
    return FastLanguageModel.get_peft_model(
        model, r=RANK, lora_alpha=2 * RANK, lora_dropout=0, bias="none",
        target_modules=list(names), use_gradient_checkpointing=False,
    )  # fmt: skip


Rows = list[tuple[list[int], list[int]]]
Measured = tuple[list[float], dict[str, Any]]


def _ours(model: Any, rows: Rows, case: dict[str, Any]) -> Measured:
    """Time our step; report tokens computed and how far the gradients are from the plain path's."""
    from tutelage.training.precision import autocast
    from tutelage.training.prefix_tree import Row
    from tutelage.training.shared_step import SharedStep, plain_step

    items = [
        Row(str(n), tuple(ids), tuple(float(x >= 0) for x in labels), len(ids) - COMPLETION)
        for n, (ids, labels) in enumerate(rows)
    ]
    model.train()
    shared = SharedStep(model) if case["side"] == "ours" else None
    facts: dict[str, Any] = {}
    with autocast(model, _precision(case)):
        if shared is not None:
            facts["gradient_error"] = _error(model, shared, items[:2])
        _reset(case["device"])

        def step() -> None:
            micro = case["micro"]
            result = shared(items, micro) if shared else plain_step(model, items, micro)
            facts["computed"] = result.unique

        return _timed(model, step, case), facts


def _bare(model: Any, rows: Rows, case: dict[str, Any]) -> Measured:
    """Time a model's own forward with labels, in micro-batches."""
    import torch

    model.train()
    ids, labels = (torch.tensor(part, device=case["device"]) for part in zip(*rows, strict=True))
    count, micro = torch.tensor(len(rows) * COMPLETION, device=ids.device), case["micro"]

    def step() -> None:
        for start in range(0, len(rows), micro):
            part = slice(start, start + micro)
            with torch.autocast("cuda", dtype=torch.bfloat16):
                found = model(input_ids=ids[part], labels=labels[part], num_items_in_batch=count)
            found.loss.backward()

    return _timed(model, step, case), {}


def _timed(model: Any, step: Callable[[], None], case: dict[str, Any]) -> list[float]:
    """Return the seconds of optimizer steps, enough of them."""
    import torch

    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-5)
    seconds: list[float] = []
    while len(seconds) < WARM + TIMED and not _enough(seconds):
        started = time.perf_counter()
        step()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        _wait(case["device"])
        seconds.append(time.perf_counter() - started)
    return seconds


def _enough(seconds: list[float]) -> bool:
    return len(seconds) > WARM + 1 and sum(seconds[WARM:]) > ENOUGH


def _error(model: Any, shared: Any, items: Any) -> float:
    """Return |shared - plain| / |plain| over all gradients of a few rows."""
    import torch

    from tutelage.training.shared_step import plain_step

    trained = [p for p in model.parameters() if p.requires_grad]
    found = []
    for step in (lambda: plain_step(model, items, 1), lambda: shared(items, len(items))):
        model.zero_grad(set_to_none=True)
        step()
        found.append(torch.cat([p.grad.float().flatten() for p in trained]))
    model.zero_grad(set_to_none=True)
    return float(f"{float((found[1] - found[0]).norm() / found[0].norm()):.2e}")


def _trl(model: Any, rows: Rows, case: dict[str, Any]) -> Measured:
    """Time TRL's trainer on the same rows, each optimizer step with all of them."""
    from datasets import Dataset
    from transformers import TrainerCallback
    from trl import SFTConfig, SFTTrainer

    seconds: list[float] = []
    began = [0.0]

    class Clock(TrainerCallback):  # type: ignore[misc]
        def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            _wait(case["device"])
            began[0] = time.perf_counter()

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            _wait(case["device"])
            seconds.append(time.perf_counter() - began[0])
            control.should_training_stop = _enough(seconds)

    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(sys.stderr):
        settings = SFTConfig(
            output_dir=folder, per_device_train_batch_size=case["micro"],
            gradient_accumulation_steps=len(rows) // case["micro"], max_steps=WARM + TIMED,
            learning_rate=1e-5, lr_scheduler_type="constant", max_grad_norm=1.0, max_length=None,
            gradient_checkpointing=False, bf16=case["device"] != "cpu",
            use_cpu=case["device"] == "cpu", save_strategy="no", report_to="none",
            disable_tqdm=True, logging_strategy="no",
        )  # fmt: skip
        data = [{"input_ids": ids, "labels": labels} for ids, labels in rows] * (WARM + TIMED)
        trainer = SFTTrainer(
            model=model, args=settings, train_dataset=Dataset.from_list(data),
            processing_class=_Tokens(), callbacks=[Clock()],
        )  # fmt: skip
        _reset(case["device"])
        trainer.train()
    return seconds, {}


def _Tokens() -> Any:  # noqa: N802
    """Return a tokenizer for a trainer that is given ids and only pads them."""
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    inner = Tokenizer(models.WordLevel({"<pad>": 0, "<end>": 1}, unk_token="<pad>"))
    return PreTrainedTokenizerFast(tokenizer_object=inner, pad_token="<pad>", eos_token="<end>")


def _flops(case: dict[str, Any], tokens: int) -> float:
    """Return the FLOPs of a step over `tokens` computed tokens."""
    vocab, hidden, inner, layers, heads, kv = SHAPES[case["model"]]
    batch, prefix, own = case["batch"], case["prefix"], OWN + COMPLETION
    block = 2 * hidden * hidden + 2 * hidden * hidden * kv // heads + 3 * hidden * inner
    prefixes = 1 if tokens < batch * (prefix + own) else batch
    pairs = prefixes * prefix**2 / 2 + batch * (own**2 / 2 + own * prefix)
    dense = 4.0 * tokens * layers * block + 4.0 * batch * COMPLETION * vocab * hidden
    return dense + 12.0 * layers * pairs * hidden


def _matmul_rate(device: str) -> float:
    """Return the measured FLOP/s of a large bf16 (CPU: fp32) matrix product."""
    import torch

    size, kind = (512, torch.float32) if device == "cpu" else (8192, torch.bfloat16)
    left, right = (torch.randn(size, size, device=device, dtype=kind) for _ in range(2))
    for _ in range(3):
        left @ right
    _wait(device)
    started = time.perf_counter()
    for _ in range(10):
        left @ right
    _wait(device)
    return 10 * 2 * size**3 / (time.perf_counter() - started)


def _wait(device: str) -> None:
    import torch

    if device != "cpu":
        torch.cuda.synchronize()


def _reset(device: str) -> None:
    import torch

    if device != "cpu":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def _peak(device: str) -> float:
    import torch

    if device != "cpu":
        return torch.cuda.max_memory_allocated() / 2**30
    return common.peak_memory_mb() / 1024


def _gpu(device: str) -> dict[str, str]:
    import torch

    return {"torch": torch.__version__} | (
        {"gpu": torch.cuda.get_device_name(0)} if device != "cpu" else {}
    )


if __name__ == "__main__":
    main()
