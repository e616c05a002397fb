"""One llama.cpp server in this process, with the adapters it was made with; it picks no slot.

Facts of xllamacpp 2026.10 this rests on (each has a test): adapters are given at construction only;
a request that names none gets all of them, and an adapter number that is not there is answered by
the base model, so every request lists every adapter with its scale. Construction holds the
interpreter lock (0.3-0.5 s for the demo model). A callback that returns True ends the generation.
Each server also listens by itself: here on a Unix socket in a private folder, behind a random key.
It is constructed before its loop runs, and an end that comes before the loop is forgotten: then the
destructor waits for ever, and keeps the interpreter lock. So it answers once before it is used.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tutelage.core.errors import ModelError
from tutelage.inference.engine_listener import ask

_SOCKET_PATH = 100  # bytes; systems take 104 or 108, a longer one falls back to loopback

Reads = Callable[[Any], bool]


@dataclass(frozen=True)
class Sizes:
    """How a server is made. `context` is in tokens a slot, whose keys are allocated at once."""

    threads: int = 1
    slots: int = 4
    context: int = 2048


class LlamaServer:
    """A server with its weights mapped, its adapters, and its keys and values."""

    def __init__(
        self, model: Path, loras: Sequence[Path], sizes: Sizes, starts: Path | None = None
    ) -> None:
        """`starts` is where slots may be saved. Raises ModelError if the files can't be loaded."""
        import xllamacpp

        self.loras = tuple(loras)
        self.private = Path(tempfile.mkdtemp(prefix="tutelage-"))
        params = _params(xllamacpp, model, sizes, self.private / "llama.sock")
        if starts:
            params.slot_save_path = f"{starts}{os.sep}"
        params.lora_adapters = [xllamacpp.CommonAdapterLoraInfo(str(x), 1.0) for x in self.loras]
        self.key: str = params.api_keys[0]
        try:
            self.server: Any = xllamacpp.Server(params)
            self.server.handle_metrics()  # goes through the loop
        except (RuntimeError, ValueError) as error:
            shutil.rmtree(self.private, ignore_errors=True)
            raise ModelError(
                f"llama.cpp could not load the model{' with this adapter' if loras else ''}",
                where=str(loras[-1] if loras else model),
                fix="Look at .tutelage/logs/engine.log, or set deploy.backend: transformers",
            ) from error

    def complete(self, payload: dict[str, Any], lora: Path | None, reads: Reads) -> None:
        """Answer a completion; raise ValueError if llama.cpp refuses it."""
        self.server.handle_completions(payload | self._scales(lora), reads)

    def chat(self, payload: dict[str, Any], lora: Path | None, reads: Reads) -> None:
        """Answer a chat; raise ValueError if llama.cpp refuses it."""
        self.server.handle_chat_completions(payload | self._scales(lora), reads)

    def save(self, slot: int, name: str) -> None:
        """Write what a slot holds to a file; raise ModelError if that fails."""
        self._slot(slot, "save", name)

    def restore(self, slot: int, name: str) -> None:
        """Let a slot hold what is in a file; raise ModelError if that fails."""
        self._slot(slot, "restore", name)

    def stop(self) -> None:
        """Stop the server and give its memory back."""
        self.server = None  # the last reference: its destructor joins the loop
        with contextlib.suppress(OSError):
            shutil.rmtree(self.private)

    def _slot(self, slot: int, action: str, name: str) -> None:
        address = self.server.listening_address
        ask(address, self.key, f"/slots/{slot}?action={action}", {"filename": name})

    def _scales(self, lora: Path | None) -> dict[str, Any]:
        if lora is not None and lora not in self.loras:
            raise ModelError("the adapter is not in this server", where=str(lora))
        scales = [{"id": n, "scale": float(path == lora)} for n, path in enumerate(self.loras)]
        return {"lora": scales} if scales else {}


def _params(xllamacpp: Any, model: Path, sizes: Sizes, socket: Path) -> Any:
    params = xllamacpp.CommonParams()
    params.model.path = str(model)
    params.n_parallel = sizes.slots
    params.n_ctx = sizes.context * sizes.slots
    params.n_batch = params.n_ubatch = 128  # streams get a token between two pieces of a prompt
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = sizes.threads
    params.load_mode = xllamacpp.llama_load_mode.LLAMA_LOAD_MODE_MMAP
    params.no_extra_bufts = True  # repacked weights would be a copy that no server shares
    params.fit_params = False  # loads the model once more to guess at sizes set here
    params.warmup = False
    params.cache_ram_mib = 0  # prompts are cached in the slots; no second copy in memory
    params.verbosity = 1
    private = os.name == "posix" and len(os.fsencode(socket)) < _SOCKET_PATH
    params.hostnames = [str(socket) if private else "127.0.0.1"]
    params.api_keys = [secrets.token_urlsafe(32)]
    params.n_threads_http = 1
    params.endpoint_slots = params.ui = False
    params.endpoint_metrics = True
    return params
