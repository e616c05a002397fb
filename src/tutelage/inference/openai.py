"""A Generator over any OpenAI-compatible server: vLLM, a hosted API, a teacher, a judge.

Requests run side by side on an event loop of their own. What may pass (busy, broken connection) is
tried again with growing pauses; a row that still fails is a Completion that says "error".
"""

from __future__ import annotations

import asyncio
import os
import random
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import aiohttp

from tutelage.core.errors import EnvironmentProblem, ModelError
from tutelage.inference.base import Completion, OnDone, Prompt, Usage
from tutelage.inference.chat import as_dicts

_PASSING = frozenset((408, 409, 425, 429, 500, 502, 503, 504, 529))
_LONGEST_WAIT_S = 60.0


class OpenAIGenerator:
    """Writes answers with a remote model. `base_url` may end in /v1 or not."""

    def __init__(
        self,
        base_url: str,
        model: str,
        api_key_env: str | None = None,
        *,
        concurrency: int = 8,
        timeout_s: float = 120.0,
        retries: int = 4,
        first_wait_s: float = 0.5,
    ) -> None:
        self.url = base_url.rstrip("/").removesuffix("/v1") + "/v1/chat/completions"
        self.model = model
        self.concurrency, self.retries, self.first_wait_s = concurrency, retries, first_wait_s
        self._timeout = aiohttp.ClientTimeout(total=timeout_s, sock_connect=10)
        self._headers = _authorization(api_key_env)

    def generate(
        self, prompts: Sequence[Prompt], on_done: OnDone | None = None
    ) -> list[Completion]:
        """Return one completion a prompt, in order; `on_done` fires in the order they end.

        Raises ModelError if the server refuses all such requests (key, model name, address).
        """
        with ThreadPoolExecutor(1) as own:  # the caller may be inside an event loop
            return own.submit(asyncio.run, self._generate(prompts, on_done)).result()

    def close(self) -> None:
        """Nothing stays open between calls."""

    async def _generate(
        self, prompts: Sequence[Prompt], on_done: OnDone | None
    ) -> list[Completion]:
        gate = asyncio.Semaphore(self.concurrency)
        async with aiohttp.ClientSession(timeout=self._timeout, headers=self._headers) as client:

            async def one(index: int, prompt: Prompt) -> Completion:
                async with gate:
                    completion = await self._with_retries(client, prompt)
                if on_done is not None:
                    on_done(index, completion)
                return completion

            tasks = [asyncio.create_task(one(i, prompt)) for i, prompt in enumerate(prompts)]
            try:
                return list(await asyncio.gather(*tasks))
            finally:
                for task in tasks:
                    task.cancel()

    async def _with_retries(self, client: aiohttp.ClientSession, prompt: Prompt) -> Completion:
        problem = ""
        for attempt in range(self.retries + 1):
            started = time.perf_counter()
            wait = min(_LONGEST_WAIT_S, self.first_wait_s * 2**attempt) * random.uniform(0.5, 1)
            try:
                async with client.post(self.url, json=self._body(prompt)) as response:
                    if response.status == 200:
                        return _completion(await response.json(), started)
                    problem = f"status {response.status}: {(await response.text())[:200]}"
                    if response.status not in _PASSING:
                        self._refused(response.status, problem)
                        return Completion("", "error", meta={"problem": problem})
                    wait = max(wait, _seconds(response.headers.get("retry-after")))
            except (aiohttp.ClientError, TimeoutError, OSError, ValueError, KeyError) as error:
                problem = f"{type(error).__name__}: {error}"
            if attempt < self.retries:
                await asyncio.sleep(wait)
        return Completion("", "error", meta={"problem": problem})

    def _body(self, prompt: Prompt) -> dict[str, Any]:
        decoding = prompt.decoding
        body: dict[str, Any] = {
            "model": self.model,
            "messages": as_dicts(prompt.messages),
            "temperature": decoding.temperature,
            "max_tokens": decoding.max_tokens,
        }
        if decoding.stop:
            body["stop"] = list(decoding.stop)
        if decoding.seed is not None:
            body["seed"] = decoding.seed
        if decoding.json_schema:
            form = {"name": "answer", "schema": decoding.json_schema, "strict": True}
            body["response_format"] = {"type": "json_schema", "json_schema": form}
        return body

    def _refused(self, status: int, problem: str) -> None:
        if status in (401, 403, 404):
            raise ModelError(
                f"the server refuses the requests ({problem})",
                where=self.url,
                fix="Check the model's name, base_url and the key in api_key_env",
            )


def _authorization(api_key_env: str | None) -> dict[str, str]:
    if api_key_env is None:
        return {}
    key = os.environ.get(api_key_env)
    if not key:
        raise EnvironmentProblem(
            f"the environment has no {api_key_env}", fix=f"Run `export {api_key_env}=...` first"
        )
    return {"authorization": f"Bearer {key}"}


def _completion(body: dict[str, Any], started: float) -> Completion:
    choice = body["choices"][0]
    usage = body.get("usage") or {}
    details = usage.get("prompt_tokens_details") or {}
    return Completion(
        text=choice["message"].get("content") or "",
        finish_reason=choice.get("finish_reason") or "stop",
        usage=Usage(
            int(usage.get("prompt_tokens") or 0),
            int(usage.get("completion_tokens") or 0),
            int(details.get("cached_tokens") or 0),
        ),
        latency_ms=(time.perf_counter() - started) * 1000,
    )


def _seconds(value: str | None) -> float:
    try:
        return min(_LONGEST_WAIT_S, max(0.0, float(value or 0)))
    except ValueError:
        return 0.0
