"""One item that flows through every stage: a conversation whose last turn is the answer.

The project's prompt is not part of an Example: it is put in front when the row is rendered, by
the same function for training, evaluation and serving (inference/chat.py). A row that brings its
own system message keeps it.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from functools import cached_property
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict

from tutelage.core.artifact import content_hash

Role = Literal["system", "user", "assistant", "tool"]
SplitName = Literal["train", "validation", "test"]
SPLITS: tuple[SplitName, ...] = ("train", "validation", "test")


class Message(BaseModel):
    """One turn of a conversation. Tool calls and names ride along untouched."""

    model_config = ConfigDict(frozen=True, extra="allow")

    role: Role
    content: str = ""


class Origin(BaseModel):
    """Where a row came from: `kind` says how, `source` is file:line or record id."""

    model_config = ConfigDict(frozen=True)

    kind: Literal["imported", "drafted", "augmented", "production"] = "imported"
    source: str = ""
    parents: tuple[str, ...] = ()
    author: str | None = None


class Example(BaseModel):
    """One item. `id` is the hash of its normalised content, so equal rows have equal ids."""

    model_config = ConfigDict(frozen=True)

    messages: tuple[Message, ...]
    label: str | None = None
    group: str | None = None
    time: str | None = None  # ISO 8601
    meta: dict[str, Any] = {}
    origin: Origin = Origin()

    @cached_property
    def id(self) -> str:
        """24 hex digits of the hash of roles, normalised contents and label."""
        turns = [[m.role, normalise(m.content), m.model_extra or {}] for m in self.messages]
        return content_hash({"messages": turns, "label": self.label})[:24]

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """Return a copy with `update` applied; what was computed from the old fields is not."""
        copy = super().model_copy(update=update, deep=deep)
        copy.__dict__.pop("id", None)
        return copy

    @property
    def context(self) -> tuple[Message, ...]:
        """The turns before the answer."""
        answered = bool(self.messages) and self.messages[-1].role == "assistant"
        return self.messages[:-1] if answered else self.messages

    @property
    def answer(self) -> str | None:
        """The reference answer, or None if the row has none yet."""
        if self.messages and self.messages[-1].role == "assistant":
            return self.messages[-1].content
        return None

    @property
    def is_text(self) -> bool:
        """Whether this is raw text to go on pre-training with: one answer to nothing."""
        return len(self.messages) == 1 and self.messages[0].role == "assistant"

    @property
    def input_text(self) -> str:
        """What the user side says, joined: the text that duplicates and leaks are judged on.

        Raw text has no user side and is judged on itself.
        """
        turns = self.messages if self.is_text else self.context
        return "\n".join(m.content for m in turns if m.role != "system")


def normalise(text: str) -> str:
    """Return text as ids and exact duplicates see it: NFC, lower case, single spaces."""
    return " ".join(unicodedata.normalize("NFC", text).split()).lower()
