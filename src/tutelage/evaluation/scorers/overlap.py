"""Overlap with the reference: token F1 and chrF. They don't see made-up facts; read them so."""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from tutelage.core.example import Example
from tutelage.core.output import OutputFormat
from tutelage.evaluation.scorers.base import NO_REFERENCE, PLAIN, Score

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)
_SPACE = re.compile(r"\s+")


def tokens(text: str) -> list[str]:
    """Return the words SQuAD compares: lower case, no punctuation, no articles."""
    return _ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split()


def grams(units: Sequence[str], size: int) -> Counter[tuple[str, ...]]:
    """Return how often each run of `size` neighbouring units occurs."""
    return Counter(tuple(units[at : at + size]) for at in range(len(units) - size + 1))


def token_f1(text: str, reference: str) -> tuple[float, float, float]:
    """Return F1, precision and recall of words as bags (Rajpurkar et al. 2016), each 0..1."""
    got, expected = tokens(text), tokens(reference)
    if not got or not expected:
        same = float(got == expected)
        return same, same, same
    shared = sum((Counter(got) & Counter(expected)).values())
    if shared == 0:
        return 0.0, 0.0, 0.0
    precision, recall = shared / len(got), shared / len(expected)
    return 2 * precision * recall / (precision + recall), precision, recall


def chrf(text: str, reference: str, *, order: int = 6, beta: float = 2.0) -> float:
    """Return chrF (Popović 2015): F_beta of character n-grams 1..order without spaces, 0..1.

    Orders for which either side has no n-gram are left out of the mean, as sacrebleu does.
    """
    got, expected = _SPACE.sub("", text), _SPACE.sub("", reference)
    precision = recall = 0.0
    used = 0
    for n in range(1, order + 1):
        ours = Counter(got[i : i + n] for i in range(len(got) - n + 1))
        theirs = Counter(expected[i : i + n] for i in range(len(expected) - n + 1))
        if not ours or not theirs:
            continue
        shared = sum((ours & theirs).values())
        precision += shared / sum(ours.values())
        recall += shared / sum(theirs.values())
        used += 1
    if used == 0:
        return float(got == expected)
    precision, recall = precision / used, recall / used
    if precision + recall == 0:
        return 0.0
    weight = beta * beta
    return (1 + weight) * precision * recall / (weight * precision + recall)


class TokenF1:
    """F1 of the words shared with the reference, 0..1."""

    def __init__(
        self,
        output: OutputFormat = PLAIN,
        json_schema: Mapping[str, Any] | None = None,
    ) -> None:
        del output, json_schema

    def score(self, row: Example, text: str) -> Score:
        """Give precision and recall as evidence."""
        if row.answer is None:
            return NO_REFERENCE
        value, precision, recall = token_f1(text, row.answer)
        return Score(value, {"precision": precision, "recall": recall})


class ChrF:
    """chrF of one text against one reference, 0..1 (sacrebleu prints it times 100)."""

    def __init__(
        self,
        output: OutputFormat = PLAIN,
        json_schema: Mapping[str, Any] | None = None,
    ) -> None:
        del output, json_schema

    def score(self, row: Example, text: str) -> Score:
        """Compare character n-grams up to six."""
        if row.answer is None:
            return NO_REFERENCE
        return Score(chrf(text, row.answer), {"characters": len(text)})
