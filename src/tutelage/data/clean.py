"""The step that repairs text and writes answers in one format, without changing what they mean.

How each format is written is in normalise/. What was changed is counted and said; the source line
stays known.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from tutelage.core.config import Task
from tutelage.core.example import Example, Message
from tutelage.core.output import OutputFormat
from tutelage.data.filters.base import at
from tutelage.data.findings import Finding
from tutelage.data.normalise.code import strip_fence, tidy_code
from tutelage.data.normalise.json_text import normalise_json
from tutelage.data.normalise.sql import looks_like_sql, normalise_sql
from tutelage.data.normalise.text import repair, tidy_text
from tutelage.data.pipeline import StepResult

AnswerFormat = Literal["auto", "text", "json", "sql", "code"]
_SHOWN = 12  # characters of a change that are told


class CleanStep:
    """Repairs every turn; drops nothing."""

    name = "clean"

    def __init__(
        self,
        task: Task = "generation",
        output: OutputFormat | None = None,
        answers: AnswerFormat = "auto",
    ) -> None:
        self._code = task == "code"
        self._format = answers if answers != "auto" else _usual(task, output or OutputFormat())

    def run(self, rows: Sequence[Example]) -> StepResult:
        """Return the repaired rows, and a note for each row that changed."""
        kept: list[Example] = []
        findings: list[Finding] = []
        for example in rows:
            cleaned, notes = self.clean(example)
            findings += [at(cleaned, key, detail) for key, detail in notes.items()]
            kept.append(cleaned)
        return StepResult(kept, findings=findings)

    def clean(self, example: Example) -> tuple[Example, dict[str, str]]:
        """Return the row repaired, and what was done to it by the finding's id."""
        notes: dict[str, str] = {}
        turns = example.messages
        last = len(turns) - 1
        changed = [
            self._turn(turn, notes, answer=place == last and turn.role == "assistant")
            for place, turn in enumerate(turns)
        ]
        if not notes:
            return example, notes
        return example.model_copy(update={"messages": tuple(changed)}), notes

    def _turn(self, message: Message, notes: dict[str, str], *, answer: bool) -> Message:
        text = message.content
        if answer and self._format in ("code", "sql"):
            tidy = self._answer_code(text, notes)
        else:
            repaired = repair(text)
            if repaired != text:
                notes["D3-U01"] = _difference(text, repaired)
            tidy = tidy_code(repaired) if self._code else tidy_text(repaired)
            if tidy != repaired:
                notes["D3-W01"] = f"{message.role}: {len(repaired) - len(tidy)} characters of space"
            if answer and self._format == "json":
                tidy = _noted(tidy, normalise_json(tidy), "D3-J01", notes)
        return message if tidy == text else message.model_copy(update={"content": tidy})

    def _answer_code(self, text: str, notes: dict[str, str]) -> str:
        """Return a code answer tidied; its characters stay: text in it may need them."""
        lines = text.replace("\r\n", "\n") if "\r" in text else text
        bare, language = strip_fence(lines.removeprefix("\ufeff"))
        if bare != lines:
            notes["D3-F01"] = f"a fence of {language or 'code'} around the whole answer"
        if self._format == "sql" or language == "sql" or (not language and looks_like_sql(bare)):
            return _noted(bare, normalise_sql(bare), "D3-Q01", notes)
        tidy = tidy_code(bare)
        if tidy != bare or (bare != text and not notes):
            notes["D3-W01"] = f"assistant: {len(text) - len(tidy)} characters of space"
        return tidy


def _usual(task: Task, output: OutputFormat) -> AnswerFormat:
    if task == "code":
        return "code"
    return "json" if task in ("classification", "extraction") or output.field else "text"


def _noted(old: str, new: str, key: str, notes: dict[str, str]) -> str:
    if new != old:
        notes[key] = _difference(old, new)
    return new


def _difference(old: str, new: str) -> str:
    """Return the first place where two texts differ, as they are read."""
    shorter = min(len(old), len(new))
    start = next((i for i in range(shorter) if old[i] != new[i]), shorter)
    low = max(0, start - 8)
    return f"{old[low : start + _SHOWN]!r} became {new[low : start + _SHOWN]!r}"
