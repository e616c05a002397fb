"""The words of two close texts: their order, their fillers, and one in the place of another.

"Was my transfer declined" and "was my transfer cancelled" agree in most letters and mean different
things: a word that carries meaning gave way to another. A misspelt word, a word more, words in
another order, and small words (a, the, please) change nothing. The small words are English; in
other languages every word carries meaning.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

_WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)*")
_SMALL = (
    "a about actually all already also always am an and another any anyone anything are as at "
    "be because been before being but by can cannot could did do does doing for from further "
    "get gets getting give go going got had has have having he hello help her here hi him his "
    "how i i'd i'll i'm i've if im in into is it it's its ive just kindly let like made make "
    "many may me might more most much must my myself need needs now of off okay on one only "
    "or other our out over own please quite rather really shall she should show so some "
    "someone something somewhere still such tell than thank thanks that that's the their them "
    "then there there's these they this those through to too try trying up us very want "
    "wanted was we were what what's when where where's which while who whom whose why will "
    "wish with would yes yet you your yours"
)
_FILLERS = frozenset(
    ("a", "an", "the", "please", "kindly", "just", "really", "actually", "also", "still", "quite",
     "very", "hi", "hello", "thanks")
)  # fmt: skip
_MARKS = str.maketrans(dict.fromkeys('.,;:!?"()', " "))
SMALL_WORDS = frozenset(_SMALL.split())
_LIKE = 0.6  # share of letters that agree in two spellings of one word
_JOINED = 0.8  # the same of words written together and apart ("top up", "topup")


def words_in_order(text: str) -> str:
    """Return the words of a text sorted, without articles, greetings and other fillers.

    A text of fillers alone keeps them, one of punctuation alone is left as it is.
    """
    words = text.translate(_MARKS).split()
    words.sort()
    return " ".join([word for word in words if word not in _FILLERS]) or " ".join(words) or text


def same_words(one: str, two: str) -> bool:
    """Return False if each lower-case text has a word with a meaning that the other lacks."""
    left, right = _WORD.findall(one), _WORD.findall(two)
    gone, new = _without(left, right), _without(right, left)
    if not gone or not new:
        return True
    lost = [word for word in gone if not _spelt_like_any(word, new)]
    gained = [word for word in new if not _spelt_like_any(word, gone)]
    if not _meaning(lost) or not _meaning(gained):
        return True
    from rapidfuzz.distance import OSA

    return OSA.normalized_similarity("".join(gone), "".join(new)) >= _JOINED


def _without(words: list[str], others: list[str]) -> list[str]:
    """Return the words that `others` has not, or not as often."""
    rest = list(others)
    out = []
    for word in words:
        if word in rest:
            rest.remove(word)
        else:
            out.append(word)
    return out


def _spelt_like_any(word: str, others: Iterable[str]) -> bool:
    from rapidfuzz.distance import OSA

    return any(OSA.normalized_similarity(word, other) >= _LIKE for other in others)


def _meaning(words: Iterable[str]) -> bool:
    """Return whether one of the words carries meaning; numbers are looked at elsewhere."""
    return any(word not in SMALL_WORDS and not word.isdigit() for word in words)
