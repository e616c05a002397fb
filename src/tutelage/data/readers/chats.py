"""Rows that hold a conversation: OpenAI chat, OpenPipe datasets, ShareGPT, preference pairs."""

from __future__ import annotations

import json
from functools import partial
from typing import Any

from tutelage.core.example import Message
from tutelage.data.readers.form import note_turns
from tutelage.data.readers.logs import find_openpipe_log
from tutelage.data.readers.reading import Clues, Fields, Reading, Shape
from tutelage.data.readers.turns import Unusable, as_text, read_turns, said

CHATS = ("messages", "conversations", "conversation")
SYSTEMS = ("system_prompt", "system")
_ANSWERS = ("completion", "response", "answer", "output", "expected_output")
_LABELS = ("label", "category", "class", "intent", "target")


def find_openpipe(clues: Clues) -> Shape | None:
    """OpenPipe's dataset export, OpenAI chat with a split of TRAIN or TEST; or its request logs."""
    split = clues.folded.get("split")
    if "messages" not in clues.folded:
        return find_openpipe_log(clues)
    if split is None or str(clues.row[split]) not in ("TRAIN", "TEST"):
        return None
    read = _chat(clues, clues.folded["messages"])
    return Shape("OpenPipe dataset", "every row has messages, and a split of TRAIN or TEST", read)


def find_openai(clues: Clues) -> Shape | None:
    """Chat as OpenAI's fine-tuning takes it: `messages` with roles and contents."""
    name = clues.first(*CHATS)
    if name is None or _speaks_from(clues.row[name]):
        return None
    return Shape("OpenAI chat", f"every row has {name} with roles", _chat(clues, name))


def find_sharegpt(clues: Clues) -> Shape | None:
    """ShareGPT: turns with `from` and `value`."""
    name = clues.first(*CHATS)
    if name is None:
        return None
    why = f"every row has {name} with from and value"
    return Shape("ShareGPT", why, _chat(clues, name, noted=False))


def find_preference(clues: Clues) -> Shape | None:
    """A better and a worse answer to one input: OpenAI's preference format, or chosen/rejected."""
    better = clues.first("preferred_output", "preferred_completion")
    worse = clues.first("non_preferred_output", "non_preferred_completion")
    if better and worse and "input" in clues.folded:
        source = clues.folded["input"]
        return Shape(
            "preference pairs",
            f"every row has {source}, {better} and {worse}; the preferred answer is the one learnt",
            partial(_preference, source=source, better=better, worse=worse),
        )
    if {"chosen", "rejected"} <= clues.folded.keys():
        better, worse = clues.folded["chosen"], clues.folded["rejected"]
        asked = clues.first("prompt", "question", "instruction", "input")
        return Shape(
            "preference pairs",
            f"every row has {better} and {worse}; the chosen answer is the one learnt",
            partial(_chosen, asked=asked, better=better, worse=worse),
        )
    return None


def _speaks_from(value: Any) -> bool:
    """Return whether the first turn has `from` and no role, as ShareGPT's have."""
    if isinstance(value, str):
        head = value[:400]
        return '"from"' in head and '"role"' not in head
    first = value[0] if isinstance(value, list) and value else None
    return isinstance(first, dict) and "from" in first and "role" not in first


def _chat(clues: Clues, name: str, *, noted: bool = True) -> Any:
    """Return the reader of rows whose field `name` holds the turns."""
    system = clues.first(*SYSTEMS)
    answer = _answer_field(clues, name)
    label = clues.columns.output if clues.columns.output in clues.row else "label"

    def read(fields: Fields) -> Reading:
        value = fields[name]
        original = _parsed(value)
        messages = read_turns(value, name)
        _require_weight(original)
        told = fields.get(label or "")
        reading = Reading(messages, (name,), label=told if isinstance(told, str) else None)
        if noted and name == "messages" and isinstance(value, list):
            turns = note_turns(original, messages)
            reading.form = {"chat": True, **({"turns": turns} if turns else {})}
        if system and fields.get(system) and not any(m.role == "system" for m in messages):
            first = Message(role="system", content=as_text(fields[system]))
            reading = Reading((first, *messages), (name, system), label=reading.label)
        if answer and reading.messages and reading.messages[-1].role != "assistant":
            reading.used = (*reading.used, answer)
            reading.answer, reading.form = fields.get(answer), {}
            reading.is_label = answer.lower() in _LABELS
        return reading

    return read


def _answer_field(clues: Clues, chat: str) -> str | None:
    """Return the field that ends a conversation which stops with the user, if there is one."""
    if clues.columns.output in clues.row:
        return clues.columns.output
    own = (clues.output.field.lower(),) if clues.output.field else ()
    labels = _LABELS if clues.output.labels or clues.output.field else ()
    found = clues.first(*own, *_ANSWERS, *labels)
    return found if found != chat else None


def _parsed(value: Any) -> list[Any]:
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            return []
    return value if isinstance(value, list) else []


def _require_weight(turns: list[Any]) -> None:
    """Raise Unusable if the answer to learn carries weight 0, which says: do not learn it."""
    last = turns[-1] if turns and isinstance(turns[-1], dict) else {}
    if last.get("weight") == 0 and last.get("role") == "assistant":
        raise Unusable("D1-R09", "the last answer has weight 0, so there is nothing to learn")


def _preference(fields: Fields, source: str, better: str, worse: str) -> Reading:
    asked = fields[source]
    messages = (*said(asked, "user"), *said(fields[better], "assistant"))
    more = {"rejected": fields[worse]}
    extra = {}
    if isinstance(asked, dict):
        extra = {k: v for k, v in asked.items() if k != "messages" and v is not None}
    form = {"preference": [source, better, worse], "input": list(extra)}
    return Reading(messages, (source, better, worse), more={**extra, **more}, form=form)


def _chosen(fields: Fields, asked: str | None, better: str, worse: str) -> Reading:
    answer = said(fields[better], "assistant")
    whole = len(answer) > 1 and answer[0].role != "assistant"  # the conversation is repeated
    before = () if asked is None or whole else said(fields[asked], "user")
    used = (better, worse) if asked is None else (asked, better, worse)
    return Reading((*before, *answer), used, more={"rejected": fields[worse]})
