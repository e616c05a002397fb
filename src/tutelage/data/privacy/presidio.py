"""Presidio's recognisers beside the rules: a language model's names and places, if it is installed.

Dates are left to the rules: Presidio also takes "Monday" and "today" for dates.
"""

from __future__ import annotations

from typing import Any

from tutelage.core.errors import EnvironmentProblem
from tutelage.data.privacy.detect import detect
from tutelage.data.privacy.kinds import Span, settle
from tutelage.data.privacy.lists import large_places

# Presidio's entity -> our kind. Nationalities, religions and plain dates are not identifiers.
ENTITIES = {
    "PERSON": "name", "LOCATION": "place", "PHONE_NUMBER": "phone", "EMAIL_ADDRESS": "email",
    "US_SSN": "ssn", "MEDICAL_LICENSE": "licence", "US_DRIVER_LICENSE": "licence",
    "CREDIT_CARD": "account", "IBAN_CODE": "account", "US_BANK_NUMBER": "account",
    "CRYPTO": "account", "IP_ADDRESS": "ip", "URL": "url", "UK_NHS": "plan",
    "US_PASSPORT": "other", "US_ITIN": "other", "MAC_ADDRESS": "device",
}  # fmt: skip
_LEAST = 0.5


class PresidioDetector:
    """Finds what the rules find, and what `presidio-analyzer` with its spaCy model finds."""

    def __init__(self, analyzer: Any = None, language: str = "en") -> None:
        self._analyzer = analyzer if analyzer is not None else _engine()
        self._language = language
        known = set(self._analyzer.get_supported_entities(language))
        self._entities = sorted(known & ENTITIES.keys())

    def __call__(self, text: str, kinds: frozenset[str], field: str | None = None) -> list[Span]:
        """Return the spans of both, without overlaps."""
        found = detect(text, kinds, field)
        if not text.strip() or (len(found) == 1 and found[0].end - found[0].start == len(text)):
            return found
        results = self._analyzer.analyze(
            text=text, language=self._language, entities=self._entities, score_threshold=_LEAST
        )
        more = [
            Span(item.start, item.end, ENTITIES[item.entity_type], min(item.score, 0.85),
                 f"presidio: {item.entity_type.lower()}")
            for item in results
            if ENTITIES.get(item.entity_type) in kinds
            and not (
                item.entity_type == "LOCATION"
                and text[item.start : item.end].lower() in large_places()
            )
        ]  # fmt: skip
        return settle([*found, *more])


def _engine() -> Any:
    try:
        from presidio_analyzer import AnalyzerEngine
    except ImportError as error:
        raise EnvironmentProblem(
            "data.privacy.detector is presidio, and presidio-analyzer is not installed",
            fix="Run `pip install 'tutelage[presidio]'` and "
            "`python -m spacy download en_core_web_lg`",
        ) from error
    return AnalyzerEngine()
