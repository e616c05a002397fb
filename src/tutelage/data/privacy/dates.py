"""Dates finer than a year, and ages over 89: 45 CFR 164.514(b)(2)(i)(C).

A year alone, a weekday, a time of day and a month without a day or year are left alone. The
value of a span is the ISO date, the year if only that is known, or `age:93`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import date

from tutelage.data.privacy.kinds import Span
from tutelage.data.privacy.lists import in_order

_MONTHS = in_order("words.txt", "months")
_NUMBER = {name: n for n, name in enumerate(_MONTHS, start=1)}
_NUMBER |= {name[:3]: n for name, n in _NUMBER.items()} | {"sept": 9}
_NUMBER |= {
    "januar": 1, "februar": 2, "märz": 3, "mai": 5, "juni": 6, "juli": 7, "oktober": 10,
    "dezember": 12, "janvier": 1, "février": 2, "mars": 3, "avril": 4, "juin": 6, "juillet": 7,
    "août": 8, "septembre": 9, "octobre": 10, "novembre": 11, "décembre": 12, "enero": 1,
    "febrero": 2, "marzo": 3, "abril": 4, "mayo": 5, "junio": 6, "julio": 7, "agosto": 8,
    "septiembre": 9, "octubre": 10, "noviembre": 11, "diciembre": 12,
}  # fmt: skip
_NAMES = "|".join(sorted(_NUMBER, key=len, reverse=True))
_MONTH = rf"(?P<month>{_NAMES})\b\.?"
_YEAR = r"(?:1[89]|20)\d\d"
_UNITS = in_order("words.txt", "ordinals")
_SPOKEN = {word: n for n, word in enumerate(_UNITS, start=1)}
_SPOKEN |= {
    "tenth": 10, "eleventh": 11, "twelfth": 12, "thirteenth": 13, "fourteenth": 14,
    "fifteenth": 15, "sixteenth": 16, "seventeenth": 17, "eighteenth": 18, "nineteenth": 19,
    "twentieth": 20, "thirtieth": 30, "thirty first": 31,
}  # fmt: skip
_SPOKEN |= {f"twenty {word}": 20 + n for n, word in enumerate(_UNITS, start=1)}
_CARDINALS = in_order("words.txt", "cardinals")
_SPOKEN |= {word: n for n, word in enumerate(_CARDINALS, start=1)}
_SPOKEN |= {f"twenty {word}": 20 + n for n, word in enumerate(_CARDINALS[:9], start=1)}
_SPOKEN |= {"thirty": 30, "thirty one": 31, "twenty nineth": 29}
_ORDINAL = "|".join(word.replace(" ", "[ -]") for word in sorted(_SPOKEN, key=len, reverse=True))
_DAY = (
    rf"(?:(?P<day>3[01]|[12]\d|0?[1-9])(?:st|nd|rd|th)?"
    rf"|(?P<spoken>{_ORDINAL})(?![ -](?:thousand|hundred)))"
)
_SPOKEN_YEAR = (
    r"(?:(?:nineteen|twenty)[ -](?:(?:twenty|thirty|forty|fifty|sixty|seventy|eighty|ninety)"
    r"(?:[ -](?:one|two|three|four|five|six|seven|eight|nine))?|ten|eleven|twelve|thirteen"
    r"|fourteen|fifteen|sixteen|seventeen|eighteen|nineteen|o[ -]?\w+)"
    r"|two thousand(?:[ -](?:and[ -])?(?:one|two|three|four|five|six|seven|eight|nine|ten|eleven"
    r"|twelve|thirteen|fourteen|fifteen|sixteen|seventeen|eighteen|nineteen|twenty(?:[ -]\w+)?))?"
    r"|(?:seventy|eighty|ninety)(?:[ -](?:one|two|three|four|five|six|seven|eight|nine))?"
    r"|o[ -]?(?:one|two|three|four|five|six|seven|eight|nine|\d))"
)
_TAIL = rf"(?:(?:,[ ]?|[ ]|[ ]of[ ]|/|-)(?P<year>{_YEAR}|['’]\d\d|{_SPOKEN_YEAR})\b)?"
_END = r"(?![\w/]|[-.:]\d)"

_ISO = re.compile(
    r"(?<![\w.-])(?P<year>(?:1[89]|20)\d\d)(?P<sep>[-/.])(?P<m>0?[1-9]|1[0-2])(?P=sep)"
    r"(?P<d>3[01]|[12]\d|0?[1-9])(?:[T ]\d\d:\d\d(?::\d\d(?:\.\d+)?)?(?:Z|[+-]\d\d:?\d\d)?)?"
    r"(?![\w-]|\.\d)"
)
_NUMERIC = re.compile(
    r"(?<![\w./-])(?P<a>[0-3]?\d)(?P<sep>[-/.])(?P<b>[0-3]?\d)(?P=sep)"
    r"(?P<year>(?:1[89]|20)\d\d|\d\d)(?![\w/-]|\.\d)"
)
_DAY_MONTH = re.compile(
    rf"(?<![\w.,/-]){_DAY}(?:[ ](?:of[ ]|day[ ]of[ ])?|-|\.[ ]?){_MONTH}{_TAIL}{_END}",
    re.IGNORECASE,
)
_MONTH_DAY = re.compile(rf"(?<![\w-]){_MONTH}[ -](?:the[ ])?{_DAY}{_TAIL}{_END}", re.IGNORECASE)
_MONTH_YEAR = re.compile(
    rf"(?<![\w-]){_MONTH}(?:,?[ ](?:of[ ]|in[ ])?|-|/)(?P<year>{_YEAR}|{_SPOKEN_YEAR}){_END}",
    re.IGNORECASE,
)
_MONTH_NUMBER = re.compile(
    r"(?<![\w./-])(?:0?[1-9]|1[0-2])/(?P<year>(?:19|20)\d\d|0\d|[6-9]\d)(?![\w/-]|\.\d)"
)
_MONTH_ALONE = re.compile(
    r"\b(?:in|since|last|until|till|by|of|early|late|mid|next|this|during|before|after|from|around"
    r"|through|to|between)[ -](?P<date>(?:Jan|Feb|Apr|Jun|Jul|Aug|Sept?|Oct|Nov|Dec)\b\.?"
    r"|January|February|March|April|May|June|July|August|September|October|November|December)"
    r"(?![\w'’-]|[ ]\d)"
)
_SHORT = re.compile(
    r"\b(?P<cue>on|dated?|since|until|till|born|dob|seen|due|from|by|before|after)[ :]+"
    r"(?:the[ ])?(?P<date>(?P<a>0?[1-9]|[12]\d|3[01])(?P<sep>[-/])(?P<b>0?[1-9]|[12]\d|3[01]))"
    r"(?![\w/-]|\.\d|[ ](?:scale|pain|stars?))",
    re.IGNORECASE,
)
_EVENT_MONTH = re.compile(
    r"\b(?:born|admitted|discharged|died|deceased|passed[ ]away|delivered|diagnosed|surgery"
    rf"|birthday|birth[ ]?date|date[ ]of[ ]birth|dob)\b[^.\n]{{0,16}}?\b(?P<date>{_MONTH})"
    r"(?![\w'’])",
    re.IGNORECASE,
)
_DAY_ALONE = re.compile(
    r"\b(?:on|for|until|till|since|by|from|before|after|it['’]?s|is|was)[ ]the[ ]"
    r"(?P<date>(?:3[01]|[12]\d|[1-9])(?:st|nd|rd|th))"
    r"(?=[ ]?(?:[.,;?!]|$)|[ ](?:at|and|or|to|instead)\b)",
    re.IGNORECASE,
)
_TENS = "(?:ninety|hundred|one hundred|a hundred)"
_UNIT = "(?:[ -](?:and[ -])?(?:one|two|three|four|five|six|seven|eight|nine|ten))?"
_AGE = rf"(?P<age>(?:9\d|1[01]\d)|{_TENS}{_UNIT})"
_AGED = re.compile(
    rf"\b(?:{_AGE}[ -]?(?:years?|yrs?|yr)[ -]?(?:old|of[ ]age)\b|{_AGE.replace('age', 'age2')}"
    rf"[ ]?(?:y/?o|yo)\b|(?:aged?|age[ ]is|age[ ]of|turn(?:ed|ing|s)?)[ :]+"
    rf"{_AGE.replace('age', 'age3')}(?![\w.,/-]\d|[ ]?(?:%|days?|hours?|minutes?|months?|percent"
    r"|degrees?|pounds|lbs?|kg|mg)))",
    re.IGNORECASE,
)
_WORDS = {word: n for n, word in enumerate(_CARDINALS[:10], start=1)}


def find_dates(text: str) -> Iterator[Span]:
    """Yield every date with a day, or a month and a year, and every age over 89."""
    digits = any("0" <= char <= "9" for char in text)
    if digits:
        yield from _numeric(text)
    for pattern in (_DAY_MONTH, _MONTH_DAY):
        for match in pattern.finditer(text):
            yield from _named(match)
    for match in _MONTH_YEAR.finditer(text):
        yield Span(*match.span(), "date", 0.8, "a month and a year", _year(match["year"]))
    for match in _MONTH_ALONE.finditer(text):
        yield Span(*match.span("date"), "date", 0.5, "a month of some year")
    for match in _EVENT_MONTH.finditer(text):
        yield Span(*match.span("date"), "date", 0.6, "the month of an event of a life")
    yield from _ages(text)


def _numeric(text: str) -> Iterator[Span]:
    for match in _ISO.finditer(text):
        value = _iso(match["year"], int(match["m"]), int(match["d"]))
        if value:
            yield Span(*match.span(), "date", 0.95, "a date in ISO order", value)
    for match in _NUMERIC.finditer(text):
        a, b, year = int(match["a"]), int(match["b"]), match["year"]
        value = _iso(year, a, b) or _iso(year, b, a)  # month first, as Safe Harbor's country writes
        sure = 0.9 if len(year) == 4 or match["sep"] == "/" else 0.45
        if value:
            yield Span(*match.span(), "date", sure, "numbers in the order of a date", value)
    for match in _DAY_ALONE.finditer(text):
        yield Span(*match.span("date"), "date", 0.5, "a day of some month")
    for match in _MONTH_NUMBER.finditer(text):
        yield Span(
            *match.span(), "date", 0.6, "a month and a year in numbers", _year(match["year"])
        )
    for match in _SHORT.finditer(text):
        a, b = int(match["a"]), int(match["b"])
        if (a, b) != (24, 7) and min(a, b) <= 12 and match["sep"] == "/":
            yield Span(*match.span("date"), "date", 0.6, "a day and a month after a preposition")


def _named(match: re.Match[str]) -> Iterator[Span]:
    """Yield a date with its month in words. `May` and `March` as verbs have no day beside them."""
    month = match["month"].lower()
    day = int(match["day"]) if match["day"] else _SPOKEN[_spaced(match["spoken"])]
    year = _year(match["year"])
    word = match["month"]
    verb = month in ("may", "march", "mar", "sep", "dec", "jan", "jun", "mai", "mars")
    if verb and word.islower() and not (match["year"] or match["day"]):
        return
    if match["spoken"] and not word[0].isupper() and not match["year"]:
        return
    value = (_iso(year, _NUMBER[month], day) if year else "") or year
    end = match.end() - match[0].endswith(".")
    yield Span(match.start(), end, "date", 0.9, "a day and a month in words", value)


def _spaced(words: str) -> str:
    return words.lower().replace("-", " ")


def _year(said: str | None) -> str:
    if said is None or not said[-1].isdigit():
        return ""
    return said if len(said) == 4 else _century(said[-2:])


def _century(two: str) -> str:
    return ("19" if int(two) > 35 else "20") + two


def _iso(year: str, month: int, day: int) -> str:
    full = year if len(year) == 4 else _century(year)
    try:
        return date(int(full), month, day).isoformat()
    except ValueError:
        return ""


def _ages(text: str) -> Iterator[Span]:
    for match in _AGED.finditer(text):
        name = next(n for n in ("age", "age2", "age3") if match[n])
        years = _in_digits(match[name])
        if 90 <= years <= 119:
            yield Span(*match.span(name), "date", 0.9, "an age over 89", f"age:{years}")


def _in_digits(said: str) -> int:
    if said.isdigit():
        return int(said)
    words = _spaced(said).split()
    base = 90 if words[0] == "ninety" else 100
    return base + _WORDS.get(words[-1], 0)
