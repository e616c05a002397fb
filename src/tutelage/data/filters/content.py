"""The second layer: what the text says. Refusals, cut-off answers, template leaks, language.

The heuristics are cheap and err on the side of keeping: only what would harm is an error.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence

from tutelage.core.example import Example, normalise
from tutelage.core.output import read_json
from tutelage.data.filters.base import FilterSettings, at
from tutelage.data.filters.language import other_language
from tutelage.data.filters.refusal import is_refusal
from tutelage.data.findings import Finding

BYTES_PER_TOKEN = 4.0  # the usual rule of thumb; exact counts come with the tokenizer
TEMPLATE = re.compile(
    r"<\|[A-Za-z0-9_▁ .-]{1,40}\|>|\[/?INST\]|<</?SYS>>|</?s>(?=\s|$)|<(?:start|end)_of_turn>"
    r"|<(?:bos|eos|pad)>|\[/?(?:AVAILABLE_TOOLS|TOOL_CALLS|TOOL_RESULTS)\]"
    r"|^### (?:Instruction|Response|Assistant|Human|Input):|\{\{\s*[a-z_.]+\s*\}\}",
    re.MULTILINE,
)
_LETTER = re.compile(r"[^\W_]")
_CUT = re.compile(r"(?:\.\.\.|…|[,;:(\[{]|\b(?:and|or|the|of|to|with|a))$")
_TURN = re.compile(r"^(?:Human|User|Assistant|AI|Bot|System): ", re.MULTILINE)
_PLACEHOLDER = re.compile(
    r"\[(?:your|insert|enter|add|name of|company|client|customer|recipient|sender|date of)\b"
    r"[^\[\]\n]{0,40}\]|\blorem ipsum\b",
    re.IGNORECASE,
)
_NOTHING = frozenset(("nan", "null", "undefined", "#n/a", "#ref!", "#value!", "#name?", "<na>"))
_NO_ANSWER = _NOTHING | {"n/a", "na", "none", "tbd", "todo", "-", "--", "?"}
_LEAST_CUT = 80  # characters of an answer whose end is looked at
_SAME_LENGTH = (5, 0.03)  # least rows, and share, of one greatest length: a field's limit
_FOREIGN_ANSWERS = 0.2  # above this share the answers are meant to be in another language


class ContentFilter:
    """Checks the text of input and answer."""

    def __init__(self, settings: FilterSettings | None = None) -> None:
        self._settings = settings or FilterSettings()
        output = self._settings.output
        self._closed = bool(output.field or output.labels)
        self._code = self._settings.task == "code"

    def check(self, example: Example) -> Iterator[Finding]:
        """Yield every finding about the row."""
        raw = example.is_text
        source, answer = example.input_text, "" if raw else example.answer or ""
        yield from self._emptiness(example, source, answer, raw)
        yield from self._templates(example, source, answer)
        if not raw:
            yield from self._answer(example, source, answer)
        lost = source.count("\ufffd") + answer.count("\ufffd")
        if lost:
            yield at(example, "D2-C06", f"{lost} characters were lost")
        yield from self._length(example)
        if self._settings.language is not None and not self._code:
            other = other_language(source, self._settings.language)
            if other is not None:
                yield at(
                    example,
                    "D2-C07",
                    f"the input reads like {other!r}, not {self._settings.language!r}",
                )

    def check_all(self, rows: Sequence[Example]) -> Iterator[Finding]:
        """Yield what shows only beside the other rows: limits of a field, foreign answers."""
        rows = [row for row in rows if not row.is_text]
        yield from _same_length(rows, [row.input_text for row in rows], "inputs")
        if self._closed or self._code:
            return
        answers = [row.answer or "" for row in rows]
        yield from _same_length(rows, answers, "answers")
        yield from self._foreign_answers(rows, answers)

    def _emptiness(
        self, example: Example, source: str, answer: str, raw: bool
    ) -> Iterator[Finding]:
        if not _LETTER.search(source):
            yield at(example, "D2-C01", f"the input is {source.strip()[:30]!r}")
        elif len(source) < 12 and source.strip().lower() in _NOTHING:
            yield at(example, "D2-C13", f"the input is {source.strip()!r}")
        if raw or self._settings.output.labels:
            return
        if not _LETTER.search(answer) and self._settings.task not in ("code", "extraction"):
            yield at(example, "D2-C01", f"the answer is {answer.strip()[:30]!r}")
        elif len(answer) < 12:
            nothing = _NOTHING if self._settings.task == "classification" else _NO_ANSWER
            if answer.strip().lower() in nothing:
                yield at(example, "D2-C13", f"the answer is {answer.strip()!r}")

    def _templates(self, example: Example, source: str, answer: str) -> Iterator[Finding]:
        if self._code:
            return
        found = template_in(answer)
        if found:
            yield at(example, "D2-C04", f"the answer contains {found!r}")
        found = template_in(source)
        if found:
            yield at(example, "D2-C09", f"the input contains {found!r}")

    def _answer(self, example: Example, source: str, answer: str) -> Iterator[Finding]:
        if self._closed and self._settings.output.labels:
            return
        said = (example.label or answer) if self._closed else answer
        if is_refusal(said):
            yield at(example, "D2-C03", f"the answer starts {said.strip()[:60]!r}")
        cut = self._cut_off(answer)
        if cut:
            yield at(example, "D2-C02", cut)
        if self._code:
            return
        turns = _TURN.findall(answer)
        if len(set(turns)) > 1:
            yield at(example, "D2-C11", f"it goes on with {turns[-1].strip()!r}")
        placeholder = _PLACEHOLDER.search(answer) if "[" in answer or "orem" in answer else None
        if placeholder:
            yield at(example, "D2-C12", f"the answer contains {placeholder[0]!r}")
        alike = len(answer) > 20 and abs(len(answer) - len(source)) <= len(answer) // 4
        if alike and normalise(answer) == normalise(source):
            yield at(example, "D2-C08", "the answer is the same as the input")

    def _cut_off(self, answer: str) -> str | None:
        text = answer.rstrip()
        if self._closed:
            return None
        if text[:1] in ("{", "["):
            try:
                read_json(text)
            except ValueError:
                if text.count(text[0]) > text.count({"{": "}", "[": "]"}[text[0]]):
                    return "the JSON is not closed"
            return None
        if text.count("```") % 2:
            return "a code fence is not closed"
        if not self._code and len(text) > _LEAST_CUT and _CUT.search(text, len(text) - 12):
            return f"the answer ends with {text[-25:]!r}"
        return None

    def _length(self, example: Example) -> Iterator[Finding]:
        limit = self._settings.max_tokens
        if limit is None:
            return
        count = sum(len(m.content.encode()) for m in example.messages) / BYTES_PER_TOKEN
        if count > limit:
            yield at(example, "D2-C05", f"about {count:,.0f} tokens, the limit is {limit:,}")

    def _foreign_answers(
        self, rows: Sequence[Example], answers: Sequence[str]
    ) -> Iterator[Finding]:
        wanted = self._settings.language
        if wanted is None:
            return
        others = [other_language(answer, wanted) for answer in answers]
        if sum(other is not None for other in others) > _FOREIGN_ANSWERS * len(rows):
            return
        for row, other in zip(rows, others, strict=True):
            if other is not None:
                yield at(row, "D2-C07", f"the answer reads like {other!r}, not {wanted!r}")


def template_in(text: str) -> str | None:
    """Return the first piece of chat-template text, or None."""
    if "<" in text or "[" in text or "#" in text or "{" in text:
        found = TEMPLATE.search(text)
        return found[0] if found else None
    return None


def _same_length(rows: Sequence[Example], texts: Sequence[str], name: str) -> Iterator[Finding]:
    """Yield the texts of one greatest length that end in the middle: a field cut them."""
    if not texts:
        return
    counts = Counter(map(len, texts))
    longest = max(counts)
    least, share = _SAME_LENGTH
    if longest <= _LEAST_CUT or counts[longest] < max(least, share * len(texts)):
        return
    cut = [
        (row, text)
        for row, text in zip(rows, texts, strict=True)
        if len(text) == longest and text[-1:].isalnum()
    ]
    if len(cut) < 0.8 * counts[longest]:
        return
    for row, text in cut:
        detail = f"{counts[longest]:,} {name} have exactly {longest:,} characters"
        yield at(row, "D2-C10", f"{detail}; this one ends with {text[-25:]!r}")
