"""Wanted rows in groups, each named by the words that tell it from the rest.

A word tells most where its log-odds inside the group, against all texts, stand furthest above
chance: the informative Dirichlet prior of Monroe, Colaresi, Quinn 2008 ("Fightin' Words").
A word of one text alone names nothing, so that no name gives a person away.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tutelage.data.dedup.wording import SMALL_WORDS
from tutelage.data.linear import Vectors
from tutelage.data.quality.neighbours import spherical_kmeans
from tutelage.feedback.mining.mined import Cluster

_WORD = re.compile(r"[^\W\d_][\w'’-]+")
_MOST = 24  # clusters
_NAMED_BY = 3  # words
_PRIOR = 500.0  # words that the prior counts as
_Z = 1.0  # standard errors a word must stand above chance
_SHOWN = 3  # examples
_LONG = 160  # characters of an example


@dataclass(frozen=True)
class Grouped:
    """The clusters, largest value first, and the name of each text's, in order."""

    clusters: tuple[Cluster, ...]
    names: tuple[str, ...]


@dataclass(frozen=True)
class Wanted:
    """Texts with a reason, in order: vectors (N, D), how often each was asked, its score, kinds."""

    texts: Sequence[str]
    vectors: Vectors
    times: NDArray[np.int32]
    scores: NDArray[np.float32]
    kinds: Sequence[Sequence[str]]


def group(wanted: Wanted, background: Sequence[str], seed: int) -> Grouped:
    """Return the clusters of wanted texts; `background` are texts of all kinds."""
    total = len(wanted.texts)
    if not total:
        return Grouped((), ())
    count = max(1, min(_MOST, round(math.sqrt(total / 2))))
    centres, cell = spherical_kmeans(wanted.vectors, count, seed)
    everything = _count([*background, *wanted.texts])
    names = [""] * total
    clusters: list[Cluster] = []
    taken: Counter[str] = Counter()
    asked = max(int(wanted.times.sum()), 1)
    cells = [np.flatnonzero(cell == number) for number in range(len(centres))]
    order = sorted((own for own in cells if len(own)), key=lambda own: -_value(wanted, own))
    for own in order:
        centre = wanted.vectors[own].mean(axis=0)
        typical = own[np.argsort(-(wanted.vectors[own] @ centre), kind="stable")]
        name = _name([wanted.texts[i] for i in typical], everything)
        taken[name] += 1
        if taken[name] > 1:
            name = f"{name} ({taken[name]})"
        for place in own:
            names[place] = name
        clusters.append(_cluster(wanted, typical, name, asked))
    return Grouped(tuple(clusters), tuple(names))


def _value(wanted: Wanted, own: NDArray[np.int64]) -> float:
    return float((wanted.scores[own] * wanted.times[own]).sum())


def _cluster(wanted: Wanted, own: NDArray[np.int64], name: str, asked: int) -> Cluster:
    requests = int(wanted.times[own].sum())
    kinds = Counter(kind for i in own for kind in dict.fromkeys(wanted.kinds[i]))
    return Cluster(
        name=name,
        texts=len(own),
        requests=requests,
        share=round(requests / asked, 4),
        score=round(float(wanted.scores[own].mean()), 4),
        kinds=dict(kinds.most_common()),
        examples=tuple(" ".join(wanted.texts[i].split())[:_LONG] for i in own[:_SHOWN]),
    )


def _words(text: str) -> set[str]:
    return set(_WORD.findall(text.lower()))


def _count(texts: Sequence[str]) -> Counter[str]:
    """Return in how many of the texts each word is."""
    found: Counter[str] = Counter()
    for text in texts:
        found.update(_words(text))
    return found


def _name(texts: Sequence[str], everything: Counter[str]) -> str:
    """Return the most telling words of a group, the most telling first."""
    inside = _count(texts)
    total, total_inside = everything.total(), inside.total()
    scored: list[tuple[float, str]] = []
    for word, count in inside.items():
        if count < 2 or word in SMALL_WORDS or word.replace("’", "'") in SMALL_WORDS:
            continue
        prior = _PRIOR * everything[word] / total
        outside = max(everything[word] - count, 0)
        rest = max(total - total_inside, 1)
        inner = math.log((count + prior) / (total_inside + _PRIOR - count - prior))
        outer = math.log((outside + prior) / max(rest + _PRIOR - outside - prior, 1e-9))
        z = (inner - outer) / math.sqrt(1 / (count + prior) + 1 / (outside + prior))
        if z >= _Z:
            scored.append((z, word))
    best = [word for _, word in sorted(scored, key=lambda pair: (-pair[0], pair[1]))]
    if len(texts) == 1:
        return "a text unlike the others"
    return " · ".join(best[:_NAMED_BY]) or "of all kinds"
