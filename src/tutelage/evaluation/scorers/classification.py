"""Accuracy of labels, and what hides behind it: per-class F1 and the confusion matrix.

A text that can't be read as a label is wrong, and its evidence says why. It counts against the
recall of the true class and against no class's precision, in the column UNREADABLE.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tutelage.core.example import Example
from tutelage.core.output import OutputFormat
from tutelage.evaluation.scorers.base import PLAIN, Score

UNREADABLE = "(no label)"


class Accuracy:
    """1 if the label read from the text is the row's label, else 0."""

    def __init__(
        self,
        output: OutputFormat = PLAIN,
        json_schema: Mapping[str, Any] | None = None,
    ) -> None:
        del json_schema
        self._output = output

    def score(self, row: Example, text: str) -> Score:
        """Read the label with the project's own parser; evidence has expected and predicted."""
        expected = expected_label(row, self._output)
        if expected is None:
            return Score(None, {"why": "the row has no reference label"})
        parsed = self._output.parse(text)
        evidence: dict[str, Any] = {"expected": expected, "predicted": parsed.label}
        if parsed.problem:
            evidence["why"] = parsed.problem
        return Score(float(parsed.label == expected), evidence)


def expected_label(row: Example, output: OutputFormat) -> str | None:
    """Return the row's label, read from its answer if it has no label of its own."""
    if row.label is not None:
        return row.label
    return output.parse(row.answer).label if row.answer is not None else None


@dataclass(frozen=True)
class ClassScore:
    """One label: precision, recall and F1 (0..1) and how many rows truly have it."""

    label: str
    precision: float
    recall: float
    f1: float
    support: int


@dataclass(frozen=True)
class Confusion:
    """Counts, shape (labels, labels + 1): rows are the truth, the last column is unreadable."""

    labels: tuple[str, ...]
    counts: NDArray[np.int64]

    def per_class(self) -> list[ClassScore]:
        """Return each label's scores; a ratio without a denominator is 0."""
        hits = np.diag(self.counts).astype(float)
        support = self.counts.sum(axis=1)
        predicted = self.counts[:, :-1].sum(axis=0)
        return [
            ClassScore(label, *_f1(float(hits[i]), float(predicted[i]), float(support[i])))
            for i, label in enumerate(self.labels)
        ]

    def macro_f1(self) -> float:
        """Return the plain mean of F1 over labels that occur in truth or prediction."""
        seen = [
            c.f1
            for c, column in zip(self.per_class(), self.counts[:, :-1].sum(axis=0), strict=True)
            if c.support or column
        ]
        return float(np.mean(seen)) if seen else 0.0

    def averages(self) -> dict[str, float]:
        """Return precision, recall and F1 over all labels, by name, each 0..1.

        Macro: every label counts the same, over labels that occur. Weighted: by how many rows
        truly have it. Micro: over all decisions.
        """
        columns = self.counts[:, :-1].sum(axis=0)
        seen = [c for c, n in zip(self.per_class(), columns, strict=True) if c.support or n]
        support = sum(c.support for c in seen)
        hits, predicted = float(np.trace(self.counts[:, :-1])), float(columns.sum())
        precision, recall, f1, _ = _f1(hits, predicted, float(self.counts.sum()))
        return {
            "macro_f1": self.macro_f1(),
            "macro_precision": float(np.mean([c.precision for c in seen])) if seen else 0.0,
            "macro_recall": float(np.mean([c.recall for c in seen])) if seen else 0.0,
            "weighted_f1": sum(c.f1 * c.support for c in seen) / support if support else 0.0,
            "micro_f1": f1,
            "micro_precision": precision,
            "micro_recall": recall,
        }

    def micro_f1(self) -> float:
        """Return F1 over all decisions; an unreadable text is a missed one, not a wrong one."""
        hits = float(np.trace(self.counts[:, :-1]))
        return _f1(hits, float(self.counts[:, :-1].sum()), float(self.counts.sum()))[2]


def _f1(hits: float, predicted: float, support: float) -> tuple[float, float, float, int]:
    precision = hits / predicted if predicted else 0.0
    recall = hits / support if support else 0.0
    total = predicted + support
    return precision, recall, 2 * hits / total if total else 0.0, int(support)


def confusion(
    pairs: Iterable[tuple[str, str | None]], labels: Sequence[str] | None = None
) -> Confusion:
    """Count (expected, predicted) pairs; None, or a label never expected, is unreadable.

    `labels` fixes the order; otherwise all expected and predicted labels, sorted.
    """
    pairs = list(pairs)
    if labels is None:
        labels = sorted({e for e, _ in pairs} | {p for _, p in pairs if p is not None})
    index = {label: i for i, label in enumerate(labels)}
    counts = np.zeros((len(index), len(index) + 1), dtype=np.int64)
    for expected, predicted in pairs:
        if expected in index:
            counts[index[expected], index.get(predicted or "", len(index))] += 1
    return Confusion(tuple(index), counts)
