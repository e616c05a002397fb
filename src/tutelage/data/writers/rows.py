"""An Example as a row of a file: an OpenAI chat object, or the columns of a table.

A row that came from a file is written as that file had it (readers/form.py keeps what is
needed); every other row in the plain form of the format.
"""

from __future__ import annotations

from typing import Any

from tutelage.core.example import Example
from tutelage.data.readers.form import fields_of, noted_of, restore_fields, restore_turn

_HOSTED = ("tools", "parallel_tool_calls", "functions")  # what a fine-tuning job takes besides
Row = dict[str, Any]


def openai_row(example: Example, *, bare: bool = False) -> Row:
    """Return the JSON object of a row; raw text becomes {"text": …}.

    `bare` leaves out what is no part of a fine-tuning example: labels, ids, notes.
    """
    noted, fields = noted_of(example), fields_of(example)
    if example.is_text and not noted.get("chat"):
        text = {"text": example.messages[0].content}
        return text if bare else {**text, **fields}
    made: Row = {"messages": turns_of(example)}
    if bare:
        return {**made, **{key: fields[key] for key in _HOSTED if key in fields}}
    if "preference" in noted:
        return _preference(example, noted, fields)
    if example.label is not None:
        if isinstance(fields.get("label"), str):
            fields["label"] = example.label
        elif not noted.get("chat"):
            made["label"] = example.label
    return restore_fields(noted if noted.get("chat") else {}, made, fields)


def turns_of(example: Example) -> list[Row]:
    """Return the turns as their file wrote them; plain if turns came or went since."""
    noted = noted_of(example).get("turns")
    if noted and len(noted) + 1 == len(example.messages) and example.messages[0].role == "system":
        noted = [None, *noted]  # the project's prompt was put in front
    if not noted or len(noted) != len(example.messages):
        return [restore_turn(message, None) for message in example.messages]
    pairs = zip(example.messages, noted, strict=True)
    return [restore_turn(message, note) for message, note in pairs]


def _preference(example: Example, noted: Row, fields: Row) -> Row:
    """Return a preference pair in OpenAI's form."""
    source, better, worse = noted["preference"]
    turns = turns_of(example)
    asked: Row = {"messages": turns[:-1]}
    for key in noted.get("input", ()):
        if key in fields:
            asked[key] = fields.pop(key)
    made = {source: asked, better: turns[-1:], worse: fields.pop("rejected", None)}
    return restore_fields(noted, made, fields)


def is_pair(example: Example) -> bool:
    """Return whether a row came from a table with an input and an answer column."""
    return "out" in noted_of(example) and [m.role for m in example.messages] == [
        "user",
        "assistant",
    ]


def is_plain(example: Example) -> bool:
    """Return whether a row is a question and an answer, perhaps with a system message."""
    roles = [message.role for message in example.messages]
    calls = any(message.model_extra for message in example.messages)
    return not calls and roles in (["user", "assistant"], ["system", "user", "assistant"])


def table_row(example: Example, *, plain: bool) -> Row:
    """Return the columns of a row.

    A row of a table gets its own columns back. With `plain`, any other row is `prompt` and
    `completion` (and `system`), else its turns stand in `messages`.
    """
    noted, fields = noted_of(example), fields_of(example)
    if example.is_text:
        return {"text": example.messages[0].content, **fields}
    if is_pair(example):
        answer = example.label if example.label is not None else example.answer
        made = {noted["in"]: example.messages[0].content, noted["out"]: answer}
        return restore_fields(noted, made, fields)
    row: Row = {"messages": turns_of(example)}
    if plain:
        row = {"prompt": example.input_text, "completion": example.answer}
        if example.messages[0].role == "system":
            row = {"system": example.messages[0].content, **row}
    if example.label is not None and "label" not in fields:
        row["label"] = example.label
    return {**row, **fields}
