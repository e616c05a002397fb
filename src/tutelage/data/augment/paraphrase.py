"""Paraphrase: the same request in other words, with the answer of the row it came from."""

from __future__ import annotations

from collections.abc import Sequence

from tutelage.core.example import Example
from tutelage.data.augment.base import (
    Draft,
    Settings,
    last_user,
    numbered,
    read_texts,
    request,
    texts_schema,
)
from tutelage.inference.base import Prompt

_ASK = (
    "Rewrite a text in {count} other ways, as other people would put it. Keep the meaning, every "
    "number, name and negation, and roughly the length. Vary the wording and the sentence's form; "
    "do not answer the text."
)


class Paraphrase:
    """Says a row's input in other words; the answer stays."""

    shots = 1

    def __init__(self, settings: Settings | None = None) -> None:
        self._settings = settings or Settings()

    def ask(self, parents: Sequence[Example], number: int) -> Prompt:
        """Ask for several wordings of one input."""
        count = self._settings.per_row
        data = {"text": last_user(parents[0])}
        asked = request(_ASK.format(count=count), data, texts_schema(count), self._settings)
        return numbered(asked, number)

    def take(self, parents: Sequence[Example], text: str, hop: int) -> list[Draft]:
        """Return one draft a wording."""
        row = parents[0]
        return [
            Draft(wording, row.answer or "", row.label, (row.id,), "paraphrase")
            for wording in read_texts(text)[: self._settings.per_row]
        ]
