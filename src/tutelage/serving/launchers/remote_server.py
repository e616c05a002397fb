"""One OpenAI-compatible server that somebody else runs: its models, adapters, health, figures.

It speaks vLLM's routes for adapters and metrics where they are there. Which releases belong on
which server, and what to do about one that is down, is remote.py's matter.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
from collections import Counter
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiohttp

from tutelage.core.config_deploy import Backend
from tutelage.core.errors import EnvironmentProblem, ModelError
from tutelage.inference.tuned import read_tuned
from tutelage.serving.launchers.remote_metrics import Figures, read_figures

_LOAD_S = 120.0  # reading an adapter from a slow disk
_LOOK_S = 5.0
_CONNECT_S = 3.0


@dataclass(frozen=True)
class Known:
    """A release as far as a server must know it."""

    id: str  # 64 hex digits
    name: str = ""
    kind: str = "base"  # base, tuned, imported
    adapter: Path | None = None  # folder of an adapter or a whole model

    @property
    def names(self) -> tuple[str, ...]:
        """The names under which a server may list it."""
        return tuple(name for name in (self.id, self.id[:12], self.name) if name)

    def called(self, name: str) -> bool:
        """Return whether `name` means this release: its name, or the start of its id."""
        return name == self.name or (len(name) >= 8 and self.id.startswith(name))


class RemoteServer:
    """One server. `holds` maps releases that it answers for to its own names for them."""

    def __init__(self, backend: Backend, index: int = 0, home: Path | None = None) -> None:
        self.backend, self.index, self.home = backend, index, home
        self.base_url = backend.base_url.rstrip("/").removesuffix("/v1")
        self.name = backend.name or urlsplit(self.base_url).netloc or self.base_url
        self.up = True
        self.problem: str | None = None  # why it is down
        self.busy: Counter[str] = Counter()  # requests under way by release, of this gateway
        self.holds: dict[str, str] = {}
        self.loaded: set[str] = set()  # adapters that were put there over its routes
        self.served: set[str] = set()  # the models it listed at the last look
        self.figures = Figures()
        self.version: str | None = None
        self.answered: datetime | None = None  # when its own `model` last did, for the gateway
        self.doubted = asyncio.Event()  # look at it now
        self._session: aiohttp.ClientSession | None = None
        self._locks: dict[str, asyncio.Lock] = {}
        self._has_health = True

    @property
    def api_key(self) -> str | None:
        """The server's key, from the environment."""
        return os.environ.get(self.backend.api_key_env) if self.backend.api_key_env else None

    async def start(self) -> None:
        """Open the connections, on the running loop."""
        self._opened()

    async def close(self) -> None:
        """Close the connections; what was loaded stays."""
        if self._session is not None:
            await self._session.close()
        self._session = None

    def doubt(self, problem: str) -> None:
        """Send it no requests until a look says that it answers."""
        self.up, self.problem = False, problem
        self.doubted.set()

    async def look(self) -> set[str]:
        """Return the models it lists; raise EnvironmentProblem if it is down."""
        if self._has_health:
            status, _ = await self._ask("GET", "/health")
            self._has_health = status not in (401, 403, 404, 405)
            if status >= 500:
                raise EnvironmentProblem(
                    f"the server says that it is not well (status {status})",
                    where=f"{self.base_url}/health",
                    fix="Look at its log",
                )
        status, answer = await self._ask("GET", "/v1/models")
        rows = answer.get("data") if isinstance(answer, dict) else None
        if status != 200 or not isinstance(rows, list):
            raise EnvironmentProblem(
                f"the server does not list its models (status {status})",
                where=f"{self.base_url}/v1/models",
                fix="Check base_url under deploy, and the key in the variable of api_key_env",
            )
        self.served = {str(row.get("id")) for row in rows if isinstance(row, dict)}
        return self.served

    def name_for(self, release: Known) -> str | None:
        """Return the name by which it serves a release, as of the last look; None: it doesn't.

        A base release may go by `model`. What was tuned goes by its id or name alone, or by
        `model` on the server that is kept for it: never by the base model's name.
        """
        model = self.backend.model if self.backend.model in self.served else None
        if self.backend.release is not None:
            return model if release.called(self.backend.release) else None
        own = next((name for name in release.names if name in self.served), None)
        return own or (model if release.kind == "base" and release.adapter is None else None)

    def may_hold(self, release: Known) -> bool:
        """Return whether it is not kept for another release."""
        return self.backend.release is None or release.called(self.backend.release)

    async def hold(self, release: Known) -> None:
        """Return when it answers for `release`; raise ModelError or EnvironmentProblem."""
        async with self._locks.setdefault(release.id, asyncio.Lock()):
            await self.look()
            if self.name_for(release) is None:
                await self._load(release, self._loadable(release))
                self.served.add(release.id)
            self.holds[release.id] = self.name_for(release) or release.id

    async def drop(self, release_id: str) -> None:
        """Unload an adapter; one that is not there is no problem."""
        self.holds.pop(release_id, None)
        if release_id in self.loaded or release_id in self.served:
            self.loaded.discard(release_id)
            self.served.discard(release_id)
            await self._ask("POST", "/v1/unload_lora_adapter", {"lora_name": release_id})

    async def measure(self) -> Figures:
        """Ask for its figures, and return them."""
        pages = [await self._page(f"{self.base_url}/metrics")]
        if self.backend.gpu_metrics:
            pages.append(await self._page(self.backend.gpu_metrics))
        self.figures = read_figures(*pages)
        return self.figures

    async def about(self) -> dict[str, Any]:
        """Return what the server can do, asked of it now; raise EnvironmentProblem if down."""
        served = await self.look()
        _, version = await self._ask("GET", "/version")
        self.version = str(version["version"]) if _has(version, "version") else None
        # empty names are refused by the route where there is one, and load nothing
        empty = {"lora_name": "", "lora_path": ""}
        status, _ = await self._ask("POST", "/v1/load_lora_adapter", empty)
        await self.measure()
        return {
            "models": sorted(served),
            "version": self.version,
            "adapters": status in (400, 422),
            "health": self._has_health,
            "figures": self.figures.as_dict(),
        }

    def as_dict(self) -> dict[str, Any]:
        """Return its state for people."""
        return {
            "name": self.name,
            "base_url": self.base_url,
            "up": self.up,
            "problem": self.problem if not self.up else None,
            "busy": sum(self.busy.values()),
            "releases": dict(sorted(self.holds.items())),
            "figures": self.figures.as_dict(),
        }

    def _loadable(self, release: Known) -> Path:
        """Return the folder of an adapter that can be loaded at run time; raise ModelError."""
        listed = ", ".join(sorted(self.served)[:8]) or "no model"
        if self.backend.release is not None:
            lacks = f" and lists no model {self.backend.model!r}" if self.may_hold(release) else ""
            raise ModelError(
                f"the server is kept for {self.backend.release!r}{lacks}",
                where=self.base_url,
                fix=f"It lists {listed}; correct its `model` or `release` under deploy",
            )
        if release.adapter is None:
            raise ModelError(
                f"the server has no model {self.backend.model!r}",
                where=self.base_url,
                fix=f"Set the endpoint's `model` to what it lists: {listed}",
            )
        if not read_tuned(release.adapter).is_plain_lora:
            raise ModelError(
                f"{release.name or release.id[:12]} is a whole model, or more than a LoRA adapter, "
                "and no server loads such while it runs",
                where=str(release.adapter),
                fix=f"Start a server with it under the name {release.names[-1]} and list that "
                "server under deploy.endpoints",
            )
        return release.adapter

    async def _load(self, release: Known, adapter: Path) -> None:
        path = self._seen_from_there(adapter)
        body = {"lora_name": release.id, "lora_path": path}
        status, answer = await self._ask("POST", "/v1/load_lora_adapter", body, total_s=_LOAD_S)
        message = _message(answer)
        if status != 200 and "already been loaded" not in message:
            raise self._refused(status, message, path)
        self.loaded.add(release.id)

    def _seen_from_there(self, adapter: Path) -> str:
        """Return an adapter's folder as the server sees it."""
        there = self.backend.home
        if there is None or self.home is None:
            return str(adapter.resolve())
        return str(Path(there) / adapter.resolve().relative_to(self.home.resolve()))

    def _refused(self, status: int, message: str, path: str) -> ModelError:
        if status == 405 or (status == 404 and "adapter" not in message.lower()):
            return ModelError(
                f"the server takes no adapters while it runs (status {status})",
                where=self.base_url,
                fix="Start vLLM with --enable-lora and VLLM_ALLOW_RUNTIME_LORA_UPDATING=True, or "
                "serve the adapter yourself under the release's name",
            )
        if status == 404:
            return ModelError(
                f"the server does not find the adapter at {path} ({message})",
                where=self.base_url,
                fix="Let it see the project's disk, or say in the endpoint's `home` where it sees "
                "the project's .tutelage folder",
            )
        return ModelError(
            f"the server did not load the adapter (status {status}: {message})",
            where=self.base_url,
            fix="Look at its log; vLLM's --max-lora-rank must be at least the adapter's rank",
        )

    def _opened(self) -> aiohttp.ClientSession:
        if self._session is None:
            timeout = aiohttp.ClientTimeout(total=_LOOK_S, sock_connect=_CONNECT_S)
            self._session = aiohttp.ClientSession(timeout=timeout)
        return self._session

    def _headers(self) -> dict[str, str]:
        return {"authorization": f"Bearer {self.api_key}"} if self.api_key else {}

    async def _ask(
        self, method: str, path: str, body: Any = None, *, total_s: float = _LOOK_S
    ) -> tuple[int, Any]:
        """Return the status and the JSON (or text) of an answer."""
        timeout = aiohttp.ClientTimeout(total=total_s, sock_connect=_CONNECT_S)
        asked = self._opened().request(
            method, f"{self.base_url}{path}", json=body, timeout=timeout, headers=self._headers()
        )
        try:
            async with asked as response:
                text = await response.text(errors="replace")
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise EnvironmentProblem(
                f"the server can't be reached ({error or type(error).__name__})",
                where=self.base_url,
                fix="Start it, or correct its base_url under deploy in tutelage.yaml",
            ) from error
        with contextlib.suppress(ValueError):
            return response.status, json.loads(text)
        return response.status, text

    async def _page(self, url: str) -> str:
        """Return a page of metrics; nothing if there is none. Only the server sees its key."""
        headers = self._headers() if url.startswith(f"{self.base_url}/") else {}
        with contextlib.suppress(aiohttp.ClientError, TimeoutError, OSError):
            async with self._opened().get(url, headers=headers) as response:
                return await response.text(errors="replace") if response.status == 200 else ""
        return ""


def _has(answer: Any, key: str) -> bool:
    return isinstance(answer, dict) and key in answer


def _message(answer: Any) -> str:
    """Return what a server said, in one line."""
    error = answer.get("error", answer) if isinstance(answer, dict) else answer
    if isinstance(error, dict):
        error = error.get("message") or error.get("detail") or error
    return " ".join(str(error).split())[:300]
