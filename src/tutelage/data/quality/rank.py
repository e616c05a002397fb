"""How good each row is to learn from: a score from parts that a person can check.

Parts are 0 (bad) to 1 (as good as a typical row); the score is their weighted geometric mean, so
one very bad part is not hidden by the others. It ranks; it leaves nothing out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from tutelage.core.example import Example
from tutelage.data.findings import catalogue
from tutelage.data.quality.label_errors import LabelErrors
from tutelage.data.quality.outliers import Outliers
from tutelage.data.quality.space import Space

WEIGHTS = {
    "label": 2.0,  # held-out probability of the given label over its class' mean
    "typical": 1.0,  # 1, falling to 0 within the 5 % most unusual rows
    "fresh": 1.0,  # 1 for the best row of a near-duplicate cluster, less for the others
    "findings": 1.0,  # what the checks of the content found
    "judge": 2.0,  # a judge's score, where there is one
    "difficulty": 1.0,  # how much the request helps the base model to the answer
    "author": 1.0,  # the reliability of who answered
}
_SURE = 0.25  # of its class' mean probability, from which on a label is not in doubt
_UNUSUAL = 0.05  # share of the rows that count as unusual
_TWIN = 0.5  # of a row that says what a better row says
_FLOOR = 0.02  # of a part, so that a score is never 0
_PENALTY = {"error": 0.2, "warning": 0.7, "note": 0.97}  # a factor a finding
_REFUSAL = {"D2-C03": 0.1}  # a model that copies refusals is worse than one that lacks a row
_JUDGED_ELSEWHERE = ("D4", "D5", "D12")  # families whose findings are parts of their own
_SAY = {
    "label": "the other rows doubt its label",
    "typical": "it is unlike the other rows",
    "fresh": "a better row says the same",
    "findings": "the checks found something",
    "judge": "the judge marked it low",
    "difficulty": "its answer does not follow from what is asked, or is known already",
    "author": "its author agrees little with the others",
}

Values = NDArray[np.float64]


@dataclass(frozen=True)
class Evidence:
    """What is known of the rows. Mappings are by example id; all are optional.

    `difficulty` is the base model's loss on the answer with the request over that without it
    (IFD; Li et al. 2024, arXiv 2308.12032): at 1 and more the request does not help.
    """

    outliers: Outliers | None = None
    labels: LabelErrors | None = None
    findings: Mapping[str, Sequence[str]] = field(default_factory=dict)  # finding ids
    judged: Mapping[str, float] = field(default_factory=dict)  # 0 to 1
    difficulty: Mapping[str, float] = field(default_factory=dict)
    reliability: Mapping[str, float] = field(default_factory=dict)  # by author, 0 to 1


@dataclass(frozen=True)
class Ranking:
    """Every row's score, shape (N,), and its parts by name (nan: nothing is known)."""

    scores: Values
    parts: dict[str, Values]

    @property
    def order(self) -> NDArray[np.int64]:
        """The positions of the rows, best first."""
        return np.argsort(-self.scores, kind="stable")

    def parts_of(self, index: int) -> dict[str, float]:
        """Return the parts of one row that are known."""
        return {
            name: round(float(values[index]), 3)
            for name, values in self.parts.items()
            if np.isfinite(values[index])
        }

    def weakest(self, index: int) -> str:
        """Return what speaks most against a row, or that nothing does."""
        pull = {
            name: WEIGHTS[name] * np.log(max(part, _FLOOR))
            for name, part in self.parts_of(index).items()
        }
        worst = min(pull, key=pull.__getitem__, default=None)
        if worst is None or pull[worst] > np.log(0.8):
            return "nothing speaks against it"
        return _SAY[worst]


def rank_rows(rows: Sequence[Example], space: Space, evidence: Evidence) -> Ranking:
    """Return the score of every row. `space` and the evidence's arrays are of the same rows."""
    parts = {
        "label": _label(rows, evidence.labels),
        "typical": _typical(len(rows), evidence.outliers),
        "findings": np.array([_findings(evidence.findings.get(row.id, ())) for row in rows]),
        "judge": _given(rows, evidence.judged),
        "difficulty": _difficulty(_given(rows, evidence.difficulty)),
        "author": np.array(
            [evidence.reliability.get(row.origin.author or "", np.nan) for row in rows]
        ),
    }
    parts["fresh"] = _fresh(space.twins, _mean(parts))
    return Ranking(_mean(parts), parts)


def _mean(parts: Mapping[str, Values]) -> Values:
    """Return the weighted geometric mean of the known parts, shape (N,)."""
    shape = next(iter(parts.values())).shape
    total, weights = np.zeros(shape), np.zeros(shape)
    for name, values in parts.items():
        known = np.isfinite(values)
        total += WEIGHTS[name] * np.where(known, np.log(np.clip(values, _FLOOR, 1)), 0.0)
        weights += WEIGHTS[name] * known
    mean: Values = np.exp(total / np.maximum(weights, 1e-9))
    return mean


def _label(rows: Sequence[Example], found: LabelErrors | None) -> Values:
    if found is None:
        return np.full(len(rows), np.nan)
    sums: dict[str | None, list[float]] = {}
    for row, quality in zip(rows, found.quality, strict=True):
        if np.isfinite(quality):
            sums.setdefault(row.label, []).append(float(quality))
    typical = {label: max(_SURE * float(np.mean(values)), 1e-6) for label, values in sums.items()}
    return np.array(
        [
            min(1.0, quality / typical[row.label]) if np.isfinite(quality) else np.nan
            for row, quality in zip(rows, found.quality, strict=True)
        ]
    )


def _typical(count: int, found: Outliers | None) -> Values:
    if found is None or not found.signals:
        return np.full(count, np.nan)
    typical: Values = np.minimum(1.0, np.exp(-found.scores) / _UNUSUAL)
    return typical


def _findings(ids: Sequence[str]) -> float:
    kinds = catalogue()
    product = 1.0
    for finding_id in ids:
        if finding_id in kinds and finding_id.split("-")[0] not in _JUDGED_ELSEWHERE:
            product *= _REFUSAL.get(finding_id, _PENALTY[kinds[finding_id].severity])
    return product


def _given(rows: Sequence[Example], values: Mapping[str, float]) -> Values:
    return np.array([values.get(row.id, np.nan) for row in rows], dtype=np.float64)


def _difficulty(ratio: Values) -> Values:
    """Return 0 where the request does not help; else 1/2 for the easiest row, 1 for the hardest."""
    known = np.isfinite(ratio) & (ratio < 1)
    out = np.where(np.isfinite(ratio), 0.0, np.nan)
    if known.any():
        place = np.argsort(np.argsort(ratio[known])) / max(int(known.sum()) - 1, 1)
        out[known] = 0.5 + 0.5 * place
    return out


def _fresh(twins: NDArray[np.int64], scores: Values) -> Values:
    """Return 1 for the best row of each cluster and `_TWIN` for the others."""
    order = np.lexsort((np.arange(len(scores)), -scores, twins))
    first = np.ones(len(scores), dtype=bool)
    first[order[1:]] = twins[order[1:]] != twins[order[:-1]]
    return np.where(first, 1.0, _TWIN)
