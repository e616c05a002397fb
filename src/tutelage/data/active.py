"""Which rows are worth an expert's minute next: the typical, the doubtful, the failed ones.

Cold start: k-means over all rows, and in each group without a label the most typical one
(TypiClust: Hacohen, Dekel, Weinshall 2022, arXiv 2202.02794). Once every label has been seen about
twice: the rows with the smallest margin between the two likeliest labels (Scheffer et al. 2001),
grouped by k-means weighted with that doubt, one row a group (Zhdanov 2019, arXiv 1901.05954).
Known failures and disagreements get up to half of what `auto` chooses. It embeds nothing and
reads no files.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from tutelage.core.errors import DataError
from tutelage.data.groups import TOO_NEAR, covered_groups, typical, weighted_groups
from tutelage.data.linear import LinearModel, Vectors, fit_linear

Strategy = Literal["auto", "uncertainty", "diversity", "disagreement", "failure", "random"]
STRATEGIES: tuple[Strategy, ...] = (
    "auto", "uncertainty", "diversity", "disagreement", "failure", "random",
)  # fmt: skip
_SEEN_TWICE = 2  # labelled rows a known label, from which on the classifier is asked
_WIDE = 20  # candidates that are grouped, a wanted row: the most doubtful ones
_SHARE = 0.1  # of the pool, the candidates' largest part
_LEAST = 3  # candidates a wanted row, however small the pool
_COMMITTEE = 5  # classifiers, each fitted on a bootstrap sample
_POOL = 20_000  # rows looked at; of a larger pool a random part

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Pool:
    """Rows without a label. `vectors` are unit rows, shape (N, D).

    `failure` and `disagreement` are known signals from 0 to 1, shape (N,); `why` says in words
    where they come from, one text a row, empty where there is none.
    """

    vectors: Vectors
    failure: Array | None = None
    disagreement: Array | None = None
    why: Sequence[str] = ()


@dataclass(frozen=True)
class Known:
    """Labelled rows, embedded together with the pool; a label may be None (free answers)."""

    vectors: Vectors
    labels: Sequence[str | None]

    def classes(self) -> Counter[str]:
        """Return how many rows each label has."""
        return Counter(label for label in self.labels if label is not None)


@dataclass(frozen=True)
class Pick:
    """One row to label: its place in the pool, why it was chosen, and how much it is wanted."""

    index: int
    strategy: Strategy
    score: float  # of its strategy, 0..1
    reason: str


@dataclass(frozen=True)
class Suggestion:
    """The rows to label, most wanted first, and how many of the pool were looked at."""

    picks: list[Pick]
    strategy: Strategy  # what `auto` came down to
    pool: int
    considered: int


@dataclass
class _Search:
    """One search under way; indices are into the considered part of the pool."""

    pool: Pool
    known: Known
    rng: np.random.Generator
    picks: list[Pick] = field(default_factory=list)

    @property
    def taken(self) -> list[int]:
        return [pick.index for pick in self.picks]

    def near(self) -> Vectors:
        """Return the vectors that a new pick must not repeat."""
        return np.concatenate([self.known.vectors, self.pool.vectors[self.taken]])


def suggest_rows(
    pool: Pool, known: Known, count: int, strategy: Strategy = "auto", seed: int = 7
) -> Suggestion:
    """Return up to `count` rows of the pool, none of them twice or nearly twice.

    Raises DataError if the strategy needs what is not there: labels, or a known failure.
    """
    total = len(pool.vectors)
    rng = np.random.default_rng(seed)
    kept = _considered(pool, rng)
    search = _Search(_part(pool, kept), known, rng)
    count = min(count, len(kept))
    chosen = _resolve(search, strategy)
    if strategy == "auto":
        _signalled(search, (count + 1) // 2)
    _RUN[chosen](search, count)
    if len(search.picks) < count and chosen == "failure":  # too few failed: the rest as usual
        _RUN[_resolve(search, "auto")](search, count)
    if len(search.picks) < count and chosen != "random":
        _diversity(search, count)
    picks = [
        Pick(int(kept[pick.index]), pick.strategy, pick.score, pick.reason)
        for pick in search.picks[:count]
    ]
    return Suggestion(picks, chosen, total, len(kept))


def warm(known: Known) -> bool:
    """Return whether the labels suffice to ask a classifier: two rows a label that was seen."""
    classes = known.classes()
    return len(classes) > 1 and classes.total() >= _SEEN_TWICE * len(classes)


def _resolve(search: _Search, strategy: Strategy) -> Strategy:
    """Return the strategy with `auto` resolved; raise DataError if it can't be followed."""
    if strategy == "auto":
        return "uncertainty" if warm(search.known) else "diversity"
    if strategy == "failure" and not _any(search.pool.failure):
        raise DataError(
            "no row of the pool is known to have failed",
            fix="Give the rows a field `failure` from 0 to 1, or use --strategy auto",
        )
    told = _any(search.pool.disagreement)
    if strategy == "uncertainty" or (strategy == "disagreement" and not told):
        classes = len(search.known.classes())
        if classes < 2:
            raise DataError(
                f"{strategy} needs labelled rows of two labels, there are {classes}",
                fix="Label a first batch with --strategy diversity, or use auto",
            )
    return strategy


def _any(signal: Array | None) -> bool:
    return signal is not None and bool((signal > 0).any())


def _considered(pool: Pool, rng: np.random.Generator) -> NDArray[np.int64]:
    """Return the rows to look at: all, or of a large pool those with a signal and a random part."""
    total = len(pool.vectors)
    if total <= _POOL:
        return np.arange(total)
    order = rng.permutation(total)
    for signal in (pool.disagreement, pool.failure):
        if signal is not None:
            order = order[np.argsort(-signal[order], kind="stable")]
    return np.sort(order[:_POOL])


def _part(pool: Pool, kept: NDArray[np.int64]) -> Pool:
    def cut(values: Array | None) -> Array | None:
        return None if values is None else np.clip(values[kept], 0.0, 1.0)

    why = [pool.why[i] for i in kept] if pool.why else [""] * len(kept)
    return Pool(pool.vectors[kept], cut(pool.failure), cut(pool.disagreement), why)


def _random(search: _Search, count: int) -> None:
    order = search.rng.permutation(len(search.pool.vectors))[:count]
    search.picks += [Pick(int(i), "random", 0.0, "drawn at random") for i in order]


def _diversity(search: _Search, count: int) -> None:
    """Pick the most typical row of each group that has no labelled row, largest groups first."""
    wanted = count - len(search.picks)
    groups = covered_groups(search.pool.vectors, search.near(), wanted, search.rng)
    largest = max((len(group.members) for group in groups), default=1)
    for group in groups:
        if len(search.picks) >= count:
            return
        found = _first_new(search, typical(search.pool.vectors, group.members))
        if found is None:
            continue
        size, others = len(group.members), len(group.members) - 1
        rows = f"{others:,} other row{'' if others == 1 else 's'}"
        state = f"of which {group.labelled:,} are labelled" if group.labelled else "none labelled"
        reason = f"typical of {rows}, {state}" if others else "unlike all other rows"
        score = size / largest / (1 + group.labelled)
        search.picks.append(Pick(found, "diversity", round(score, 4), reason))


def _uncertainty(search: _Search, count: int) -> None:
    """Pick doubtful rows that differ from each other."""
    model = _classifier(search.known)
    chances = model.probabilities(search.pool.vectors)
    order = np.argsort(-chances, axis=1)[:, :2]
    first, second = (np.take_along_axis(chances, order[:, [k]], 1)[:, 0] for k in (0, 1))
    doubt = 1.0 - (first - second)

    def reason(i: int) -> str:
        one, two = (model.labels[k] for k in order[i])
        return f"between {one!r} ({first[i]:.0%}) and {two!r} ({second[i]:.0%})"

    words = [reason(i) for i in range(len(doubt))]
    _grouped(search, count, "uncertainty", doubt, words)


def _disagreement(search: _Search, count: int) -> None:
    """Pick rows on which people, or classifiers fitted on different samples, do not agree."""
    _told_apart(search, count)
    if len(search.picks) < count and len(search.known.classes()) > 1:
        split, words = _committee(search)
        _grouped(search, count, "disagreement", split, words)


def _failure(search: _Search, count: int) -> None:
    """Pick rows that the current model got wrong, one of each kind."""
    if search.pool.failure is not None:
        words = [why or "the current model failed here" for why in search.pool.why]
        _grouped(search, count, "failure", search.pool.failure, words)


def _signalled(search: _Search, count: int) -> None:
    """Pick rows that are known to have failed, or on which people are known to differ."""
    _failure(search, count)
    _told_apart(search, count)


def _told_apart(search: _Search, count: int) -> None:
    if search.pool.disagreement is not None:
        words = [why or "the answers of people differ" for why in search.pool.why]
        _grouped(search, count, "disagreement", search.pool.disagreement, words)


_RUN = {
    "random": _random,
    "diversity": _diversity,
    "uncertainty": _uncertainty,
    "disagreement": _disagreement,
    "failure": _failure,
}


def _grouped(
    search: _Search, count: int, strategy: Strategy, value: Array, words: Sequence[str]
) -> None:
    """Pick one row of each group among those of the highest `value`, most wanted first."""
    wanted = count - len(search.picks)
    free = np.setdiff1d(np.flatnonzero(value > 0), search.taken)
    if wanted <= 0 or not len(free):
        return
    ranked = free[np.argsort(-value[free], kind="stable")]
    width = max(_LEAST * wanted, min(_WIDE * wanted, round(_SHARE * len(value))))
    candidates = ranked[:width]
    groups = weighted_groups(
        search.pool.vectors[candidates], value[candidates], wanted, search.rng
    )  # fmt: skip
    found: list[Pick] = []
    for group in groups:
        members = candidates[group]
        index = _first_new(search, members)
        if index is None:
            continue
        like = len(members) - 1
        kin = f"; {like:,} such row{'' if like == 1 else 's'} besides" if like else ""
        pick = Pick(index, strategy, round(float(value[index]), 4), words[index] + kin)
        found.append(pick)
        search.picks.append(pick)
    start = len(search.picks) - len(found)
    search.picks[start:] = sorted(found, key=lambda pick: -pick.score)


def _first_new(search: _Search, ordered: Sequence[int] | NDArray[np.int64]) -> int | None:
    """Return the first row that is not nearly one that is labelled or picked, or None."""
    taken = set(search.taken)
    near = search.near()
    for index in ordered:
        if int(index) in taken:
            continue
        if not len(near) or float((near @ search.pool.vectors[index]).max()) < TOO_NEAR:
            return int(index)
    return None


def _classifier(known: Known) -> LinearModel:
    rows = [i for i, label in enumerate(known.labels) if label is not None]
    return fit_linear(known.vectors[rows], [str(known.labels[i]) for i in rows])


def _committee(search: _Search) -> tuple[Array, list[str]]:
    """Return how far classifiers on bootstrap samples are apart, 0 to 1, and the votes in words.

    Mean Kullback-Leibler divergence from their mean (McCallum and Nigam 1998), over log of the
    committee's size, its upper bound.
    """
    known = search.known
    rows = np.array([i for i, label in enumerate(known.labels) if label is not None])
    labels = [str(known.labels[i]) for i in rows]
    votes = []
    names: tuple[str, ...] = ()
    for _ in range(_COMMITTEE):  # Poisson weights: no label is ever left out whole
        weights = 0.1 + search.rng.poisson(1.0, len(rows)).astype(np.float64)
        member = fit_linear(known.vectors[rows], labels, weights)
        names = member.labels
        votes.append(member.probabilities(search.pool.vectors))
    each = np.stack(votes)  # CNL
    mean = each.mean(axis=0)
    ratio = np.log(np.maximum(each, 1e-12)) - np.log(np.maximum(mean, 1e-12))
    apart: Array = (each * ratio).sum(axis=2).mean(axis=0) / np.log(_COMMITTEE)
    return np.clip(apart, 0.0, 1.0), [_votes(names, chances) for chances in each.swapaxes(0, 1)]


def _votes(names: Sequence[str], chances: Array) -> str:
    """Return what the committee says of one row in words; `chances` are of shape (C, L)."""
    counts = Counter(names[k] for k in chances.argmax(axis=1)).most_common(3)
    if len(counts) > 1:
        shown = ", ".join(f"{label!r} {count}" for label, count in counts)
        return f"{_COMMITTEE} classifiers vote {shown}"
    sure = chances.max(axis=1)
    return (
        f"{_COMMITTEE} classifiers say {counts[0][0]!r}, {sure.min():.0%} to {sure.max():.0%} sure"
    )
