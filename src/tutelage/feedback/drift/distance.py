"""The kernel two-sample test: how far two sets of vectors are apart, and how often chance is more.

The maximum mean discrepancy with a Gaussian kernel as wide as the median distance (Gretton,
Borgwardt, Rasch, Schölkopf and Smola, JMLR 13, 2012, equation 3 and section 8), against random
relabellings of the same vectors. It knows nothing of texts.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

ROWS = 600  # of a side, drawn at random where there are more
_DRAWS = 20_000  # relabellings, at most
_AT_ONCE = 500
_ENOUGH = 10  # relabellings that exceed it, after which p is known well enough

Vectors = NDArray[np.float32]


def kernel_test(first: Vectors, second: Vectors, seed: int) -> tuple[float, float]:
    """Return the squared discrepancy and its p-value, for unit rows (N, D) and (M, D).

    p is exact for any number of relabellings; drawing ends early where nothing is to be found
    (Besag and Clifford, Biometrika 78, 1991).
    """
    from threadpoolctl import threadpool_limits

    rng = np.random.default_rng(seed)
    first, second = _some(first, rng), _some(second, rng)
    together = np.concatenate([first, second])
    with threadpool_limits(1, user_api="blas"):
        kernel = _kernel(together)
        n, total = len(first), len(together)
        found = float(_squared(kernel, np.arange(total)[:, None] < n)[0])
        above = drawn = 0
        while drawn < _DRAWS and above < _ENOUGH:
            ranks = rng.random((total, _AT_ONCE), dtype=np.float32)
            cut = np.partition(ranks, n - 1, axis=0)[n - 1]
            above += int((_squared(kernel, ranks <= cut) >= found).sum())
            drawn += _AT_ONCE
    return found, (above + 1) / (drawn + 1)


def _some(vectors: Vectors, rng: np.random.Generator) -> Vectors:
    if len(vectors) <= ROWS:
        return vectors
    return vectors[np.sort(rng.choice(len(vectors), ROWS, replace=False))]


def _kernel(vectors: Vectors) -> Vectors:
    """Return the kernel of every pair, shape (N, N), its diagonal 0."""
    squared = np.maximum(2.0 - 2.0 * (vectors @ vectors.T), 0.0)
    width = float(np.median(squared)) or 1.0
    kernel: Vectors = np.exp(-squared / width, dtype=np.float32)
    np.fill_diagonal(kernel, 0.0)
    return kernel


def _squared(kernel: Vectors, inside: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return the unbiased squared discrepancy of each split, shape (N, B) -> (B,)."""
    one = inside.astype(np.float32)
    with_one = kernel @ one
    n = one.sum(axis=0, dtype=np.float64)
    m = len(one) - n
    inner = np.einsum("nb,nb->b", one, with_one, dtype=np.float64)
    across = with_one.sum(axis=0, dtype=np.float64) - inner
    rest = float(kernel.sum(dtype=np.float64)) - inner - 2 * across
    found: NDArray[np.float64] = inner / (n * (n - 1)) + rest / (m * (m - 1)) - 2 * across / (n * m)
    return found
