"""One scale for several candidates: Bradley and Terry's model, with ties after Davidson.

Strengths are natural logarithms and sum to 0. With θ the strengths and ν the pull towards ties,
the chances of "i is better", "j is better" and "tie" stand as exp θi : exp θj : ν exp((θi+θj)/2)
(Davidson 1970, JASA 65:317; without ties this is Bradley and Terry 1952, Biometrika 39:324).
The fit is the maximum of the likelihood with a faint pull to 0, which keeps a candidate that
never lost on the scale. Intervals draw rows anew, clusters whole.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tutelage.evaluation.human.votes import Vote, pairs_of
from tutelage.evaluation.significance_cluster import cluster_codes

ROUNDS = 2000
RIDGE = 0.01  # of the penalty RIDGE/2 · Σ parameter²; rows that were compared weigh 1 each
_STEPS = 60
_LONGEST_STEP = 1.5

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Strength:
    """A candidate's place. `chance` is that of winning against the mean of the others, ties half.

    `bounded` is False if it never lost, or never won, so that the votes alone give no limit.
    """

    candidate: str
    strength: float
    low: float
    high: float
    chance: float
    wins: float
    ties: float
    losses: float
    bounded: bool


@dataclass(frozen=True)
class Scale:
    """All candidates, the strongest first. `tie` is Davidson's ν, 0 without ties."""

    strengths: tuple[Strength, ...]
    tie: float
    rows: int
    clusters: int
    model: str

    def order(self) -> list[str]:
        """Return the candidates, the strongest first."""
        return [strength.candidate for strength in self.strengths]


@dataclass(frozen=True)
class Fit:
    """Strengths (..., K) and log ν (...), of counts that may come in many rounds at once."""

    theta: Array
    log_tie: Array


def scale(
    votes: Sequence[Vote],
    candidates: Sequence[str],
    *,
    confidence: float = 0.95,
    seed: int = 0,
) -> Scale | None:
    """Return the candidates on one scale; None with fewer than two that were compared.

    Each row counts once a pair, shared out over its votes.
    """
    names = [n for n in candidates if any(n in (vote.first, vote.second) for vote in votes)]
    votes = [vote for vote in votes if vote.first in names and vote.second in names]
    if len(names) < 2:
        return None
    outcomes, codes = _outcomes(votes, names)  # (G, P, 3)
    total = outcomes.sum(axis=0)
    with_ties = bool(total[:, 2].sum() > 0)
    best = fit(total, len(names), ties=with_ties)
    draws = np.random.default_rng(seed).multinomial(
        len(outcomes), np.full(len(outcomes), 1 / len(outcomes)), size=ROUNDS
    )
    rounds = fit(np.einsum("rg,gpo->rpo", draws, outcomes), len(names), ties=with_ties)
    tail = (1 - confidence) / 2
    low, high = np.quantile(rounds.theta, [tail, 1 - tail], axis=0)
    widen = math.sqrt(len(outcomes) / (len(outcomes) - 1)) if len(outcomes) > 1 else 1.0
    found = []
    for place, name in enumerate(names):
        won, tied, lost = _record(total, names, place)
        middle = float(best.theta[place])
        found.append(
            Strength(
                name,
                middle,
                middle + (float(low[place]) - middle) * widen,
                middle + (float(high[place]) - middle) * widen,
                _chance(best, place),
                won, tied, lost,
                bounded=min(won, lost) + tied > 0,
            )
        )  # fmt: skip
    found.sort(key=lambda strength: -strength.strength)
    return Scale(
        tuple(found),
        float(np.exp(best.log_tie)) if with_ties else 0.0,
        len({vote.item for vote in votes}),
        int(codes.max()) + 1,
        "Bradley-Terry with ties (Davidson 1970)" if with_ties else "Bradley-Terry",
    )


def fit(outcomes: Array, k: int, *, ties: bool, ridge: float = RIDGE) -> Fit:
    """Return the likeliest strengths for counts (..., P, 3): first better, second better, tie.

    P pairs stand in the order of `pairs_of`. Newton's method; the log-likelihood is concave in
    (θ, log ν), since the model is a multinomial logit. `ridge=0` is the plain maximum, which
    exists only where every candidate both won and lost, or tied.
    """
    counts = np.asarray(outcomes, dtype=float)
    lead = counts.shape[:-2]
    counts = counts.reshape(-1, counts.shape[-2], 3)
    design = _design(k, ties)  # (P, O, D)
    counts = counts[:, :, : design.shape[1]]
    size = design.shape[2]
    n = counts.sum(axis=2)  # (R, P)
    held = ridge * np.eye(size)
    held[:k, :k] += 1.0  # Σθ = 0: the likelihood does not change when all strengths move
    found = np.zeros((len(counts), size))
    for _ in range(_STEPS):
        logits = np.einsum("pod,rd->rpo", design, found)
        odds = np.exp(logits - logits.max(axis=2, keepdims=True))
        odds /= odds.sum(axis=2, keepdims=True)
        slope = np.einsum("rpo,pod->rd", counts - n[..., None] * odds, design) - found @ held
        mean = np.einsum("rpo,pod->rpd", odds, design)
        square = np.einsum("rpo,pod,poe->rpde", odds, design, design)
        curve = np.einsum("rp,rpde->rde", n, square - mean[..., :, None] * mean[..., None, :])
        step = np.linalg.solve(curve + held, slope[..., None])[..., 0]
        longest = np.abs(step).max(axis=1, keepdims=True)
        found += step * np.minimum(1.0, _LONGEST_STEP / np.maximum(longest, 1e-12))
        if longest.max(initial=0.0) < 1e-9:
            break
    theta = found[:, :k].reshape(*lead, k)
    log_tie = found[:, k] if ties else np.full(len(counts), -np.inf)
    return Fit(theta, log_tie.reshape(lead))


def _design(k: int, ties: bool) -> Array:
    """Return what each outcome of each pair adds up: (P, 3, K + 1), or (P, 2, K) without ties."""
    pairs = [(i, j) for i in range(k) for j in range(i + 1, k)]
    design = np.zeros((len(pairs), 3 if ties else 2, k + ties))
    for place, (i, j) in enumerate(pairs):
        design[place, 0, i] = design[place, 1, j] = 1.0
        if ties:
            design[place, 2, [i, j]] = 0.5
            design[place, 2, k] = 1.0
    return design


def _outcomes(votes: Sequence[Vote], names: Sequence[str]) -> tuple[Array, NDArray[np.int64]]:
    """Return how each cluster's rows came out, shape (G, P, 3), and each vote's cluster."""
    place = {pair: index for index, pair in enumerate(pairs_of(names))}
    codes = cluster_codes([vote.cluster for vote in votes], len(votes))
    asked: dict[tuple[str, int], int] = {}
    turned = []
    for vote in votes:
        pair, value = (vote.first, vote.second), vote.value
        if pair not in place:
            pair, value = (vote.second, vote.first), 1 - value
        turned.append((vote.item, place[pair], value))
        asked[vote.item, place[pair]] = asked.get((vote.item, place[pair]), 0) + 1
    found = np.zeros((int(codes.max()) + 1, len(place), 3))
    for code, (item, pair_place, value) in zip(codes, turned, strict=True):
        kind = 0 if value == 1 else 1 if value == 0 else 2
        found[code, pair_place, kind] += 1 / asked[item, pair_place]
    return found, codes


def _record(total: Array, names: Sequence[str], place: int) -> tuple[float, float, float]:
    """Return a candidate's wins, ties and losses, in rows."""
    won = tied = lost = 0.0
    for counts, (first, second) in zip(total, pairs_of(names), strict=True):
        if names[place] in (first, second):
            here = 0 if names[place] == first else 1
            won, lost, tied = won + counts[here], lost + counts[1 - here], tied + counts[2]
    return float(won), float(tied), float(lost)


def _chance(best: Fit, place: int) -> float:
    """Return the chance of winning against each other candidate, ties half, on average."""
    gaps = np.delete(best.theta, place) - best.theta[place]
    tie = np.exp(best.log_tie + gaps / 2)
    chances = (1 + tie / 2) / (1 + np.exp(gaps) + tie)
    return float(chances.mean())
