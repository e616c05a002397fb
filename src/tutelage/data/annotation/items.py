"""What is put before an annotator: the turns before an answer, from a row, a file or production.

An item is named by what is asked, not by what was answered, so that a row keeps its item when its
label is repaired.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tutelage.core.artifact import content_hash
from tutelage.core.config import Columns
from tutelage.core.errors import DataError
from tutelage.core.example import Example, Message, Origin, SplitName, normalise
from tutelage.core.output import OutputFormat
from tutelage.data.filters.base import at
from tutelage.data.findings import Finding
from tutelage.data.normalise.text import repair
from tutelage.data.readers.base import Broken, RawRow
from tutelage.data.readers.jsonl import JsonlReader
from tutelage.data.readers.pairs import ANSWERS, INPUTS
from tutelage.data.readers.table import CsvReader
from tutelage.data.readers.turns import Unusable, as_text, is_turns, read_turns

_TEXT_ENDINGS = (".txt", ".text")


@dataclass(frozen=True)
class Item:
    """One thing to label. `example` ends with the user; `label` and `answer` were there before."""

    id: str
    example: Example
    source: str  # dataset, file, production, import
    example_id: str | None = None
    split: SplitName | None = None
    label: str | None = None
    answer: str | None = None

    @property
    def text(self) -> str:
        """What the user side says."""
        return self.example.input_text


@dataclass
class ReadItems:
    """What a file gave: items, and a finding a line that is none."""

    items: list[Item] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)


def item_id(messages: Iterable[Message]) -> str:
    """Return the name of what is asked: 24 hex digits of the hash of roles and contents.

    Text counts as curation will have it, so that a raw text and its cleaned row are one item.
    """
    turns = [[turn.role, normalise(repair(turn.content))] for turn in messages]
    return content_hash({"asked": turns})[:24]


def from_example(row: Example, source: str, split: SplitName | None = None) -> Item:
    """Return the item of a row: its turns before the answer. Group, time and meta stay."""
    asked = row.model_copy(update={"messages": row.context, "label": None})
    known = row.id if source == "dataset" else None
    return Item(item_id(row.context), asked, source, known, split, row.label, row.answer)


def from_text(text: str, place: str, source: str = "file") -> Item:
    """Return the item of a bare text."""
    turns = (Message(role="user", content=text),)
    return Item(item_id(turns), Example(messages=turns, origin=Origin(source=place)), source)


def from_fields(
    fields: Mapping[str, Any], place: str, columns: Columns, source: str = "file"
) -> Item:
    """Return the item in a row of named fields; raise Unusable with the reason.

    The input is the field data.columns names, a conversation, or the first of the usual names.
    An answer that is there is kept beside the item; other fields become meta.
    """
    folded = {str(key).strip().lower(): str(key) for key in reversed(list(fields))}
    chat = next((folded[n] for n in ("messages", "conversations") if n in folded), None)
    named = columns.input if columns.input in fields else None
    source_field = named or next((folded[n] for n in INPUTS if n in folded), None)
    used: set[str | None] = {columns.group, columns.time}
    if named is None and chat is not None:
        turns = read_turns(fields[chat], chat)
        used.add(chat)
    elif source_field is not None and is_turns(fields[source_field]):
        turns = read_turns(fields[source_field], source_field)
        used.add(source_field)
    elif source_field is not None:
        text = as_text(fields[source_field]).strip()
        if not text:
            raise Unusable("D2-S06", f"the input in {source_field!r} is empty")
        turns = (Message(role="user", content=text),)
        used.add(source_field)
    else:
        has = ", ".join(list(fields)[:8]) or "none"
        raise Unusable("D8-F01", f"no text to label found in the fields {has}")
    answer_field = columns.output or next((folded[n] for n in ANSWERS if n in folded), None)
    used.add(answer_field)
    answer = as_text(fields.get(answer_field)).strip() if answer_field else ""
    if turns and turns[-1].role == "assistant":
        answer, turns = turns[-1].content, turns[:-1]
    if not turns or turns[-1].role == "assistant":
        raise Unusable("D2-S06", "there is no user turn to answer")
    example = Example(
        messages=turns,
        group=_needed(fields, columns.group, "data.splits.group"),
        time=_needed(fields, columns.time, "data.splits.time"),
        meta={str(k): v for k, v in fields.items() if k not in used and v not in (None, "")},
        origin=Origin(source=place),
    )
    return Item(item_id(turns), example, source, answer=answer or None)


def read_items(path: Path, columns: Columns) -> ReadItems:
    """Return the items of a file: one text a line (.txt), or rows (.csv, .tsv, .jsonl, .json).

    The same text twice is one item. Raises DataError if the file can't be read at all.
    """
    found = ReadItems()
    seen: set[str] = set()
    for row in _rows(path):
        place = f"{path.name}{row.line if row.line.startswith('#') else ':' + row.line}"
        if isinstance(row, Broken):
            found.findings.append(Finding(row.finding_id, row.detail, place))
            continue
        try:
            item = from_fields(row.fields, place, columns)
        except Unusable as problem:
            found.findings.append(Finding(problem.finding_id, problem.detail, place))
            continue
        if item.id in seen:
            found.findings.append(at(item.example, "D8-F02", "the text was there before"))
            continue
        seen.add(item.id)
        found.items.append(item)
    return found


def _rows(path: Path) -> Iterator[RawRow | Broken]:
    if not path.is_file():
        raise DataError("there is no such file", where=str(path), fix="Check the path")
    if path.suffix.lower() in _TEXT_ENDINGS:
        lines = path.read_text(encoding="utf-8-sig", errors="replace").splitlines()
        for number, line in enumerate(lines, start=1):
            if line.strip():
                yield RawRow({"text": line.strip()}, str(number))
        return
    reader = next((r for r in (CsvReader(), JsonlReader()) if r.accepts(path, b"")), None)
    if reader is None:
        raise DataError(
            f"there is no reader for {path.suffix or 'files without an ending'}",
            where=path.name,
            fix="Bring the texts as .txt, .csv, .tsv, .jsonl or .json",
        )
    yield from reader.read(path, "utf-8-sig")


def _needed(fields: Mapping[str, Any], name: str | None, setting: str) -> str | None:
    if name is None:
        return None
    value = as_text(fields.get(name)).strip()
    if not value:
        raise Unusable("D1-R05", f"no value in {name!r}, which {setting} needs")
    return value


def answered(item: Example, label: str | None, answer: str | None, output: OutputFormat) -> Example:
    """Return the item's row with its answer; a label is written in the project's format."""
    text = answer if answer is not None else output.render(label or "")
    turns = (*item.context, Message(role="assistant", content=text))
    return item.model_copy(update={"messages": turns, "label": label})
