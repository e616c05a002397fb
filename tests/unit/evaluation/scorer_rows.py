"""Rows that the tests of scorers share."""

from __future__ import annotations

from typing import Any

from tutelage.core.example import Example, Message


def asked(answer: str | None, question: str = "What?", **meta: Any) -> Example:
    """Return a row with this reference answer and these further fields."""
    turns = [Message(role="user", content=question)]
    if answer is not None:
        turns.append(Message(role="assistant", content=answer))
    return Example(messages=tuple(turns), meta=meta)
