"""The second layer: what the text says. Refusals, cut-off answers, template leaks, language.

The heuristics are cheap and err on the side of keeping: only what would harm is an error.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence

from tutelage.core.example import Example, normalise
from tutelage.data.filters.base import FilterSettings, at
from tutelage.data.filters.language import guess_language
from tutelage.data.findings import Finding

CHARS_PER_TOKEN = 4.0  # the usual rule of thumb; exact counts come with the tokenizer

_REFUSAL = re.compile(
    r"^\W*(?:i['’]?m sorry,? (?:but )?(?:i|as an)|i (?:can(?:not|['’]t)|am unable to|['’]?m unable "
    r"to|won['’]t be able to) (?:help|assist|provide|answer|fulfil|fulfill|comply|do that|discuss"
    r"|create|generate)|as an? (?:ai|artificial intelligence|large language model|language model)"
    r"|i (?:do not|don['’]t) have (?:access to|the ability|personal (?:opinions|experience)))",
    re.IGNORECASE,
)
_TEMPLATE = re.compile(
    r"<\|[A-Za-z0-9_ .-]{1,40}\|>|\[/?INST\]|<</?SYS>>|</?s>(?=\s|$)|<(?:start|end)_of_turn>"
    r"|^### (?:Instruction|Response|Assistant|Human):|\{\{\s*[a-z_.]+\s*\}\}",
    re.MULTILINE,
)
_LETTER = re.compile(r"[^\W_]")
_CUT = re.compile(r"(?:\.\.\.|…|[,;:(\[{]|\b(?:and|or|the|of|to|with|a))$")


class ContentFilter:
    """Checks the text of input and answer."""

    def __init__(self, settings: FilterSettings | None = None) -> None:
        self._settings = settings or FilterSettings()

    def check(self, example: Example) -> Iterator[Finding]:
        """Yield every finding about the row."""
        raw = example.is_text
        source, answer = example.input_text, "" if raw else example.answer or ""
        if not _LETTER.search(source):
            yield at(example, "D2-C01", f"the input is {source.strip()[:30]!r}")
        lenient = raw or self._settings.task in ("code", "extraction")
        if not lenient and not _LETTER.search(answer):
            yield at(example, "D2-C01", f"the answer is {answer.strip()[:30]!r}")
        yield from self._templates(example, source, answer)
        if _REFUSAL.search(answer):
            yield at(example, "D2-C03", f"the answer starts {answer.strip()[:60]!r}")
        cut = self._cut_off(answer)
        if cut:
            yield at(example, "D2-C02", cut)
        text = f"{source} {answer}"
        if "\ufffd" in text:
            yield at(example, "D2-C06", f"{text.count(chr(0xFFFD))} characters were lost")
        if len(answer) > 20 and normalise(answer) == normalise(source):
            yield at(example, "D2-C08", "the answer is the same as the input")
        yield from self._length(example)
        yield from self._language(example, source)

    def check_all(self, rows: Sequence[Example]) -> Iterator[Finding]:
        """Yield nothing: shares of the whole are the statistics layer's matter."""
        yield from ()

    def _templates(self, example: Example, source: str, answer: str) -> Iterator[Finding]:
        if self._settings.task == "code":
            return
        found = _TEMPLATE.search(answer)
        if found:
            yield at(example, "D2-C04", f"the answer contains {found[0]!r}")
        found = _TEMPLATE.search(source)
        if found:
            yield at(example, "D2-C09", f"the input contains {found[0]!r}")

    def _cut_off(self, answer: str) -> str | None:
        text = answer.rstrip()
        if self._settings.output.field or self._settings.output.labels:
            return None
        if text[:1] in ("{", "["):
            try:
                json.loads(text)
            except ValueError:
                if text.count(text[0]) > text.count({"{": "}", "[": "]"}[text[0]]):
                    return "the JSON is not closed"
            return None
        if self._settings.task == "code":
            return "a code fence is not closed" if text.count("```") % 2 else None
        if len(text) > 80 and _CUT.search(text):
            return f"the answer ends with {text[-25:]!r}"
        return None

    def _length(self, example: Example) -> Iterator[Finding]:
        limit = self._settings.max_tokens
        if limit is None:
            return
        count = sum(len(m.content) for m in example.messages) / CHARS_PER_TOKEN
        if count > limit:
            yield at(example, "D2-C05", f"about {count:,.0f} tokens, the limit is {limit:,}")

    def _language(self, example: Example, source: str) -> Iterator[Finding]:
        wanted = self._settings.language
        if wanted is None or self._settings.task == "code":
            return
        guessed = guess_language(source)
        if guessed is not None and guessed != wanted.lower()[:2]:
            yield at(example, "D2-C07", f"it reads like {guessed!r}, not {wanted!r}")


def is_refusal(answer: str) -> bool:
    """Return whether an answer refuses or disclaims."""
    return bool(_REFUSAL.search(answer))
