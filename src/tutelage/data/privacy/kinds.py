"""The 18 kinds of identifier of HIPAA's Safe Harbor, and the span that a detector returns.

Source of the list: 45 CFR 164.514(b)(2)(i)(A) to (R). Standard library only, because the gateway
loads it. Nothing here looks for anything.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

CERTAIN = 0.5  # a span with less confidence is not reported


@dataclass(frozen=True)
class Kind:
    """One kind: the word in settings, its paragraph in the rule, the word in pseudonyms."""

    name: str
    letter: str  # 164.514(b)(2)(i)(<letter>)
    tag: str
    title: str

    @property
    def finding(self) -> str:
        """The id in the catalogue of findings."""
        return f"D7-{self.letter}01"


_ALL = (
    Kind("name", "A", "NAME", "names"),
    Kind("place", "B", "PLACE", "places smaller than a state"),
    Kind("date", "C", "DATE", "dates, and ages over 89"),
    Kind("phone", "D", "PHONE", "telephone numbers"),
    Kind("fax", "E", "FAX", "fax numbers"),
    Kind("email", "F", "EMAIL", "e-mail addresses"),
    Kind("ssn", "G", "SSN", "social security numbers"),
    Kind("record", "H", "RECORD", "medical record numbers"),
    Kind("plan", "I", "PLAN", "health-plan beneficiary numbers"),
    Kind("account", "J", "ACCOUNT", "account and card numbers"),
    Kind("licence", "K", "LICENCE", "certificate and licence numbers"),
    Kind("vehicle", "L", "VEHICLE", "vehicle identifiers and plates"),
    Kind("device", "M", "DEVICE", "device identifiers and serial numbers"),
    Kind("url", "N", "URL", "web addresses"),
    Kind("ip", "O", "IP", "IP addresses"),
    Kind("biometric", "P", "BIOMETRIC", "biometric identifiers"),
    Kind("photo", "Q", "PHOTO", "photographs"),
    Kind("other", "R", "OTHER", "other unique numbers and codes"),
)
KINDS: dict[str, Kind] = {kind.name: kind for kind in _ALL}
# What a pseudonym may be called: the kinds, and three finer words.
TAGS = (*(kind.tag for kind in _ALL), "AGE", "GROUP", "TEXT")


@dataclass(frozen=True, slots=True)
class Span:
    """One identifier: text[start:end], what it is, how sure (0..1), and why.

    `reason` never quotes the identifier. `value` is its normal form where there is one: digits of
    a number, ISO date (or its year), `age:93`; equal values get equal pseudonyms.
    """

    start: int
    end: int
    kind: str
    confidence: float
    reason: str
    value: str = ""


def settle(spans: Iterable[Span]) -> list[Span]:
    """Return the spans without overlaps, in order: the surer, then the longer one stays.

    What a discarded span covers beyond the kept one is not lost: the kept one grows over it.
    """
    kept: list[Span] = []
    for span in sorted(spans, key=lambda s: (s.start, -s.end)):
        if span.confidence < CERTAIN or span.end <= span.start:
            continue
        if not kept or span.start >= kept[-1].end:
            kept.append(span)
            continue
        last = kept[-1]
        best = max((last, span), key=lambda s: (s.confidence, s.end - s.start))
        start, end = min(last.start, span.start), max(last.end, span.end)
        grown = (start, end) != (best.start, best.end)
        kept[-1] = Span(
            start, end, best.kind, best.confidence, best.reason, "" if grown else best.value
        )
    return kept


def chosen(names: Sequence[str] | None) -> frozenset[str]:
    """Return the kinds to look for: all 18 for None. Raises KeyError with an unknown name."""
    if names is None:
        return frozenset(KINDS)
    return frozenset(KINDS[name].name for name in names)
