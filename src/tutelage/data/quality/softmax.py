"""A small softmax regression: the held-out opinion on a label, in seconds for many classes.

Minibatch Adam (Kingma & Ba 2015) on fixed vectors; a full-batch solver takes minutes on 77
classes. It does not know what the classes mean.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Matrix = NDArray[np.float32]
_EPOCHS = 12
_STEPS = 200  # at least, however few the rows
_BATCH = 256
_RATE = 0.05  # falls to zero over the training
_DECAY = 1e-3  # L2
_SCALE: np.float32 = np.float32(5)  # of the unit vectors, so that weights can stay small
_WORK = 3e12  # multiplications of a whole cross-validation; with more to do, fewer epochs


@dataclass(frozen=True)
class Softmax:
    """p(class | vector) = softmax(scale · vector @ weights + bias)."""

    weights: Matrix  # (D, K)
    bias: Matrix  # (K,)

    def predict(self, vectors: Matrix) -> Matrix:
        """Return the probabilities, shape (N, K)."""
        scores = (_SCALE * vectors).astype(np.float32) @ self.weights + self.bias
        return _softmax(scores)


def fit(
    vectors: Matrix, classes: NDArray[np.int64], count: int, epochs: float, seed: int
) -> Softmax:
    """Return the regression of `classes`, shape (N,), numbers below `count`, on unit vectors."""
    rng = np.random.default_rng(seed)
    width = vectors.shape[1]
    inputs = np.concatenate(
        [_SCALE * vectors, np.ones((len(vectors), 1), dtype=np.float32)], axis=1
    )
    weights = np.zeros((width + 1, count), dtype=np.float32)
    mean, square = np.zeros_like(weights), np.zeros_like(weights)
    batch = min(_BATCH, max(16, len(vectors) // 8))
    steps = max(_STEPS, round(epochs * len(vectors) / batch))
    for step, rows in enumerate(_batches(len(vectors), batch, steps, rng), start=1):
        x = inputs[rows]
        error = _softmax(x @ weights)
        error[np.arange(len(rows)), classes[rows]] -= 1
        gradient = x.T @ error / len(rows)
        gradient[:width] += _DECAY * weights[:width]
        mean += 0.1 * (gradient - mean)
        square += 0.01 * (gradient * gradient - square)
        rate = _RATE * (1 - (step - 1) / steps)
        weights -= rate * (mean / (1 - 0.9**step)) / (np.sqrt(square / (1 - 0.99**step)) + 1e-8)
    return Softmax(weights[:width], weights[width])


def held_out(
    vectors: Matrix, classes: NDArray[np.int64], folds: NDArray[np.int64], seed: int
) -> Iterator[tuple[NDArray[np.int64], Softmax]]:
    """Yield, for each fold, its rows and a regression that has seen none of them."""
    from threadpoolctl import threadpool_limits

    count = int(classes.max()) + 1
    names = np.unique(folds)
    work = 2.0 * len(vectors) * vectors.shape[1] * count * len(names)
    epochs = float(np.clip(_WORK / max(work, 1), 1, _EPOCHS))
    for fold in names:
        inside = folds == fold
        with threadpool_limits(1, user_api="blas"):  # small products: more threads only wait
            model = fit(vectors[~inside], classes[~inside], count, epochs, seed + int(fold))
        yield np.flatnonzero(inside), model


def grouped_folds(
    classes: NDArray[np.int64], groups: Sequence[int] | NDArray[np.int64], count: int, seed: int
) -> NDArray[np.int64]:
    """Return a fold (0 to `count` - 1) a row: groups stay whole, classes are spread evenly."""
    rng = np.random.default_rng(seed)
    names, group = np.unique(np.asarray(groups), return_inverse=True)
    label = np.zeros(len(names), dtype=np.int64)
    label[group[::-1]] = classes[::-1]  # of the group's first row
    size = np.bincount(group, minlength=len(names))
    order = np.lexsort((rng.random(len(names)), -size, label))
    fold_of = np.empty(len(names), dtype=np.int64)
    fold_of[order] = (np.arange(len(names)) + rng.integers(count)) % count
    folds: NDArray[np.int64] = fold_of[group]
    return folds


def _batches(
    total: int, batch: int, steps: int, rng: np.random.Generator
) -> Iterator[NDArray[np.int64]]:
    """Yield `steps` batches of rows, every row once before any comes again."""
    order = rng.permutation(total)
    at = 0
    for _ in range(steps):
        if at + batch > total:
            order, at = rng.permutation(total), 0
        yield order[at : at + batch]
        at += batch


def _softmax(scores: Matrix) -> Matrix:
    scores = scores - scores.max(axis=1, keepdims=True)
    np.exp(scores, out=scores)
    scores /= scores.sum(axis=1, keepdims=True)
    return scores
