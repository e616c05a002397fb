"""The field's rules of thumb on our own runs: each with the figure that is claimed, and ours.

Sizes and shares are counted on empty models of the real shapes; time and memory are those of
steps of the demo model; what is learned comes from whole runs on a domain case, each kept in
bench/.cache/claims so that the bench can be run in pieces.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))
import common

CACHE = Path(__file__).resolve().parent / ".cache" / "claims"
Line = dict[str, Any]  # claim, claimed, measured, and where it was measured
LEARNING = "banking77"  # the domain case of what is learned
ROWS, TOKENS, ANSWER = 8, 256, 32  # of the steps that are timed


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print one JSON object alone")
    parser.add_argument("--quick", action="store_true", help="what needs no whole run")
    parser.add_argument("--small", action="store_true", help="whole runs on 100 training rows")
    parser.add_argument("--claims", nargs="*", choices=list(CLAIMS))
    parser.add_argument("--seeds", type=int, nargs="*", default=[1, 2])
    parser.add_argument("--threads", type=int, default=common.cores())
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        print(json.dumps(work(json.loads(options.worker), options.threads)))
        return
    names = options.claims or [n for n in CLAIMS if not (options.quick and n in WHOLE_RUNS)]
    rows = []
    for name in names:
        for line in CLAIMS[name](options):
            rows.append({"claim": name, **line})
            print(rows[-1], file=sys.stderr)
    report = {
        "name": "seed_claims",
        "machine": {**common.machine(), "threads": options.threads},
        "rows": rows,
        "headline": {"claims": len({row["claim"] for row in rows})},
    }
    print(json.dumps(report) if options.json else common.table(rows))


def _child(case: dict[str, Any], options: Any) -> dict[str, Any]:
    arguments = ["--worker", json.dumps(case), "--threads", str(options.threads)]
    return common.child(__file__, arguments, threads=options.threads)


def work(case: dict[str, Any], threads: int) -> dict[str, Any]:
    """Do one step measurement or one whole run."""
    import torch

    torch.set_num_threads(threads)
    return _steps(case) if case["do"] == "steps" else _run(case)


# --- counted -------------------------------------------------------------------------------------


def adapter_size(options: Any) -> list[Line]:
    """Count LoRA's weights on an empty model of Llama-2-7B's shape."""
    found = []
    for targets, claimed in ((["q_proj", "v_proj"], "8 MB"), ("all-linear", "not said")):
        trained, _ = _counted("7B", 8, targets)
        measured = f"{2 * trained / 1e6:.1f} MB in 16 bits, {trained / 1e6:.1f} M weights"
        found.append({"case": f"7B, rank 8, {targets}", "claimed": claimed, "measured": measured})
    return found


def trainable_share(options: Any) -> list[Line]:
    """Count the share of weights that LoRA on all linear layers trains."""
    found = []
    for name, rank in (("135M", 8), ("135M", 16), ("135M", 32), ("7B", 8), ("7B", 16), ("7B", 64)):
        trained, whole = _counted(name, rank, "all-linear")
        share = f"{trained / whole:.2%}"
        found.append({"case": f"{name}, rank {rank}", "claimed": "1 to 6 %", "measured": share})
    return found


_SHAPES = {
    "135M": (49_152, 576, 1_536, 30, 9, 3),
    "7B": (32_000, 4_096, 11_008, 32, 32, 32),
}


def _counted(name: str, rank: int, targets: Any) -> tuple[int, int]:
    """Return (trained, base) weights of a LoRA on an empty model."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM, LlamaConfig

    vocab, hidden, inner, layers, heads, kv = _SHAPES[name]
    config = LlamaConfig(
        vocab_size=vocab, hidden_size=hidden, intermediate_size=inner, num_hidden_layers=layers,
        num_attention_heads=heads, num_key_value_heads=kv, tie_word_embeddings=name == "135M",
    )  # fmt: skip
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
        whole = sum(p.numel() for p in model.parameters())
        lora = LoraConfig(r=rank, target_modules=targets, task_type="CAUSAL_LM")
        model = get_peft_model(model, lora)
    return sum(p.numel() for p in model.parameters() if p.requires_grad), whole


# --- steps ---------------------------------------------------------------------------------------


def checkpointing(options: Any) -> list[Line]:
    """Time a step with activations kept and with activations computed again."""
    usual, again = (_child({"do": "steps", "checkpointing": on}, options) for on in (False, True))
    return [_compared("+20 to 30 % time", usual, again)]


def accumulation(options: Any) -> list[Line]:
    """Time the same batch of eight rows in one pass, in four and in eight."""
    whole = _child({"do": "steps"}, options)
    return [
        {"case": f"{ROWS // micro} passes"}
        | _compared(
            "fits small memory, same result",
            whole,
            _child({"do": "steps", "micro_batch": micro}, options),
        )
        for micro in (2, 1)
    ]


def mixed_precision(options: Any) -> list[Line]:
    """Time a step in fp32 and in bf16 on this processor."""
    usual, half = (_child({"do": "steps", "precision": p}, options) for p in ("fp32", "bf16"))
    return [_compared("half the memory, faster on GPUs", usual, half)]


def qlora(options: Any) -> list[Line]:
    """Measure on a GPU alone: bench/gpu/train.py does."""
    return [{"claimed": "-33 % memory, +39 % time", "measured": "needs a GPU: bench/gpu/train.py"}]


def _compared(claimed: str, usual: dict[str, Any], other: dict[str, Any]) -> Line:
    """Return both changes of `other` against `usual`; losses must be the same."""
    return {
        "claimed": claimed,
        "measured": f"time x {other['seconds'] / usual['seconds']:.2f}, "
        f"peak memory x {other['peak_mb'] / usual['peak_mb']:.2f}, "
        f"loss off by {abs(other['loss'] - usual['loss']):.1e}",
    }


def _steps(case: dict[str, Any]) -> dict[str, Any]:
    """Return median seconds, peak MB and first loss of a few optimizer steps without sharing."""
    import random

    from tutelage.core.events import silent
    from tutelage.inference.models import locate_model
    from tutelage.inference.transformers import load_model
    from tutelage.training.kernels import prepare_compute
    from tutelage.training.methods import resolve
    from tutelage.training.precision import halve_frozen
    from tutelage.training.prefix_tree import Row
    from tutelage.training.recipe import Recipe

    settings = {k: v for k, v in case.items() if k != "do"}
    recipe = Recipe(**{"micro_batch": ROWS, "shared_prefix": False, **settings})
    draw = random.Random(0)
    rows = [
        Row(
            str(n), tuple(draw.randrange(1000, 40_000) for _ in range(TOKENS)),
            (0.0,) * (TOKENS - ANSWER) + (1.0,) * ANSWER, TOKENS - ANSWER,
        )
        for n in range(ROWS)
    ]  # fmt: skip
    method = resolve("lora")
    model = method.tuning(recipe).attach(load_model(locate_model("demo")), recipe)
    prepare_compute(model, recipe)
    step, _ = method.objective(recipe).step(model, rows, recipe, silent)
    halve_frozen(model, recipe.precision)
    model.train()
    seconds, losses = [], []
    for _ in range(4):
        started = time.perf_counter()
        losses.append(step(rows, recipe.micro_batch).loss)
        seconds.append(time.perf_counter() - started)
        model.zero_grad(set_to_none=True)
    return {
        "seconds": statistics.median(seconds[1:]),
        "peak_mb": common.peak_memory_mb(),
        "loss": losses[0],
    }


# --- whole runs ----------------------------------------------------------------------------------


def lora_against_full(options: Any) -> list[Line]:
    """Score LoRA, full tuning, and full tuning with Mixout and layer-wise rates."""
    ours = _mean(options, {})
    return [
        {"case": name, "claimed": "LoRA reaches 90 to 95 % of it"}
        | _scored(full := _mean(options, settings), ours)
        | {"share": round(ours["score"] / max(1e-9, full["score"]), 3)}
        for name, settings in (
            ("full", {"method": "full"}),
            ("full, Mixout 0.7", {"method": "full", "mixout": 0.7}),
            ("full, layer decay 0.95", {"method": "full", "layer_decay": 0.95}),
        )
    ]


def small_rank(options: Any) -> list[Line]:
    """Score ranks from 2 to 64."""
    usual = _mean(options, {})
    return [
        {"case": f"rank {rank}", "claimed": "rank 8 or 16 is enough"}
        | _scored(_mean(options, {"rank": rank}), usual)
        for rank in (2, 4, 8, 32, 64)
    ]


def prompt_loss(options: Any) -> list[Line]:
    """Score weights of the prompt's loss on rows with short answers."""
    case = "restaurant8k"
    usual = _mean(options, {"prompt_loss_weight": 0.0}, case)
    return [
        {"case": f"{case}, weight {weight:g}", "claimed": "regularises under 15,000 rows"}
        | _scored(_mean(options, {"prompt_loss_weight": weight}, case), usual)
        for weight in (0.05, 0.1, 1.0)
    ]


def replay(options: Any) -> list[Line]:
    """Score what is forgotten with general text among the rows."""
    usual = _mean(options, {"replay": 0.0})
    return [
        {"case": name, "claimed": "5 to 10 % keeps general ability"}
        | _scored(_mean(options, settings), usual)
        for name, settings in (("replay 5%", {"replay": 0.05}), ("replay as planned, 10%", {}))
    ]


def pretraining(options: Any) -> list[Line]:
    """Measure the perplexity of held-out abstracts before and after 100,000 tokens of others."""
    lines = []
    for seed in options.seeds[:1]:
        made = _kept({"do": "cpt", "seed": seed}, options)
        lines.append(
            {
                "case": f"{made['tokens']:,} tokens of abstracts",
                "claimed": "lowers the domain's perplexity",
                "measured": f"{made['before']:.2f} to {made['after']:.2f}",
            }
        )
    return lines


def _scored(found: dict[str, float], usual: dict[str, float]) -> Line:
    return {
        "measured": f"score {found['score']:.3f} ({found['score'] - usual['score']:+.3f}), "
        f"forgets {found['forgets']:.3f} ({found['forgets'] - usual['forgets']:+.3f}), "
        f"{found['seconds']:.0f} s (x {found['seconds'] / usual['seconds']:.2f})"
    }


def _mean(options: Any, settings: dict[str, Any], case: str = LEARNING) -> dict[str, float]:
    """Return the means over the seeds of a run with these settings."""
    cells = [
        _kept({"do": "run", "case": case, "seed": seed, "settings": settings}, options)
        for seed in options.seeds
    ]
    keys = ("score", "forgets", "seconds")
    return {key: statistics.mean(float(cell[key]) for cell in cells) for key in keys}


def _kept(cell: dict[str, Any], options: Any) -> dict[str, Any]:
    """Return a cell that was measured before, or measure and keep it."""
    if options.small:
        cell = {**cell, "size": "small"}
    words = [str(v) if not isinstance(v, dict) else _words(v) for v in cell.values()]
    path = CACHE / f"{'-'.join(filter(None, words))}.json"
    if not path.exists():
        made = _child(cell, options)
        CACHE.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(made))
    found: dict[str, Any] = json.loads(path.read_text())
    return found


def _words(settings: dict[str, Any]) -> str:
    return "-".join(f"{name}={value}" for name, value in settings.items()) or "plan"


def _run(cell: dict[str, Any]) -> dict[str, Any]:
    """Train and measure one case with settings, or go on pre-training."""
    from common_cases import CASES
    from quality import measure, train_ours

    folder = CACHE / "runs" / str(cell["seed"])
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        if cell["do"] == "cpt":
            return _cpt(folder, cell["seed"])
        case = CASES[cell["case"]]
        rows = case.rows(cell["seed"])
        if "size" in cell:
            rows = (rows[0][:100], rows[1][:20], rows[2][:200])
        seconds, adapter, facts = train_ours(case, rows, cell["seed"], folder, **cell["settings"])
        return facts | {"seconds": seconds} | measure(case, rows[2], adapter)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _cpt(folder: Path, seed: int) -> dict[str, Any]:
    import math
    from dataclasses import replace

    from common_cases import CASES, pubmed_texts
    from quality import train_ours
    from tutelage.core.example import Example, Message
    from tutelage.inference.models import locate_model
    from tutelage.inference.transformers import TransformersGenerator

    texts = pubmed_texts()
    engine = TransformersGenerator(locate_model("demo"))
    count = [len(engine.tokenizer(text)["input_ids"]) for text in texts]
    until = next(i for i in range(len(texts)) if sum(count[:i]) >= 100_000)
    held = texts[until + 20 : until + 60]

    def perplexity() -> float:
        sums, tokens = zip(*engine.mean_nll(held), strict=True)
        return math.exp(sum(sums) / sum(tokens))

    before = perplexity()
    rows = [
        [Example(messages=(Message(role="assistant", content=text),)) for text in part]
        for part in (texts[:until], texts[until : until + 20], held)
    ]
    case = replace(CASES["pubmedqa"], task="text", labels=(), texts=list)
    seconds, adapter, facts = train_ours(case, rows, seed, folder)
    engine.set_adapter(adapter)
    found = {"tokens": sum(count[:until]), "before": before, "after": perplexity()}
    return facts | found | {"seconds": seconds}


CLAIMS: dict[str, Callable[[Any], list[Line]]] = {
    "adapter_size": adapter_size,
    "trainable_share": trainable_share,
    "checkpointing": checkpointing,
    "accumulation": accumulation,
    "mixed_precision": mixed_precision,
    "qlora": qlora,
    "lora_against_full": lora_against_full,
    "small_rank": small_rank,
    "prompt_loss": prompt_loss,
    "replay": replay,
    "pretraining": pretraining,
}
WHOLE_RUNS = ("lora_against_full", "small_rank", "prompt_loss", "replay", "pretraining")


if __name__ == "__main__":
    main()
