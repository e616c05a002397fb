"""What the true labels are likely to be: the majority, or Dawid and Skene's EM, as a suggestion.

A. P. Dawid and A. M. Skene (1979), Maximum likelihood estimation of observer error-rates using
the EM algorithm, Applied Statistics 28(1), 20-28. With few answers a person their full error
tables can't be told from noise: then every person has one accuracy, whatever the label (the
one-coin model; Zhang et al. 2014, arXiv 1406.3824).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from tutelage.data.quality.ratings import Codes, count_codes

ROUNDS = 200
TOLERANCE = 1e-7  # relative change of the log-likelihood at which EM stops
PER_LABEL = 10  # answers a person and label from which on full error tables are estimated
_PSEUDO = 0.01  # answers added to every cell, so that no probability is 0

Array = NDArray[np.float64]
Model = Literal["full", "one-coin"]


@dataclass(frozen=True)
class Consensus:
    """Probabilities of each label (N, K), error tables (R, true K, said K), shares (K,)."""

    probabilities: Array
    errors: Array
    shares: Array
    log_likelihood: float
    rounds: int
    model: Model

    def accuracy(self) -> Array:
        """Return each person's chance of the right label, shape (R,)."""
        result: Array = np.einsum("rkk,k->r", self.errors, self.shares)
        return result


def majority(codes: Codes, k: int) -> tuple[Codes, Array]:
    """Return the commonest category of each item (N,), -1 on a tie or no answer, and its share."""
    counts = count_codes(codes, k)
    top = counts.max(axis=1, initial=0.0)
    alone = (counts == top[:, None]).sum(axis=1) == 1
    answers = counts.sum(axis=1)
    best = np.where(alone & (answers > 0), counts.argmax(axis=1) if k else 0, -1)
    return best.astype(np.int64), top / np.maximum(answers, 1)


def choose_model(codes: Codes, k: int) -> Model:
    """Return the model that the answers can carry."""
    given = (codes >= 0).sum(axis=1)
    given = given[given > 0]
    enough = len(given) > 0 and float(np.median(given)) >= PER_LABEL * k
    return "full" if enough else "one-coin"


def dawid_skene(codes: Codes, k: int, model: Model | None = None) -> Consensus:
    """Return the most likely labels and error rates of codes (R, N), -1 for no answer.

    EM starts from each item's shares of votes. An item without answers has the label shares.
    """
    chosen = model or choose_model(codes, k)
    said = [_Said(row, k) for row in codes]
    counts = count_codes(codes, k)
    totals = counts.sum(axis=1, keepdims=True)
    belief = np.where(totals > 0, counts / np.maximum(totals, 1), 1 / max(k, 1))
    errors, shares = _maximise(said, belief, chosen)
    before, likelihood, rounds = -np.inf, -np.inf, 0
    while rounds < ROUNDS:
        rounds += 1
        belief, likelihood = _expect(said, codes.shape[1], errors, shares)
        errors, shares = _maximise(said, belief, chosen)
        if abs(likelihood - before) <= TOLERANCE * (1 + abs(likelihood)):
            break
        before = likelihood
    return Consensus(belief, errors, shares, likelihood, rounds, chosen)


class _Said:
    """One person's answers, sorted by what they said: sums over them are one pass."""

    def __init__(self, codes: Codes, k: int) -> None:
        answered = np.flatnonzero(codes >= 0)
        self.items = answered[np.argsort(codes[answered], kind="stable")]  # (M,)
        self.codes = codes[self.items]
        self.labels, self.starts = np.unique(self.codes, return_index=True)
        self.k = k

    def seen(self, belief: Array) -> Array:
        """Return how often each true label was given each answer, shape (true, said)."""
        found = np.zeros((self.k, self.k))
        if len(self.items):
            found[:, self.labels] = np.add.reduceat(belief[self.items], self.starts, axis=0).T
        return found


def _maximise(said: Sequence[_Said], belief: Array, model: Model) -> tuple[Array, Array]:
    """Return the error tables (R, K, K) and label shares (K,) that fit the beliefs (N, K)."""
    k = belief.shape[1]
    answered = np.zeros(len(belief))
    for one in said:
        answered[one.items] = 1.0
    shares = answered @ belief + _PSEUDO
    shares = shares / shares.sum()
    seen = np.stack([one.seen(belief) for one in said])
    if model == "full":
        seen = seen + _PSEUDO
        return seen / seen.sum(axis=2, keepdims=True), shares
    right = np.einsum("rkk->r", seen) + _PSEUDO
    accuracy = right / (seen.sum(axis=(1, 2)) + 2 * _PSEUDO)
    wrong = (1 - accuracy) / max(k - 1, 1)
    errors = np.broadcast_to(wrong[:, None, None], seen.shape).copy()
    errors[:, np.arange(k), np.arange(k)] = accuracy[:, None]
    return errors, shares


def _expect(said: Sequence[_Said], count: int, errors: Array, shares: Array) -> tuple[Array, float]:
    """Return the beliefs (N, K) of `count` items and the log-likelihood of the answers."""
    joint = np.tile(np.log(np.maximum(shares, 1e-300)), (count, 1))
    for one, table in zip(said, errors, strict=True):
        joint[one.items] += np.log(np.maximum(table, 1e-300)).T[one.codes]
    top = joint.max(axis=1, keepdims=True)
    scaled = np.exp(joint - top)
    total = scaled.sum(axis=1, keepdims=True)
    return scaled / total, float((top + np.log(total)).sum())
