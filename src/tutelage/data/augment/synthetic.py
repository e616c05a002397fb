"""Synthetic rows: new inputs with their answers, after a few real ones (Wang et al. 2022).

Self-Instruct, arXiv 2212.10560. For a label the examples share it and the drafts get it; else the
teacher writes the answer too.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from tutelage.core.example import Example
from tutelage.data.augment.base import (
    Draft,
    Settings,
    last_user,
    numbered,
    read_json,
    read_texts,
    request,
    texts_schema,
)
from tutelage.inference.base import Prompt

_LABELLED = (
    "The texts below are real inputs that experts gave the label {label}. Write {count} new, "
    "different inputs with that label, of the kind that users would send: other details, other "
    "wording, the same style and length. Do not copy or lightly edit the examples."
)
_FREE = (
    "The rows below are real inputs with an expert's answers. Write {count} new, different rows "
    "of the same kind: realistic inputs with correct and complete answers in the same form. Do "
    "not copy or lightly edit the examples."
)


class Synthetic:
    """Writes new rows after up to `shots` real ones, which share a label where there are labels."""

    shots = 5

    def __init__(self, settings: Settings | None = None) -> None:
        self._settings = settings or Settings()

    def ask(self, parents: Sequence[Example], number: int) -> Prompt:
        """Ask for rows like the parents."""
        count = self._settings.per_row
        label = parents[0].label
        if label is not None:
            instructions = _LABELLED.format(label=json.dumps(label), count=count)
            data: Any = {"inputs": [last_user(row) for row in parents]}
            schema = texts_schema(count)
        else:
            instructions = _FREE.format(count=count)
            data = {"rows": [{"input": last_user(r), "answer": r.answer or ""} for r in parents]}
            schema = _rows_schema(count)
        if self._settings.prompt:
            instructions += f" The task they belong to: {self._settings.prompt.strip()}"
        return numbered(request(instructions, data, schema, self._settings), number)

    def take(self, parents: Sequence[Example], text: str, hop: int) -> list[Draft]:
        """Return the new rows; their parents are all the rows that were shown."""
        ids = tuple(row.id for row in parents)
        first = parents[0]
        most = self._settings.per_row
        if first.label is not None:
            return [
                Draft(new, first.answer or "", first.label, ids, "synthetic")
                for new in read_texts(text)[:most]
            ]
        rows = read_json(text).get("rows")
        pairs = [
            (str(row.get("input") or "").strip(), str(row.get("answer") or "").strip())
            for row in (rows if isinstance(rows, list) else ())
            if isinstance(row, dict)
        ]
        if not pairs:
            raise ValueError("the answer has no rows")
        return [Draft(new, answer, None, ids, "synthetic") for new, answer in pairs[:most]]


def _rows_schema(count: int) -> dict[str, Any]:
    text = {"type": "string"}
    row = {
        "type": "object",
        "properties": {"input": text, "answer": text},
        "required": ["input", "answer"],
        "additionalProperties": False,
    }
    return {
        "type": "object",
        "properties": {"rows": {"type": "array", "items": row, "minItems": 1, "maxItems": count}},
        "required": ["rows"],
        "additionalProperties": False,
    }
