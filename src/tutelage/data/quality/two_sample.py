"""Do two sets of texts come from one source, and if not, what is one set more about?

The test is a classifier's (Lopez-Paz and Oquab, "Revisiting classifier two-sample tests", ICLR
2017): if nothing can tell the sets apart better than chance, they are alike. Topics are clusters of
both sets together, found without knowing which text is whose. All randomness is seeded.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tutelage.core.example import normalise

Array = NDArray[np.float64]
FOLDS = 5
SAMPLE = 2000  # texts a set, at most
_DIMENSIONS = 50  # of the space in which topics are sought
_TOPICS = (4, 20)  # fewest and most topics
_TEXTS_A_TOPIC = 40  # on average
_WORDS = 4  # that name a topic
_LEAST_COSINE = 0.15  # of a text with the middle of its topic; under it the text has none
OTHER = ("none of these",)  # the words of what has no topic
_ANY = r"(?u)\b\w+\b"  # words and numbers
_PLAIN = r"(?u)\b[^\W\d_]\w+\b"  # words
_WORD = re.compile(_PLAIN)


@dataclass(frozen=True)
class Separability:
    """How well a classifier tells the sets apart: AUC, 0.5 is chance. `p` is one-sided."""

    auc: float
    low: float
    high: float
    p: float
    first: int
    second: int


@dataclass(frozen=True)
class Topic:
    """A cluster of texts: its words, the shares of both sets that are in it, an example of each.

    `p` is Fisher's exact test of the shares, corrected for all topics (Holm).
    """

    words: tuple[str, ...]
    first: float
    second: float
    p: float
    first_example: str
    second_example: str

    @property
    def ratio(self) -> float:
        """The second set's share over the first's; infinite where the first has none."""
        return self.second / self.first if self.first else math.inf


def sample(texts: Sequence[str], seed: int, most: int = SAMPLE) -> list[int]:
    """Return the places of at most `most` texts, drawn without replacement, in order."""
    if len(texts) <= most:
        return list(range(len(texts)))
    drawn = np.random.default_rng(seed).choice(len(texts), size=most, replace=False)
    return sorted(int(place) for place in drawn)


def separability(first: Sequence[str], second: Sequence[str], seed: int) -> Separability:
    """Return the cross-validated AUC of a linear classifier over words, with a 95 % interval.

    Equal texts stay in one fold, so that none is recognised. The AUC is the mean over the folds,
    its variance theirs (DeLong et al. 1988; LeDell et al. 2015).
    """
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    texts = [*first, *second]
    side = np.array([0] * len(first) + [1] * len(second))
    folds = _folds(texts, seed)
    aucs, variances, chances = [], [], []
    for fold in range(FOLDS):
        test = folds == fold
        train_sides, test_sides = side[~test], side[test]
        if len(set(train_sides)) < 2 or len(set(test_sides)) < 2:
            continue
        model = make_pipeline(
            TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, token_pattern=_ANY),
            LogisticRegression(C=3.0, tol=1e-3, max_iter=100, class_weight="balanced"),
        )
        try:
            model.fit([texts[i] for i in np.flatnonzero(~test)], train_sides)
        except ValueError:  # no text has a word
            continue
        scores = model.decision_function([texts[i] for i in np.flatnonzero(test)])
        auc, variance = delong(scores[test_sides == 1], scores[test_sides == 0])
        m, n = int((test_sides == 1).sum()), int((test_sides == 0).sum())
        aucs.append(auc)
        variances.append(variance)
        chances.append((m + n + 1) / (12 * m * n))
    if not aucs:
        return Separability(0.5, 0.0, 1.0, 1.0, len(first), len(second))
    auc = float(np.mean(aucs))
    error = math.sqrt(sum(variances)) / len(aucs)
    z = (auc - 0.5) / (math.sqrt(sum(chances)) / len(aucs))
    reach = NormalDist().inv_cdf(0.975) * error
    return Separability(
        auc, max(0.0, auc - reach), min(1.0, auc + reach), 1 - NormalDist().cdf(z),
        len(first), len(second),
    )  # fmt: skip


def _folds(texts: Sequence[str], seed: int) -> NDArray[np.int64]:
    """Return a fold for each text, the same for equal texts."""
    names = [normalise(text) for text in texts]
    unique = sorted(set(names))
    order = np.random.default_rng(seed).permutation(len(unique))
    fold = {name: int(place) % FOLDS for name, place in zip(unique, order, strict=True)}
    return np.array([fold[name] for name in names])


def delong(positive: Array, negative: Array) -> tuple[float, float]:
    """Return the AUC and its variance (DeLong, DeLong and Clarke-Pearson, Biometrics 44, 1988).

    `positive` has shape (M,), `negative` (N,); ties count one half.
    """
    from scipy.stats import rankdata

    m, n = len(positive), len(negative)
    ranks = rankdata(np.concatenate([positive, negative]))
    of_positive = (ranks[:m] - rankdata(positive)) / n  # share of negatives below each
    of_negative = 1 - (ranks[m:] - rankdata(negative)) / m
    auc = float(of_positive.mean())
    spread = [
        np.var(v, ddof=1) / len(v) if len(v) > 1 else 0.25 for v in (of_positive, of_negative)
    ]
    return auc, float(sum(spread))


def topics(first: Sequence[str], second: Sequence[str], seed: int) -> list[Topic]:
    """Return the topics of both sets together, the one that differs most first."""
    from sklearn.cluster import KMeans
    from sklearn.decomposition import TruncatedSVD
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.preprocessing import normalize

    texts = [*first, *second]
    vectoriser = TfidfVectorizer(
        sublinear_tf=True, min_df=2 if len(texts) > 100 else 1, max_df=0.5,
        token_pattern=_PLAIN, stop_words="english",
    )  # fmt: skip
    try:
        matrix = vectoriser.fit_transform(texts)
    except ValueError:  # no word is left
        return []
    size = min(_DIMENSIONS, matrix.shape[1] - 1, matrix.shape[0] - 1)
    if size < 2:
        return []
    low, high = _TOPICS
    count = max(low, min(high, len(texts) // _TEXTS_A_TOPIC))
    space = normalize(TruncatedSVD(size, random_state=seed).fit_transform(matrix))
    found = KMeans(min(count, len(texts)), n_init=2, random_state=seed).fit(space)
    near = np.einsum("nd,nd->n", space, normalize(found.cluster_centers_)[found.labels_])
    members = np.where(near < _LEAST_COSINE, -1, found.labels_)
    names = vectoriser.get_feature_names_out()
    return _compared(texts, len(first), members, near, (matrix, names))


def _compared(
    texts: Sequence[str],
    split: int,
    members: NDArray[np.int64],
    near: Array,
    words: tuple[Any, NDArray[np.object_]],
) -> list[Topic]:
    """Return the topics with their shares in the first `split` texts and in the others."""
    from scipy.stats import fisher_exact

    matrix, names = words
    one, two = split, len(texts) - split
    overall = np.asarray(matrix.mean(axis=0)).ravel()
    found: list[tuple[float, Topic]] = []
    for topic in range(-1, int(members.max()) + 1):
        inside = np.flatnonzero(members == topic)
        a, b = int((inside < split).sum()), int((inside >= split).sum())
        if not len(inside):
            continue
        p = float(fisher_exact([[a, one - a], [b, two - b]])[1])
        weight = np.asarray(matrix[inside].mean(axis=0)).ravel() - overall
        top = tuple(str(names[i]) for i in np.argsort(-weight)[:_WORDS] if weight[i] > 0)
        inside = inside[np.argsort(-near[inside], kind="stable")]
        examples = [
            next((texts[int(i)] for i in inside if (i >= split) == second), "")
            for second in (False, True)
        ]
        named = top if topic >= 0 else OTHER
        found.append((p, Topic(named, a / one, b / two, p, *examples)))
    return _holm(found)


def _holm(found: list[tuple[float, Topic]]) -> list[Topic]:
    """Return the topics, smallest p first, with p corrected as Holm (1979) does."""
    found.sort(key=lambda pair: (pair[0], pair[1].words))
    corrected: list[Topic] = []
    floor = 0.0
    for place, (p, topic) in enumerate(found):
        floor = max(floor, min(1.0, p * (len(found) - place)))
        corrected.append(
            Topic(
                topic.words, topic.first, topic.second, floor,
                topic.first_example, topic.second_example,
            )
        )  # fmt: skip
    return corrected


@dataclass(frozen=True)
class Vocabulary:
    """Share of the second set's words that the first never has, and the same within the first.

    `words` are the most frequent of them.
    """

    unknown: float
    usual: float
    words: tuple[str, ...]


def vocabulary(first: Sequence[str], second: Sequence[str], seed: int) -> Vocabulary:
    """Return how much of the second set's wording is new beside what is new in the first itself.

    Half of the first set is the reference for both, so that its size favours neither.
    """
    order = np.random.default_rng(seed).permutation(len(first))
    half = len(first) // 2
    known = {word for i in order[:half] for word in _words(first[i])}
    rest = [word for i in order[half:] for word in _words(first[i])]
    other = [word for text in second for word in _words(text)]
    everything = known | set(rest)
    new = Counter(word for word in other if word not in everything)
    return Vocabulary(
        _share(other, known), _share(rest, known), tuple(word for word, _ in new.most_common(8))
    )


def _words(text: str) -> list[str]:
    return [word.lower() for word in _WORD.findall(text)]


def _share(words: Sequence[str], known: set[str]) -> float:
    return sum(word not in known for word in words) / len(words) if words else 0.0
