"""Any OpenAI-compatible server as the engine: it is found, not started, and never stopped.

A release is served under its own id if the server lists it; a base release may go by the name in
`deploy.endpoint.model`. A server with vLLM's adapter routes gets adapters loaded at run time.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import aiohttp

from tutelage.core.config import Endpoint, Project
from tutelage.core.errors import ConfigError, EnvironmentProblem, ModelError
from tutelage.core.workspace import Workspace
from tutelage.serving.launchers.base import Engine

_TIMEOUT = aiohttp.ClientTimeout(total=120, connect=5)


class RemoteLauncher:
    """A server that somebody else runs."""

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint
        self.base_url = endpoint.base_url.rstrip("/").removesuffix("/v1")
        self._names: dict[str, str] = {}
        self._loaded: set[str] = set()

    @classmethod
    def from_project(cls, project: Project, workspace: Workspace) -> RemoteLauncher:
        """Return the launcher of a project. Raises ConfigError if it names no endpoint."""
        if project.deploy.endpoint is None:
            raise ConfigError(
                "'deploy.engine' is remote and 'deploy.endpoint' is missing",
                where=str(workspace.config_path),
                fix="Add deploy: {endpoint: {base_url: http://host:8000, model: NAME}}",
            )
        return cls(project.deploy.endpoint)

    @property
    def api_key(self) -> str | None:
        """The server's key, from the environment."""
        return os.environ.get(self.endpoint.api_key_env) if self.endpoint.api_key_env else None

    async def start(self) -> Engine:
        """Return where the server is; raise EnvironmentProblem if it doesn't answer."""
        await self._models()
        return Engine(self.base_url, 0)

    async def stop(self) -> None:
        """Leave the server as it is, without the adapters that were loaded for us."""
        for release in list(self._loaded):
            await self.remove(release)

    def name_of(self, release: str) -> str:
        """Return the server's name for a release."""
        return self._names.get(release, release)

    async def ensure(self, release_id: str, adapter: Path | None) -> None:
        """Return when the server answers for `release_id`; raise ModelError if it can't."""
        served = await self._models()
        if release_id in served:
            self._names[release_id] = release_id
        elif adapter is None:
            if self.endpoint.model not in served:
                raise ModelError(
                    f"the server has no model {self.endpoint.model!r}",
                    where=self.base_url,
                    fix=f"Set deploy.endpoint.model to one of {', '.join(sorted(served)[:8])}",
                )
            self._names[release_id] = self.endpoint.model
        else:
            await self._load(release_id, adapter)

    async def remove(self, release_id: str) -> None:
        """Unload an adapter that `ensure` loaded."""
        self._names.pop(release_id, None)
        if release_id in self._loaded:
            self._loaded.discard(release_id)
            await self._ask("POST", "/v1/unload_lora_adapter", {"lora_name": release_id})

    async def _load(self, release: str, adapter: Path) -> None:
        body = {"lora_name": release, "lora_path": str(adapter.resolve())}
        status, answer = await self._ask("POST", "/v1/load_lora_adapter", body)
        if status != 200:
            raise ModelError(
                f"the server did not load the adapter (status {status}: {str(answer)[:120]})",
                where=self.base_url,
                fix="Start vLLM with --enable-lora and VLLM_ALLOW_RUNTIME_LORA_UPDATING=True, "
                f"or serve the adapter yourself under the name {release}",
            )
        self._loaded.add(release)
        self._names[release] = release

    async def _models(self) -> set[str]:
        status, answer = await self._ask("GET", "/v1/models")
        if status != 200 or not isinstance(answer, dict):
            raise EnvironmentProblem(
                f"the server does not list its models (status {status})",
                where=f"{self.base_url}/v1/models",
                fix="Check deploy.endpoint.base_url and the key in deploy.endpoint.api_key_env",
            )
        return {str(item.get("id")) for item in answer.get("data", [])}

    async def _ask(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        headers = {"authorization": f"Bearer {self.api_key}"} if self.api_key else {}
        try:
            async with (
                aiohttp.ClientSession(timeout=_TIMEOUT, headers=headers) as session,
                session.request(method, f"{self.base_url}{path}", json=body) as response,
            ):
                text = await response.text()
                if "json" in response.headers.get("content-type", ""):
                    return response.status, await response.json()
                return response.status, text
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise EnvironmentProblem(
                f"the server can't be reached ({error})",
                where=self.base_url,
                fix="Start it, or correct deploy.endpoint.base_url",
            ) from error
