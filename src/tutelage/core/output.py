"""How a label becomes the text a model must write, and how that text is read back.

For `{"chapter": "respiratory"}` the field is `chapter`. Without a field the label is the whole
text. Reading is strict about shape and forgiving about space around it: a score keeps the reason.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


def read_json(text: str) -> Any:
    """Return the value of a JSON text.

    Raises ValueError for anything else, also where it is nested too deeply to be read.
    """
    try:
        return json.loads(text)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


@dataclass(frozen=True)
class Parsed:
    """What was found in a model's text: the label, or None and why not."""

    label: str | None
    value: Any = None  # the parsed JSON, if any
    problem: str | None = None  # "not JSON", "no field 'chapter'", "'lungs' is not a label"


def outside(label: str, labels: Sequence[str]) -> str:
    """Return the sentence that a label is none of the `labels`."""
    known = f"one of the {len(labels)} labels" if len(labels) != 1 else "the only label"
    return f"{label!r} is not {known}"


@dataclass(frozen=True)
class OutputFormat:
    """The shape of an answer: an optional JSON field and an optional closed list of labels."""

    field: str | None = None
    labels: tuple[str, ...] = ()

    def render(self, label: str) -> str:
        """Return the exact text the model is taught to write for `label`."""
        if self.field is None:
            return label
        return json.dumps({self.field: label}, ensure_ascii=False)

    def parse(self, text: str) -> Parsed:
        """Return the label in `text`; a label outside the closed list is a problem."""
        value: Any = text.strip()
        if self.field is not None:
            try:
                value = read_json(text.strip())
            except ValueError:
                return Parsed(None, problem="not JSON")
            if not isinstance(value, dict) or not isinstance(value.get(self.field), str):
                return Parsed(None, value, f"no text field {self.field!r}")
            if len(value) > 1:
                return Parsed(None, value, f"fields besides {self.field!r}")
            label = value[self.field]
        else:
            label = value
        if self.labels and label not in self.labels:
            return Parsed(None, value, f"{label[:40]!r} is not one of the labels")
        return Parsed(label, value)

    def schema(self) -> dict[str, Any] | None:
        """Return the JSON Schema of an answer, or None for free text."""
        if self.field is None:
            return None
        inner: dict[str, Any] = {"type": "string"}
        if self.labels:
            inner["enum"] = list(self.labels)
        return {
            "type": "object",
            "properties": {self.field: inner},
            "required": [self.field],
            "additionalProperties": False,
        }
