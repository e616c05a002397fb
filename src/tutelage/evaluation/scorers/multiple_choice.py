"""Multiple choice: reads which of a row's choices an answer picks, by letter or by words.

A candidate that is held to the list picks the likeliest choice (evaluation/runner.py); free
answers are read here.
"""

from __future__ import annotations

import re
import string

from tutelage.core.config_base import Section
from tutelage.core.example import Example, normalise
from tutelage.evaluation.rows import RowResult
from tutelage.evaluation.scorers.base import HERE, NO_REFERENCE, Place, Score

_LISTED = re.compile(r"^[ \t]*\(?([A-Z])[).:][ \t]+(\S.*?)[ \t]*$", re.MULTILINE)
_LETTER = re.compile(r"\W*([A-Za-z]|\d{1,2})\W*")
_FIRST = re.compile(r"\s*(?:\(([A-Z]|\d{1,2})\)|([A-Z]|\d{1,2})[.):])(?=\s|$)")
_SAID = re.compile(
    r"\b(?i:answer|choice|option)\b[^\n.A-Z]{0,20}?\s*[:=]?\s*\(?\*{0,2}([A-Z]|\d{1,2})\b", re.ASCII
)


class MultipleChoiceOptions(Section):
    """Where a row keeps its choices."""

    # the row's field: a list of texts, or letters to texts; absent: lines like "A) ..." in the row
    field: str = "choices"


class MultipleChoice:
    """1 if the answer picks the reference choice, by its letter or its words, else 0."""

    Options = MultipleChoiceOptions

    def __init__(self, options: MultipleChoiceOptions, place: Place = HERE) -> None:
        del place
        self._field = options.field

    def choices(self, row: Example) -> tuple[str, ...]:
        """Return what the row may be answered with, as its reference is written.

        Letters where the reference is one, else the choices' words; empty if none are known.
        """
        listed = self._listed(row)
        if row.answer is None or self._place(row.answer, listed) is None:
            return ()
        by_letter = _LETTER.fullmatch(row.answer) is not None
        return tuple(listed if by_letter else listed.values())

    def score_answer(self, row: Example, answer: RowResult) -> Score:
        """Score an answer; `sure` is the share of probability of one that was picked."""
        found = self.score(row, answer.text)
        if "sure" in answer.detail:
            found.evidence["sure"] = answer.detail["sure"]
        return found

    def score(self, row: Example, text: str) -> Score:
        """Say which choice was read, and how; an answer that picks none is wrong."""
        if row.answer is None:
            return NO_REFERENCE
        listed = self._listed(row)
        if len(listed) < 2:
            return Score(None, {"why": f"the row has no choices in its field {self._field!r}"})
        expected = self._place(row.answer, listed)
        if expected is None:
            return Score(None, {"why": "the reference is none of the row's choices"})
        got = read_choice(text, listed)
        evidence = {"expected": expected, "predicted": got}
        if got is None:
            evidence["why"] = "no single choice can be read from it"
        return Score(float(got == expected), evidence)

    def _listed(self, row: Example) -> dict[str, str]:
        """Return the choices by letter."""
        given = row.meta.get(self._field)
        if isinstance(given, dict) and isinstance(given.get("text"), list):  # text beside label
            letters = given.get("label") or string.ascii_uppercase
            return {str(k).upper(): str(v) for k, v in zip(letters, given["text"], strict=False)}
        if isinstance(given, dict):
            return {str(k).upper(): str(v) for k, v in given.items()}
        if isinstance(given, list):
            return dict(zip(string.ascii_uppercase, map(str, given), strict=False))
        return dict(_LISTED.findall(row.input_text))

    @staticmethod
    def _place(reference: str, listed: dict[str, str]) -> str | None:
        return read_choice(reference, listed)


def read_choice(text: str, listed: dict[str, str]) -> str | None:
    """Return the letter of the choice that a text picks, or None.

    In this order: a letter alone; exactly a choice's words; a letter that leads ("B) ..."); the
    last "answer is B"; the words of a single choice somewhere in it.
    """
    alone = _LETTER.fullmatch(text.strip())
    if alone and alone[1].upper() in listed:
        return alone[1].upper()
    plain = normalise(text).strip(" .")
    exact = [letter for letter, words in listed.items() if normalise(words).strip(" .") == plain]
    if len(exact) == 1:
        return exact[0]
    first = _FIRST.match(text)
    if first and (first[1] or first[2]) in listed:
        return first[1] or first[2]
    said = [letter for letter in _SAID.findall(text) if letter in listed]
    if said:
        return str(said[-1])
    inside = [
        letter
        for letter, words in listed.items()
        if re.search(rf"(?<!\w){re.escape(normalise(words))}(?!\w)", plain)
    ]
    return inside[0] if len(inside) == 1 else None
