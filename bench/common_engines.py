"""The engines that bench/engine.py compares, each a server of its own on one processor core.

Ours, llama.cpp's own server (the one inside xllamacpp, over its own HTTP listener, at its own
defaults but for threads, slots and context) and `transformers serve`. All hold the demo model.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from common import QUIET, cores
from tutelage.core.workspace import Workspace
from tutelage.inference.gguf_header import GgufHeader
from tutelage.inference.models import cache_dir, locate_model
from tutelage.serving.launchers.embedded import EmbeddedLauncher

CONTEXT = 2048  # tokens a slot
LAYERS = {
    "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj", "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}  # fmt: skip
_START_S = 180.0


@dataclass
class Server:
    """A running engine: where it takes chat requests, and what a request adds for release N."""

    name: str
    url: str
    fields: Callable[[int], dict[str, Any]]
    key: str = ""


def write_adapter(folder: Path, header: GgufHeader, *, rank: int = 16, seed: int = 0) -> Path:
    """Write a PEFT adapter with small random weights on every linear layer."""
    from safetensors.numpy import save_file

    random = np.random.default_rng(seed)
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


@contextmanager
def on_server_core() -> Iterator[None]:
    """Start children on the last core, so that every engine gets the same one; we keep the rest."""
    if cores() < 2 or not hasattr(os, "sched_setaffinity"):
        yield
        return
    mine = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(mine)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, mine)


@asynccontextmanager
async def tutelage(adapters: Sequence[Path], slots: int) -> AsyncIterator[Server]:
    """Run our engine with a release for each adapter."""
    with tempfile.TemporaryDirectory() as folder:
        options = ("--slots", str(slots), "--context", str(CONTEXT))
        launcher = EmbeddedLauncher("demo", Workspace(Path(folder)), 1, options=options)
        with on_server_core():
            engine = await launcher.start()
        try:
            for place, adapter in enumerate(adapters):
                await launcher.ensure(f"r{place}", adapter)
            url = f"{engine.base_url}/v1/chat/completions"
            yield Server("tutelage", url, lambda place: {"model": f"r{place}"})
        finally:
            await launcher.stop()


@asynccontextmanager
async def llamacpp(adapters: Sequence[Path], slots: int) -> AsyncIterator[Server]:
    """Run llama.cpp's server with the same adapters, picked by request."""
    from tutelage.inference.lora_gguf import ensure_lora_gguf

    model, port, key = locate_model("demo").path, free_port(), secrets.token_hex(16)
    loras = [str(ensure_lora_gguf(adapter, model, cache_dir())) for adapter in adapters]
    job = {"model": str(model), "loras": loras, "slots": slots, "port": port, "key": key}
    command = [sys.executable, __file__, json.dumps(job)]
    with running(command):
        await_answer(f"http://127.0.0.1:{port}/health")

        def fields(place: int) -> dict[str, Any]:
            scales = [{"id": n, "scale": float(n == place)} for n in range(len(loras))]
            return {"model": "demo", "lora": scales}

        yield Server("llama.cpp", f"http://127.0.0.1:{port}/v1/chat/completions", fields, key)


@asynccontextmanager
async def transformers_serve() -> AsyncIterator[Server]:
    """Run `transformers serve` with the base model in float32: it serves no adapters."""
    from tutelage.inference.transformers_prepare import prepare

    folder, port = str(prepare(locate_model("demo"))), free_port()
    program = str(Path(sys.executable).with_name("transformers"))
    command = [program, "serve", folder, "--device", "cpu", "--port", str(port)]
    with running([*command, "--host", "127.0.0.1", "--dtype", "float32"]):
        await_answer(f"http://127.0.0.1:{port}/health")
        url = f"http://127.0.0.1:{port}/v1/chat/completions"
        yield Server("transformers serve", url, lambda place: {"model": folder})


@contextmanager
def running(command: Sequence[str]) -> Iterator[None]:
    """Run a server with one thread until the block ends."""
    environment = os.environ | QUIET | {"OMP_NUM_THREADS": "1"}
    with on_server_core():
        process = subprocess.Popen(
            command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
    try:
        yield
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def await_answer(url: str) -> None:
    """Return once `url` answers; raise TimeoutError after three minutes."""
    deadline = time.monotonic() + _START_S
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError), urllib.request.urlopen(url, timeout=5) as response:
            if response.status == 200:
                return
        time.sleep(0.1)
    raise TimeoutError(f"{url} does not answer")


def free_port() -> int:
    """Return a port that nobody uses now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def run_llamacpp(job: dict[str, Any]) -> None:
    """Be llama.cpp's server until told to end."""
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = job["model"]
    params.hostnames, params.port = ["127.0.0.1"], job["port"]
    params.api_keys = [job["key"]]
    params.n_parallel, params.n_ctx = job["slots"], CONTEXT * job["slots"]
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
    params.lora_adapters = [xllamacpp.CommonAdapterLoraInfo(path, 1.0) for path in job["loras"]]
    server = xllamacpp.Server(params)
    while server is not None:
        time.sleep(1)


if __name__ == "__main__":
    run_llamacpp(json.loads(sys.argv[1]))
