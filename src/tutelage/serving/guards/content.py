"""Content: empty or cut-off text, refusals, leaked templates, secrets, identifiers, insults.

Rules of the pattern kind, cheap enough for every request; each is off, flag or block by itself. An
identifier or secret that the user sent may come back; one that nobody sent may not. Texts are
named, never quoted, where they could be somebody's.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import cast

from tutelage.core.config_base import Section
from tutelage.core.config_guards import Action, ContentLayer
from tutelage.core.example import Message
from tutelage.data.filters.refusal import is_refusal
from tutelage.data.privacy.kinds import Span
from tutelage.serving.guards.base import WHOLE, WITHIN, GuardContext, Objection, strongest, whole
from tutelage.serving.guards.identifiers import Identifiers, same, title
from tutelage.serving.guards.secrets import find_secrets
from tutelage.serving.guards.words import WordList

LONGEST = 128  # characters of the longest find that a stream is sure to keep back
_OPENING = 400  # characters at the start of an answer in which a refusal is looked for
_CONTROL = re.compile(r"<\|[A-Za-z0-9_ .-]{1,40}\|>|\[/?INST\]|<</?SYS>>|</?s>")
_LEAK = re.compile(
    r"\{\{\s*[\w.]+\s*\}\}|\{%-?\s*\w+|(?m:^\s*(?:###\s*)?(?:Instruction|Response|Human|Assistant):\s)"
)
_LEAK_MARKS = ("{{", "{%", "ion:", "nse:", "man:", "ant:")
_HEAVY = ("secrets", "toxicity", "pii")  # checks whose time grows with every character
_is_refusal = is_refusal.__wrapped__  # its cache would keep what users read


class ContentGuard:
    """Checks what texts hold, whatever the task."""

    def __init__(self, context: GuardContext) -> None:
        asked = context.options
        options = asked if isinstance(asked, ContentLayer) else ContentLayer()
        self._specials = tuple(token for token in context.specials if len(token) > 1)
        self._marks = tuple({"<", "["} | {token[0] for token in self._specials})
        self._prompt = context.prompt
        self._most = options.max_characters
        self._request = _actions(options.request, options.action)
        self._answer = _actions(options.answer, options.action)
        if context.output.labels:
            self._answer["refusal"] = "off"  # a closed list of labels has no room for one
        self._heavy_request = any(self._request[name] != "off" for name in _HEAVY)
        self._heavy_answer = any(self._answer[name] != "off" for name in _HEAVY)
        on = {name for side in (self._request, self._answer) for name in _on(side)}
        self._identifiers = Identifiers(options.detector, options.kinds) if "pii" in on else None
        own = [context.root / name for name in options.words]
        self._words = WordList(options.languages, own, options.allow) if "toxicity" in on else None
        self.action: Action = strongest([*self._request.values(), *self._answer.values()])
        blocking = {name for name, action in self._answer.items() if action == "block"}
        self.hold = WHOLE if "cut" in blocking else LONGEST if blocking else 0
        self.head = _OPENING if "refusal" in blocking else 0

    def check_request(self, messages: Sequence[Message]) -> list[Objection]:
        """Return what is wrong with a request. Control tokens were made inert before."""
        found: list[Objection] = []
        if self._request["empty"] != "off" and not messages[-1].content.strip():
            found.append(self._says("empty", "the last message is empty"))
        if self._request["control"] != "off":
            for turn in messages:
                token = self._control(turn.content)
                if token:
                    why = f"a {turn.role} message spells the control token {token!r}"
                    found.append(self._says("control", why))
                    break
        if self._heavy_request:
            text = "\n".join(turn.content for turn in messages if turn.role != "system")
            found += self._heavy(text, "the request", self._request, "")
        return found

    def check_response(
        self, text: str, finish_reason: str, messages: Sequence[Message]
    ) -> list[Objection]:
        """Return what is wrong with an answer, whole or so far."""
        if not text.strip():
            return self._answered("empty", "the answer is empty") if whole(finish_reason) else []
        found: list[Objection] = []
        if self._answer["control"] != "off":
            token = self._control(text)
            if token:
                found += self._answered("control", f"the answer spells the control token {token!r}")
        if any(mark in text for mark in _LEAK_MARKS):
            leak = _LEAK.search(text)
            if leak:
                why = f"the answer leaks a template ({leak[0].strip()[:30]!r})"
                found += self._answered("template", why)
        looked_for = finish_reason != WITHIN and self._answer["refusal"] != "off"
        if looked_for and _is_refusal(text[:_OPENING]):
            found += self._answered("refusal", "the answer is a refusal")
        if finish_reason == "length":
            found += self._answered("cut", "the answer was cut off at the token limit")
        if self._heavy_answer:
            given = "\n".join([self._prompt, *(turn.content for turn in messages)])
            found += self._heavy(text, "the answer", self._answer, given)
        return found

    def _heavy(
        self, text: str, name: str, actions: dict[str, Action], given: str
    ) -> Iterator[Objection]:
        """Yield secrets, identifiers and insults in a text that `given` does not hold."""
        if len(text) > self._most:
            worst = strongest([actions[check] for check in _HEAVY])
            why = f"{name} has {len(text):,} characters, and only {self._most:,} can be checked"
            yield Objection("length", why, worst)
            return
        if actions["secrets"] != "off":
            kind = next((kind for kind, secret in find_secrets(text) if secret not in given), None)
            if kind:
                yield Objection("secrets", f"{name} holds {kind}", actions["secrets"])
        if actions["toxicity"] != "off" and self._words is not None and self._words.found(text):
            why = f"{name} holds a word of the toxicity list"
            yield Objection("toxicity", why, actions["toxicity"])
        if actions["pii"] != "off" and self._identifiers is not None:
            unknown = _unknown(self._identifiers, text, given[-self._most :])
            kinds = sorted({span.kind for span in unknown})
            if kinds:
                why = f"{name} holds {' and '.join(map(title, kinds))}"
                yield Objection(
                    "pii", f"{why} that nobody gave it" if given else why, actions["pii"]
                )

    def _control(self, text: str) -> str | None:
        for mark in self._marks:
            if mark in text:
                break
        else:
            return None
        found = _CONTROL.search(text)
        if found:
            return found[0]
        return next((token for token in self._specials if token in text), None)

    def _says(self, check: str, why: str) -> Objection:
        return Objection(check, why, self._request[check])

    def _answered(self, check: str, why: str) -> list[Objection]:
        action = self._answer[check]
        return [Objection(check, why, action)] if action != "off" else []


def _unknown(identifiers: Identifiers, text: str, given: str) -> list[Span]:
    """Return the identifiers in a text that `given` does not hold."""
    spans = [s for s in identifiers.find(text) if text[s.start : s.end] not in given]
    if not spans or not given:
        return spans
    known = {same(span, given) for span in identifiers.find(given)}
    return [span for span in spans if same(span, text) not in known]


def _actions(checks: Section, action: Action) -> dict[str, Action]:
    """Return each check's action: its own, or the layer's."""
    named = {name: getattr(checks, name) for name in type(checks).model_fields}
    return {name: cast(Action, value or action) for name, value in named.items()}


def _on(actions: dict[str, Action]) -> list[str]:
    return [name for name, action in actions.items() if action != "off"]
