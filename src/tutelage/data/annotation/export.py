"""A decided item as a row of a sources file: who answered, from which draft, by which guideline.

The row reads like any chat row; `origin` says where it came from and `annotated` how it was
decided. Curation keeps both.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tutelage.core.config import Columns
from tutelage.core.output import OutputFormat
from tutelage.data.annotation.items import Item, answered
from tutelage.data.annotation.votes import Decision
from tutelage.data.readers.form import fields_of

ANNOTATED = "annotated"
_OWN = ("messages", "label", "origin", ANNOTATED)


def row_of(
    item: Item,
    decision: Decision,
    columns: Columns,
    output: OutputFormat,
    draft: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Return the JSON object of a decided item.

    `draft` ({model, prompt, edit_distance}) is the one the chosen answer began with, if any.
    """
    example = answered(item.example, decision.label, decision.answer, output)
    row: dict[str, Any] = {
        "messages": [turn.model_dump(mode="json", exclude_none=True) for turn in example.messages]
    }
    if decision.label is not None:
        row["label"] = decision.label
    for name, value in ((columns.group, example.group), (columns.time, example.time)):
        if name is not None and value is not None:
            row[name] = value
    own = fields_of(example)
    row |= {key: value for key, value in own.items() if key not in row | _reserved()}
    kind = "drafted" if draft is not None else example.origin.kind
    row["origin"] = {"kind": kind, "author": ", ".join(decision.by), "parents": []}
    row[ANNOTATED] = {
        "item": item.id,
        "source": example.origin.source or item.source,
        "by": list(decision.by),
        "how": decision.kind,
        **({"why": decision.why} if decision.why else {}),
        **({"draft": dict(draft)} if draft is not None else {}),
    }
    return row


def _reserved() -> dict[str, None]:
    return dict.fromkeys(_OWN)
