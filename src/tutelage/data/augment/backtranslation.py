"""Back-translation: into another language and back (Sennrich et al. 2016, arXiv 1511.06709)."""

from __future__ import annotations

from collections.abc import Sequence

from tutelage.core.example import Example
from tutelage.data.augment.base import (
    TEXT_SCHEMA,
    Draft,
    Settings,
    last_user,
    numbered,
    read_json,
    request,
)
from tutelage.inference.base import Prompt

PIVOTS = ("German", "French", "Spanish", "Dutch", "Italian", "Portuguese")
_OUT = "Translate a text into {language}. Keep numbers and names. Do not answer the text."
_BACK = (
    "Translate a text into {language}, in natural everyday words. Keep numbers and names. "
    "Do not answer the text."
)


class BackTranslation:
    """Translates a row's input into a pivot language and back; the answer stays."""

    shots = 1

    def __init__(self, settings: Settings | None = None, language: str = "English") -> None:
        self._settings = settings or Settings()
        self._language = language

    def ask(self, parents: Sequence[Example], number: int) -> Prompt:
        """Ask for the translation; the pivot language goes round with `number`."""
        instructions = _OUT.format(language=PIVOTS[number % len(PIVOTS)])
        data = {"text": last_user(parents[0])}
        return numbered(request(instructions, data, TEXT_SCHEMA, self._settings), number)

    def take(self, parents: Sequence[Example], text: str, hop: int) -> Prompt | list[Draft]:
        """Ask for the way back, then return the one draft."""
        found = str(read_json(text).get("text") or "").strip()
        if not found:
            raise ValueError("the translation is empty")
        if hop == 0:
            back = _BACK.format(language=self._language)
            return request(back, {"text": found}, TEXT_SCHEMA, self._settings)
        row = parents[0]
        return [Draft(found, row.answer or "", row.label, (row.id,), "back_translation")]
