"""Labels that the other rows contradict: confident learning, ranked, never deleted.

Every row is judged by a regression that has not seen it or its near-duplicates, and by its nearest
rows. Which labels are probably wrong follows from the confident joint (Northcutt, Jiang, Chuang:
Confident Learning, JAIR 2021): a row counts where it is surer of another class than the rows of
that class are of it on average. With fewer than 10 rows a class nothing is said.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from tutelage.data.quality.neighbours import Neighbours
from tutelage.data.quality.softmax import grouped_folds, held_out
from tutelage.data.quality.space import Space

LEAST_A_CLASS = 10
VOTERS = 10  # nearest rows that are counted as evidence
_FOLDS = 5
_MIXED = 15  # nearest rows that take part in the probability
_SHARP = 8.0  # a neighbour's vote is exp(_SHARP · (cosine - 1))
_FLOOR = 0.01  # of a vote, so that neighbours alone never exclude a class
_MODEL, _NEAR = 0.7, 0.35  # exponents of the model's and the neighbours' probabilities
_ALTERNATIVE = 2.0  # weight of the other class' probability in the rank
_SURE = 0.75  # a threshold of the confident joint, at most
_KEPT = 4  # classes whose probability is kept a row
_CHUNK = 4_000_000  # probabilities held at once


@dataclass(frozen=True)
class Doubt:
    """One label that is in doubt, by the row's position; probabilities are held-out, 0 to 1."""

    index: int
    given: str
    suggested: str
    given_probability: float
    suggested_probability: float
    agreeing: int  # of the nearest rows that say what is suggested
    voters: int
    score: float
    flagged: bool

    @property
    def reason(self) -> str:
        """The evidence in one sentence."""
        return (
            f"{self.agreeing} of its {self.voters} nearest rows say {self.suggested!r}; "
            f"held out, {self.suggested!r} has {self.suggested_probability:.0%}, "
            f"{self.given!r} {self.given_probability:.0%}"
        )


@dataclass(frozen=True)
class LabelErrors:
    """What was judged and found. Arrays are by row position; unjudged rows have score -inf."""

    doubts: list[Doubt]  # most doubtful first
    quality: NDArray[np.float64]  # held-out probability of the given label; nan: not judged
    judged: int
    flagged: int  # off the diagonal of the confident joint
    accuracy: float  # held-out, of the judged rows
    confusions: list[tuple[str, str, int]]  # given, suggested, flagged rows; most first
    too_few: dict[str, int] = field(default_factory=dict)  # labels not judged, their rows


@dataclass
class _Opinion:
    """What the held-out models and the neighbours say of each judged row."""

    own: NDArray[np.float64]  # (N,)
    best: NDArray[np.int64]  # classes with the highest probability, best first, (N, _KEPT)
    chance: NDArray[np.float64]  # their probabilities


def find_label_errors(
    space: Space,
    labels: Sequence[str | None],
    *,
    skip: NDArray[np.bool_] | None = None,
    shown: int = 200,
    seed: int = 7,
) -> LabelErrors | None:
    """Return the labels in doubt, at most `shown` and all flagged ones; None if none can be judged.

    Rows without a label, rows of labels with fewer than 10 rows and those in `skip` (refusals,
    outliers), shape (N,), are neither judged nor asked.
    """
    usable = np.array([label is not None for label in labels], dtype=bool)
    if skip is not None:
        usable &= ~skip
    counts = Counter(label for label, ok in zip(labels, usable, strict=True) if ok and label)
    names = sorted(label for label, count in counts.items() if count >= LEAST_A_CLASS)
    too_few = _too_few(Counter(label for label in labels if label), counts)
    number = {label: index for index, label in enumerate(names)}
    if len(names) < 2:
        return None
    classes = np.array(
        [
            number.get(label, -1) if label and ok else -1
            for label, ok in zip(labels, usable, strict=True)
        ]
    )
    rows = np.flatnonzero(classes >= 0)
    if len(np.unique(space.twins[rows])) < 2:
        return None  # near-duplicates of each other: none can be held out
    opinion = _opinions(space, classes, rows, seed)
    return _judge(space, classes, rows, opinion, names, too_few, shown)


def _too_few(every: Counter[str], usable: Counter[str]) -> dict[str, int]:
    """Return the labels that have too few rows, or too few that are not skipped."""
    found: dict[str, int] = {}
    for label, count in sorted(every.items()):
        if count < LEAST_A_CLASS:
            found[label] = count
        elif 0 < usable[label] < LEAST_A_CLASS:
            found[label] = usable[label]
    return found


def _opinions(
    space: Space, classes: NDArray[np.int64], rows: NDArray[np.int64], seed: int
) -> _Opinion:
    """Return each judged row's probabilities: the model's and the neighbours', multiplied."""
    given = classes[rows]
    count = int(given.max()) + 1
    folds = grouped_folds(given, space.twins[rows], _FOLDS, seed)
    near = _voters(space, classes, _MIXED)
    kept = min(_KEPT, count)
    found = _Opinion(
        np.zeros(len(rows)), np.zeros((len(rows), kept), np.int64), np.zeros((len(rows), kept))
    )
    for part, model in held_out(space.vectors[rows], given, folds, seed):
        step = max(1, _CHUNK // count)
        for start in range(0, len(part), step):
            places = part[start : start + step]
            mixed = model.predict(space.vectors[rows[places]]).astype(np.float64)
            mixed **= _MODEL
            mixed *= _votes(near, rows[places], classes, count) ** _NEAR
            mixed /= mixed.sum(axis=1, keepdims=True)
            found.own[places] = mixed[np.arange(len(places)), given[places]]
            top = np.argpartition(-mixed, kept - 1, axis=1)[:, :kept]
            chance = np.take_along_axis(mixed, top, 1)
            order = np.argsort(-chance, axis=1, kind="stable")
            found.best[places] = np.take_along_axis(top, order, 1)
            found.chance[places] = np.take_along_axis(chance, order, 1)
    return found


def _voters(space: Space, classes: NDArray[np.int64], count: int) -> Neighbours:
    """Return the nearest rows that may vote, -1 where there are no more of them.

    A twin votes only if it says another label: a mistake may have been copied with its row.
    """
    near = space.neighbours
    said = classes[near.rows]
    twin = space.twins[near.rows] == space.twins[:, None]
    silent = (said < 0) | (twin & (said == classes[:, None]))
    order = np.argsort(silent, axis=1, kind="stable")[:, :count]
    rows = np.where(silent, -1, near.rows)
    return Neighbours(
        np.take_along_axis(rows, order, 1), np.take_along_axis(near.cosines, order, 1)
    )


def _votes(
    near: Neighbours, rows: NDArray[np.int64], classes: NDArray[np.int64], count: int
) -> NDArray[np.float64]:
    """Return the neighbours' shares a class, shape (B, K), rows sum to 1."""
    votes = np.full((len(rows), count), _FLOOR)
    speak = near.rows[rows] >= 0
    who, where = np.nonzero(speak)
    said = classes[near.rows[rows][who, where]]
    weight = np.exp(_SHARP * (near.cosines[rows][who, where] - 1.0))
    np.add.at(votes, (who, said), weight)
    votes /= votes.sum(axis=1, keepdims=True)
    return votes


def _judge(
    space: Space,
    classes: NDArray[np.int64],
    rows: NDArray[np.int64],
    opinion: _Opinion,
    names: list[str],
    too_few: dict[str, int],
    shown: int,
) -> LabelErrors:
    given = classes[rows]
    flagged, suggested, chance = _confident(opinion, given, len(names))
    score = _ALTERNATIVE * chance - np.log(np.maximum(opinion.own, 1e-12))
    voters = _voters(space, classes, VOTERS)
    order = np.argsort(-score, kind="stable")
    rank = order[: max(shown, 0)]
    rest = order[max(shown, 0) :]
    picked = np.concatenate([rank, rest[flagged[rest]]])
    doubts = []
    for place in picked:
        index = int(rows[place])
        said = classes[voters.rows[index][voters.rows[index] >= 0]]
        doubts.append(
            Doubt(
                index,
                names[given[place]],
                names[suggested[place]],
                float(opinion.own[place]),
                float(chance[place]),
                int((said == suggested[place]).sum()),
                len(said),
                float(score[place]),
                bool(flagged[place]),
            )
        )
    pairs = Counter(zip(given[flagged].tolist(), suggested[flagged].tolist(), strict=True))
    quality = np.full(len(classes), np.nan)
    quality[rows] = opinion.own
    return LabelErrors(
        doubts=doubts,
        quality=quality,
        judged=len(rows),
        flagged=int(flagged.sum()),
        accuracy=float((opinion.best[:, 0] == given).mean()),
        confusions=[(names[one], names[two], n) for (one, two), n in pairs.most_common()],
        too_few=too_few,
    )


def _confident(
    opinion: _Opinion, given: NDArray[np.int64], count: int
) -> tuple[NDArray[np.bool_], NDArray[np.int64], NDArray[np.float64]]:
    """Return which rows are off the diagonal of the confident joint, the other class, its chance.

    The threshold of class j is the mean probability of j over the rows labelled j; a row is put
    into the most probable class whose threshold it reaches (Northcutt et al. 2021, section 3.1).
    Thresholds end at 0.75, or a class that is nearly always sure would take no row.
    """
    sums = np.bincount(given, opinion.own, minlength=count)
    threshold = np.minimum(sums / np.maximum(np.bincount(given, minlength=count), 1), _SURE)
    reached = opinion.chance >= threshold[opinion.best]
    first = np.where(reached.any(axis=1), reached.argmax(axis=1), -1)
    places = np.arange(len(given))
    put = np.where(first >= 0, opinion.best[places, np.maximum(first, 0)], given)
    flagged = put != given
    other = np.where(opinion.best[:, 0] == given, 1, 0)  # the best class that is not the given
    other = np.where(flagged, np.maximum(first, 0), other)
    return flagged, opinion.best[places, other], opinion.chance[places, other]
