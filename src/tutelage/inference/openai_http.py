"""Posting to an OpenAI-compatible server: the key, which failures pass, and how long to wait.

It knows nothing of what is asked; the generator and the embedder do.
"""

from __future__ import annotations

import asyncio
import os
import random
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import aiohttp

from tutelage.core.artifact import utc_now
from tutelage.core.errors import EnvironmentProblem, ModelError
from tutelage.core.retry_after import retry_after_s

PASSING = frozenset((408, 409, 425, 429, 500, 502, 503, 504, 529))
_REFUSED = frozenset((401, 403, 404))
LONGEST_WAIT_S = 60.0


@dataclass(frozen=True)
class Reply:
    """What a request got: the JSON body, or None and the problem. `latency_ms`: last attempt."""

    body: dict[str, Any] | None
    problem: str = ""
    latency_ms: float = 0.0


@dataclass(frozen=True)
class Patience:
    """How often a request is tried again, and the pause before the first time (it doubles)."""

    retries: int = 4
    first_wait_s: float = 0.5


def endpoint_url(base_url: str, path: str) -> str:
    """Return the address of `path` on a server whose base_url may end in /v1 or not."""
    return f"{base_url.rstrip('/').removesuffix('/v1')}/v1/{path}"


def authorization(api_key_env: str | None) -> dict[str, str]:
    """Return the header that carries the key; raise EnvironmentProblem if it is not set."""
    if api_key_env is None:
        return {}
    key = os.environ.get(api_key_env)
    if not key:
        raise EnvironmentProblem(
            f"the environment has no {api_key_env}", fix=f"Run `export {api_key_env}=...` first"
        )
    return {"authorization": f"Bearer {key}"}


async def post(
    client: aiohttp.ClientSession, url: str, body: Mapping[str, Any], patience: Patience
) -> Reply:
    """Post `body` as JSON; what may pass (busy, broken connection) is tried again.

    Raises ModelError if the server refuses every such request (key, model name, address).
    """
    problem = ""
    for attempt in range(patience.retries + 1):
        started = time.perf_counter()
        wait = min(LONGEST_WAIT_S, patience.first_wait_s * 2**attempt) * random.uniform(0.5, 1)
        try:
            async with client.post(url, json=body) as response:
                if response.status == 200:
                    found = await response.json()
                    return Reply(found, latency_ms=(time.perf_counter() - started) * 1000)
                problem = f"status {response.status}: {(await response.text())[:200]}"
                if response.status in _REFUSED:
                    raise _refused(url, problem)
                if response.status not in PASSING:
                    return Reply(None, problem)
                wait = max(wait, retry_after(response.headers.get("retry-after")))
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            problem = f"{type(error).__name__}: {error}"
        if attempt < patience.retries:
            await asyncio.sleep(wait)
    return Reply(None, problem)


def _refused(url: str, problem: str) -> ModelError:
    return ModelError(
        f"the server refuses the requests ({problem})",
        where=url,
        fix="Check the model's name, base_url and the key in api_key_env",
    )


def retry_after(value: str | None) -> float:
    """Return the seconds that a Retry-After header asks for, at most LONGEST_WAIT_S; else 0."""
    return retry_after_s(value, longest_s=LONGEST_WAIT_S, now=utc_now()) or 0.0
