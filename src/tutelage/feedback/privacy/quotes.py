"""Finds a user's texts in other texts: as they are, by their words, or cut off before a ….

Texts are kept by their first characters, so that thousands are looked for as fast as a few.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

LONG_TEXT = 20  # characters from which on a text is recognised
_FEW = 100  # beginnings that are looked for one by one
_WORD = re.compile(r"\w+|…")

Starts = dict[str, set[str]]  # first LONG_TEXT characters → texts that begin so


class Quotes:
    """Texts, each of LONG_TEXT characters or more."""

    def __init__(self) -> None:
        self._starts: Starts = {}
        self._word_starts: Starts = {}
        self._by_words: dict[str, set[str]] = {}

    def add(self, text: str) -> None:
        """Look for one more."""
        self._starts.setdefault(text[:LONG_TEXT], set()).add(text)
        if len(words := _words(text)) >= LONG_TEXT:
            self._by_words.setdefault(words, set()).add(text)
            self._word_starts.setdefault(words[:LONG_TEXT], set()).add(words)

    def same(self, text: str) -> set[str]:
        """Return the texts that have the same words in the same order."""
        found = self._by_words.get(_words(text), set())
        return found | ({text} & self._starts.get(text[:LONG_TEXT], set()))

    def drop(self, text: str) -> None:
        """Look for all that have the same words no more."""
        for one in self.same(text):
            self._starts[one[:LONG_TEXT]].discard(one)
        if self._by_words.pop(words := _words(text), None):
            self._word_starts[words[:LONG_TEXT]].discard(words)

    def inside(self, text: str) -> bool:
        """Return whether a text holds one of them."""
        if any(text.startswith(own, at) for own, at in _found(self._starts, text)):
            return True
        if not self._by_words:
            return False
        said = f" {_words(text)} "
        return any(_quotes(said, at, own) for own, at in _found(self._word_starts, said))


def _words(text: str) -> str:
    """Return the words alone: cleaning, cutting and escaping change what is between them."""
    return " ".join(_WORD.findall(text))


def _found(starts: Starts, text: str) -> Iterator[tuple[str, int]]:
    """Yield each text that may begin somewhere in `text`, and where."""
    if len(starts) <= _FEW:
        starts = {start: own for start, own in starts.items() if start in text}
    if starts:
        for at in range(len(text) - LONG_TEXT + 1):
            for own in starts.get(text[at : at + LONG_TEXT], ()):
                yield own, at


def _quotes(said: str, at: int, own: str) -> bool:
    """Return whether `said`, words with a space on either side, quotes `own` from `at` on."""
    if said[at - 1] != " ":
        return False
    end = said.find(" … ", at)
    cut = at > 1 and end - at >= LONG_TEXT and own.startswith(said[at:end])
    return cut or said.startswith(f"{own} ", at)
