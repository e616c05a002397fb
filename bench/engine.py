"""The embedded engine's speed and memory on the demo model, beside llama-cpp-python if installed.

One stream and eight at once, in written tokens a second; what a second release adds to memory. Both
engines get the same weights, prompts, thread count and greedy decoding, the best of each kind is
the median of the rounds. llama-cpp-python has no batching: its eight requests take turns.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib.util
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np

from common import child, machine, median, table
from tutelage.core.workspace import Workspace
from tutelage.inference.gguf_header import GgufHeader, read_header
from tutelage.inference.models import locate_model
from tutelage.serving.launchers.embedded import EmbeddedLauncher

SLOTS, CONTEXT, AT_ONCE = 2, 2048, 8
SYSTEM = "You are a medical coder. Explain each code in plain words, at length."
PROMPTS = [f"Explain the diagnosis code A0{n} and everything around it." for n in range(AT_ONCE)]
LAYERS = {
    "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj", "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}  # fmt: skip


def messages(text: str) -> list[dict[str, str]]:
    """Return the conversation of one request."""
    return [{"role": "system", "content": SYSTEM}, {"role": "user", "content": text}]


def write_adapter(folder: Path, header: GgufHeader, rank: int = 16) -> Path:
    """Write a PEFT adapter with small random weights on every linear layer."""
    from safetensors.numpy import save_file

    random = np.random.default_rng(0)
    tensors = {}
    for layer in range(int(header.of_architecture("block_count"))):
        for short, module in LAYERS.items():
            rows, columns = header.shapes[f"blk.{layer}.{short}.weight"]
            name = f"base_model.model.model.layers.{layer}.{module}"
            for side, shape in (("A", (rank, columns)), ("B", (rows, rank))):
                values = random.normal(0, 0.01, shape).astype(np.float32)
                tensors[f"{name}.lora_{side}.weight"] = values
    folder.mkdir(parents=True)
    save_file(tensors, folder / "adapter_model.safetensors")
    config = {"peft_type": "LORA", "r": rank, "lora_alpha": rank, "bias": "none"}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    return folder


def kv_mb(header: GgufHeader) -> float:
    """Return the keys and values of one release in MB (10^6): float16, all slots full length."""
    heads = int(header.of_architecture("attention.head_count"))
    width = int(header.of_architecture("embedding_length")) // heads
    kept = int(header.of_architecture("attention.head_count_kv")) * width
    return SLOTS * CONTEXT * int(header.of_architecture("block_count")) * 2 * kept * 2 / 1e6


class Engine:
    """A running engine and the clock."""

    def __init__(self, launcher: EmbeddedLauncher, url: str, tokens: int) -> None:
        self.launcher, self.url, self.tokens = launcher, f"{url}/v1/chat/completions", tokens

    async def ask(self, session: aiohttp.ClientSession, text: str, release: str) -> int:
        """Return how many tokens were written."""
        body = {"model": release, "messages": messages(text), "max_tokens": self.tokens}
        async with session.post(self.url, json=body) as response:
            answer = await response.json()
            if response.status != 200:
                raise RuntimeError(str(answer))
            return int(answer["usage"]["completion_tokens"])

    async def rate(self, texts: list[str], releases: list[str]) -> float:
        """Return tokens a second over all of `texts` asked at once."""
        async with aiohttp.ClientSession() as session:
            started = time.perf_counter()
            asked = zip(texts, releases * len(texts), strict=False)
            counts = await asyncio.gather(*(self.ask(session, t, r) for t, r in asked))
            return sum(counts) / (time.perf_counter() - started)

    async def pss(self) -> float:
        """Return the engine's proportional memory in MB (10^6)."""
        return float((await self.launcher.stats())["pss_mb"])


async def ours(threads: int, rounds: int, tokens: int) -> dict[str, Any]:
    """Return our figures: speed of the base, of an adapter, of both mixed, and memory in MB."""
    header = read_header(locate_model("demo").path)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        adapter = write_adapter(root / "adapter", header)
        options = ("--slots", str(SLOTS), "--context", str(CONTEXT))
        launcher = EmbeddedLauncher("demo", Workspace(root), threads, options=options)
        engine = Engine(launcher, (await launcher.start()).base_url, tokens)
        try:
            memory = [await engine.pss()]
            seconds = []
            for release, lora in (("base", None), ("tuned", adapter), ("twin", adapter)):
                started = time.perf_counter()
                await launcher.ensure(release, lora)
                seconds.append(time.perf_counter() - started)
                await engine.rate(PROMPTS[:SLOTS], [release])  # every slot and page is touched
                memory.append(await engine.pss())
            kinds = {"base": ["base"], "adapter": ["tuned"], "mixed": ["base", "tuned"]}
            speed = {
                f"{name}_{count}": median(
                    [await engine.rate(PROMPTS[:count], names) for _ in range(rounds)]
                )
                for name, names in kinds.items()
                for count in (1, AT_ONCE)
            }
        finally:
            await launcher.stop()
    added = np.diff(memory) - kv_mb(header)
    return {"speed": speed, "added_mb": added.tolist(), "memory_mb": memory, "load_s": seconds}


def peer(threads: int, rounds: int, tokens: int) -> dict[str, float]:
    """Return llama-cpp-python's tokens a second, one request and eight in turn."""
    from llama_cpp import Llama

    model = Llama(
        str(locate_model("demo").path), n_ctx=CONTEXT, n_threads=threads,
        n_threads_batch=threads, verbose=False,
    )  # fmt: skip

    def rate(texts: list[str]) -> float:
        started = time.perf_counter()
        count = 0
        for text in texts:
            turns: Any = messages(text)
            answer: Any = model.create_chat_completion(turns, temperature=0.0, max_tokens=tokens)
            count += answer["usage"]["completion_tokens"]
        return count / (time.perf_counter() - started)

    rate(PROMPTS[:1])
    speed: Callable[[int], float] = lambda n: median([rate(PROMPTS[:n]) for _ in range(rounds)])  # noqa: E731
    return {"base_1": speed(1), f"base_{AT_ONCE}": speed(AT_ONCE)}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--peer", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    rounds, tokens = (3, 48) if options.quick else (7, 128)
    if options.peer:
        print(json.dumps(peer(options.threads, rounds, tokens)))
        return
    measured = asyncio.run(ours(options.threads, rounds, tokens))
    rows = [{"engine": "tutelage", "threads": options.threads, **measured["speed"]}]
    first, second, twin = measured["added_mb"]
    headline = {"second_release_memory": round(second / first, 3)}
    if importlib.util.find_spec("llama_cpp"):
        arguments = ["--peer", "--threads", str(options.threads)]
        arguments += ["--quick"] if options.quick else []
        theirs = child(__file__, arguments, threads=options.threads)
        rows.append({"engine": "llama-cpp-python", "threads": options.threads, **theirs})
        headline["vs_best"] = round(rows[0][f"base_{AT_ONCE}"] / theirs[f"base_{AT_ONCE}"], 3)
        headline["vs_best_single"] = round(rows[0]["base_1"] / theirs["base_1"], 3)
    result = {"name": "engine", "machine": machine(), "rows": rows, "headline": headline}
    result["memory"] = {
        "engine_mb": measured["memory_mb"][0],
        "first_release_without_kv_mb": round(first, 1),
        "second_release_without_kv_mb": round(second, 1),
        "third_release_without_kv_mb": round(twin, 1),
        "load_s": [round(value, 2) for value in measured["load_s"]],
    }
    if options.json:
        print(json.dumps(result))
        return
    print(f"tokens a second, {tokens} a request, median of {rounds}; N = requests at once")
    print(table(rows))
    print("memory", json.dumps(result["memory"]))
    print("headline", json.dumps(headline))


if __name__ == "__main__":
    main()
