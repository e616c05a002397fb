"""Send real requests to a gateway over HTTP, as a client would, and feedback on the answers."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import aiohttp

from tutelage.core.errors import EnvironmentProblem

_TIMEOUT = aiohttp.ClientTimeout(total=120, connect=5)


@dataclass(frozen=True)
class Reply:
    """What one request got. `record` is the response's id; `status` is HTTP's."""

    text: str
    record: str
    answer: str
    status: int
    latency_ms: float


def send(
    base_url: str, deployment: str, texts: Sequence[str], *, concurrency: int = 4
) -> list[Reply]:
    """Ask `deployment` each of `texts`, at most `concurrency` at a time; keep their order."""
    return asyncio.run(_send(base_url, deployment, texts, concurrency))


async def _send(
    base_url: str, deployment: str, texts: Sequence[str], concurrency: int
) -> list[Reply]:
    gate = asyncio.Semaphore(concurrency)
    async with aiohttp.ClientSession(timeout=_TIMEOUT) as client:

        async def one(text: str, index: int) -> Reply:
            body = {
                "model": deployment,
                "messages": [{"role": "user", "content": text}],
                "user": f"visitor-{index}-{text[:24]}",
            }
            async with gate:
                started = time.perf_counter()
                async with client.post(f"{base_url}/v1/chat/completions", json=body) as response:
                    data = await response.json()
                    status = response.status
                elapsed = (time.perf_counter() - started) * 1000
            answer = data["choices"][0]["message"]["content"] if status == 200 else ""
            return Reply(text, str(data.get("id", "")), answer, status, elapsed)

        return list(await asyncio.gather(*(one(text, i) for i, text in enumerate(texts))))


def give_feedback(base_url: str, notes: Sequence[dict[str, Any]]) -> int:
    """Send feedback bodies one by one; return how many were acknowledged as durable."""
    return asyncio.run(_feedback(base_url, notes))


async def _feedback(base_url: str, notes: Sequence[dict[str, Any]]) -> int:
    kept = 0
    async with aiohttp.ClientSession(timeout=_TIMEOUT) as client:
        for body in notes:
            async with client.post(f"{base_url}/v1/feedback", json=body) as response:
                if response.status >= 400:
                    text = (await response.text())[:200]
                    raise EnvironmentProblem(
                        f"the gateway refused feedback ({response.status}: {text})",
                        where=base_url,
                        fix="Look at .tutelage/logs",
                    )
                kept += 1
    return kept
