"""Turns requests into vectors for drift, by the embedder that tutelage.yaml names.

Words (tf-idf) are fitted on the texts of each call, which treats old and new alike. Vectors of a
model are kept in memory while a command runs, and on disk as those of all commands are.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from tutelage.feedback.drift.check import Embed
from tutelage.inference.base import Embedder
from tutelage.inference.embed import load_embedder, resolve
from tutelage.inference.embed_cache import embed_cached
from tutelage.inference.tfidf_embed import TfidfEmbedder
from tutelage.workflows.context import Context

DIMENSIONS = 128  # of the space of words
_FIT_ROWS = 3_000  # that it is fitted on


def embedding(ctx: Context, texts: int) -> Embed:
    """Return what turns texts into unit rows; about `texts` of them are to come."""
    name = resolve(ctx.config.drift.embedder, texts)
    if name == "tfidf":
        return TfidfEmbedder(DIMENSIONS, fit_rows=_FIT_ROWS).embed
    return _Kept(ctx, name, texts).embed


class _Kept:
    """An embedder that is loaded for the first text it is asked for.

    It reads and writes the disk for texts it has not seen in this command, where its vectors can
    be told from those of another.
    """

    def __init__(self, ctx: Context, name: str, texts: int) -> None:
        self._ctx, self._name, self._texts = ctx, name, texts
        self._embedder: Embedder | None = None
        self._seen: dict[str, NDArray[np.float32]] = {}

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return one unit row a text, shape (N, D)."""
        if self._embedder is None:
            self._embedder = load_embedder(
                self._name, self._texts, endpoint=self._ctx.config.data.quality.endpoint,
                root=self._ctx.workspace.root,
            )  # fmt: skip
        if not self._embedder.fingerprint:
            return self._embedder.embed(texts)
        new = [text for text in dict.fromkeys(texts) if text not in self._seen]
        if new:
            folder = self._ctx.workspace.home / "embeddings"
            self._seen.update(zip(new, embed_cached(self._embedder, new, folder), strict=True))
        found = np.stack([self._seen[text] for text in texts])
        if len(self._seen) > 20_000:
            self._seen.clear()
        return found
