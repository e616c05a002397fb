"""Find personal and health identifiers in a text: all 18 kinds, with the standard library only.

The rules err on the side of finding what a cue, a form or a checksum shows, and of leaving plain
words alone. They are not proof that nothing is left: read a sample before data leaves the house.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from typing import Protocol

from tutelage.data.privacy.contact import find_emails, find_ips, find_phones, find_urls
from tutelage.data.privacy.dates import find_dates
from tutelage.data.privacy.fields import kind_of_field
from tutelage.data.privacy.kinds import KINDS, Span, settle
from tutelage.data.privacy.media import find_photos
from tutelage.data.privacy.names import find_names, may_hold_names
from tutelage.data.privacy.numbers import find_numbers
from tutelage.data.privacy.places import find_places

_ALL = frozenset(KINDS)
_DIGIT = re.compile(r"\d")
_PLACE = re.compile(r"(?<=.)[A-ZÀ-ÖØ-Þ]\w|\d", re.DOTALL)  # without them there is no address
_ENDLESS = re.compile(r"[\w'’-]{101,}")  # no name is so long, and to look for one in it takes ages
_MARKS = re.compile(r"[@.\[<]|\bdot\b|\bname\b|\bhandle\b|login", re.IGNORECASE)
_DATE_WORD = re.compile(
    r"\b(?:jan|feb|mar|m[aä]r|apr|avr|abr|ma[yi]|jun|jui|jul|aug|ao|ago|sep|set|o[ck]t|nov|de[czt]"
    r"|d[ée]c|ene|f[ée]v|ninety|hundred)",
    re.IGNORECASE,
)


def detect(text: str, kinds: frozenset[str] = _ALL, field: str | None = None) -> list[Span]:
    """Return the identifiers of `kinds` in `text`, in order and without overlaps.

    `field` is the column or key that the text stands under: `mrn` or `patient_name` says that the
    whole text is one. Pseudonyms are not identifiers: the caller protects its own.
    """
    whole = _by_field(text, field)
    if whole is not None:
        return [whole] if whole.kind in kinds else []
    return [span for span in settle(_candidates(text)) if span.kind in kinds]


class Detector(Protocol):
    """What looks for identifiers: a plug-in of tutelage.detectors, made without arguments."""

    def __call__(self, text: str, kinds: frozenset[str], field: str | None = None) -> list[Span]:
        """Return the identifiers of `kinds`, in order and without overlaps, as `detect` does."""
        ...


class RulesDetector:
    """Finds identifiers by cues, forms and checksums. The default; needs no other package."""

    def __call__(self, text: str, kinds: frozenset[str], field: str | None = None) -> list[Span]:
        """Return what `detect` finds."""
        return detect(text, kinds, field)


def _candidates(text: str) -> Iterator[Span]:
    """Yield what each detector finds, asking only those that the text's characters allow."""
    digit = _DIGIT.search(text) is not None
    if digit:
        yield from find_numbers(text)
        yield from find_phones(text)
    if _MARKS.search(text):
        yield from find_emails(text)
        yield from find_urls(text)
        yield from find_photos(text)
    if digit or "::" in text:
        yield from find_ips(text)
    if digit or _DATE_WORD.search(text):
        yield from find_dates(text)
    words = _ENDLESS.sub(_blank, text)
    if may_hold_names(words):
        yield from find_names(words)
    if _PLACE.search(words):
        yield from find_places(words)


def _blank(run: re.Match[str]) -> str:
    return " " * len(run[0])


def _by_field(text: str, field: str | None) -> Span | None:
    kind = kind_of_field(field) if field else None
    if kind is None:
        return None
    start = len(text) - len(text.lstrip())
    end = len(text.rstrip())
    if end <= start or end - start > 200 or not any(char.isalnum() for char in text):
        return None
    found = text[start:end]
    if kind == "name" and (any(char.isdigit() for char in found) or len(found.split()) > 6):
        return None
    value = ""
    if kind == "date":
        inner = settle(find_dates(found))
        value = inner[0].value if inner else ""
        if not inner and re.fullmatch(r"(?:1[89]|20)\d\d|\d{1,2}", found):
            return None  # a year alone may stay
    return Span(start, end, kind, 0.95, f"it stands under {field!r}", value)


def redact_text(text: str, kinds: frozenset[str] = _ALL) -> str:
    """Return `text` with `[NAME]`, `[DATE]` … in place of identifiers; nothing brings them back.

    For logs and error messages. What training reads gets pseudonyms instead (pseudonyms.py).
    """
    return replace(text, detect(text, kinds), lambda span: f"[{KINDS[span.kind].tag}]")


def replace(text: str, spans: Iterable[Span], by: Callable[[Span], str]) -> str:
    """Return `text` with each span (in order, none overlapping) replaced by `by(span)`."""
    parts: list[str] = []
    at = 0
    for span in spans:
        parts += [text[at : span.start], by(span)]
        at = span.end
    return "".join([*parts, text[at:]]) if parts else text
