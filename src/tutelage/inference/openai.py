"""A Generator over any OpenAI-compatible server: vLLM, a hosted API, a teacher, a judge.

Requests run side by side on an event loop of their own. What may pass (busy, broken connection) is
tried again with growing pauses; a row that still fails is a Completion that says "error".
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import aiohttp

from tutelage.inference.base import Completion, OnDone, Prompt, Usage
from tutelage.inference.chat import as_dicts
from tutelage.inference.openai_http import Patience, authorization, endpoint_url, post


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
        self.url = endpoint_url(base_url, "chat/completions")
        self.model, self.concurrency = model, concurrency
        self._patience = Patience(retries, first_wait_s)
        self._timeout = aiohttp.ClientTimeout(total=timeout_s, sock_connect=10)
        self._headers = authorization(api_key_env)

    @classmethod
    def at(
        cls, url: str, headers: Mapping[str, str], model: str, **options: Any
    ) -> OpenAIGenerator:
        """Return a generator that posts to exactly `url`, where a service has its own form of it.

        `headers` carry the key; `options` are those of the class.
        """
        made = cls(url, model, **options)
        made.url, made._headers = url, dict(headers)
        return made

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
                    completion = await self._answer(client, prompt)
                if on_done is not None:
                    on_done(index, completion)
                return completion

            tasks = [asyncio.create_task(one(i, prompt)) for i, prompt in enumerate(prompts)]
            try:
                return list(await asyncio.gather(*tasks))
            finally:
                for task in tasks:
                    task.cancel()

    async def _answer(self, client: aiohttp.ClientSession, prompt: Prompt) -> Completion:
        reply = await post(client, self.url, self._body(prompt), self._patience)
        if reply.body is None:
            return Completion("", "error", meta={"problem": reply.problem})
        try:
            return _completion(reply.body, reply.latency_ms)
        except (KeyError, IndexError, TypeError, AttributeError) as error:
            problem = f"an answer without choices ({type(error).__name__}: {error})"
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


def _completion(body: dict[str, Any], latency_ms: float) -> Completion:
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
        latency_ms=latency_ms,
    )
