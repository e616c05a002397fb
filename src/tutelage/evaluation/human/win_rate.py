"""How often people prefer one candidate's answer: the win rate, ties counted as half a win.

Every row counts once, however many people judged it. The interval draws rows anew, clusters
whole; a second one draws raters anew too, for what other people would have said.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from tutelage.evaluation.human.votes import NOBODY, Vote, between, by_row
from tutelage.evaluation.significance import Difference, paired_difference, tango
from tutelage.evaluation.significance_cluster import cluster_codes
from tutelage.evaluation.significance_power import POWER, rows_needed

ROUNDS = 2000
LEAST = 0.005  # a preference (won minus lost) this small is none
_BLOCK = 4_000_000  # numbers of a block of resamples

Decision = Literal["first", "second", "open"]


@dataclass(frozen=True)
class WinRate:
    """The first candidate against the second; rates are 0..1 and 0.5 is no preference.

    `low`, `high`: rows drawn anew. `wide_low`, `wide_high`: rows and raters drawn anew (Owen's
    pigeonhole bootstrap), None with one rater. `wins`, `ties`, `losses` count judgements, `same`
    rows whose two texts are equal. `more` says how many further rows would likely decide.
    """

    first: str
    second: str
    rate: float
    low: float
    high: float
    wide_low: float | None
    wide_high: float | None
    wins: int
    ties: int
    losses: int
    same: int
    rows: int
    clusters: int
    raters: int
    p: float
    decision: Decision
    more: int | None


def win_rate(
    votes: Sequence[Vote], first: str, second: str, *, confidence: float = 0.95, seed: int = 0
) -> WinRate | None:
    """Return the win rate of `first` over `second`; None if nobody compared them."""
    own = between(votes, first, second)
    if not own:
        return None
    rows = by_row((vote.item, vote.cluster, vote.value) for vote in own)
    difference = preference(rows.values, rows.clusters, confidence=confidence, seed=seed)
    low, high = 0.5 + difference.low / 2, 0.5 + difference.high / 2
    wide = _with_raters(own, confidence, seed)
    asked = [vote for vote in own if vote.rater != NOBODY]
    return WinRate(
        first=first,
        second=second,
        rate=0.5 + difference.estimate / 2,
        low=low,
        high=high,
        wide_low=wide[0] if wide else None,
        wide_high=wide[1] if wide else None,
        wins=sum(vote.value == 1 for vote in asked),
        ties=sum(vote.value == 0.5 for vote in asked),
        losses=sum(vote.value == 0 for vote in asked),
        same=len(own) - len(asked),
        rows=difference.n,
        clusters=difference.clusters,
        raters=len({vote.rater for vote in asked}),
        p=difference.p,
        decision="first" if low > 0.5 else "second" if high < 0.5 else "open",
        more=more_rows(difference, confidence),
    )


def preference(
    values: Sequence[float],
    clusters: Sequence[str],
    *,
    confidence: float = 0.95,
    seed: int = 0,
) -> Difference:
    """Return the share of rows won minus the share lost, with its interval, of values 0..1.

    Where every row is won, lost or tied this is a difference of paired rates, so that Tango's
    interval and McNemar's test, here the sign test, hold.
    """
    x = np.asarray(values, dtype=float)
    plain = bool(np.isin(x, (0.0, 0.5, 1.0)).all())
    won, lost = ((x == 1).astype(float), (x == 0).astype(float)) if plain else (x, 1 - x)
    found = paired_difference(won, lost, clusters=clusters, confidence=confidence, seed=seed)
    if plain or found.se > 0:
        return found
    low, high = tango(found.wins, found.losses, found.clusters, confidence)
    return replace(found, low=min(found.low, low), high=max(found.high, high))


def more_rows(found: Difference, confidence: float = 0.95, power: float = POWER) -> int | None:
    """Return how many more rows like these would decide with `power`, were the estimate true.

    0 if the interval decides already, None if the estimate is no preference at all.
    """
    if found.n and (found.low > 0 or found.high < 0):
        return 0
    if not found.n or abs(found.estimate) < LEAST or found.se == 0:
        return None
    if found.rate:
        needed = rows_needed(
            abs(found.estimate),
            discordance=(found.wins + found.losses) / found.n,
            design_effect=found.n / found.worth if found.worth else 1.0,
            confidence=confidence,
            power=power,
        )
    else:  # the standard error has the clusters in it
        sd = found.se * math.sqrt(found.n)
        needed = rows_needed(abs(found.estimate), sd=sd, confidence=confidence, power=power)
    return max(1, needed - found.n)


def _with_raters(votes: Sequence[Vote], confidence: float, seed: int) -> tuple[float, float] | None:
    """Return limits with rows and raters both drawn anew (Owen 2007, Ann. Appl. Stat. 1:386).

    A vote weighs how often its cluster was drawn times how often its rater was, over the votes
    its row has.
    """
    raters = sorted({vote.rater for vote in votes if vote.rater != NOBODY})
    if len(raters) < 2:
        return None
    values = np.array([vote.value for vote in votes])
    places = cluster_codes([vote.cluster for vote in votes], len(votes))
    items = cluster_codes([vote.item for vote in votes], len(votes))
    share = 1 / np.bincount(items)[items]  # (J,)
    who = np.array([raters.index(v.rater) if v.rater != NOBODY else len(raters) for v in votes])
    groups = int(places.max()) + 1
    rng = np.random.default_rng(seed)
    size = max(1, min(ROUNDS, _BLOCK // len(votes)))
    rates: list[NDArray[np.float64]] = []
    for start in range(0, ROUNDS, size):
        rounds = min(size, ROUNDS - start)
        rows = rng.multinomial(groups, np.full(groups, 1 / groups), size=rounds)
        people = rng.multinomial(len(raters), np.full(len(raters), 1 / len(raters)), size=rounds)
        people = np.concatenate([people, np.ones((rounds, 1), dtype=people.dtype)], axis=1)
        weights = rows[:, places] * people[:, who] * share  # (rounds, J)
        total = weights.sum(axis=1)
        rates.append((weights @ values)[total > 0] / total[total > 0])
    tail = (1 - confidence) / 2
    low, high = np.quantile(np.concatenate(rates), [tail, 1 - tail])
    return float(low), float(high)
