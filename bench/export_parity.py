"""How far exported forms of the demo model are off, which sets the limits of the export's check.

The base model and the base with a strong random adapter answer prompts greedily in transformers,
float32. Each form is led along these answers: log-probabilities off on average and at most, tokens
it would have written otherwise, and the widest margin (nats) at which it did. The limits in
src/tutelage/inference/parity.py must lie above these figures.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from common import machine, table
from common_engines import LAYERS, write_adapter
from tutelage.core.example import Message
from tutelage.inference.gguf_header import read_header
from tutelage.inference.gguf_model import write_from_folder, write_from_template
from tutelage.inference.gguf_runner import run_gguf
from tutelage.inference.lora_gguf import convert
from tutelage.inference.models import locate_model
from tutelage.inference.parity import LIMITS, Followed, Reference, compare
from tutelage.inference.tuned import read_tuned
from tutelage.training.export import Export, Subject, follow_folder

SYSTEM = "You are a medical coder. Explain each code in plain words."
THINGS = (
    "asthma", "acute appendicitis", "the capital of France", "three colours", "2 + 2",
    "fracture of the femur", "who wrote Hamlet", "the sun", "diabetes mellitus type 2",
    "a short poem about rain", "12345 in words", "how to boil an egg", "hypertension",
    "the planets in order", "what a lease is", "viral pneumonia",
)  # fmt: skip
STRENGTH = 64.0  # alpha / rank of the random adapter: answers change beyond recognition


def measure(form: str, kind: str, along: Sequence[Reference], got: Sequence[Followed]) -> Any:
    """Return the figures of one form."""
    found = compare(form, along, got, LIMITS[kind])
    wide = [
        margin
        for reference, other in zip(along, got, strict=True)
        for token, choice, margin in zip(
            reference.tokens, other.choices, reference.margins, strict=True
        )
        if token != choice
    ]
    return {
        "form": form,
        "drift": round(found.drift, 5),
        "worst": round(found.worst, 4),
        "tokens": found.tokens,
        "other": found.tokens - found.same,
        "widest_margin": round(max(wide, default=0.0), 4),
        "limits": dict(vars(found.limits)),
        "within": found.problem is None,
    }


def forms(folder: Path, count: int, tokens: int, adapter: Path | None) -> list[Any]:
    """Export every form into `folder` and measure it."""
    demo = locate_model("demo")
    prompts = [
        (Message(role="system", content=SYSTEM), Message(role="user", content=thing))
        for thing in THINGS[:count]
    ]
    loaded = Export(Subject(demo, read_tuned(adapter) if adapter else None))
    along = loaded.reference(prompts, max_tokens=tokens)
    loaded.save_merged(folder / "merged", "f32")
    got = follow_folder(folder / "merged", prompts, along)
    rows = [measure("merged f32", "f32", along, got)]
    file = folder / "model.gguf"
    for dtype in ("f32", "f16", "bf16", "q8_0"):
        write_from_template(folder / "merged", demo.path, file, dtype=dtype)
        with run_gguf(file) as runner:
            rows.append(measure(f"GGUF {dtype}", dtype, along, runner.follow(along)))
    write_from_folder(folder / "merged", file, dtype="f16", name="demo")
    with run_gguf(file) as runner:
        rows.append(measure("GGUF f16, own metadata", "f16", along, runner.follow(along)))
    lora = None
    if adapter:
        lora = folder / "lora.gguf"
        convert(adapter, read_header(demo.path), lora)
    with run_gguf(demo.path, lora) as runner:
        rows.append(measure("4-bit base and LoRA", "quantised", along, runner.follow(along)))
    return rows


def main() -> None:
    """Measure, and print a table or one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print one JSON object alone")
    parser.add_argument("--quick", action="store_true", help="8 prompts, 24 tokens each")
    options = parser.parse_args()
    count, tokens = (8, 24) if options.quick else (len(THINGS), 64)
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        header = read_header(locate_model("demo").path)
        adapter = write_adapter(scratch / "adapter", header)
        config = json.loads((adapter / "adapter_config.json").read_text())
        config |= {"lora_alpha": STRENGTH * config["r"], "task_type": "CAUSAL_LM"}
        config["target_modules"] = [module.split(".")[1] for module in LAYERS.values()]
        (adapter / "adapter_config.json").write_text(json.dumps(config))
        results = {
            "base": forms(scratch, count, tokens, None),
            "adapter": forms(scratch, count, tokens, adapter),
        }
    seconds = round(time.perf_counter() - started, 1)
    if options.json:
        print(json.dumps({"machine": machine(), "seconds": seconds, "results": results}))
        return
    for model, rows in results.items():
        print(f"\n{model}")
        keys = ("form", "drift", "worst", "other", "tokens", "widest_margin", "within")
        print(table([{key: row[key] for key in keys} for row in rows]))
    print(f"{seconds} s")


if __name__ == "__main__":
    main()
