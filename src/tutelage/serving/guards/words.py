"""Words that do not belong in an answer: a list by language, and the user's own.

It knows words, not meanings: it misses an insult that is put politely, and takes a quotation for
one. Words with a harmless everyday or medical sense are not in the lists that come along.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from pathlib import Path

from tutelage.core.errors import ConfigError, did_you_mean

ALL = "all"
_WORD = re.compile(r"\w+")
_UNSPACED = re.compile(r"[\u0e00-\u0e7f\u3040-\u30ff\u3400-\u9fff]")  # Thai, kana, Han
_MARKS = "013457@$"  # what stands for a letter in a word that is to pass unseen
_LETTERS = str.maketrans(_MARKS, "oieastas")
_HIDDEN = re.compile(r"[^\W\d_][013457@$]|[013457@$][^\W\d_]")
_HIDDEN_WORD = re.compile(r"[\w@$]*[^\W\d_][\w@$]*")
_RUNS = tuple(3 * letter for letter in "abcdefghijklmnopqrstuvwxyz")
_RUN = re.compile(r"(\w)\1{2,}")
_APOSTROPHES = str.maketrans("", "", "'’")


class WordList:
    """Words and phrases to look for, without regard to case and accents of the Latin script.

    Raises ConfigError for a language without a list and a file that can't be read.
    """

    def __init__(
        self, languages: Sequence[str], own: Sequence[Path] = (), allow: Sequence[str] = ()
    ) -> None:
        entries = {word for language in _chosen(languages) for word in _shipped(language)}
        for path in own:
            entries |= _entries(_read(path))
        entries -= {_fold(word) for word in allow}
        self._inside = tuple(sorted(word for word in entries if _UNSPACED.search(word)))
        spaced = {" ".join(_WORD.findall(word)) for word in entries - set(self._inside)}
        self._words = frozenset(word for word in spaced if word and " " not in word)
        self._phrases = tuple(f" {word} " for word in sorted(spaced) if " " in word)
        self._first = frozenset(phrase.split()[0] for phrase in self._phrases)

    def __len__(self) -> int:
        return len(self._inside) + len(self._words) + len(self._phrases)

    def found(self, text: str) -> bool:
        """Return whether the text holds one of the words, also stretched or spelled with digits."""
        folded = _fold(text)
        if self._inside and any(word in folded for word in self._inside):
            return True
        if self._in(folded):
            return True
        marked = any(mark in folded for mark in _MARKS) and _HIDDEN.search(folded)
        if marked and self._in(_HIDDEN_WORD.sub(_unhidden, folded)):
            return True
        for run in _RUNS:
            if run in folded:
                return self._in(_RUN.sub(r"\1", folded))
        return False

    def _in(self, folded: str) -> bool:
        words = _WORD.findall(folded)
        if not self._words.isdisjoint(words):
            return True
        if self._first.isdisjoint(words):
            return False
        line = f" {' '.join(words)} "
        return any(phrase in line for phrase in self._phrases)


def _unhidden(word: re.Match[str]) -> str:
    return word[0].translate(_LETTERS)


def languages() -> list[str]:
    """Return the languages that a list comes along for."""
    folder = files("tutelage.serving.guards").joinpath("wordlists")
    return sorted(entry.name.removesuffix(".txt") for entry in folder.iterdir())


def _chosen(asked: Sequence[str]) -> list[str]:
    known = languages()
    if ALL in asked:
        return known
    for language in asked:
        if language not in known:
            hint = did_you_mean(language, known)
            raise ConfigError(
                f"deploy.guards.content.languages: there is no word list for {language!r}",
                fix=f"{hint}Known: {', '.join(known)} and {ALL}; name your own files under `words`",
            )
    return list(asked)


@cache
def _shipped(language: str) -> frozenset[str]:
    entry = files("tutelage.serving.guards").joinpath("wordlists", f"{language}.txt")
    return frozenset(_entries(entry.read_text(encoding="utf-8")))


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8 text"
        raise ConfigError(
            f"the word list can't be read ({reason.lower()})",
            where=str(path),
            fix="Correct deploy.guards.content.words",
        ) from error


def _entries(text: str) -> set[str]:
    """Return the folded words of a list: one a line, what follows a # is a note."""
    lines = (line.split("#")[0].strip() for line in text.splitlines())
    return {_fold(line) for line in lines if line}


def _fold(text: str) -> str:
    """Return a text in small letters without accents and apostrophes."""
    text = text.casefold().translate(_APOSTROPHES)
    if text.isascii():
        return text
    parts = unicodedata.normalize("NFKD", text)
    return "".join(char for char in parts if not unicodedata.combining(char))
