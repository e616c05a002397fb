"""What is certain to be meant by a row that can't be used, and by a row that could be better.

Only one reading may be possible: a trailing comma, a Python dictionary, a control token at the
edge of an answer, a label in another spelling. A truncated line, a typing error, an open code
fence are left for a person. Nothing is written here; what is found becomes repairs.
"""

from __future__ import annotations

import ast
import json
import re
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from email.utils import parsedate_to_datetime
from typing import Any

from tutelage.core.example import Example
from tutelage.core.output import OutputFormat, read_json
from tutelage.data.filters.content import template_in
from tutelage.data.normalise.json_text import unfenced
from tutelage.data.normalise.label import fold, spellings
from tutelage.data.repairs import Repair, rows_in

Mended = tuple[str, str]  # the rows as JSON lines, and what was done
_LITERAL_LIMIT = 200_000  # characters of a Python dictionary that is read
_EDGE_SPACE = " \t\r\n\ufeff\u200b\u00a0"
_TRAILING_COMMA = re.compile(r'("(?:[^"\\]|\\.)*+")|,(?=\s*[}\]])', re.DOTALL)
_QUOTE_ESCAPE = re.compile(r"(?<!\\)((?:\\\\)*)\\'")
_BEGINS = re.compile(
    r"\A(?:\s*(?:<s>|<bos>|<\|begin_of_text\|>|<\|(?:im_start|start_header_id)\|>\s*(?:assistant|user)"
    r"(?:\s*<\|end_header_id\|>)?|<\|(?:assistant|user)\|>|<start_of_turn>\s*(?:model|user)|\[/?INST\]"
    r"|### (?:Response|Assistant|Instruction|Human):))+\s*"
)
_ENDS = re.compile(
    r"\s*(?:(?:<\|(?:im_end|eot_id|eom_id|endoftext|end|end_of_text|end_of_turn)\|>|</s>|<eos>|<pad>"
    r"|<end_of_turn>|\[/?INST\]|### (?:Response|Assistant):|<\|im_start\|>\s*assistant"
    r"|<start_of_turn>\s*model|<\|assistant\|>)\s*)+\Z"
)
_NAMED = re.compile(r"\A(?:label|answer|category|class|intent|output)\s*:\s*", re.IGNORECASE)
_YEAR_FIRST = re.compile(r"\A(\d{4})[/.](\d{1,2})[/.](\d{1,2})(?:[ T]+(\d.*))?\Z")


def mend_line(raw: str) -> Mended | None:
    """Return what a line that is no JSON object must have meant, or None if it isn't certain."""
    text = raw.strip(_EDGE_SPACE)
    if not text.isprintable() and "\ufffd" in text:
        return None
    for remedy, reading in _READINGS:
        rows = reading(text)
        if rows and all(isinstance(row, dict) and row for row in rows):
            try:
                lines = [json.dumps(row, ensure_ascii=False) for row in rows]
                "".join(lines).encode()
            except (ValueError, TypeError, RecursionError):
                return None
            return "\n".join(lines), remedy
    return None


def _loads(text: str, *, strict: bool = True) -> Any:
    try:
        return json.loads(text, strict=strict)
    except (ValueError, RecursionError):
        return None


def _plain(text: str) -> list[Any]:
    return [_loads(text)]


def _control(text: str) -> list[Any]:
    return [] if "\0" in text else [_loads(text, strict=False)]


def _commas(text: str) -> list[Any]:
    if text.startswith("[{") and not text.endswith("]"):
        text = text[1:]
    elif text.endswith("}]") and not text.startswith("["):
        text = text[:-1]
    text = text.rstrip(",; \t")
    return [_loads(_TRAILING_COMMA.sub(lambda found: found[1] or "", text))]


def _escapes(text: str) -> list[Any]:
    return [_loads(_QUOTE_ESCAPE.sub(r"\1'", text))]


def _python(text: str) -> list[Any]:
    if text[:1] != "{" or len(text) > _LITERAL_LIMIT:
        return []
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            value = ast.literal_eval(text.rstrip(", \t"))
        return [value] if _is_json(value) else []
    except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
        return []


def _several(text: str) -> list[Any]:
    rows: list[Any] = []
    decode = json.JSONDecoder().raw_decode
    at = 0
    while at < len(text):
        try:
            row, at = decode(text, at)
        except (ValueError, RecursionError):
            return []
        rows.append(row)
        while at < len(text) and text[at] in " \t,":
            at += 1
    return rows if len(rows) > 1 else []


_READINGS: tuple[tuple[str, Callable[[str], list[Any]]], ...] = (
    ("invisible characters around the object removed", _plain),
    ("control characters in a text escaped", _control),
    ("a comma or bracket too many removed", _commas),
    ("\\' written as '", _escapes),
    ("a Python dictionary written as JSON", _python),
    ("several objects of one line written on lines of their own", _several),
)


def _is_json(value: Any) -> bool:
    """Return whether a Python value is one that JSON has, with names that are texts."""
    if isinstance(value, dict):
        return all(isinstance(name, str) and _is_json(part) for name, part in value.items())
    if isinstance(value, (list, tuple)):
        return all(map(_is_json, value))
    return value is None or isinstance(value, (str, bool, int, float))


def mend_fields(
    fields: Mapping[str, Any], finding_id: str, output: OutputFormat
) -> Iterator[tuple[dict[str, Any], str]]:
    """Yield readings of a row whose fields could not be used, with what was changed.

    The caller takes the first that becomes an example.
    """
    if finding_id in ("D2-S08", "D2-S09"):
        for place, value in _texts(fields):
            new = mend_answer(value, output)
            if new is not None and new != value:
                said = output.parse(new).label or new
                yield _with(fields, place, new), f"{place[0]!r} read as {said[:40]!r}"
    elif finding_id == "D2-S10":
        for name, value in fields.items():
            time = mend_time(value) if isinstance(value, str) else None
            if time is not None:
                yield {**fields, name: time}, f"{name!r} written as {time}"


def mend_answer(text: str, output: OutputFormat) -> str | None:
    """Return the answer in the project's format that a text can only mean, or None."""
    bare = unfenced(without_edges(text) or text)
    value = _value_in(bare)
    if isinstance(value, dict):
        if output.field is not None and set(value) == {output.field}:
            value = value[output.field]
        elif len(value) == 1 and output.labels and output.field is None:
            (value,) = value.values()
        else:
            return None
    if not isinstance(value, str):
        return None
    if not output.labels:
        return output.render(value.strip()) if value is not bare else None
    wanted = fold(_NAMED.sub("", value))
    known = [label for label in output.labels if fold(label) == wanted]
    return output.render(known[0]) if len(known) == 1 else None


def _value_in(text: str) -> Any:
    if text[:1] != "{":
        return text
    try:
        return read_json(text)
    except ValueError:
        mended = mend_line(text)
        rows = rows_in(mended[0]) if mended else []
        return rows[0] if len(rows) == 1 else None


def mend_time(value: str) -> str | None:
    """Return ISO 8601 for a time with the year first, or one as e-mails have it; else None."""
    found = _YEAR_FIRST.match(value.strip())
    if found:
        year, month, day, clock = found.groups()
        date = f"{year}-{int(month):02}-{int(day):02}"
        return f"{date}T{clock.strip()}" if clock else date
    if not re.match(r"\s*[A-Z][a-z]{2},", value):
        return None
    try:
        return parsedate_to_datetime(value).isoformat()
    except (ValueError, TypeError, IndexError):
        return None


def without_edges(text: str) -> str | None:
    """Return text without the control tokens around it; None if some stand inside it."""
    inner = _ENDS.sub("", _BEGINS.sub("", text))
    return inner if inner.strip() and template_in(inner) is None else None


def better(rows: Sequence[Example], output: OutputFormat) -> Iterator[tuple[Example, Repair]]:
    """Yield the repairs that are certain for usable or quarantined rows: tokens, labels."""
    counts: dict[str, int] = {}
    for row in rows:
        if row.label is not None:
            counts[row.label] = counts.get(row.label, 0) + 1
    usual = {} if output.labels else spellings(counts)
    for row in rows:
        yield from ((row, repair) for repair in _better(row, usual, output))


def _better(row: Example, usual: Mapping[str, str], output: OutputFormat) -> Iterator[Repair]:
    if row.label is not None and row.label in usual:
        why = f"{row.label!r} is spelled {usual[row.label]!r} elsewhere"
        yield Repair(row.id, "label", usual[row.label], why)
    elif row.answer is not None and not row.is_text and not output.field:
        bare = _bare(row.answer)
        if bare is not None:
            yield Repair(row.id, "answer", bare, "control tokens around the answer removed")
    last = next((turn for turn in reversed(row.messages) if turn.role == "user"), None)
    bare = _bare(last.content) if last is not None else None
    if bare is not None:
        yield Repair(row.id, "input", bare, "control tokens around the input removed")


def _bare(text: str) -> str | None:
    """Return the text without its edges if that changes it."""
    if template_in(text) is None:
        return None
    bare = without_edges(text)
    return bare if bare is not None and bare != text else None


def _texts(fields: Mapping[str, Any]) -> Iterator[tuple[tuple[str | int, ...], str]]:
    """Yield the places that may hold the answer: texts, and the last turn of a conversation."""
    for name, value in fields.items():
        if isinstance(value, str):
            yield (name,), value
        elif isinstance(value, list) and value and isinstance(value[-1], dict):
            for part in ("content", "value"):
                if isinstance(value[-1].get(part), str):
                    yield (name, len(value) - 1, part), value[-1][part]


def _with(fields: Mapping[str, Any], place: tuple[str | int, ...], new: str) -> dict[str, Any]:
    """Return the fields with the text at `place` replaced."""
    changed = json.loads(json.dumps(fields, ensure_ascii=False))
    holder = changed
    for step in place[:-1]:
        holder = holder[step]
    holder[place[-1]] = new
    return dict(changed)
