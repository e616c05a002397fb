"""Turn a row of named fields into an Example: find its shape, then read input, answer and label.

The shapes are in chats.py, logs.py and pairs.py; the first that fits is taken, and rows with the
same fields are read alike. It reads no files.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from datetime import datetime
from typing import Any

from tutelage.core.config import Columns, Task
from tutelage.core.errors import ConfigError, did_you_mean, nearest
from tutelage.core.example import Example, Message, Origin
from tutelage.core.output import OutputFormat, outside
from tutelage.data.readers.chats import find_openai, find_openpipe, find_preference, find_sharegpt
from tutelage.data.readers.form import FORM, note_fields
from tutelage.data.readers.logs import find_completions, find_langfuse, find_latitude
from tutelage.data.readers.pairs import find_alpaca, find_pair, find_text
from tutelage.data.readers.reading import MISSING, Clues, Fields, Finder, Reading, Shape, fold
from tutelage.data.readers.turns import Unusable, as_text, is_turns, said

FINDERS: dict[str, Finder] = {  # in the order they are tried
    "text": find_text,
    "openai-stored": find_completions,
    "preference": find_preference,
    "alpaca": find_alpaca,
    "langfuse": find_langfuse,
    "latitude": find_latitude,
    "openpipe": find_openpipe,
    "openai": find_openai,
    "sharegpt": find_sharegpt,
    "pairs": find_pair,
}
FORMATS = ("auto", *FINDERS)
_CHATS = ("openai-stored", "preference", "latitude", "openpipe", "openai", "sharegpt")
ORIGINS = ("imported", "drafted", "augmented", "production")  # kinds a row may claim for itself
_DEPTH = 100  # levels; a version's reader gives up at 200
_SHAPES_KEPT = 1000  # sets of fields whose shape is remembered


class Shaper:
    """Reads rows of one project: its columns, the shape of its answers, its task.

    `format` names the shape to expect; auto tries them all. With `strict` off, answers are taken
    as they are: labels are not held against the list, and JSON answers are not written anew.
    """

    def __init__(
        self,
        columns: Columns,
        output: OutputFormat,
        task: Task = "generation",
        *,
        format: str = "auto",
        strict: bool = True,
    ) -> None:
        self.columns = columns
        self.output = output
        self.task = task
        self._format = known_format(format)
        self._closed = strict and bool(output.field or output.labels)
        self._shapes: dict[tuple[str, ...], Shape] = {}
        folds = Counter(_fold(label) for label in output.labels)
        self._by_fold = {_fold(name): name for name in output.labels if folds[_fold(name)] == 1}

    def example(self, fields: Fields, source: str) -> tuple[Example, Shape]:
        """Return the Example and the shape it had; raise Unusable with the reason."""
        keys = tuple(str(key) for key in fields)
        shape = self._shapes.get(keys)
        if shape is None:
            if len(self._shapes) >= _SHAPES_KEPT:
                self._shapes.clear()
            shape = self._shapes[keys] = self._find_shape(keys, fields)
        reading = shape.read(fields)
        messages, label = self._answered(reading)
        group = self._named(fields, self.columns.group, "data.splits.group")
        time = _time(self._named(fields, self.columns.time, "data.splits.time"))
        used = {*reading.used, self.columns.group, self.columns.time, FORM}
        meta = {str(k): v for k, v in fields.items() if k not in used and v not in (None, "")}
        form = self._form(fields, meta, reading)
        if group is None and self.task == "text" and "document" in meta:
            group = str(meta["document"])
        _require_writable(messages, label, meta)
        example = Example(
            messages=messages,
            label=label,
            group=group,
            time=time,
            meta={**meta, **reading.more, **({FORM: form} if form else {})},
            origin=_origin(meta.get("origin"), source),
        )
        return example, shape

    def _find_shape(self, keys: tuple[str, ...], fields: Fields) -> Shape:
        clues = Clues(fold(keys), fields, self.columns, self.output, self.task)
        if self._format != "auto":
            shape = FINDERS[self._format](clues)
            if shape is None:
                has = ", ".join(keys[:8])
                raise Unusable("D1-R04", f"not of the format {self._format!r}; it has {has}")
            return shape
        for name in self._candidates(keys):
            shape = FINDERS[name](clues)
            if shape is not None:
                return shape
        raise Unusable("D1-R04", f"no input found in the fields {', '.join(keys[:8])}")

    def _candidates(self, keys: tuple[str, ...]) -> tuple[str, ...]:
        """Return the formats to try. Named columns rule; chats may be mixed with them."""
        if self.task == "text":
            return tuple(FINDERS)
        if self.columns.input in keys:
            return ("pairs",)
        if self.columns.input is not None:
            return (*_CHATS, "pairs")
        return tuple(name for name in FINDERS if name != "text")

    def _form(self, fields: Fields, meta: Fields, reading: Reading) -> dict[str, Any]:
        """Return the note of how the row was written; empty if it says nothing new."""
        form = dict(reading.form)
        named = {"group": self.columns.group, "time": self.columns.time}
        own = {word: name for word, name in named.items() if name is not None}
        if form:
            noted = note_fields(fields, meta, reading.used)
            was = noted.get("was", {})
            kept = {name: was.pop(name) for name in own.values() if name in was}
            noted["typed"] = [name for name, value in kept.items() if not isinstance(value, str)]
            form |= {key: value for key, value in noted.items() if value}
        return form | own

    def _named(self, fields: Fields, name: str | None, setting: str) -> str | None:
        if name is None:
            return None
        value = fields.get(name)
        if value is None or str(value).strip() == "":
            raise Unusable("D1-R05", f"no value in {name!r}, which {setting} needs")
        return str(value).strip()

    def _answered(self, reading: Reading) -> tuple[tuple[Message, ...], str | None]:
        """Return the turns with the answer in the project's format, and the label."""
        messages, label = reading.messages, reading.label
        if reading.answer is MISSING:
            if messages and messages[-1].role == "assistant" and self._closed:
                text, label = self.answer(messages[-1].content)
                messages = (*messages[:-1], messages[-1].model_copy(update={"content": text}))
            return messages, label
        value = reading.answer
        if value is None or (isinstance(value, float) and math.isnan(value)):
            raise Unusable("D2-S05", f"the answer in {reading.used[-1]!r} is empty")
        if self._closed:
            text, label = self.answer(value)
        elif is_turns(value):
            return (*messages, *said(value, "assistant")), label
        else:
            text = as_text(value)
            label = text.strip() if reading.is_label else label
        return (*messages, Message(role="assistant", content=text)), label

    def answer(self, value: Any) -> tuple[str, str]:
        """Return (the canonical answer text, the label) for a bare label or a JSON answer."""
        label = self._label_in(value).strip()
        if not label:
            raise Unusable("D2-S05", "the answer is empty")
        if self.output.labels and label not in self.output.labels:
            known = self._by_fold.get(_fold(label))
            if known is None:
                raise Unusable("D2-S09", self._outside(label))
            label = known
        return self.output.render(label), label

    def _label_in(self, value: Any) -> str:
        field = self.output.field
        if isinstance(value, str) and field is not None and value.strip()[:1] == "{":
            try:
                value = json.loads(value)
            except (ValueError, RecursionError) as error:
                raise Unusable("D2-S08", f"the answer is not valid JSON: {value[:60]}") from error
        if isinstance(value, dict) and field is not None:
            if field not in value:
                has = ", ".join(str(key) for key in list(value)[:5]) or "nothing"
                raise Unusable("D2-S08", f"the answer has no field {field!r}, it has {has}")
            if len(value) > 1:
                other = ", ".join(repr(key) for key in value if key != field)
                raise Unusable("D2-S08", f"the answer has fields besides {field!r}: {other[:60]}")
            value = value[field]
        if isinstance(value, (dict, list)):
            raise Unusable("D2-S08", f"the answer is {as_text(value)[:60]}, not one text")
        return as_text(value)

    def _outside(self, label: str) -> str:
        near = nearest(_fold(label), list(self._by_fold))
        hint = f", did you mean {self._by_fold[near]!r}" if near else ""
        return f"{outside(label[:60], self.output.labels)}{hint}"


def _require_writable(
    messages: tuple[Message, ...], label: str | None, meta: dict[str, Any]
) -> None:
    """Raise Unusable for what could be written to a version but not read again."""
    rest = [turn.model_extra for turn in messages if turn.model_extra]
    if _deep(meta) or any(map(_deep, rest)):
        raise Unusable("D1-R08", f"a field is nested more than {_DEPTH} levels deep")
    try:
        for text in (*(turn.content for turn in messages), label or ""):
            text.encode()
        if rest or meta:
            json.dumps([rest, meta], ensure_ascii=False, default=str).encode()
    except UnicodeEncodeError as error:
        raise Unusable("D1-R02", "not UTF-8 text: half a character") from error


def _deep(value: Any) -> bool:
    """Return whether lists and objects lie in each other more than `_DEPTH` levels deep."""
    level = [value]
    for _ in range(_DEPTH):
        level = [
            part
            for item in level
            if isinstance(item, (dict, list, tuple))
            for part in (item.values() if isinstance(item, dict) else item)
            if isinstance(part, (dict, list, tuple))
        ]
        if not level:
            return False
    return True


def known_format(name: str) -> str:
    """Return `name` if it is a format of rows; raise ConfigError with the known ones."""
    if name not in FORMATS:
        hint = did_you_mean(name, FORMATS)
        raise ConfigError(
            f"{name!r} is not a format of rows", fix=f"{hint}Known: {', '.join(FORMATS)}"
        )
    return name


def _origin(told: Any, source: str) -> Origin:
    """Return where a row came from; a row that experts or a model wrote says so in `origin`."""
    if not isinstance(told, dict) or told.get("kind") not in ORIGINS:
        return Origin(source=source)
    parents = told.get("parents")
    author = told.get("author")
    return Origin(
        kind=told["kind"],
        source=source,
        parents=tuple(map(str, parents)) if isinstance(parents, list) else (),
        author=author if isinstance(author, str) else None,
    )


def _time(value: str | None) -> str | None:
    if value is None:
        return None
    try:
        datetime.fromisoformat(value)
    except ValueError as error:
        raise Unusable("D2-S10", f"the time {value[:40]!r} is not ISO 8601") from error
    return value


def _fold(label: str) -> str:
    return " ".join(label.replace("_", " ").replace("-", " ").split()).casefold()
