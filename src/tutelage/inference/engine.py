"""The engine process: `python -m tutelage.inference.engine --model SPEC --ready-file PATH`.

Holds one base model, serves it and its adapters on loopback, and ends when its parent does. With
the llama.cpp backend neither torch nor transformers is imported.
"""

from __future__ import annotations

import argparse
import ctypes
import importlib.util
import json
import os
import signal
import socket
import sys
import threading
import time
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # read when a native library starts

import uvicorn

from tutelage.core.errors import EnvironmentProblem, ModelError, TutelageError
from tutelage.core.workspace import atomic_write
from tutelage.inference.engine_app import create_app
from tutelage.inference.engine_base import Backend
from tutelage.inference.engine_desk import Desk
from tutelage.inference.engine_memory import keep_one_heap
from tutelage.inference.models import ModelSource, cache_dir, locate_model
from tutelage.inference.specials import special_spellings

_PR_SET_PDEATHSIG = 1  # prctl(2)
_POLL_S = 0.5


def main(arguments: list[str] | None = None) -> int:
    """Serve until told to stop; return the exit status.

    A problem the user can fix goes to stderr and, as JSON, into the ready file.
    """
    options = _parser().parse_args(arguments)
    keep_one_heap()
    if options.parent:
        die_with(options.parent)
    try:
        backend = open_backend(options)
        listener = _listen(options.port)
    except TutelageError as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        if options.ready_file:
            atomic_write(options.ready_file, json.dumps({"error": error.as_dict()}).encode())
        return error.exit_code
    port = int(listener.getsockname()[1])

    def ready() -> None:
        print(f"engine: {backend.name} on 127.0.0.1:{port}", file=sys.stderr, flush=True)
        if options.ready_file:
            body = {"port": port, "pid": os.getpid(), "backend": backend.name}
            atomic_write(options.ready_file, json.dumps(body).encode())

    config = uvicorn.Config(
        create_app(Desk(backend), ready), log_level="warning", access_log=False, lifespan="on"
    )
    uvicorn.Server(config).run(sockets=[listener])
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="tutelage-engine", description=__doc__)
    parser.add_argument("--model", required=True, help="demo, a .gguf file, a folder or a hub id")
    parser.add_argument("--port", type=int, default=0, help="0: any free port (default)")
    parser.add_argument("--ready-file", type=Path, help="written when requests are taken")
    parser.add_argument("--backend", choices=("auto", "llamacpp", "transformers"), default="auto")
    parser.add_argument("--threads", type=int, default=max(1, (os.cpu_count() or 2) - 1))
    parser.add_argument("--slots", type=int, default=4, help="requests that run at once")
    parser.add_argument("--context", type=int, default=2048, help="tokens a request may hold")
    parser.add_argument("--parent", type=int, help="end when this process does")
    return parser


def open_backend(options: argparse.Namespace) -> Backend:
    """Return the backend for `options.model`; raise TutelageError with what to do instead."""
    source = locate_model(options.model)
    name = options.backend if options.backend != "auto" else choose_backend(source)
    if name == "transformers":
        return _transformers(source, options.threads)
    if source.kind != "gguf":
        raise ModelError(
            "llama.cpp serves a .gguf file, and this model has none",
            where=str(source.path),
            fix="Leave --backend out, or convert the model to GGUF",
        )
    if importlib.util.find_spec("xllamacpp") is None:
        raise EnvironmentProblem(
            "the package xllamacpp is not installed", fix="Run `pip install 'tutelage[serve]'`"
        )
    from tutelage.inference.engine_auto import AutoBackend
    from tutelage.inference.engine_llamacpp import LlamaCppBackend

    fast = LlamaCppBackend(
        source.path,
        cache=cache_dir(),
        threads=options.threads,
        slots=options.slots,
        context=options.context,
        specials=special_spellings(source),
    )
    if options.backend == "llamacpp":
        return fast
    return AutoBackend(fast, lambda: _transformers(source, options.threads))


def choose_backend(source: ModelSource) -> str:
    """Return llamacpp for a GGUF file where xllamacpp is installed, else transformers."""
    fast = source.kind == "gguf" and importlib.util.find_spec("xllamacpp") is not None
    return "llamacpp" if fast else "transformers"


def _transformers(source: ModelSource, threads: int) -> Backend:
    if importlib.util.find_spec("torch") is None:
        raise EnvironmentProblem(
            "this model needs torch and transformers",
            fix="Run `pip install 'tutelage[train]'`, or serve a .gguf file with tutelage[serve]",
        )
    import torch

    from tutelage.inference.engine_transformers import TransformersBackend
    from tutelage.inference.transformers import TransformersGenerator

    torch.set_num_threads(threads)
    return TransformersBackend(TransformersGenerator(source), specials=special_spellings(source))


def _listen(port: int) -> socket.socket:
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(("127.0.0.1", port))
        listener.listen(1024)
    except OSError as error:
        listener.close()
        raise EnvironmentProblem(
            f"the port {port} can't be used ({error.strerror})",
            fix="Leave --port out to take any free one",
        ) from error
    return listener


def die_with(parent: int) -> None:
    """End this process when `parent` ends, even by kill -9.

    Linux sends the signal by itself; elsewhere, and should the parent have ended already, a thread
    looks twice a second.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(_POLL_S)
        os._exit(1)

    threading.Thread(target=watch, name="parent", daemon=True).start()


if __name__ == "__main__":
    sys.exit(main())
