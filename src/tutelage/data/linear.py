"""A logistic regression on embeddings: the quick stand-in for the model that will be trained.

Active learning asks it what it doubts, the learning curve how it grows. It embeds nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

STRENGTH = 30.0  # inverse of the L2 penalty: best or near it from 100 to 10,000 unit vectors
_ROUNDS = 200  # of L-BFGS
_TOLERANCE = 1e-4  # of the gradient; with 1e-3 ten thousand rows lose two points

Vectors = NDArray[np.float32]


@dataclass(frozen=True)
class LinearModel:
    """What was fitted: `labels` in order, `weights` of shape (L, D), `bias` of shape (L,)."""

    labels: tuple[str, ...]
    weights: NDArray[np.float64]
    bias: NDArray[np.float64]

    def probabilities(self, vectors: Vectors) -> NDArray[np.float64]:
        """Return p(label | row), shape (N, L)."""
        logits: NDArray[np.float64] = vectors @ self.weights.T + self.bias
        logits -= logits.max(axis=1, keepdims=True)
        np.exp(logits, out=logits)
        logits /= logits.sum(axis=1, keepdims=True)
        return logits

    def predict(self, vectors: Vectors) -> list[str]:
        """Return the likeliest label of each row."""
        best = (vectors @ self.weights.T + self.bias).argmax(axis=1)
        return [self.labels[index] for index in best]


def fit_linear(
    vectors: Vectors, labels: Sequence[str], weights: NDArray[np.float64] | None = None
) -> LinearModel:
    """Return the multinomial logistic regression on unit vectors, shape (N, D).

    `weights` count each row, shape (N,). With one label only, that label is always the answer.
    """
    names = tuple(sorted(set(labels)))
    width = vectors.shape[1]
    if len(names) < 2:
        return LinearModel(names, np.zeros((len(names), width)), np.zeros(len(names)))
    import warnings

    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from threadpoolctl import threadpool_limits

    model = LogisticRegression(C=STRENGTH, max_iter=_ROUNDS, tol=_TOLERANCE)
    with threadpool_limits(1, user_api="blas"), warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # close is enough here
        warnings.filterwarnings("ignore", message="The number of unique classes")  # few rows each
        model.fit(vectors.astype(np.float64), list(labels), sample_weight=weights)
    coefficients, bias = model.coef_, model.intercept_
    if len(names) == 2:  # one logit: give each label its own
        coefficients = np.concatenate([-coefficients, coefficients]) / 2
        bias = np.concatenate([-bias, bias]) / 2
    return LinearModel(names, coefficients, bias)
