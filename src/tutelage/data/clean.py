"""Repair that never changes meaning: Unicode, white space, and one format for JSON answers.

Code keeps its indentation. What was changed is counted and said; the source line stays known.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence

import ftfy

from tutelage.core.config import Task
from tutelage.core.example import Example, Message
from tutelage.core.output import OutputFormat
from tutelage.data.filters.base import at
from tutelage.data.findings import Finding
from tutelage.data.pipeline import StepResult

# Mojibake, control characters and NFC only: quotes, ligatures, widths and HTML entities may
# carry meaning, and production text will have them too.
_CAREFUL = ftfy.TextFixerConfig(
    uncurl_quotes=False,
    fix_latin_ligatures=False,
    fix_character_width=False,
    unescape_html=False,
    normalization="NFC",
    explain=False,
)
_TRAILING = re.compile(r"[ \t]+(?=\n|$)")
_BLANKS = re.compile(r"\n{3,}")
_SPACES = re.compile(r"(?<=\S)[ \t\u00a0\u2007\u202f]{2,}(?=\S)|[\u00a0\u2007\u202f]")
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")


class CleanStep:
    """Repairs every turn; drops nothing."""

    name = "clean"

    def __init__(self, task: Task = "generation", output: OutputFormat | None = None) -> None:
        self._code = task == "code"
        self._output = output or OutputFormat()
        self._json = task in ("classification", "extraction") or bool(self._output.field)

    def run(self, rows: Sequence[Example]) -> StepResult:
        """Return the repaired rows, and a note for each row that changed."""
        kept: list[Example] = []
        findings: list[Finding] = []
        for example in rows:
            notes: dict[str, str] = {}
            turns = tuple(self._turn(message, notes) for message in example.messages)
            if self._json and turns and turns[-1].role == "assistant":
                turns = (*turns[:-1], _one_format(turns[-1], notes))
            if notes:
                example = example.model_copy(update={"messages": turns})
                findings += [at(example, key, detail) for key, detail in notes.items()]
            kept.append(example)
        return StepResult(kept, findings=findings)

    def _turn(self, message: Message, notes: dict[str, str]) -> Message:
        text = message.content
        repaired = repair(text)
        if repaired != text:
            notes["D3-U01"] = _difference(text, repaired)
        tidy = tidy_code(repaired) if self._code else tidy_text(repaired)
        if tidy != repaired:
            notes["D3-W01"] = f"{message.role}: {len(repaired) - len(tidy)} characters of space"
        return message if tidy == text else message.model_copy(update={"content": tidy})


def repair(text: str) -> str:
    """Return text with mojibake and control characters repaired, in NFC."""
    if text.isascii() and not _CONTROL.search(text):
        return text.replace("\r\n", "\n")
    return str(ftfy.fix_text(text, _CAREFUL))


def tidy_text(text: str) -> str:
    """Return prose with single spaces, no trailing space and at most one blank line."""
    if "\n" not in text and "  " not in text and text.isascii() and text == text.strip():
        return text
    text = _SPACES.sub(" ", _TRAILING.sub("", text))
    return _BLANKS.sub("\n\n", text).strip()


def tidy_code(text: str) -> str:
    """Return code with its indentation kept, blank edges and trailing space gone."""
    return _TRAILING.sub("", text).strip("\n").rstrip()


def _one_format(message: Message, notes: dict[str, str]) -> Message:
    text = message.content
    if text[:1] not in ("{", "["):
        return message
    try:
        written = json.dumps(json.loads(text), ensure_ascii=False)
    except ValueError:
        return message
    if written == text:
        return message
    notes["D3-J01"] = "the answer's JSON was written anew"
    return message.model_copy(update={"content": written})


def _difference(old: str, new: str) -> str:
    start = next((i for i, (a, b) in enumerate(zip(old, new, strict=False)) if a != b), 0)
    low = max(0, start - 8)
    return f"{old[low : start + 12]!r} became {new[low : start + 12]!r}"
