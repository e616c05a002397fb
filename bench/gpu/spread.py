"""Whole runs on one GPU whose weights and optimizer are spread or lie in the processor's memory.

A random Llama of 1B (bytes as its vocabulary) is trained through the program's own `train`, a
process a run: plainly, by FSDP2 and by DeepSpeed's ZeRO, each with and without offload, LoRA and
full. One process is a group of one: what is seen is that the strategies run on a GPU, end where
the plain run ends, what they cost, and what offload saves. `first_off` is the difference of the
first loss from the plain run's, `loss_off` the largest of any step's, `gpu_gib` the peak of what
torch has taken, `step_s` the median of the steps after the first two. Prefixes are shared nowhere,
so that all do the same. The package must be installed, as its methods are plug-ins.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

_HERE = Path(__file__).resolve()
sys.path[:0] = [str(_HERE.parents[1]), str(_HERE.parents[2] / "src"), str(_HERE.parents[2])]
import common  # noqa: E402

SHAPES: dict[str, dict[str, int]] = {
    "1B": {"hidden_size": 2_048, "intermediate_size": 8_192, "num_hidden_layers": 16,
           "num_attention_heads": 32, "num_key_value_heads": 8},
    "tiny": {},
}  # fmt: skip
RUNS: list[tuple[str, bool, str]] = [  # strategy, offload, attention
    ("none", False, "auto"), ("none", False, "flex_attention"), ("fsdp2", False, "auto"),
    ("fsdp2", True, "auto"), ("zero2", False, "auto"), ("zero2", True, "auto"),
    ("zero3", True, "auto"),
]  # fmt: skip
TUNES: dict[str, dict[str, Any]] = {
    "lora": {"learning_rate": 1e-4},
    "full": {"method": "full", "tune": "full", "learning_rate": 1e-5},
}
ROWS, BATCH, MICRO, STEPS, CHARACTERS = 64, 16, 8, 8, 400
PROMPT = "Say whether the number is odd or even, in one word."


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print one JSON object alone")
    parser.add_argument("--quick", action="store_true", help="LoRA alone")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        print(json.dumps(work(json.loads(options.worker))))
        return
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        shape = "1B" if options.device == "cuda" else "tiny"
        common.child(__file__, ["--worker", json.dumps({"write": folder, "shape": shape})],
                     threads=8)  # fmt: skip
        for tune in ("lora",) if options.quick else TUNES:
            rows += _tuned(tune, folder, options.device)
    report = {
        "name": "gpu_spread",
        "machine": common.machine(),
        "rows": rows,
        "headline": {
            "most_off": max((row["loss_off"] for row in rows if "loss_off" in row), default=None),
            "failed": sum("problem" in row for row in rows),
        },
    }
    print(json.dumps(report) if options.json else common.table(rows))


def _tuned(tune: str, folder: str, device: str) -> list[dict[str, Any]]:
    """Return a row a run, the plain one first; one that failed says why."""
    rows: list[dict[str, Any]] = []
    plain: list[float] = []
    for strategy, offload, attention in RUNS:
        if device == "cpu" and attention != "auto":
            continue
        case = {"tune": tune, "strategy": strategy, "offload": offload, "attention": attention}
        try:
            asked = json.dumps(case | {"model": folder, "device": device})
            found = common.child(__file__, ["--worker", asked], threads=8)
            losses = found.pop("losses")
            plain = plain or losses
            off = [abs(a - b) for a, b in zip(losses, plain, strict=True)]
            told = {"first_off": float(f"{off[0]:.1e}"), "loss_off": float(f"{max(off):.1e}")}
            rows.append(case | found | {"last_loss": losses[-1]} | told)
        except RuntimeError as error:
            rows.append(case | {"problem": str(error).strip().splitlines()[-1][:300]})
        print(rows[-1], file=sys.stderr, flush=True)
    return rows


def work(case: dict[str, Any]) -> dict[str, Any]:
    """Write the model, or do one run and return its steps' losses and what it took."""
    import torch

    if "write" in case:
        from tests.fakes.tiny_llama import build_tiny_model

        with torch.device("cuda" if case["shape"] != "tiny" else "cpu"):
            build_tiny_model(Path(case["write"]), std=0.02, **SHAPES[case["shape"]])
        return {}
    from tutelage.training.session import train

    with tempfile.TemporaryDirectory() as folder:
        result = train(_job(case, Path(folder)))
    steps = [point for point in result.history if "loss" in point]
    gpu = torch.cuda.max_memory_allocated() if case["device"] == "cuda" else 0
    return {
        "losses": [round(point["loss"], 6) for point in steps],
        "step_s": round(statistics.median(point["seconds"] for point in steps[2:]), 3),
        "gpu_gib": round(gpu / 2**30, 2),
        "host_gib": round(common.peak_memory_mb() / 1024, 1),
        "run_s": result.seconds,
    }


def _job(case: dict[str, Any], run_dir: Path) -> Any:
    from tutelage.core.example import Example, Message
    from tutelage.core.output import OutputFormat
    from tutelage.inference.models import ModelSource
    from tutelage.training.job import TrainingJob
    from tutelage.training.recipe import Recipe

    def row(index: int) -> Example:
        label = "odd" if index % 2 else "even"
        text = f"number {index} " + "and so on " * (CHARACTERS // 10)
        turns = (Message(role="user", content=text), Message(role="assistant", content=label))
        return Example(messages=turns, label=label)

    recipe = Recipe(
        epochs=STEPS * BATCH / ROWS, batch_size=BATCH, micro_batch=MICRO, eval_every=STEPS,
        checkpoint_every=STEPS, shared_prefix=False, strategy=case["strategy"],
        offload=case["offload"], attention=case["attention"], patience=50,
        precision="bf16" if case["device"] == "cuda" else "fp32", **TUNES[case["tune"]],
    )  # fmt: skip
    path = Path(case["model"])
    source = ModelSource(
        spec=str(path), name="random", kind="directory", path=path, digest="0" * 64
    )
    rows = [row(index) for index in range(ROWS + 4)]
    output = OutputFormat(None, ("odd", "even"))
    return TrainingJob(source, rows[:ROWS], rows[ROWS:], PROMPT, recipe, run_dir, output=output)


if __name__ == "__main__":
    main()
