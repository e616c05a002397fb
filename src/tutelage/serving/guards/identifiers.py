"""Personal identifiers in live texts, by the detectors that curation uses.

The rules read a text of a thousand characters in milliseconds; for the kinds that have a form of
their own, most texts are left after a look for digits or an @. What is left unread has none.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from tutelage.core import plugins
from tutelage.core.errors import ConfigError, did_you_mean
from tutelage.data.privacy.contact import find_emails, find_ips, find_phones
from tutelage.data.privacy.detect import Detector
from tutelage.data.privacy.kinds import CERTAIN, KINDS, Span
from tutelage.data.privacy.numbers import find_numbers

RULES = "rules"
_FORMED = frozenset(("email", "phone", "fax", "ssn", "account", "ip"))  # kinds with a form
_NUMBERS = frozenset(("phone", "fax", "ssn", "account"))
_DIGITS = re.compile(r"\d(?:[ .\-/()\u00a0\u2010-\u2013]{0,4}\d){3}|[A-Za-z0-9]{20}")


class Identifiers:
    """Looks for identifiers of some kinds. Raises ConfigError for an unknown kind or detector."""

    def __init__(self, detector: str, kinds: list[str]) -> None:
        for name in kinds:
            if name not in KINDS:
                hint = did_you_mean(name, KINDS)
                raise ConfigError(
                    f"deploy.guards.content.kinds: {name!r} is no kind of identifier",
                    fix=f"{hint}Known: {', '.join(KINDS)}",
                )
        self._kinds = frozenset(kinds)
        self._detect: Detector = plugins.load("detectors", detector)()
        self._quick = detector == RULES and self._kinds <= _FORMED

    def find(self, text: str) -> list[Span]:
        """Return the identifiers in a text, in order and without overlaps."""
        if self._quick and not any(
            span.kind in self._kinds and span.confidence >= CERTAIN
            for span in self._candidates(text)
        ):
            return []
        return self._detect(text, self._kinds)

    def _candidates(self, text: str) -> Iterator[Span]:
        """Yield what the finders of these kinds see: none of them can be found without one."""
        if "email" in self._kinds:
            yield from find_emails(text)
        if "ip" in self._kinds:
            yield from find_ips(text)
        if self._kinds & _NUMBERS and _DIGITS.search(text):
            yield from find_phones(text)
            yield from find_numbers(text)


def same(span: Span, text: str) -> str:
    """Return what two mentions of one identifier have in common."""
    return span.value or text[span.start : span.end].casefold()


def title(kind: str) -> str:
    """Return a kind in words, such as "e-mail addresses"."""
    return KINDS[kind].title
