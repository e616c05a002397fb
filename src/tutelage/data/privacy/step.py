"""Curation's step for identifiers: they are flagged, or replaced before anything is written.

It looks at every text of a row: turns, label, group, time, and the fields kept as meta.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Literal

from tutelage.core.example import Example, Message
from tutelage.core.output import OutputFormat
from tutelage.data.filters.base import at
from tutelage.data.findings import Finding
from tutelage.data.pipeline import StepResult
from tutelage.data.privacy.detect import Detector, detect, replace
from tutelage.data.privacy.files import redact_file_text
from tutelage.data.privacy.kinds import KINDS, Span
from tutelage.data.privacy.masks import Masks
from tutelage.data.privacy.pseudonyms import Pseudonyms
from tutelage.data.readers.form import FORM

Mode = Literal["flag", "redact"]
Opened = Callable[[], AbstractContextManager[Pseudonyms]]
_CACHED = 200_000  # texts whose spans are remembered: system prompts, meta columns, copies
_EXAMPLES = 3  # shown of each kind


@dataclass
class Summary:
    """What was found: rows with identifiers, and by kind how many rows and identifiers."""

    mode: str
    rows: int = 0
    of: int = 0
    kinds: dict[str, dict[str, int]] = field(default_factory=dict)
    examples: list[dict[str, str]] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """Return the JSON form kept in the manifest."""
        return {
            "mode": self.mode,
            "rows": self.rows,
            "of": self.of,
            "kinds": self.kinds,
            "examples": self.examples,
        }


class PrivacyStep:
    """Flags or replaces the identifiers of every row; drops nothing.

    After a run `renamed` gives the new id of each changed row by its old one, and `summary` what
    was found. `opened` gives the pseudonyms to use, and saves them when it closes.
    """

    name = "privacy"

    def __init__(
        self,
        mode: Mode = "flag",
        kinds: frozenset[str] = frozenset(KINDS),
        output: OutputFormat | None = None,
        opened: Opened | None = None,
        find: Detector = detect,
    ) -> None:
        self.mode: Mode = mode
        self.renamed: dict[str, str] = {}
        self.summary = Summary(mode)
        self._kinds = kinds
        self._output = output or OutputFormat()
        self._opened = opened
        self._find = find
        self._seen: dict[tuple[str, str | None], list[Span]] = {}

    def run(self, rows: Sequence[Example]) -> StepResult:
        """Return all rows, replaced in mode `redact`, and a finding for each that held any."""
        self.summary = Summary(self.mode, of=len(rows))
        self.renamed = {}
        if self.mode == "redact" and self._opened is not None:
            with self._opened() as pseudonyms:
                return self._redacted(rows, pseudonyms)
        findings: list[Finding] = []
        for row in rows:
            findings += self._flags(row)
        return StepResult(list(rows), findings=findings)

    def _flags(self, row: Example) -> list[Finding]:
        found: dict[str, list[str]] = {}
        for where, name, text in _texts(row, self._output):
            for span in self._spans(text, name):
                found.setdefault(span.kind, []).append(f"{where}: {span.reason}")
                if self._wanted(span.kind):
                    self._example(span.kind, row.origin.source, self._shown(text, name))
        self._count({kind: len(places) for kind, places in found.items()})
        return [
            at(row, KINDS[kind].finding, _detail(places)) for kind, places in sorted(found.items())
        ]

    def _shown(self, text: str, name: str | None) -> str:
        """Return the surroundings of a text's first identifier, all of them masked."""
        masks = Masks(self._kinds, find=self._find)
        masked = (
            masks.mask(text)
            if name is None
            else replace(text, self._spans(text, name), lambda span: f"[{KINDS[span.kind].tag}]")
        )
        first = masked.find("[")
        return " ".join(masked[max(0, first - 40) : first + 40].split())

    def _spans(self, text: str, name: str | None) -> list[Span]:
        key = (text, name)
        if key not in self._seen:
            if len(self._seen) >= _CACHED:
                self._seen.clear()
            self._seen[key] = self._find(text, self._kinds, name)
        return self._seen[key]

    def _redacted(self, rows: Sequence[Example], pseudonyms: Pseudonyms) -> StepResult:
        kept: list[Example] = []
        findings: list[Finding] = []
        for row in rows:
            counts: Counter[str] = Counter()
            changed = _Redaction(row, pseudonyms, self._output, counts).row()
            kept.append(changed)
            self._count(counts)
            if changed is row:
                continue
            if changed.id != row.id:
                self.renamed[row.id] = changed.id
            if counts:
                findings.append(at(changed, "D7-X01", _counted(counts)))
                for kind in filter(self._wanted, counts):
                    self._example(kind, changed.origin.source, _replaced(changed, kind))
        return StepResult(kept, findings=findings)

    def _count(self, counts: dict[str, int]) -> None:
        self.summary.rows += bool(counts)
        for kind, number in counts.items():
            entry = self.summary.kinds.setdefault(kind, {"rows": 0, "found": 0})
            entry["rows"] += 1
            entry["found"] += number

    def _wanted(self, kind: str) -> bool:
        """Return whether another example of a kind is to be shown."""
        return sum(example["kind"] == kind for example in self.summary.examples) < _EXAMPLES

    def _example(self, kind: str, source: str, text: str) -> None:
        if text:
            self.summary.examples.append({"kind": kind, "where": source, "text": text})


class _Redaction:
    """One row being rewritten."""

    def __init__(
        self, row: Example, pseudonyms: Pseudonyms, output: OutputFormat, counts: Counter[str]
    ) -> None:
        self._row = row
        self._pseudonyms = pseudonyms
        self._output = output
        self._counts = counts
        self._group = row.group or ""

    def row(self) -> Example:
        """Return the row with pseudonyms; the same object if nothing changed."""
        row = self._row
        update: dict[str, Any] = {
            "messages": tuple(self._turn(message) for message in row.messages),
            "meta": self._meta(row),
            "group": self._pseudonyms.group(row.group) if row.group else row.group,
            "time": self._time(row.time),
        }
        update["label"] = self._label(update["messages"])
        changed = {key: new for key, new in update.items() if new != getattr(row, key)}
        return row.model_copy(update=changed) if changed else row

    def _meta(self, row: Example) -> dict[str, Any]:
        """Return the kept fields; the record that a production row came from stays a link."""
        meta: dict[str, Any] = self._value(
            {key: value for key, value in row.meta.items() if key != FORM}, None
        )
        if FORM in row.meta:  # how the file spelled the row, no text of it
            meta[FORM] = row.meta[FORM]
        linked = row.origin.kind == "production" and "record" in row.meta
        return {**meta, "record": row.meta["record"]} if linked else meta

    def _turn(self, message: Message) -> Message:
        is_label = message is self._row.messages[-1] and self._closed
        content = message.content if is_label else self._content(message.content)
        extra = self._value(message.model_extra or {}, None)
        if content == message.content and extra == (message.model_extra or {}):
            return message
        return message.model_copy(update={"content": content, **extra})

    @property
    def _closed(self) -> bool:
        """Whether the answer is one of a list of labels that tutelage.yaml names."""
        return bool(self._output.labels) and self._row.label is not None

    def _content(self, text: str) -> str:
        if text[:1] in ("{", "["):
            done = redact_file_text(text, ".json", _InGroup(self._pseudonyms, self._group))
            self._counts.update(done.counts)
            return done.text
        return self._text(text, None)

    def _label(self, messages: tuple[Message, ...]) -> str | None:
        label = self._row.label
        if label is None or self._closed:
            return label
        if self._output.field and messages:
            parsed = self._output.parse(messages[-1].content).label
            if parsed is not None:
                return parsed
        return self._pseudonyms.redact(label, self._output.field, self._group).text

    def _text(self, text: str, name: str | None) -> str:
        done = self._pseudonyms.redact(text, name, self._group)
        self._counts.update(span.kind for span in done.spans)
        return done.text

    def _value(self, value: Any, name: str | None) -> Any:
        """Return a field's value with pseudonyms in it, lists and objects walked through."""
        if isinstance(value, str):
            return self._text(value, name)
        if isinstance(value, dict):
            return {
                self._pseudonyms.redact(str(key)).text: self._value(item, str(key))
                for key, item in value.items()
            }
        if isinstance(value, (list, tuple)):
            return [self._value(item, name) for item in value]
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            text = str(value)
            done = self._text(text, name)
            return value if done == text else done
        return value

    def _time(self, time: str | None) -> str | None:
        """Return the row's time without day and month, or moved with its group's dates."""
        if time is None or "date" not in self._pseudonyms.kinds:
            return time
        moment = datetime.fromisoformat(time)
        if self._pseudonyms.dates == "shift":
            moved = moment - timedelta(days=self._pseudonyms.shift_days(self._group))
            return moved.date().isoformat() if len(time) == 10 else moved.isoformat()
        return f"{moment.year:04d}-01-01"


@dataclass
class _InGroup:
    """Pseudonyms for the texts of one row's group."""

    pseudonyms: Pseudonyms
    group: str

    def spans(self, text: str, field: str | None = None) -> list[Span]:
        return self.pseudonyms.spans(text, field)

    def token(self, span: Span, form: Any, group: str = "") -> str:
        return self.pseudonyms.token(span, form, self.group)


def _texts(row: Example, output: OutputFormat) -> Iterator[tuple[str, str | None, str]]:
    """Yield (where, field, text) for every text of a row that a person wrote."""
    closed = bool(output.labels) and row.label is not None
    for place, message in enumerate(row.messages, start=1):
        if not (closed and message is row.messages[-1]):
            yield f"turn {place} ({message.role})", None, message.content
        for key, value in (message.model_extra or {}).items():
            yield from _leaves(f"turn {place}, {key}", key, value)
    for key, value in row.meta.items():
        if key != FORM:
            yield from _leaves(f"field {key!r}", key, value)


def _leaves(where: str, name: str, value: Any) -> Iterator[tuple[str, str | None, str]]:
    if isinstance(value, str):
        yield where, name, value
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from _leaves(where, str(key), item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _leaves(where, name, item)
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        yield where, name, str(value)


def _detail(places: Sequence[str]) -> str:
    more = f", and {len(places) - 1} more" if len(places) > 1 else ""
    return f"{places[0]}{more}"


def _counted(counts: Counter[str]) -> str:
    return ", ".join(f"{number} × {KINDS[kind].tag}" for kind, number in sorted(counts.items()))


def _replaced(row: Example, kind: str) -> str:
    tag = f"[{KINDS[kind].tag}_"
    for message in row.messages:
        if tag in message.content:
            low = message.content.index(tag)
            return " ".join(message.content[max(0, low - 40) : low + 60].split())
    return ""
