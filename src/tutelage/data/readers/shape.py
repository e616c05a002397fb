"""Turn a row of named fields into an Example: find the shape, the input, the answer, the label.

Known shapes: OpenAI chat, ShareGPT, Alpaca, prompt/completion, input/output, text + label. It
reads no files.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from tutelage.core.config import Columns
from tutelage.core.errors import nearest
from tutelage.core.example import Example, Message, Origin
from tutelage.core.output import OutputFormat

INPUTS = (
    "prompt", "input", "text", "question", "query", "instruction", "sentence", "utterance",
    "description", "document", "content", "message", "source",
)  # fmt: skip
LABELS = ("label", "category", "class", "intent", "target")
ANSWERS = ("completion", "output", "answer", "response", "summary", "expected_output", *LABELS)
_ROLES = {
    "system": "system", "developer": "system", "user": "user", "human": "user",
    "assistant": "assistant", "gpt": "assistant", "model": "assistant", "bot": "assistant",
    "chatgpt": "assistant", "tool": "tool", "function": "tool",
}  # fmt: skip


class Unusable(Exception):
    """A row can't become an Example: the finding's id and a sentence."""

    def __init__(self, finding_id: str, detail: str) -> None:
        self.finding_id = finding_id
        self.detail = detail
        super().__init__(detail)


@dataclass(frozen=True)
class Shape:
    """How rows with one set of fields are read."""

    name: str
    chat: str | None = None  # the field that holds the turns
    input: str | None = None
    extra: str | None = None  # Alpaca's second input field
    answer: str | None = None
    is_label: bool = False


class Shaper:
    """Reads rows of one project: its columns and the shape of its answers."""

    def __init__(self, columns: Columns, output: OutputFormat) -> None:
        self.columns = columns
        self.output = output
        self._shapes: dict[tuple[str, ...], Shape] = {}
        folds = Counter(_fold(label) for label in output.labels)
        self._by_fold = {_fold(name): name for name in output.labels if folds[_fold(name)] == 1}

    def example(self, fields: Mapping[str, Any], source: str) -> tuple[Example, str]:
        """Return the Example and the name of the shape; raise Unusable with the reason."""
        keys = tuple(str(key) for key in fields)
        if keys not in self._shapes:
            self._shapes[keys] = self._find_shape(keys)
        shape = self._shapes[keys]
        if shape.chat:
            turns, label = self._chat(fields, shape.chat)
        else:
            turns, label = self._pair(fields, shape)
        used = {shape.chat, shape.input, shape.extra, shape.answer}
        used |= {self.columns.group, self.columns.time}
        meta = {str(k): v for k, v in fields.items() if k not in used and v not in (None, "")}
        example = Example(
            messages=turns,
            label=label,
            group=self._named(fields, self.columns.group, "data.splits.group"),
            time=_time(self._named(fields, self.columns.time, "data.splits.time")),
            meta=meta,
            origin=Origin(source=source),
        )
        return example, shape.name

    def _find_shape(self, keys: tuple[str, ...]) -> Shape:
        folded = {key.strip().lower(): key for key in reversed(keys)}
        columns = self.columns
        for wanted in (columns.input, columns.output):
            if wanted is not None and wanted not in keys and not self._chat_field(folded):
                near = nearest(wanted, list(keys))
                hint = f", did you mean {near!r}" if near else f"; it has {', '.join(keys[:8])}"
                raise Unusable("D1-R05", f"no field {wanted!r}{hint}")
        chat = None if columns.input or columns.output else self._chat_field(folded)
        if chat:
            return Shape("ShareGPT" if "conv" in chat.lower() else "OpenAI chat", chat=chat)
        if columns.input is None and {"instruction", "output"} <= folded.keys():
            return Shape(
                "Alpaca",
                input=folded["instruction"],
                extra=folded.get("input"),
                answer=columns.output or folded["output"],
            )
        source = columns.input or next((folded[n] for n in INPUTS if n in folded), None)
        own = (self.output.field.lower(),) if self.output.field else ()
        answer = columns.output or next(
            (folded[n] for n in (*own, *ANSWERS) if n in folded and folded[n] != source), None
        )
        if source is None or answer is None:
            missing = "input" if source is None else "answer"
            raise Unusable("D1-R04", f"no {missing} found in the fields {', '.join(keys[:8])}")
        is_label = bool(self.output.labels or self.output.field) or answer.lower() in LABELS
        name = "text + label" if is_label else "prompt/completion"
        return Shape(
            f"{name} ({source} → {answer})", input=source, answer=answer, is_label=is_label
        )

    @staticmethod
    def _chat_field(folded: Mapping[str, str]) -> str | None:
        return next((folded[n] for n in ("messages", "conversations") if n in folded), None)

    def _named(self, fields: Mapping[str, Any], name: str | None, setting: str) -> str | None:
        if name is None:
            return None
        value = fields.get(name)
        if value is None or str(value).strip() == "":
            raise Unusable("D1-R05", f"no value in {name!r}, which {setting} needs")
        return str(value).strip()

    def _chat(self, fields: Mapping[str, Any], name: str) -> tuple[tuple[Message, ...], str | None]:
        turns = fields[name]
        if isinstance(turns, str):
            try:
                turns = json.loads(turns)
            except (ValueError, RecursionError):
                turns = None
        if not isinstance(turns, list):
            raise Unusable("D2-S01", f"{name!r} is not a list of turns")
        messages = tuple(_turn(turn, index) for index, turn in enumerate(turns, start=1))
        label = fields.get("label") if isinstance(fields.get("label"), str) else None
        if messages and messages[-1].role == "assistant" and self._closed:
            text, label = self.answer(messages[-1].content)
            messages = (*messages[:-1], messages[-1].model_copy(update={"content": text}))
        return messages, label

    def _pair(
        self, fields: Mapping[str, Any], shape: Shape
    ) -> tuple[tuple[Message, ...], str | None]:
        source = _text(fields.get(shape.input or ""))
        extra = _text(fields.get(shape.extra)) if shape.extra else ""
        if extra.strip():
            source = f"{source}\n\n{extra}"
        value = fields.get(shape.answer or "")
        if value is None or (isinstance(value, float) and math.isnan(value)):
            raise Unusable("D2-S05", f"the answer in {shape.answer!r} is empty")
        text, label = self._read_answer(value, shape.is_label)
        turns = (Message(role="user", content=source), Message(role="assistant", content=text))
        return turns, label

    def _read_answer(self, value: Any, is_label: bool) -> tuple[str, str | None]:
        if self._closed:
            return self.answer(value)
        text = _text(value)
        return text, text.strip() if is_label else None

    @property
    def _closed(self) -> bool:
        return bool(self.output.field or self.output.labels)

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
            except ValueError as error:
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
            raise Unusable("D2-S08", f"the answer is {_text(value)[:60]}, not one text")
        return _text(value)

    def _outside(self, label: str) -> str:
        near = nearest(_fold(label), list(self._by_fold))
        hint = f", did you mean {self._by_fold[near]!r}" if near else ""
        return f"{label[:60]!r} is not one of the {len(self.output.labels)} labels{hint}"


def _turn(turn: Any, index: int) -> Message:
    if not isinstance(turn, dict):
        raise Unusable("D2-S01", f"turn {index} is not an object")
    role = turn.get("role", turn.get("from"))
    if str(role).lower() not in _ROLES:
        raise Unusable("D2-S02", f"turn {index} has the role {str(role)[:30]!r}")
    content = turn.get("content", turn.get("value"))
    if isinstance(content, list):
        kinds = [p.get("type") if isinstance(p, dict) else "text" for p in content]
        odd = next((kind for kind in kinds if kind != "text"), None)
        if odd is not None:
            raise Unusable("D2-S07", f"turn {index} holds a part of type {str(odd)[:30]!r}")
        content = "".join(p["text"] if isinstance(p, dict) else str(p) for p in content)
    if content is None:
        content = ""
    if not isinstance(content, str):
        raise Unusable("D2-S07", f"the content of turn {index} is a {type(content).__name__}")
    known = {"role", "from", "content", "value", "weight"}
    rest = {k: v for k, v in turn.items() if k not in known and v is not None}
    return Message(role=_ROLES[str(role).lower()], content=content, **rest)  # type: ignore[arg-type]


def _text(value: Any) -> str:
    """Return a field's text: strings as they are, numbers plain, the rest as JSON."""
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    return json.dumps(value, ensure_ascii=False)


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
