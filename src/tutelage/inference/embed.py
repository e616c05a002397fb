"""Find the embedder by name, and the one that every installation has: tf-idf and a truncated SVD.

Embedders are plug-ins of `tutelage.embedders`. Nothing here loads a neural model.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec

import numpy as np
from numpy.typing import NDArray

from tutelage.core import plugins
from tutelage.inference.base import Embedder

AUTO_ROWS = 3000  # above this many texts `auto` takes tf-idf: a neural embedder would take minutes


def load_embedder(name: str = "auto", count: int = 0) -> Embedder:
    """Return the embedder `name`; `auto` chooses by what is installed and by `count` texts.

    Raises ConfigError for an unknown name, EnvironmentProblem where its package is missing.
    """
    return plugins.load("embedders", resolve(name, count))()  # type: ignore[no-any-return]


def resolve(name: str, count: int) -> str:
    """Return the embedder's name with `auto` resolved."""
    if name != "auto":
        return name
    neural = "minilm" in plugins.available("embedders") and find_spec("torch") is not None
    return "minilm" if neural and count <= AUTO_ROWS else "tfidf"


class TfidfEmbedder:
    """Words and character n-grams, tf-idf, reduced to `dimensions` by a truncated SVD (LSA).

    It is fitted on the texts of each call: vectors of two calls can't be compared.
    """

    def __init__(self, dimensions: int = 256, seed: int = 7) -> None:
        self._dimensions = dimensions
        self._seed = seed

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return one L2-normalised row a text, shape (N, D), D at most `dimensions`."""
        from scipy.sparse import hstack
        from sklearn.decomposition import TruncatedSVD
        from sklearn.feature_extraction.text import TfidfVectorizer
        from sklearn.preprocessing import normalize

        kinds = (("word", (1, 2), r"(?u)\b\w+\b"), ("char_wb", (3, 5), None))
        parts = []
        for analyzer, ngrams, pattern in kinds:
            vectoriser = TfidfVectorizer(
                analyzer=analyzer,
                ngram_range=ngrams,
                token_pattern=pattern,
                min_df=2 if len(texts) > 500 else 1,
                sublinear_tf=True,
                dtype=np.float32,
            )
            try:
                parts.append(vectoriser.fit_transform(texts))
            except ValueError:  # no text has a word, or none is left of them
                continue
        if not parts or not texts:
            return np.zeros((len(texts), 1), dtype=np.float32)
        matrix = hstack(parts, format="csr")
        size = min(self._dimensions, matrix.shape[1] - 1, matrix.shape[0] - 1)
        if size < 2:
            dense: NDArray[np.float32] = normalize(matrix).toarray()
            return dense
        reduced = TruncatedSVD(size, n_iter=3, random_state=self._seed).fit_transform(matrix)
        vectors: NDArray[np.float32] = normalize(reduced).astype(np.float32)
        return vectors
