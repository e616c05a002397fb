"""Which training rows help the validation rows and which hurt them: a value a row, with a reason.

Two values, both larger where a row helps. KNN-Shapley (Jia et al. 2019, arXiv 1908.08619, theorem
1): the exact Shapley value of a row for a k-nearest-neighbour classifier, from embeddings and
labels alone. Gradient influence (TracIn: Pruthi et al. 2020, arXiv 2002.08484; the cosine of LESS:
Xia et al. 2024, arXiv 2402.04333): how far a step on the row lowers the loss of the validation
rows; its gradients come from training/influence.py. It changes no row.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from tutelage.core.errors import DataError
from tutelage.core.example import Example

Method = Literal["knn", "gradient"]
METHODS: tuple[Method, ...] = ("knn", "gradient")
NEIGHBOURS = 10
_CHUNK = 256  # validation rows sorted at once

Array = NDArray[np.float64]
Vectors = NDArray[np.float32]


@dataclass(frozen=True)
class Valued:
    """One training row: its value, its place (1: most helpful), and why in words."""

    id: str
    rank: int
    value: float
    text: str
    answer: str
    source: str
    reason: str


@dataclass(frozen=True)
class Valuation:
    """The value of every training row, most helpful first, and what it is measured in."""

    method: Method
    rows: list[Valued]
    validation: int
    unit: str

    @property
    def helpful(self) -> list[Valued]:
        """Rows of a value above 0, most helpful first."""
        return [row for row in self.rows if row.value > 0]

    @property
    def harmful(self) -> list[Valued]:
        """Rows of a value below 0, most harmful first."""
        return [row for row in reversed(self.rows) if row.value < 0]

    def as_dict(self) -> dict[str, Any]:
        """Return plain JSON."""
        return asdict(self)


def knn_shapley(
    train: Vectors,
    train_labels: Sequence[str],
    validation: Vectors,
    validation_labels: Sequence[str],
    k: int = NEIGHBOURS,
) -> Array:
    """Return each training row's Shapley value, shape (N,), in validation rows won or lost.

    The game: a set of training rows is worth, summed over validation rows, the share of the k
    nearest of its rows that have the right label (over k, also if the set is smaller). Vectors are
    unit rows; the nearest have the highest cosine. The values sum to the worth of all rows.
    """
    count = len(train)
    if count == 0:
        return np.zeros(0)
    names = {label: index for index, label in enumerate({*train_labels, *validation_labels})}
    own = np.array([names[label] for label in train_labels])
    wanted = np.array([names[label] for label in validation_labels])
    place = np.arange(1, count)  # of the nearer one of each neighbouring pair, from 1
    factor = np.minimum(k, place) / (k * place)
    total = np.zeros(count)
    for start in range(0, len(validation), _CHUNK):
        part = slice(start, start + _CHUNK)
        order = np.argsort(-(validation[part] @ train.T), axis=1, kind="stable")
        right = (own[order] == wanted[part, None]).astype(np.float64)
        values = np.empty_like(right)
        values[:, -1] = right[:, -1] * min(k, count) / (k * count)
        steps = (right[:, :-1] - right[:, 1:]) * factor
        values[:, :-1] = values[:, -1:] + np.cumsum(steps[:, ::-1], axis=1)[:, ::-1]
        np.add.at(total, order, values)
    return total


def gradient_influence(train: Vectors, validation: Vectors) -> Array:
    """Return the mean cosine of each training row's gradient with the validation rows', (N,).

    Each gradient counts alike whatever its length, as in LESS (long answers have small gradients).
    Rows without a gradient have the value 0.
    """
    mean = _unit(validation).mean(axis=0)
    return np.asarray(_unit(train) @ mean, dtype=np.float64)


def _unit(vectors: Vectors) -> Vectors:
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit: Vectors = np.divide(vectors, norms, out=np.zeros_like(vectors), where=norms > 0)
    return unit


def value_knn(
    train: Sequence[Example],
    validation: Sequence[Example],
    vectors: tuple[Vectors, Vectors],
    k: int = NEIGHBOURS,
) -> Valuation:
    """Return the KNN-Shapley value of the labelled training rows; `vectors` are of both sides.

    Raises DataError if a side has no labels.
    """
    sides = []
    for name, rows in (("train", train), ("validation", validation)):
        kept = [i for i, row in enumerate(rows) if row.label is not None]
        if not kept:
            raise DataError(
                f"the {name} split has no row with a label",
                fix="Use `--method gradient`, which needs a trained adapter and no labels",
            )
        sides.append(kept)
    known, asked = ([rows[i] for i in kept] for rows, kept in zip((train, validation), sides,
                                                                  strict=True))  # fmt: skip
    left, right = vectors[0][sides[0]], vectors[1][sides[1]]
    labels, wanted = ([str(row.label) for row in rows] for rows in (known, asked))
    values = knn_shapley(left, labels, right, wanted, k)
    reasons = _neighbour_reasons(left, labels, right, wanted, k)
    return _ranked("knn", known, values, reasons, len(asked), "validation rows won")


def value_gradient(
    train: Sequence[Example],
    validation: Sequence[Example],
    gradients: tuple[Vectors, Vectors],
) -> Valuation:
    """Return the gradient influence of the training rows; `gradients` are of both sides."""
    values = gradient_influence(*gradients)
    reasons = _gradient_reasons(gradients, validation)
    return _ranked("gradient", train, values, reasons, len(validation), "mean cosine")


def _ranked(
    method: Method,
    rows: Sequence[Example],
    values: Array,
    reasons: Sequence[str],
    validation: int,
    unit: str,
) -> Valuation:
    order = np.argsort(-values, kind="stable")
    found = [
        Valued(
            rows[i].id, rank, round(float(values[i]), 6), rows[i].input_text,
            rows[i].label or rows[i].answer or "", rows[i].origin.source, reasons[i],
        )
        for rank, i in enumerate((int(i) for i in order), start=1)
    ]  # fmt: skip
    return Valuation(method, found, validation, unit)


def _neighbour_reasons(
    train: Vectors,
    labels: Sequence[str],
    validation: Vectors,
    wanted: Sequence[str],
    k: int,
) -> list[str]:
    """Say for each training row whose nearest neighbours it is among, and what those say."""
    beside: list[Counter[str]] = [Counter() for _ in labels]
    for start in range(0, len(validation), _CHUNK):
        cosines = validation[start : start + _CHUNK] @ train.T
        nearest = np.argsort(-cosines, axis=1, kind="stable")[:, :k]
        for row, found in enumerate(nearest, start=start):
            for index in found:
                beside[index][wanted[row]] += 1
    return [_beside(label, found, k) for label, found in zip(labels, beside, strict=True)]


def _beside(label: str, found: Counter[str], k: int) -> str:
    total = found.total()
    if not total:
        return f"not among the {k} nearest of any validation row"
    agree = found[label]
    text = f"among the {k} nearest of {total:,} validation row{'s' if total > 1 else ''}: "
    others = [(name, count) for name, count in found.most_common() if name != label]
    if not others:
        return text + f"all are {label!r} too"
    name, count = others[0]
    return text + f"{agree:,} are {label!r} too, {count:,} {'is' if count == 1 else 'are'} {name!r}"


def _gradient_reasons(
    gradients: tuple[Vectors, Vectors], validation: Sequence[Example]
) -> list[str]:
    """Say for each training row which validation row it moves most, and which way."""
    asked = _unit(gradients[1])
    reasons = []
    for row in _unit(gradients[0]):
        if not row.any():
            reasons.append("it has no gradient: the adapter writes its answer already")
            continue
        cosines = asked @ row
        index = int(np.argmax(np.abs(cosines)))
        other = validation[index]
        verb = "lowers" if cosines[index] > 0 else "raises"
        share = float((cosines > 0).mean())
        said = (other.label or other.answer or "")[:40]
        reasons.append(
            f"a step on it lowers the loss of {share:.0%} of the validation rows; most it {verb} "
            f"that of {_short(other.input_text)!r} ({said})"
        )
    return reasons


def _short(text: str, room: int = 60) -> str:
    line = " ".join(text.split())
    return line if len(line) <= room else line[: room - 1] + "…"
