"""A LoRA step on a GPU with a shared prompt: ours with and without sharing, TRL, Unsloth, QLoRA.

Random weights in Llama's shapes, bf16, rank 16 on all linear layers, completion-only loss. Tokens
a second count every row's tokens, shared or not: what the user wanted trained. Utilisation counts
the FLOPs that are done: 4 a weight and token (the frozen weights have no gradient of their own)
and those of attention, over the measured rate of a large matrix product.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import random
import statistics
import sys
import tempfile
import time
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
OWN, COMPLETION, RANK, WARM, TIMED = 64, 64, 16, 2, 5
CELLS = [(b, p) for b in (16, 64) for p in (0, 512, 1024, 2048)]
QUICK = [(16, 0), (16, 1024)]
SIDES = ("ours", "plain", "trl", "unsloth")


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print one JSON object alone")
    parser.add_argument("--quick", action="store_true", help="1B, two cells")
    parser.add_argument("--models", nargs="*", choices=list(SHAPES))
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        print(json.dumps(work(json.loads(options.worker))))
        return
    small = options.device == "cpu"
    models = options.models or (["tiny"] if small else ["1B"] if options.quick else ["1B", "8B"])
    rows = [
        row
        for model in models
        for batch, prefix in (QUICK if options.quick else CELLS)
        for row in cell(model, batch, prefix, options.device)
    ]
    report = {
        "name": "gpu_train",
        "machine": {**common.machine(), **_gpu(options.device)},
        "rows": rows,
        "headline": headline(rows),
    }
    print(json.dumps(report) if options.json else common.table(rows))
    if not options.json:
        print(report["headline"])


def cell(model: str, batch: int, prefix: int, device: str) -> list[dict[str, Any]]:
    """Return one row a side; a side that can't run says why."""
    rows = []
    for side in (*SIDES, *(("qlora",) if prefix == 0 else ())):
        case = {"model": model, "batch": batch, "prefix": prefix, "side": side, "device": device}
        missing = _missing(side, device)
        if missing:
            rows.append({**case, "problem": missing})
            continue
        try:
            rows.append(case | common.child(__file__, ["--worker", json.dumps(case)], threads=8))
        except RuntimeError as error:
            rows.append({**case, "problem": str(error).strip().splitlines()[-1][:160]})
        print(rows[-1], file=sys.stderr)
    return rows


def _missing(side: str, device: str) -> str:
    needs = {"trl": "trl", "unsloth": "unsloth", "qlora": "bitsandbytes"}.get(side)
    if needs and importlib.util.find_spec(needs) is None:
        return f"{needs} is not installed"
    return "needs a GPU" if side in ("unsloth", "qlora") and device == "cpu" else ""


def headline(rows: list[dict[str, Any]]) -> dict[str, float]:
    """Return ours over the best peer, without sharing and with 1,024 shared tokens."""
    found = {}
    for prefix in (0, 1024):
        for model in dict.fromkeys(row["model"] for row in rows):
            here = [r for r in rows if (r["model"], r["prefix"]) == (model, prefix)]
            here = [r for r in here if "tokens_per_s" in r]
            peers = [r for r in here if r["side"] in ("trl", "unsloth")]
            ours = [r for r in here if r["side"] == ("ours" if prefix else "plain")]
            if peers and ours:
                rate = max(r["tokens_per_s"] for r in ours)
                best = max(r["tokens_per_s"] for r in peers)
                found[f"vs_best_{model}_{prefix}"] = round(rate / best, 2)
                least = min(r["peak_gib"] for r in peers)
                most = min(r["peak_gib"] for r in ours)
                found[f"memory_{model}_{prefix}"] = round(most / max(1e-9, least), 3)
    return found


def work(case: dict[str, Any]) -> dict[str, Any]:
    """Run one side of one cell."""
    import torch

    torch.manual_seed(0)
    rows = _rows(case)
    model = _model(case)
    if case["side"] in ("trl", "unsloth"):
        seconds = _trl(model, rows, case)
        facts: dict[str, Any] = {}
    else:
        seconds, facts = _ours(model, rows, case)
    took = statistics.median(seconds[WARM:])
    tokens = sum(len(row) for row, _ in rows)
    found = {
        "seconds": round(took, 4),
        "tokens_per_s": round(tokens / took, 1),
        "peak_gib": round(_peak(case["device"]), 2),
        **facts,
    }
    done = facts.get("computed", tokens)
    rate = _matmul_rate(case["device"])
    flops = _flops(case, done)
    return found | {"utilisation": round(flops / took / rate, 3), "matmul_tflops": rate / 1e12}


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


def _model(case: dict[str, Any]) -> Any:
    """Return the model with its adapter, on the device."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM, LlamaConfig

    vocab, hidden, inner, layers, heads, kv = SHAPES[case["model"]]
    config = LlamaConfig(
        vocab_size=vocab, hidden_size=hidden, intermediate_size=inner, num_hidden_layers=layers,
        num_attention_heads=heads, num_key_value_heads=kv, max_position_embeddings=8192,
        tie_word_embeddings=case["model"] == "1B", attn_implementation="sdpa",
    )  # fmt: skip
    kind = torch.float32 if case["device"] == "cpu" else torch.bfloat16
    with torch.device(case["device"]):
        model = AutoModelForCausalLM.from_config(config, dtype=kind)
    if case["side"] == "qlora":
        model = _quantised(model)
    lora = LoraConfig(
        r=RANK, lora_alpha=2 * RANK, target_modules="all-linear", task_type="CAUSAL_LM"
    )
    model = get_peft_model(model, lora)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.01)
    return model


def _quantised(model: Any) -> Any:
    """Return the model with its linear layers in NF4, doubly quantised."""
    import bitsandbytes as bnb
    import torch

    for module in list(model.modules()):
        for child_name, child in list(module.named_children()):
            if isinstance(child, torch.nn.Linear) and child_name != "lm_head":
                packed = bnb.nn.Linear4bit(
                    child.in_features, child.out_features, bias=False, quant_type="nf4",
                    compress_statistics=True, compute_dtype=torch.bfloat16,
                )  # fmt: skip
                packed.weight = bnb.nn.Params4bit(
                    child.weight.data.cpu(), requires_grad=False, quant_type="nf4",
                    compress_statistics=True,
                )  # fmt: skip
                setattr(module, child_name, packed.to(child.weight.device))
    return model


def _ours(model: Any, rows: Any, case: dict[str, Any]) -> tuple[list[float], dict[str, Any]]:
    """Time our step; report tokens computed and how far the gradients are from the plain path's."""
    import torch

    from tutelage.training.prefix_tree import Row
    from tutelage.training.shared_step import SharedStep, plain_step

    items = [
        Row(str(n), tuple(ids), tuple(float(x >= 0) for x in labels), len(ids) - COMPLETION)
        for n, (ids, labels) in enumerate(rows)
    ]
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-5)
    shared = SharedStep(model) if case["side"] == "ours" else None
    model.train()
    micro = len(items)
    facts: dict[str, Any] = {}
    if shared is not None:
        facts["gradient_error"] = _error(model, shared, items[:4], trained)
    _reset(case["device"])
    seconds = []
    for _ in range(WARM + TIMED):
        started = time.perf_counter()
        result = shared(items, micro) if shared else plain_step(model, items, micro)
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        _wait(case["device"])
        seconds.append(time.perf_counter() - started)
        facts["computed"] = result.unique
    return seconds, facts


def _error(model: Any, shared: Any, items: Any, trained: Any) -> float:
    """Return |shared - plain| / |plain| over all gradients of a few rows."""
    import torch

    from tutelage.training.shared_step import plain_step

    found = []
    for step in (lambda: plain_step(model, items, len(items)), lambda: shared(items, len(items))):
        model.zero_grad(set_to_none=True)
        step()
        found.append(torch.cat([p.grad.float().flatten() for p in trained]))
    model.zero_grad(set_to_none=True)
    return float(f"{float((found[1] - found[0]).norm() / found[0].norm()):.2e}")


def _trl(model: Any, rows: Any, case: dict[str, Any]) -> list[float]:
    """Time TRL's trainer on the same rows, each optimizer step with all of them."""
    if case["side"] == "unsloth":
        import unsloth  # type: ignore[import-not-found]  # noqa: F401  patches what follows
    from datasets import Dataset
    from transformers import TrainerCallback
    from trl import SFTConfig, SFTTrainer

    marks: list[float] = []

    class Clock(TrainerCallback):  # type: ignore[misc]
        def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            _wait(case["device"])
            marks.append(time.perf_counter())

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            _wait(case["device"])
            marks.append(time.perf_counter())

    with tempfile.TemporaryDirectory() as folder:
        settings = SFTConfig(
            output_dir=folder, per_device_train_batch_size=len(rows), max_steps=WARM + TIMED,
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
    return [end - start for start, end in zip(marks[::2], marks[1::2], strict=True)]


def _Tokens() -> Any:  # noqa: N802
    """Return a tokenizer for a trainer that is given ids and only pads them."""
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    inner = Tokenizer(models.WordLevel({"<pad>": 0, "<end>": 1}, unk_token="<pad>"))
    return PreTrainedTokenizerFast(tokenizer_object=inner, pad_token="<pad>", eos_token="<end>")


def _flops(case: dict[str, Any], tokens: int) -> float:
    """Return the FLOPs of a step over `tokens` computed tokens, attention left out."""
    vocab, hidden, inner, layers, heads, kv = SHAPES[case["model"]]
    block = 2 * hidden * hidden + 2 * hidden * hidden * kv // heads + 3 * hidden * inner
    labelled = case["batch"] * COMPLETION
    return 4.0 * tokens * layers * block + 4.0 * labelled * vocab * hidden


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
