"""Statistics, one request at a time: lengths and languages that no golden row has.

Shares over many requests are watched by drift.py. Without a golden window nothing is judged.
"""

from __future__ import annotations

from collections.abc import Sequence

from tutelage.core.config_guards import Action, StatisticsLayer
from tutelage.core.example import Message
from tutelage.data.filters.language import guess_by_words, other_language
from tutelage.serving.guards.base import WHOLE, GuardContext, Objection, strongest, whole
from tutelage.serving.guards.window import Side, Window

_JUDGED = 200  # characters of a text whose language is looked at


class StatisticsGuard:
    """Checks length and language of requests and answers against the golden window.

    Languages are told by script and common words, which takes microseconds and is unsure of short
    texts; an unsure one is not objected to.
    """

    def __init__(self, context: GuardContext) -> None:
        asked = context.options
        options = asked if isinstance(asked, StatisticsLayer) else StatisticsLayer()
        window = context.window or Window()
        self._rows = options.rows
        enough = max(len(window.request.lengths), len(window.answer.lengths)) >= self._rows
        self._length: Action = (options.length or options.action) if enough else "off"
        self._language: Action = (options.language or options.action) if enough else "off"
        self._request, self._answer = window.request, window.answer
        self._bounds = self._request.bounds(), self._answer.bounds()
        self.action: Action = strongest([self._length, self._language])
        self.hold = WHOLE if self.action == "block" else 0

    def check_request(self, messages: Sequence[Message]) -> list[Objection]:
        """Return how a request differs from every golden one."""
        text = "\n".join(turn.content for turn in messages if turn.role != "system")
        return self._check("the request", text, self._request, self._bounds[0])

    def check_response(
        self, text: str, finish_reason: str, messages: Sequence[Message]
    ) -> list[Objection]:
        """Return how a whole answer differs from every golden one."""
        if not (whole(finish_reason) and text):
            return []
        return self._check("the answer", text, self._answer, self._bounds[1])

    def _check(
        self, name: str, text: str, side: Side, bounds: tuple[float, float]
    ) -> list[Objection]:
        found: list[Objection] = []
        if len(side.lengths) < self._rows:
            return found
        if self._length != "off" and not bounds[0] <= len(text) <= bounds[1]:
            low, high = side.lengths[0], side.lengths[-1]
            why = f"{name} has {len(text):,} characters; golden rows have {low:,} to {high:,}"
            found.append(Objection("length", why, self._length))
        main = side.main
        if self._language != "off" and main is not None:
            other = other_language(text[:_JUDGED], main, guess_by_words)
            if other is not None and not side.known(other):
                why = f"{name} reads like {other!r}; golden rows are in {main!r}"
                found.append(Objection("language", why, self._language))
        return found
