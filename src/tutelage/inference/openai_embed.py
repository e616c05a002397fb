"""An Embedder over any OpenAI-compatible `/embeddings` endpoint: hosted, vLLM, TEI, Ollama.

Texts go in batches, side by side. A batch that fails for good ends the call: vectors with holes
would be worse than none, and what was embedded before lies in the cache (embed_cache.py).
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import aiohttp
import numpy as np
from numpy.typing import NDArray

from tutelage.core.errors import EnvironmentProblem, ModelError
from tutelage.inference.base import OnBatch
from tutelage.inference.openai_http import Patience, authorization, endpoint_url, post

_BATCH_CHARACTERS = 100_000  # hosted endpoints take 300,000 tokens a request, many servers less


class OpenAIEmbedder:
    """Vectors from a server: `data.quality.endpoint` names it. Texts leave the machine."""

    remote = True  # made with the endpoint's base_url, model and api_key_env

    def __init__(
        self,
        base_url: str,
        model: str,
        api_key_env: str | None = None,
        *,
        batch_size: int = 96,
        concurrency: int = 4,
        patience: Patience | None = None,
    ) -> None:
        self.url = endpoint_url(base_url, "embeddings")
        self.model = model
        self._batch_size, self._concurrency = batch_size, concurrency
        self._patience = patience or Patience()
        self._headers = authorization(api_key_env)

    @property
    def fingerprint(self) -> str:
        """The server's address and the model's name: its version is the server's secret."""
        return f"openai:{self.url}:{self.model}"

    def embed(self, texts: Sequence[str], on_batch: OnBatch | None = None) -> NDArray[np.float32]:
        """Return one L2-normalised row a text, shape (N, D); a text of spaces gets zeros.

        Raises ModelError if the server refuses or answers with something else than vectors,
        EnvironmentProblem if it can't be reached.
        """
        with ThreadPoolExecutor(1) as own:  # the caller may be inside an event loop
            return own.submit(asyncio.run, self._embed(texts, on_batch)).result()

    async def _embed(self, texts: Sequence[str], on_batch: OnBatch | None) -> NDArray[np.float32]:
        gate = asyncio.Semaphore(self._concurrency)
        timeout = aiohttp.ClientTimeout(total=300, sock_connect=10)
        places = [index for index, text in enumerate(texts) if text.strip()]
        done = len(texts) - len(places)
        async with aiohttp.ClientSession(timeout=timeout, headers=self._headers) as client:

            async def one(batch: list[int]) -> NDArray[np.float32]:
                nonlocal done
                async with gate:
                    vectors = await self._ask(client, [texts[index] for index in batch])
                done += len(batch)
                if on_batch is not None:
                    on_batch(done, len(texts))
                return vectors

            batches = self._batches(texts, places)
            tasks = [asyncio.create_task(one(batch)) for batch in batches]
            try:
                parts = await asyncio.gather(*tasks)
            finally:
                for task in tasks:
                    task.cancel()
        return self._joined(len(texts), batches, parts)

    def _joined(
        self, count: int, batches: list[list[int]], parts: Sequence[NDArray[np.float32]]
    ) -> NDArray[np.float32]:
        widths = {part.shape[1] for part in parts}
        if len(widths) > 1:
            raise self._odd(f"vectors of {' and '.join(str(w) for w in sorted(widths))} numbers")
        out = np.zeros((count, widths.pop() if widths else 1), dtype=np.float32)
        for batch, part in zip(batches, parts, strict=True):
            out[batch] = part
        return out

    def _batches(self, texts: Sequence[str], places: Sequence[int]) -> list[list[int]]:
        """Cut the places into batches of at most so many texts and characters."""
        batches: list[list[int]] = []
        room = 0
        for index in places:
            room -= len(texts[index])
            if not batches or room < 0 or len(batches[-1]) >= self._batch_size:
                batches.append([])
                room = _BATCH_CHARACTERS - len(texts[index])
            batches[-1].append(index)
        return batches

    async def _ask(self, client: aiohttp.ClientSession, texts: list[str]) -> NDArray[np.float32]:
        body = {"model": self.model, "input": texts, "encoding_format": "float"}
        reply = await post(client, self.url, body, self._patience)
        if reply.body is None:
            raise EnvironmentProblem(
                f"the server gives no vectors ({reply.problem})",
                where=self.url,
                fix="Run the same command again; what was embedded is kept",
            )
        return self._vectors(reply.body, len(texts))

    def _vectors(self, body: dict[str, Any], count: int) -> NDArray[np.float32]:
        try:
            rows = sorted(body["data"], key=lambda row: int(row["index"]))
            vectors = np.array([row["embedding"] for row in rows], dtype=np.float32)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise self._odd(f"{type(error).__name__}: {error}") from error
        if vectors.ndim != 2 or len(vectors) != count or not np.isfinite(vectors).all():
            raise self._odd(f"{len(vectors)} vectors for {count} texts")
        norms = np.linalg.norm(vectors, axis=1, keepdims=True)
        unit: NDArray[np.float32] = vectors / np.maximum(norms, 1e-12)
        return unit

    def _odd(self, found: str) -> ModelError:
        return ModelError(
            f"the server's answer holds no usable vectors ({found})",
            where=self.url,
            fix="Name an embedding model in data.quality.endpoint.model",
        )
