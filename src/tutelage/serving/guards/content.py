"""Content: empty or cut-off text, refusals, leaked templates and spelled control tokens.

Rules of the pattern kind, cheap enough for every request; they read English.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from tutelage.core.example import Message
from tutelage.serving.guards.base import GuardContext

_CONTROL = re.compile(r"<\|[A-Za-z0-9_ .-]{1,40}\|>|\[/?INST\]|<</?SYS>>|</?s>")
_LEAK = re.compile(
    r"\{\{\s*[\w.]+\s*\}\}|\{%-?\s*\w+|(?m:^\s*(?:###\s*)?(?:Instruction|Response|Human|Assistant):\s)"
)
_REFUSAL = re.compile(
    r"^\W*(?:i['’]?m sorry|i am sorry|sorry[,.!]|i apologi[sz]e|unfortunately"
    r"|as an? (?:ai|language model)|i (?:can(?:no|['’])t|am (?:not able|unable)|won['’]t))(?!\w)",
    re.IGNORECASE,
)


class ContentGuard:
    """Checks what texts hold, whatever the task."""

    def __init__(self, context: GuardContext) -> None:
        self._specials = tuple(token for token in context.specials if len(token) > 1)

    def check_request(self, messages: Sequence[Message]) -> str | None:
        """Return why a request is suspicious, or None. Control tokens were made inert before."""
        if not messages[-1].content.strip():
            return "the last message is empty"
        for turn in messages:
            found = self._control(turn.content)
            if found:
                return f"a {turn.role} message spells the control token {found!r}"
        return None

    def check_response(self, text: str, finish_reason: str) -> str | None:
        """Return why an answer is suspicious, or None."""
        if not text.strip():
            return "the answer is empty"
        found = self._control(text)
        if found:
            return f"the answer spells the control token {found!r}"
        leak = _LEAK.search(text)
        if leak:
            return f"the answer leaks a template ({leak[0].strip()[:30]!r})"
        if _REFUSAL.match(text):
            return "the answer is a refusal"
        if finish_reason == "length":
            return "the answer was cut off at the token limit"
        return None

    def _control(self, text: str) -> str | None:
        found = _CONTROL.search(text)
        if found:
            return found[0]
        return next((token for token in self._specials if token in text), None)
