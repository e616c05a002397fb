"""The year that bench/loop.py lives through: who asks what and when, and what users say of it.

Banking77's 77 classes are joined into eleven intents of neighbouring classes (Ward's clustering of
the class means). So an intent has many real phrasings, and new ones can arrive: texts of a class
that was not asked before. Nothing here knows how answers are made.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tutelage.data.normalise.text import repair, tidy_text

INTENTS = 11
START = 10  # intents that are known at first
EXAMPLES = 10  # of each of those
NEW_INTENT, SHIFT = 4, 8  # months, counted from 1
RATED, WRONG = 0.05, 0.10  # share of answers that a user rates, and of ratings that are wrong
ESCALATED = 0.30  # share of wrong answers after which a person had to take over
FALSE_ESCALATION = 0.01  # of right ones
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Texts:
    """Every text of Banking77 with its fine class and its intent; `vectors` are unit rows."""

    texts: list[str]
    fine: Ints
    intent: Ints
    names: list[str]  # of intents
    vectors: NDArray[np.float32]


@dataclass(frozen=True)
class World:
    """`start` are rows of the first data set; request i asks row `asked[i]` in `month[i]`."""

    texts: Texts
    start: Ints
    asked: Ints
    month: Ints  # 1..12
    user: Ints
    arrives: int  # the first request after the new intent is there
    shifts: int  # the first request after the shift


def read_texts(folder: Path, cache: Path | None = None) -> Texts:
    """Return Banking77 embedded by MiniLM; `cache` keeps the vectors between runs."""
    rows: list[tuple[str, str]] = []
    for name in ("train.csv", "test.csv"):
        with (folder / name).open(encoding="utf-8", newline="") as stream:
            rows += [
                (tidy_text(repair(r["text"].strip())), r["category"])
                for r in csv.DictReader(stream)
            ]
    rows = list(dict(rows).items())  # a text once
    texts = [text for text, _ in rows]
    vectors = _embedded(texts, cache)
    classes = sorted({label for _, label in rows})
    fine = np.array([classes.index(label) for _, label in rows])
    means = np.stack([vectors[fine == c].mean(axis=0) for c in range(len(classes))])
    groups = _grouped(means)
    names = [_name([classes[c] for c in np.flatnonzero(groups == g)]) for g in range(INTENTS)]
    return Texts(texts, fine, groups[fine], names, vectors)


def _embedded(texts: Sequence[str], cache: Path | None) -> NDArray[np.float32]:
    from tutelage.inference.embed import load_embedder
    from tutelage.inference.embed_cache import embed_cached

    embedder = load_embedder("minilm")
    return embed_cached(embedder, texts, cache) if cache else embedder.embed(texts)


def _grouped(means: NDArray[np.float32]) -> Ints:
    from sklearn.cluster import AgglomerativeClustering

    unit = means / np.linalg.norm(means, axis=1, keepdims=True)
    found: Ints = AgglomerativeClustering(INTENTS, linkage="ward").fit_predict(unit)
    return found


def _name(classes: Sequence[str]) -> str:
    return min(classes, key=lambda name: (len(name), name)).lower().strip("?")


def make_world(texts: Texts, requests: int, seed: int) -> World:
    """Return a year of `requests`, drawn with `seed`.

    At first a third of each intent's classes is asked (at least one); the others join one by one
    in the months 2 to 7. The last intent comes in month 4 with a seventh of the traffic. From
    month 8 on six in ten requests are of classes that were rare until then.
    """
    rng = np.random.default_rng(seed)
    order = {g: rng.permutation(np.unique(texts.fine[texts.intent == g])) for g in range(INTENTS)}
    sizes = {g: len(order[g]) for g in order}
    late = max(order, key=lambda g: (3 <= sizes[g] <= 9, rng.random()))
    first = {g: order[g][: max(1, sizes[g] // 3)] for g in order if g != late}
    weights = _class_weights(order, first, late, rng)
    pools = {c: rng.permutation(np.flatnonzero(texts.fine == c)) for c in np.unique(texts.fine)}
    start = []
    for g in first:
        for number in range(EXAMPLES):
            c = first[g][number % len(first[g])]
            start.append(pools[c][0])
            pools[c] = pools[c][1:]
    month = 1 + np.arange(requests) * 12 // requests
    asked, at = np.zeros(requests, dtype=np.int64), dict.fromkeys(pools, 0)
    for m in range(1, 13):
        here = np.flatnonzero(month == m)
        for i, c in zip(here, rng.choice(len(weights[m]), len(here), p=weights[m]), strict=True):
            asked[i] = pools[c][at[c] % len(pools[c])]
            at[c] += 1
    user = rng.integers(0, max(1, requests // 10), requests)
    return World(
        texts, np.array(start), asked, month, user,
        int(np.flatnonzero(month == NEW_INTENT)[0]), int(np.flatnonzero(month == SHIFT)[0]),
    )  # fmt: skip


def _class_weights(
    order: dict[int, Ints], first: dict[int, Ints], late: int, rng: np.random.Generator
) -> dict[int, NDArray[np.float64]]:
    """Return the share of each fine class by month, 1..12."""
    count = sum(len(part) for part in order.values())
    popular = {c: rng.gamma(2.0) for part in order.values() for c in part}
    joins = {}
    for g, part in order.items():
        rest = [c for c in part if g != late and c not in first[g]]
        months = rng.integers(2, 8, len(rest))
        joins |= dict(zip(rest, months, strict=True))
    found = {}
    for m in range(1, 13):
        share = np.zeros(count)
        for g, part in first.items():
            for c in order[g]:
                known = c in part
                if known or m >= joins.get(c, 99):
                    share[c] = popular[c] * (1.0 if known else 0.15)
        if m >= SHIFT:
            known_rows = [c for part in first.values() for c in part]
            old = np.zeros(count)
            old[known_rows] = [popular[c] for c in known_rows]
            new = np.zeros(count)
            new[list(joins)] = [popular[c] for c in joins]
            share = 0.4 * old / old.sum() + 0.6 * new / new.sum()
        share = share / share.sum()
        if m >= NEW_INTENT:
            own = np.zeros(count)
            own[order[late]] = [popular[c] for c in order[late]]
            share = share * (6 / 7) + own / own.sum() / 7
        found[m] = share / share.sum()
    return found
