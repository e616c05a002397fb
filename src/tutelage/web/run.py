"""Runs the page process: takes its address, serves, and ends with the process that started it."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import uvicorn

from tutelage.core.config_file import load_config
from tutelage.core.errors import EnvironmentProblem
from tutelage.core.workspace import find_project
from tutelage.inference.engine import die_with

OnReady = Callable[[str, list[str]], None]
_LARGEST = 2_000_000  # bytes of one message from a browser
_GRACE_S = 2  # what an open tab may still finish when the process is told to stop


def run_web(
    directory: Path,
    *,
    host: str | None = None,
    port: int | None = None,
    parent: int | None = None,
    on_ready: OnReady | None = None,
) -> None:
    """Serve the page until SIGINT or SIGTERM; with `parent`, until that process ends.

    `on_ready(url, notes)` is called when browsers are answered.
    Raises EnvironmentProblem if the address can't be had or nicegui is not installed.
    """
    if find_spec("nicegui") is None:
        raise EnvironmentProblem(
            "the web page needs nicegui, which is not installed",
            fix="Run: pip install 'tutelage[web]'",
        )
    workspace = find_project(directory)
    settings = load_config(workspace.config_path).web
    host = host or settings.host
    with _listener(host, settings.port if port is None else port) as listener:
        if parent is not None:
            die_with(parent)
        taken = int(listener.getsockname()[1])
        # NiceGUI reads this when it is imported, and would make a folder where one stands
        os.environ["NICEGUI_STORAGE_PATH"] = str(workspace.home / "web")
        from tutelage.web.app import make_site

        served, site = make_site(directory, host=host, port=taken)
        _log_to(workspace.logs / "web.log")
        shown = f"[{host}]" if ":" in host else host
        url = settings.url or f"http://{shown}:{taken}"
        config = uvicorn.Config(
            served, log_config=None, access_log=False, server_header=False,
            ws_max_size=_LARGEST, timeout_graceful_shutdown=_GRACE_S,
        )  # fmt: skip
        _Server(config, lambda: on_ready(url, site.notes) if on_ready else None).run([listener])


class _Server(uvicorn.Server):
    """Says when it answers."""

    def __init__(self, config: uvicorn.Config, ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._ready = ready

    async def startup(self, sockets: Any = None) -> None:
        """Begin to answer."""
        await super().startup(sockets)
        if self.started:
            self._ready()


def _log_to(path: Path) -> None:
    handler = logging.FileHandler(path, delay=True)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s %(message)s"))
    root = logging.getLogger()
    root.addHandler(handler)
    root.setLevel(logging.WARNING)


def _listener(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except (OSError, OverflowError) as error:
        listener.close()
        reason = str(getattr(error, "strerror", None) or error).lower()
        raise EnvironmentProblem(
            f"the port {port} on {host} can't be used ({reason})",
            fix="Stop what uses it, or choose another: `tutelage web --port 0` picks a free one",
        ) from error
    return listener
