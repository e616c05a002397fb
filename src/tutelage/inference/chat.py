"""Which turns a model sees: the one place that puts the project's prompt before a row.

Training, evaluation, judging and serving all call `conversation`, so a row is rendered in
training exactly as it will be at inference. Text that spells a control token is made inert here.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any

from tutelage.core.example import Example, Message

_BREAK = "\u200b"  # zero-width space: keeps the text readable and the token unspellable
_COMMON = re.compile(r"<\|[A-Za-z0-9_▁ .-]{1,40}\|>")


def neutralise(text: str, specials: Iterable[str] = ()) -> str:
    """Return `text` with every control-token spelling broken by a zero-width space.

    `specials` are the tokenizer's own; anything of the form <|name|> is covered besides.
    """
    if "<|" in text:
        text = _COMMON.sub(lambda m: m[0][0] + _BREAK + m[0][1:], text)
    for token in _longest_first(tuple(specials)):
        if token in text:
            text = text.replace(token, token[0] + _BREAK + token[1:])
    return text


@lru_cache(maxsize=64)
def _longest_first(specials: tuple[str, ...]) -> tuple[str, ...]:
    """Return the tokens of two characters and more, the longest first."""
    return tuple(sorted((t for t in specials if len(t) > 1), key=len, reverse=True))


def conversation(
    example: Example | Sequence[Message], prompt: str, specials: Iterable[str] = ()
) -> tuple[Message, ...]:
    """Return the turns before the answer, with the project's prompt as the system message.

    A row with its own system message keeps it. Contents and tool calls are neutralised, the
    prompt is not: it is the project's own text.
    """
    turns = example.context if isinstance(example, Example) else tuple(example)
    specials = tuple(specials)
    safe = tuple(_inert(turn, specials) for turn in turns)
    if prompt and not (safe and safe[0].role == "system"):
        return (_prompt_turn(prompt), *safe)
    return safe


@lru_cache(maxsize=64)
def _prompt_turn(prompt: str) -> Message:
    return Message(role="system", content=prompt.strip())


def _inert(turn: Message, specials: tuple[str, ...]) -> Message:
    """Return the turn with its content, and whatever text rides along, neutralised."""
    content = neutralise(turn.content, specials)
    if not turn.model_extra:
        return turn if content == turn.content else Message(role=turn.role, content=content)
    more = {name: inert_value(value, specials) for name, value in turn.model_extra.items()}
    return turn.model_copy(update={**more, "content": content})


def inert_value(value: Any, specials: tuple[str, ...]) -> Any:
    """Return JSON-like data with every text in it neutralised, keys included."""
    if isinstance(value, str):
        return neutralise(value, specials)
    if isinstance(value, dict):
        return {neutralise(k, specials): inert_value(part, specials) for k, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [inert_value(part, specials) for part in value]
    return value


def with_prompt(example: Example, prompt: str) -> Example:
    """Return the row with the project's prompt as its own system message, for a file.

    A row that brings one keeps it, and raw text stays raw. Nothing is neutralised.
    """
    if not prompt or example.is_text or (example.messages and example.messages[0].role == "system"):
        return example
    first = Message(role="system", content=prompt.strip())
    return example.model_copy(update={"messages": (first, *example.messages)})


def as_dicts(messages: Sequence[Message]) -> list[dict[str, str]]:
    """Return the turns in the form chat templates and OpenAI's API take."""
    return [
        m.model_dump(exclude_none=True) if m.model_extra else {"role": m.role, "content": m.content}
        for m in messages
    ]
