"""BLEU (Papineni et al. 2002): n-grams up to four shared with the reference, short ones punished.

A row's value is smoothed, because few single sentences share four words in a row; the figure
that papers report is the corpus BLEU of all rows together, in the summary.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from tutelage.core.config_base import Section
from tutelage.core.example import Example
from tutelage.evaluation.scorers.base import HERE, NO_REFERENCE, Place, Score
from tutelage.evaluation.scorers.overlap import grams

_ORDER = 4
_SYMBOLS = re.compile(r"([{-~\[-` -&(-+:-@/])")
_ENTITIES = (("&quot;", '"'), ("&amp;", "&"), ("&lt;", "<"), ("&gt;", ">"))

Cut = Literal["13a", "char", "none"]


class BleuOptions(Section):
    """How texts are cut into the units that are compared."""

    # 13a: words and signs, as in published scores; char: characters; none: at spaces only
    tokenize: Cut = "13a"


@dataclass(frozen=True)
class Counts:
    """What BLEU is made of: n-grams shared and written, by n from 1, and both lengths."""

    shared: tuple[int, ...]
    written: tuple[int, ...]
    got: int
    expected: int

    def __add__(self, other: Counts) -> Counts:
        return Counts(
            tuple(a + b for a, b in zip(self.shared, other.shared, strict=True)),
            tuple(a + b for a, b in zip(self.written, other.written, strict=True)),
            self.got + other.got,
            self.expected + other.expected,
        )


class Bleu:
    """Sentence BLEU against the reference, 0..1 (sacrebleu prints it times 100)."""

    Options = BleuOptions

    def __init__(self, options: BleuOptions, place: Place = HERE) -> None:
        del place
        self._cut = options.tokenize

    def score(self, row: Example, text: str) -> Score:
        """Give the counts as evidence; corpus BLEU is worked out from them."""
        if row.answer is None:
            return NO_REFERENCE
        found = counts(text, row.answer, self._cut)
        return Score(
            bleu(found, effective=True),
            {"shared": found.shared, "written": found.written, "length": found.got,
             "reference_length": found.expected},
        )  # fmt: skip

    def summary(self, scores: Mapping[str, Score]) -> dict[str, float]:
        """Return the BLEU of all rows together."""
        total = Counts((0,) * _ORDER, (0,) * _ORDER, 0, 0)
        kept = [score.evidence for score in scores.values() if score.value is not None]
        for e in kept:
            total += Counts(e["shared"], e["written"], e["length"], e["reference_length"])
        return {"corpus": bleu(total)} if kept else {}


def cut_text(text: str, how: Cut) -> list[str]:
    """Return the units of a text; 13a is the rule of NIST's mteval-v13a."""
    if how == "none":
        return text.split()
    if how == "char":
        return list("".join(text.split()))
    text = text.replace("<skipped>", "").replace("-\n", "").replace("\n", " ")
    for entity, sign in _ENTITIES:
        text = text.replace(entity, sign)
    text = _SYMBOLS.sub(r" \1 ", f" {text} ")
    text = re.sub(r"([^0-9])([.,])", r"\1 \2 ", text)
    text = re.sub(r"([.,])([^0-9])", r" \1 \2", text)
    return re.sub(r"([0-9])(-)", r"\1 \2 ", text).split()


def counts(text: str, reference: str, how: Cut = "13a") -> Counts:
    """Return the n-grams of `text`, and those that the reference has too, clipped to its count."""
    got, expected = cut_text(text, how), cut_text(reference, how)
    shared, written = [], []
    for n in range(1, _ORDER + 1):
        ours, theirs = grams(got, n), grams(expected, n)
        shared.append((ours & theirs).total())
        written.append(ours.total())
    return Counts(tuple(shared), tuple(written), len(got), len(expected))


def bleu(found: Counts, *, effective: bool = False) -> float:
    """Return BLEU, 0..1, with the exponential smoothing of Chen & Cherry (2014), method 3.

    `effective` leaves out orders that the text is too short for, as is usual for one sentence.
    """
    if not found.shared[0]:
        return 0.0
    logs, factor = [], 1.0
    for shared, written in zip(found.shared, found.written, strict=True):
        if not written:
            if not effective:
                return 0.0
            break
        if not shared:
            factor *= 2
        logs.append(math.log(shared / written if shared else 1 / (factor * written)))
    brevity = min(0.0, 1 - found.expected / found.got)
    return math.exp(brevity + sum(logs) / len(logs))
