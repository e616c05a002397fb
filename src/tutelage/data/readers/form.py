"""How a row was written in its file, kept so small that an export can write it the same way.

An Example holds what training needs: one set of roles, contents as one text. The rest (the order
of the fields, `developer` for system, a null content, parts, weights, empty fields, the names of
columns) is noted in `meta["_form"]`, and only where it differs from the plain spelling. What is
noted is never text of the conversation, so a correction or a redaction is never undone.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from tutelage.core.example import Example, Message
from tutelage.data.readers.turns import ROLES

FORM = "_form"


def plain_turn(message: Message) -> dict[str, Any]:
    """Return a message as OpenAI's format writes it."""
    return {"role": message.role, "content": message.content, **(message.model_extra or {})}


def note_turns(
    original: Sequence[Mapping[str, Any]], messages: Sequence[Message]
) -> list[dict[str, Any] | None] | None:
    """Return what is special about each turn, or None if none is."""
    noted = [_note_turn(turn, message) for turn, message in zip(original, messages, strict=True)]
    return noted if any(noted) else None


def _note_turn(turn: Mapping[str, Any], message: Message) -> dict[str, Any] | None:
    if (
        _is_plain(turn, message)
        or "role" not in turn
        or ("value" in turn and "content" not in turn)
    ):
        return None
    plain = plain_turn(message)
    noted: dict[str, Any] = {}
    if list(turn) != list(plain):
        noted["keys"] = list(turn)
    content = turn.get("content")
    if isinstance(content, list):
        noted["parts"] = [_frame(part) for part in content]
    was = {
        key: value
        for key, value in turn.items()
        if (key not in plain or plain[key] != value) and (key != "content" or content is None)
    }
    return {**noted, "was": was} if was else noted or None


def _is_plain(turn: Mapping[str, Any], message: Message) -> bool:
    """Return whether a turn is spelled as `plain_turn` would; most are role and content alone."""
    if len(turn) == 2 and not message.model_extra:
        (one, role), (two, content) = turn.items()
        return (one, two, role) == ("role", "content", message.role) and content == message.content
    plain = plain_turn(message)
    return turn == plain and list(turn) == list(plain)


def _frame(part: Any) -> Any:
    """Return a part with the length of its text in place of the text."""
    if isinstance(part, str):
        return len(part)
    return {key: len(value) if key == "text" else value for key, value in part.items()}


def restore_turn(message: Message, noted: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return the turn as its file wrote it; what was changed since is written plainly."""
    plain = plain_turn(message)
    if not noted:
        return plain
    was = noted.get("was", {})
    turn: dict[str, Any] = {}
    for key in noted.get("keys", plain):
        if key == "content":
            turn[key] = _restore_content(message.content, noted)
        elif key == "role" and ROLES.get(str(was.get(key)).lower()) != message.role:
            turn[key] = message.role
        elif key in was:
            turn[key] = was[key]
        elif key in plain:
            turn[key] = plain[key]
    added = {key: value for key, value in plain.items() if key not in turn}
    if not message.content:
        added.pop("content", None)
    return {**turn, **added}


def _restore_content(content: str, noted: Mapping[str, Any]) -> Any:
    frames = noted.get("parts")
    if frames is None:
        return None if not content and "content" in noted.get("was", {}) else content
    lengths = [frame["text"] if isinstance(frame, dict) else frame for frame in frames]
    if sum(lengths) != len(content):  # the text was changed: it stays one part
        frames, lengths = frames[:1], [len(content)]
    parts, start = [], 0
    for frame, length in zip(frames, lengths, strict=True):
        text = content[start : start + length]
        start += length
        parts.append({**frame, "text": text} if isinstance(frame, dict) else text)
    return parts


def note_fields(fields: Mapping[str, Any], meta: Mapping[str, Any], used: Sequence[str]) -> Any:
    """Return {"keys", "was"} of a row's fields, as far as `meta` and `used` do not show them.

    `used` are the fields that became messages, in the plain order; `was` holds empty fields and
    those whose type the Example changed.
    """
    noted: dict[str, Any] = {}
    if list(fields) == [*used, *meta]:
        return noted
    noted["keys"] = list(fields)
    was = {key: value for key, value in fields.items() if key not in used and key not in meta}
    return {**noted, "was": was} if was else noted


def restore_fields(
    noted: Mapping[str, Any], made: Mapping[str, Any], meta: Mapping[str, Any]
) -> dict[str, Any]:
    """Return a row with its fields in their order: `made` from the messages, the rest kept."""
    was = noted.get("was", {})
    row: dict[str, Any] = {}
    for key in noted.get("keys", ()):
        for source in (made, meta, was):
            if key in source:
                row[key] = source[key]
                break
    for source in (made, meta):
        row.update({key: value for key, value in source.items() if key not in row})
    return row


def noted_of(example: Example) -> dict[str, Any]:
    """Return what was noted about a row's form; empty for rows that no file held."""
    noted = example.meta.get(FORM)
    return noted if isinstance(noted, dict) else {}


def fields_of(example: Example) -> dict[str, Any]:
    """Return a row's own fields: `meta` without the note, and group and time by their names."""
    noted = noted_of(example)
    fields = {key: value for key, value in example.meta.items() if key != FORM}
    for word in ("group", "time"):
        name, value = noted.get(word), getattr(example, word)
        if name is not None and value is not None and name not in fields:
            fields[name] = _typed(value) if name in noted.get("typed", ()) else value
    return fields


def _typed(text: str) -> Any:
    """Return the number that a text stands for, or the text."""
    try:
        return json.loads(text)
    except ValueError:
        return text
