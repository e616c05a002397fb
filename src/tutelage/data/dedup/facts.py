"""What two texts must have in common to say the same: their numbers, units and negations.

"Take 5 mg" and "take 50 mg" differ in one letter, "it is" and "it is not" in four, and neither
pair means the same. A misspelt "nnot" is still a "not". English only; nothing keeps apart two
texts that hold no number and no negation.
"""

from __future__ import annotations

import re

Facts = tuple[tuple[str, ...], tuple[str, ...], int]

_UNITS = (
    "%", "mg", "mcg", "µg", "μg", "kg", "g", "ml", "dl", "l", "mm", "cm", "km", "m", "iu", "kb",
    "mb", "gb", "tb", "ms", "s", "min", "h", "hr", "hrs", "am", "pm", "k", "minute", "minutes",
    "second", "seconds", "hour", "hours", "day", "days", "week", "weeks", "month", "months",
    "year", "years", "million", "billion",
)  # fmt: skip
# "one" and "first" are not here: they are mostly no numbers, and what they change to is found.
_NUMBERS = (
    "zero", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven",
    "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen",
    "twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety", "hundred",
    "thousand", "million", "billion", "second", "third", "fourth", "fifth", "sixth", "seventh",
    "eighth", "ninth", "tenth", "half", "twice", "double", "triple",
)  # fmt: skip
_NEGATIONS = (
    "not", "no", "never", "none", "without", "cannot", "neither", "nor", "nothing", "nobody",
    "nowhere", "cant", "dont", "wont", "doesnt", "didnt", "isnt", "wasnt", "arent", "werent",
    "couldnt", "shouldnt", "wouldnt", "hasnt", "havent", "hadnt",
)  # fmt: skip
# English words one edit away from a word above: never taken for a misspelling of it.
_OTHERS = (
    "agent ant bone calf can cane cannon cans canto cart cast cat cent chant cone dear dine dive "
    "done don dot donut doubled doubles doubly ear either even ever fever file fine fire font for "
    "fort forth give gone haven hall halo halt halve hear hero hive hundreds int jive lever light "
    "line live lone mine might mouth near newer nice night node non nope nose note noting one our "
    "ours parent pant pine pour rant rent right scant seen seek sight sour tight teeth there "
    "thirds thousands threw tone tour tree tripled vine want weak weight went wine won your yours "
    "zeros zone fight height flour millions billions mouths wear yeah"
)
_REAL = frozenset(_OTHERS.split())
_NAMED, _DENYING = frozenset(_NUMBERS), frozenset(_NEGATIONS)
_KNOWN = _NAMED | _DENYING
_MENDED = frozenset(word for word in (*_KNOWN, *_UNITS) if len(word) > 3 or word in _KNOWN)
_DIGIT = re.compile(r"\d")
_AMOUNT = r"(?:(?<![\w.,])[-−])?\d+(?:[.,]\d+)*"
_DIGITS_ONLY = re.compile(_AMOUNT)
_MEASURED = re.compile(
    rf"(?P<number>{_AMOUNT})"
    rf"(?:\s?(?P<unit>{'|'.join(sorted(_UNITS, key=len, reverse=True))})(?!\w))?"
)
_THOUSANDS = re.compile(r",(?=\d{3}(?!\d))")
_MARKS = str.maketrans(dict.fromkeys('!"#$%&()*+,-./:;<=>?@[\\]^_`{|}~“”„«»…—–¿¡', " "))


def digits(text: str) -> tuple[str, ...]:
    """Return the numbers written in digits, in order: what no misspelling explains."""
    if not _DIGIT.search(text):
        return ()
    return tuple(_number(match) for match in _DIGITS_ONLY.findall(text))


def facts(text: str) -> Facts:
    """Return a lower-case text's amounts with units, number words, and how often it negates."""
    amounts: tuple[str, ...] = ()
    if _DIGIT.search(text):
        amounts = tuple(_measured(match) for match in _MEASURED.finditer(text))
    negations = text.count("n't") + text.count("n’t")
    words = _words(text)
    if _KNOWN.isdisjoint(words):
        return amounts, (), negations
    named = tuple([word for word in words if word in _NAMED])
    return amounts, named, negations + sum([word in _DENYING for word in words])


def same_facts(one: str, two: str) -> bool:
    """Return True if two lower-case texts have the same facts, misspelt words put right."""
    if facts(one) == facts(two):
        return True
    return facts(_mended(one, two)) == facts(_mended(two, one))


def _number(text: str) -> str:
    return _THOUSANDS.sub("", text).replace("−", "-")


def _measured(match: re.Match[str]) -> str:
    unit = match["unit"] or ""
    return _number(match["number"]) + (unit.removesuffix("s") if len(unit) > 2 else unit)


def _words(text: str) -> list[str]:
    return text.translate(_MARKS).split()


def _mended(text: str, other: str) -> str:
    """Return `text` with each word that misspells a number or a negation of `other` put right."""
    words, theirs = set(_words(text)), set(_words(other))
    for right in theirs - words:
        if right in _MENDED or right.endswith(("n't", "n’t")):
            for word in words - theirs:
                if _misspelt(word, right):
                    text = re.sub(rf"(?<!\w){re.escape(word)}(?!\w)", right, text)
    return text


def _misspelt(word: str, right: str) -> bool:
    """Return True if `word` is `right` with one slip; of a short word only with a letter doubled.

    "nnot" is a "not", but "now", "got" and "lot" are words of their own.
    """
    from rapidfuzz.distance import OSA

    if word in _MENDED or word in _REAL or any(letter.isdigit() for letter in word):
        return False
    if len(right) > 3:
        return OSA.distance(word, right) == 1
    return word in {right[: i + 1] + right[i:] for i in range(len(right))}
