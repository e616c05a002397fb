"""Instruction back-translation: from a good answer to the request it answers.

Li et al. 2023 (arXiv 2308.06259): human-written text is the answer, a model writes the request.
Only for tasks whose answers say something; a bare label does not.
"""

from __future__ import annotations

from collections.abc import Sequence

from tutelage.core.errors import DataError
from tutelage.core.example import Example
from tutelage.data.augment.base import (
    Draft,
    Settings,
    numbered,
    read_texts,
    request,
    texts_schema,
)
from tutelage.inference.base import Prompt

_ASK = (
    "Somebody asked a question or gave a task, and got the answer below. Write {count} different "
    "requests to which it is a complete and correct answer, as users would write them."
)
_CONTEXT = " The assistant works under these instructions: {prompt}"


class InstructionBackTranslation:
    """Writes requests for the answers there are (rows, or texts by experts)."""

    shots = 1

    def __init__(self, settings: Settings | None = None) -> None:
        self._settings = settings or Settings()
        if self._settings.task in ("classification", "extraction"):
            raise DataError(
                f"a request can't be told from the answer alone when the task is "
                f"{self._settings.task}",
                fix="Use the method synthetic or paraphrase",
            )

    def ask(self, parents: Sequence[Example], number: int) -> Prompt:
        """Ask for requests that one answer fits."""
        count = self._settings.per_row
        instructions = _ASK.format(count=count)
        if self._settings.prompt:
            instructions += _CONTEXT.format(prompt=self._settings.prompt.strip())
        data = {"answer": parents[0].answer or ""}
        asked = request(instructions, data, texts_schema(count, "requests"), self._settings)
        return numbered(asked, number)

    def take(self, parents: Sequence[Example], text: str, hop: int) -> list[Draft]:
        """Return one draft a request."""
        row = parents[0]
        return [
            Draft(wording, row.answer or "", row.label, (row.id,), "instruction_back_translation")
            for wording in read_texts(text, "requests")[: self._settings.per_row]
        ]
