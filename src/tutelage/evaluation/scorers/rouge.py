"""ROUGE (Lin 2004): how much of the reference's words, pairs and order the answer shares.

Words are runs of letters and digits in lower case, of any language; they are not stemmed.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np

from tutelage.core.config_base import Section
from tutelage.core.example import Example
from tutelage.evaluation.scorers.base import HERE, NO_REFERENCE, Place, Score
from tutelage.evaluation.scorers.overlap import grams

Kind = Literal["rouge1", "rouge2", "rougeL", "rougeLsum"]
KINDS: tuple[Kind, ...] = ("rouge1", "rouge2", "rougeL", "rougeLsum")
_WORD = re.compile(r"[^\W_]+")


class RougeOptions(Section):
    """Which of the four is the row's value; the others stand in its evidence."""

    kind: Kind = "rougeL"  # rouge1: words, rouge2: pairs, rougeL: order, rougeLsum: by lines


class Rouge:
    """F1 of the words (or pairs, or order) shared with the reference, 0..1; for summaries."""

    Options = RougeOptions

    def __init__(self, options: RougeOptions, place: Place = HERE) -> None:
        del place
        self._kind = options.kind

    def score(self, row: Example, text: str) -> Score:
        """Give precision, recall and the four F1 scores as evidence."""
        if row.answer is None:
            return NO_REFERENCE
        found = {kind: rouge(text, row.answer, kind) for kind in KINDS}
        f1, precision, recall = found[self._kind]
        every: dict[str, float] = {kind: round(values[0], 6) for kind, values in found.items()}
        return Score(f1, {"precision": precision, "recall": recall, **every})

    def summary(self, scores: Mapping[str, Score]) -> dict[str, float]:
        """Return the mean F1 of each kind."""
        kept = [score.evidence for score in scores.values() if score.value is not None]
        return {kind: float(np.mean([e[kind] for e in kept])) for kind in KINDS} if kept else {}


def words(text: str) -> list[str]:
    """Return the words that ROUGE compares."""
    return _WORD.findall(text.lower())


def rouge(text: str, reference: str, kind: Kind) -> tuple[float, float, float]:
    """Return (F1, precision, recall), each 0..1; 0 where either side has nothing to count."""
    if kind == "rougeLsum":
        return _by_lines(text, reference)
    got, expected = words(text), words(reference)
    if kind == "rougeL":
        return _ratios(len(_common(expected, got)), len(got), len(expected))
    size = int(kind[-1])
    ours, theirs = grams(got, size), grams(expected, size)
    return _ratios(sum((ours & theirs).values()), ours.total(), theirs.total())


def _ratios(shared: int, got: int, expected: int) -> tuple[float, float, float]:
    precision = shared / got if got else 0.0
    recall = shared / expected if expected else 0.0
    total = precision + recall
    return (2 * precision * recall / total if total else 0.0), precision, recall


def _common(left: Sequence[str], right: Sequence[str]) -> list[int]:
    """Return the places in `left` of a longest common subsequence with `right`."""
    table = np.zeros((len(left) + 1, len(right) + 1), dtype=np.int32)
    for i, word in enumerate(left):
        for j, other in enumerate(right):
            same = word == other
            table[i + 1, j + 1] = table[i, j] + 1 if same else max(table[i, j + 1], table[i + 1, j])
    places: list[int] = []
    i, j = len(left), len(right)
    while i and j:
        if left[i - 1] == right[j - 1]:
            i, j = i - 1, j - 1
            places.append(i)
        elif table[i, j - 1] > table[i - 1, j]:
            j -= 1
        else:
            i -= 1
    return places[::-1]


def _by_lines(text: str, reference: str) -> tuple[float, float, float]:
    """Union of the longest common subsequences of each line of the reference (Lin 2004, 3.2)."""
    got = [found for line in text.split("\n") if (found := words(line))]
    expected = [found for line in reference.split("\n") if (found := words(line))]
    left = Counter(word for line in got for word in line)
    right = Counter(word for line in expected for word in line)
    sizes = left.total(), right.total()
    hits = 0
    for line in expected:
        for place in sorted({place for other in got for place in _common(line, other)}):
            word = line[place]
            if left[word] > 0 and right[word] > 0:
                left[word] -= 1
                right[word] -= 1
                hits += 1
    return _ratios(hits, *sizes)
