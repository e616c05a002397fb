"""What two texts must have in common to say the same: their numbers, units and negations.

"Take 5 mg" and "take 50 mg" differ in one letter, "it is" and "it is not" in four, and neither
pair means the same. English only; a text without numbers and negations is never kept apart.
"""

from __future__ import annotations

import re

Facts = tuple[tuple[str, ...], int]

_UNITS = (
    "%|(?:mg|mcg|µg|μg|kg|g|ml|dl|l|mm|cm|km|m|iu|kb|mb|gb|tb|ms|s|min|h|hrs?|hours?|minutes?"
    "|seconds?|days?|weeks?|months?|years?|am|pm|k|million|billion)\\b"
)
# "one" and "first" are not here: they are mostly no numbers, and what they change to is found.
_WORDS = (
    "zero", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven",
    "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen",
    "twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety", "hundred",
    "thousand", "million", "billion", "second", "third", "fourth", "fifth", "sixth", "seventh",
    "eighth", "ninth", "tenth", "half", "twice", "double", "triple",
)  # fmt: skip
_DIGITS = {word: str(value) for value, word in enumerate(("zero", "", *_WORDS[1:12])) if word}
_NEGATIONS = (
    "not", "no", "never", "none", "without", "cannot", "neither", "nor", "nothing", "nobody",
    "nowhere", "cant", "dont", "wont", "doesnt", "didnt", "isnt", "wasnt", "arent", "werent",
    "couldnt", "shouldnt", "wouldnt", "hasnt", "havent", "hadnt",
)  # fmt: skip
_FACT = re.compile(
    rf"(?P<number>(?:(?<![\w.,])[-−])?\d+(?:[.,]\d+)*(?:\s?(?:{_UNITS}))?)"
    rf"|\b(?:(?P<word>{'|'.join(_WORDS)})|(?P<negation>{'|'.join(_NEGATIONS)}))\b"
    r"|(?P<short>n['’]t\b)"
)
_KNOWN = frozenset((*_WORDS, *_NEGATIONS))
_DIGIT = re.compile(r"\d")
_MARKS = str.maketrans(dict.fromkeys('!"#$%&()*+,-./:;<=>?@[\\]^_`{|}~', " "))
_NONE: Facts = ((), 0)
_THOUSANDS = re.compile(r",(?=\d{3}(?!\d))")


def facts(text: str) -> Facts:
    """Return the numbers of a lower-case text in order, and how often it negates."""
    if not _may_hold(text):
        return _NONE
    numbers: list[str] = []
    negations = 0
    for match in _FACT.finditer(text):
        kind, found = match.lastgroup, match[0]
        if kind == "number":
            numbers.append(_THOUSANDS.sub("", found).replace(" ", "").replace("−", "-"))
        elif kind == "word":
            numbers.append(_DIGITS.get(found, found))
        else:
            negations += 1
    return tuple(numbers), negations


def _may_hold(text: str) -> bool:
    """Return False if the text surely holds no fact: most texts, in a tenth of the time."""
    if "n't" in text or "n’t" in text or _DIGIT.search(text):
        return True
    return not text.isascii() or not _KNOWN.isdisjoint(text.translate(_MARKS).split())
