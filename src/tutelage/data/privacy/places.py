"""Places smaller than a state: streets, cities in an address, postal codes, coordinates.

45 CFR 164.514(b)(2)(i)(B). States, countries and a city that is only talked about are left. The
value of a US ZIP code is its five digits: a pseudonym may show the first three where the rule
allows it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from tutelage.data.privacy.kinds import Span
from tutelage.data.privacy.lists import in_order, large_places, words

# First three digits of ZIP codes for areas of 20,000 people or fewer (Census 2000, from the
# Department of Health's guidance on de-identification, 2012): these are shown as 000.
SMALL_ZIPS = words("places.txt", "small zips")
_STATES = "|".join(in_order("places.txt", "state codes"))
_WORD = r"[A-ZÀ-ÖØ-Þ][\w'’-]*"
_SUFFIX = (
    r"(?:Street|St|Avenue|Ave|Av|Road|Rd|Lane|Ln|Drive|Dr|Boulevard|Blvd|Way|Court|Ct|Place|Pl"
    r"|Square|Sq|Terrace|Ter|Close|Crescent|Cres|Parkway|Pkwy|Highway|Hwy|Circle|Cir|Trail|Trl"
    r"|Alley|Row|Walk|Gardens|Grove|Hill|Mews|Loop|Plaza|Pike|Turnpike|Route|Expressway|Quay)"
)
_UNIT = (
    r"(?:,?[ ](?:Apt|Apartment|Unit|Suite|Ste|Flat|Floor|Fl|Room|Rm|Bldg|Building|Lot|#)\.?[ ]?#?"
    r"[A-Z0-9-]{1,6}\b)?"
)
_REST = (
    rf"(?:,?[ ]{_WORD}(?:[ ]{_WORD}){{0,2}},?[ ](?:{_STATES})\b(?:[ ]\d{{5}}(?:-\d{{4}})?)?"
    rf"|,[ ]{_WORD}(?:[ ]{_WORD}){{0,2}}(?=[,.\n]|$))?"
)
_STREET = re.compile(
    rf"(?<![\w$€£.,-])\d{{1,6}}(?:[A-Za-z]|[ ]?[-/][ ]?\d{{1,5}}|[ ]1/2)?,?[ ]"
    rf"(?:(?:N|S|E|W|NE|NW|SE|SW|North|South|East|West|Old|New|Upper|Lower)\.?[ ])?"
    rf"(?:(?:\d{{1,3}}(?:st|nd|rd|th))|{_WORD})(?:[ ]{_WORD}){{0,3}}?[ ]{_SUFFIX}\b\.?"
    rf"(?:[ ](?:N|S|E|W|NE|NW|SE|SW|North|South|East|West)\b\.?)?{_UNIT}{_REST}"
)
_STREET_LOW = re.compile(
    r"\b(?:live|lives|living|lived|reside[sd]?|residing|address(?:[ ]is|[:=])?|moved|located|home"
    r"|house"
    r"|deliver(?:ed)?|ship(?:ped)?|send|sent|mail|go|come)\b[^.\n\d]{0,24}?"
    r"(?P<v>\d{1,5}[a-z]?[ ](?:(?!(?:minutes?|hours?|days?|miles?|the|a|to|each|per|of|in|on"
    r"|along)\b)"
    r"[\w'’.-]+[ ]){1,3}(?:street|avenue|ave|road|rd|lane|drive|boulevard|blvd|court|terrace"
    r"|crescent|square|parkway|highway)\b)",
    re.IGNORECASE,
)
_GERMAN = re.compile(
    r"\b[A-ZÄÖÜ][\wäöüß-]*(?:straße|strasse|str\.|weg|gasse|allee|platz|ring|damm|ufer)[ ]"
    r"\d{1,4}[a-z]?\b(?:,?[ ](?:D-)?\d{5}[ ][A-ZÄÖÜ][\wäöüß-]+)?"
)
_LATIN = re.compile(
    r"\b(?:\d{1,4}(?:[ ]?(?:bis|ter))?,?[ ](?:rue|avenue|boulevard|place|chemin|impasse|allée|quai)"
    rf"[ ](?:(?:de|du|des|la|le|les|l['’]|d['’])[ ]?){{0,2}}{_WORD}(?:[ -]{_WORD}){{0,3}}"
    rf"|(?:Calle|Avenida|Avda\.|Plaza|Paseo|Via|Viale|Piazza|Corso|Rua|Avenida)[ ]"
    rf"(?:(?:de|del|della|di|da|do|la|las|los|el)[ ]){{0,2}}{_WORD}(?:[ ]{_WORD}){{0,2}},?[ ]"
    r"(?:n[.º°]?[ ]?)?\d{1,4}\b)"
)
_BOX = re.compile(r"\bP\.?[ ]?O\.?[ ]?Box[ ]?#?\d{1,7}\b", re.IGNORECASE)
_FULL_STATES = "|".join(in_order("places.txt", "states"))
_CITY_STATE = re.compile(
    rf"\b(?P<v>{_WORD}(?:[ ]{_WORD}){{0,2}}),[ ](?:{_STATES}|{_FULL_STATES})(?![\w'’-])"
)
_LIVES = re.compile(
    r"\b(?i:(?:live|lives|living|lived|reside|resides|residing|born|raised|grew[ ]up|based|staying)"
    r"[ ](?:in|near|at|outside)|resident[ ]of|native[ ]of|moved[ ](?:to|from)|moving[ ]to"
    r"|relocat(?:ed|ing)[ ](?:to|from)|hometown(?:[ ]is|[ ]of|:)|(?:city|town|village|county|suburb"
    r"|district|borough|municipality)[ ](?:of|is|:)|city[:=]|i['’]?m[ ]from|i[ ]am[ ]from"
    r"|(?:he|she)(?:['’]s|[ ]is)[ ]from|comes?[ ]from|came[ ]from|downtown"
    r"|visiting[ ]from)[ ]+(?i:the[ ](?:city|town)[ ]of[ ])?"
    rf"(?P<v>{_WORD}(?:[ ](?:(?:upon|on|of|de|la)[ ])?{_WORD}){{0,3}})"
)
_COUNTY = re.compile(rf"\b{_WORD}(?:[ ]{_WORD})?[ ](?:County|Parish|Township|Borough)\b")
_CLINIC = re.compile(
    rf"\b{_WORD}(?:[ ](?:(?:of|and|the|&)[ ]){{0,2}}{_WORD}){{0,4}}[ ](?:Hospital"
    rf"|Medical[ ]Center|Infirmary"
    r"|Nursing[ ]Home|Hospice|Rehabilitation[ ]Center|Elementary[ ]School|High[ ]School)\b"
)
_ZIP = re.compile(
    r"\b(?:zip(?:[ -]?code)?|post(?:al)?[ -]?code|postcode)(?:[ ](?:is|was|to|of|for[ ]me[ ]is))*"
    r"[ :=#]+(?P<v>\d{5}(?:-\d{4})?|[A-Z0-9]{2,4}[ -]?[A-Z0-9]{3})(?!\w)",
    re.IGNORECASE,
)
_STATE_ZIP = re.compile(rf"\b(?:{_STATES})[ ]+(?P<v>\d{{5}}(?:-\d{{4}})?)(?![\w-])")
_ZIP_PLUS = re.compile(r"(?<![\w.-])(?P<v>\d{5}-\d{4})(?![\w-])")
_UK = re.compile(
    r"(?<![\w-])(?P<v>(?:[A-PR-UWYZ][A-HK-Y]?\d[A-HJKPSTUW\d]?)[ ]\d[ABD-HJLNP-UW-Z]{2})(?![\w-])"
)
_CANADA = re.compile(r"(?<![\w-])(?P<v>[ABCEGHJ-NPRSTVXY]\d[A-Z][ -]\d[A-Z]\d)(?![\w-])")
_COORDINATES = re.compile(
    r"(?<![\w.])-?\d{1,2}\.\d{4,}°?[ ]?[NS]?,[ ]?-?\d{1,3}\.\d{4,}°?[ ]?[EW]?(?![\w.])"
)
_GENERAL = words("words.txt", "general")
_ARTICLE = re.compile(r"^(?:The|A|An|My|Your|Our|This|That|At|In|To|From|I|And|Or|Is|Was)[ ]")
_LEFT = words("words.txt", "left")


def find_places(text: str) -> Iterator[Span]:
    """Yield streets, cities in an address, postal codes and coordinates."""
    if any("0" <= char <= "9" for char in text):
        yield from _with_digits(text)
    yield from _cities(text)
    for match in _COUNTY.finditer(text):
        if not _ARTICLE.match(match[0]):
            yield Span(*match.span(), "place", 0.7, "a county or township")
    for match in _CLINIC.finditer(text):
        start = match.start() + (len(m[0]) if (m := _ARTICLE.match(match[0])) else 0)
        parts = text[start : match.end()].split()
        if len(parts) > 1 and parts[0].lower().replace("’", "'") not in _GENERAL:
            yield Span(start, match.end(), "place", 0.6, "the name of an institution")


def _with_digits(text: str) -> Iterator[Span]:
    for match in _STREET.finditer(text):
        yield Span(*match.span(), "place", 0.9, "a number and the name of a street")
    for pattern in (_GERMAN, _LATIN, _BOX):
        for match in pattern.finditer(text):
            yield Span(*match.span(), "place", 0.9, "it has the form of an address")
    for match in _STREET_LOW.finditer(text):
        yield Span(*match.span("v"), "place", 0.85, "an address after the words for living there")
    for pattern, sure, why in (
        (_ZIP, 0.95, "the words before it say postal code"),
        (_STATE_ZIP, 0.95, "a state stands before it"),
        (_ZIP_PLUS, 0.8, "it has the form of a ZIP code"),
        (_UK, 0.85, "it has the form of a British postcode"),
        (_CANADA, 0.85, "it has the form of a Canadian postal code"),
    ):
        for match in pattern.finditer(text):
            if any(char.isdigit() for char in match["v"]):
                yield Span(*match.span("v"), "place", sure, why, match["v"].upper())
    for match in _COORDINATES.finditer(text):
        yield Span(*match.span(), "place", 0.9, "coordinates on the globe")


def _cities(text: str) -> Iterator[Span]:
    for match in _CITY_STATE.finditer(text):
        parts = match["v"].split(" ")
        while parts and parts[0].lower() in _LEFT:
            parts.pop(0)
        city = " ".join(parts)
        if parts and not city.isupper() and city.lower() not in large_places():
            end = match.end("v")
            start = end - len(city)
            yield Span(start, end, "place", 0.85, "a state stands after it")
    for match in _LIVES.finditer(text):
        name = match["v"]
        while name and name.split(" ")[-1].lower() in _LEFT:
            name = name.rpartition(" ")[0]
        first = name.split(" ")[0].lower()
        if name and first not in _LEFT and not _is_large(name):
            start = match.start("v")
            yield Span(start, start + len(name), "place", 0.75, "somebody lives or was born there")


def _is_large(name: str) -> bool:
    low = name.lower().removesuffix("'s").removesuffix("’s")
    if len(name.split(" ")[0]) == 1:
        return True
    return low in large_places() or low.split(" ")[0] in large_places()
