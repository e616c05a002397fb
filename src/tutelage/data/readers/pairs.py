"""Rows with an input and an answer in fields of their own: prompt/completion, labels, Alpaca, text.

Which field is which comes from data.columns, or from the usual names.
"""

from __future__ import annotations

from typing import Any

from tutelage.core.errors import nearest
from tutelage.core.example import Message
from tutelage.data.readers.chats import SYSTEMS
from tutelage.data.readers.reading import Clues, Fields, Reading, Shape
from tutelage.data.readers.turns import Unusable, as_text, is_turns, looks_like_turns, said

INPUTS = (
    "prompt", "input", "text", "question", "query", "instruction", "sentence", "utterance",
    "description", "document", "content", "message", "source", "request", "user_input",
    "user_message", "user_query", "user",
)  # fmt: skip
LABELS = ("label", "category", "class", "intent", "target")
ANSWERS = (
    "completion", "output", "answer", "response", "summary", "expected_output", "reply",
    "model_output", "model_response", "generated_text", "assistant_message", "assistant_response",
    "bot_response", "assistant", *LABELS,
)  # fmt: skip
TEXTS = ("text", "content", "document", "body", "passage")
_REPLIES = ("output", "response", "completion", "answer")
_CONTEXTS = ("context", "passage", "contexts")


def find_text(clues: Clues) -> Shape | None:
    """Raw text to go on pre-training with: one field, no answer."""
    chosen = clues.columns.input if clues.columns.input in clues.row else None
    name = chosen or clues.first(*TEXTS)
    if name is None:
        return None

    def read(fields: Fields) -> Reading:
        text = as_text(fields[name])
        return Reading((Message(role="assistant", content=text),), (name,))

    return Shape("raw text", f"the task is text, and every row has {name}", read)


def find_alpaca(clues: Clues) -> Shape | None:
    """Alpaca and its kin: instruction, perhaps an input or context, and the reply."""
    instruction = clues.folded.get("instruction")
    reply = clues.columns.output or clues.first(*_REPLIES)
    if instruction is None or reply is None or reply not in clues.row:
        return None
    extra = clues.first("input", *_CONTEXTS)
    system = clues.first(*SYSTEMS)
    history = clues.folded.get("history")

    def read(fields: Fields) -> Reading:
        source = _joined(fields[instruction], fields.get(extra) if extra else None)
        before = _history(fields.get(history)) if history else ()
        first = _system(fields, system)
        messages = (*first, *before, Message(role="user", content=source))
        used = tuple(name for name in (instruction, extra, system, history, reply) if name)
        return Reading(messages, used, answer=fields.get(reply))

    why = f"every row has {instruction}, {f'{extra} ' if extra else ''}and {reply}"
    return Shape("Alpaca", why, read)


def find_pair(clues: Clues) -> Shape | None:
    """An input and an answer; raises Unusable with what is missing."""
    columns, row = clues.columns, clues.row
    for wanted in (columns.input, columns.output):
        if wanted is not None and wanted not in row:
            raise Unusable("D1-R05", _no_field(wanted, list(map(str, row))))
    source = columns.input or clues.first(*INPUTS)
    own = (clues.output.field.lower(),) if clues.output.field else ()
    answer = columns.output or next(
        (clues.folded[n] for n in (*own, *ANSWERS) if clues.folded.get(n) not in (None, source)),
        None,
    )
    if source is None or answer is None:
        missing = "input" if source is None else "answer"
        raise Unusable("D1-R04", f"no {missing} found in the fields {', '.join(list(row)[:8])}")
    is_label = bool(clues.output.labels or clues.output.field) or answer.lower() in LABELS
    extra = None
    if columns.input is None and source.lower() in ("question", "query"):
        extra = clues.first(*_CONTEXTS)
        extra = None if extra == answer else extra
    named = bool(columns.input or columns.output)
    how = "as you named them" if named else "by their names"
    return Shape(
        "text and label" if is_label else "prompt and completion",
        f"{source}{f' and {extra}' if extra else ''} → {answer}, {how}",
        _pair(source, extra, answer, clues.folded.get("system_prompt"), is_label),
    )


def _pair(source: str, extra: str | None, answer: str, system: str | None, is_label: bool) -> Any:
    used = tuple(name for name in (source, extra, system, answer) if name)
    simple = extra is None and system is None

    def read(fields: Fields) -> Reading:
        value = fields.get(source)
        if isinstance(value, dict) or _is_chat(value):
            messages = said(value, "user")
        else:
            text = _joined(value, fields.get(extra) if extra else None)
            messages = (Message(role="user", content=text),)
        form = {"in": source, "out": answer} if simple and isinstance(value, str) else {}
        messages = (*_system(fields, system), *messages)
        return Reading(messages, used, answer=fields.get(answer), is_label=is_label, form=form)

    return read


def _is_chat(value: Any) -> bool:
    if isinstance(value, str):
        return looks_like_turns(value) and len(said(value, "user")) > 1
    return is_turns(value)


def _joined(value: Any, extra: Any) -> str:
    """Return the input, and below it what it is about, as Alpaca's prompt has it."""
    text = as_text(value)
    if isinstance(extra, list) and all(isinstance(part, str) for part in extra):
        extra = "\n\n".join(extra)
    more = as_text(extra)
    return f"{text}\n\n{more}" if more.strip() else text


def _system(fields: Fields, name: str | None) -> tuple[Message, ...]:
    text = as_text(fields.get(name)) if name else ""
    return (Message(role="system", content=text),) if text.strip() else ()


def _history(value: Any) -> tuple[Message, ...]:
    """Return earlier rounds, each a list of what was asked and what was answered."""
    if not isinstance(value, list):
        return ()
    turns: list[Message] = []
    for entry in value:
        if isinstance(entry, list) and len(entry) == 2:
            turns.append(Message(role="user", content=as_text(entry[0])))
            turns.append(Message(role="assistant", content=as_text(entry[1])))
    return tuple(turns)


def _no_field(wanted: str, keys: list[str]) -> str:
    near = nearest(wanted, keys)
    hint = f", did you mean {near!r}" if near else f"; it has {', '.join(keys[:8])}"
    return f"no field {wanted!r}{hint}"
