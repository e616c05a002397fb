"""Redact and restore whole files so that restoring gives every byte back.

JSON and CSV are not written anew: only the characters of an identifier are exchanged, inside
their string or field. Escapes (`Jos\\u00e9`, `""`) are read through and kept.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from tutelage.core.errors import DataError
from tutelage.data.privacy.kinds import Span
from tutelage.data.privacy.pseudonyms import Inside, Pseudonyms, json_inside
from tutelage.data.privacy.vault import Form

_JSON = (".jsonl", ".ndjson", ".json")
_TABLE = (".csv", ".tsv", ".tab")
_TEXT = (".txt", ".md", ".markdown", ".html", ".htm", ".log", ".xml", ".yaml", ".yml")
_STRING = re.compile(r'"(?P<body>(?:[^"\\\n]|\\.)*)(?P<close>"?)(?P<colon>\s*:)?')
_ESCAPE = re.compile(r"\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}"
                     r"|\\u[0-9a-fA-F]{4}|\\.")  # fmt: skip
_NUMBER = re.compile(r"(?<![\w.+-])-?\d+(?![\w.+-])")
# Pairs in a broken row: those of a Python dictionary, and a number after a key.
_LOOSE = re.compile(
    r"'(?P<key>[\w -]{1,60})'\s*:\s*(?:'(?P<said>(?:[^'\\\n]|\\.)*)'"
    r"|(?P<digits>-?\d+)(?![\w.+-]))|:\s*(?P<number>-?\d+)(?![\w.+-])"
)
_BARE = re.compile(r'"(\[[A-Z]+_[0-9a-f.]+(?: [^\]"]{2,10})?\])"')
_SHOWN = re.compile(r"\[[A-Z]+(?:_[0-9a-f.]+)?(?: [^\]]{2,10})?\]")
_DELIMITERS = ",;\t|"
_EVERY = 500  # rows between two progress calls


@dataclass
class FileResult:
    """The new text of a file and what was done: counts by kind, rows with something in them."""

    text: str
    counts: Counter[str] = field(default_factory=Counter)
    rows: int = 0
    examples: list[tuple[str, str]] = field(default_factory=list)  # (kind, redacted surroundings)


Tick = Callable[[int, int], None]


class Replacer(Protocol):
    """What finds identifiers and writes something in their place."""

    def spans(self, text: str, field: str | None = None) -> list[Span]:
        """Return what must be replaced in a text that stands under `field`."""
        ...

    def token(self, span: Span, form: Form, group: str = "") -> str:
        """Return what is written instead."""
        ...


def read_text(path: Path) -> tuple[str, str]:
    """Return a file's text and its encoding; every byte comes back from `write_bytes`.

    Raises DataError if the file can't be read or is no text.
    """
    try:
        data = path.read_bytes()
    except IsADirectoryError as error:
        raise DataError(
            "this is a folder, not a file", where=str(path), fix="Name a file"
        ) from error
    except FileNotFoundError as error:
        raise DataError("there is no such file", where=str(path), fix="Check the path") from error
    if path.suffix.lower() not in (*_JSON, *_TABLE, *_TEXT):
        raise DataError(
            f"{path.suffix or 'a file without an ending'} can't be redacted in place",
            where=str(path),
            fix="Export it as .jsonl, .csv, .tsv, .txt or .md first",
        )
    encoding = "utf-8"
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        encoding = "utf-16-le" if data[:2] == b"\xff\xfe" else "utf-16-be"
    elif b"\0" in data:
        raise DataError("this is binary data, not text", where=str(path), fix="Export it as text")
    errors = "surrogateescape" if encoding == "utf-8" else "surrogatepass"
    try:
        return data.decode(encoding, errors), encoding
    except UnicodeDecodeError as error:
        raise DataError(
            f"the text can't be decoded as {encoding}", where=str(path), fix="Save it as UTF-8"
        ) from error


def to_bytes(text: str, encoding: str) -> bytes:
    """Return the bytes of a text that `read_text` gave."""
    errors = "surrogateescape" if encoding == "utf-8" else "surrogatepass"
    return text.encode(encoding, errors)


def redact_file_text(
    text: str, suffix: str, replacer: Replacer, group: str | None = None, tick: Tick | None = None
) -> FileResult:
    """Return a file's text with pseudonyms. `group`: the field that says whose a row is."""
    result = FileResult("")
    parts: list[str] = []
    rows = list(_rows(text, suffix))
    for number, row in enumerate(rows):
        parts.append(_redact_row(row, replacer, group, result))
        if tick and number % _EVERY == 0:
            tick(number, len(rows))
    result.text = "".join(parts)
    return result


def restore_file_text(text: str, suffix: str, pseudonyms: Pseudonyms) -> str:
    """Return a file's text with the identifiers back in their places."""
    parts: list[str] = []
    if suffix.lower() in _JSON:
        text = _BARE.sub(lambda match: _number_again(match, pseudonyms), text)
    for row in _rows(text, suffix):
        at = 0
        for piece in row.pieces:
            raw = row.text[piece.start : piece.end]
            parts.append(pseudonyms.restore(row.text[at : piece.start]))
            parts.append(pseudonyms.restore(raw, piece.inside))
            at = piece.end
        parts.append(pseudonyms.restore(row.text[at:]))
    return "".join(parts)


@dataclass
class _Piece:
    """A stretch of a row that is read as one text: a JSON string, a number, a field."""

    start: int
    end: int
    inside: Inside
    field: str | None = None
    bare: bool = False  # a JSON number
    quotes: bool = False  # a quote in it decides how the rest is read: it must stay


@dataclass
class _Row:
    text: str
    pieces: list[_Piece]
    fields: dict[str, str] = field(default_factory=dict)  # simple values, to find the group


def _rows(text: str, suffix: str) -> Iterator[_Row]:
    suffix = suffix.lower()
    if suffix in _TABLE:
        yield from _table_rows(text)
    elif suffix in _JSON and not text.lstrip("\ufeff \t\r\n").startswith("["):
        for line in re.findall(r"[^\n]*\n|[^\n]+", text):
            yield _json_row(line)
    elif suffix in _JSON:
        yield _json_row(text)
    else:
        yield _Row(text, [_Piece(0, len(text), "text")])


def _json_row(text: str) -> _Row:
    """Return the strings and numbers of JSON; what is no JSON between them is read as text."""
    try:
        value = json.loads(text.lstrip("\ufeff"))
        valid = True
    except (ValueError, RecursionError):
        value, valid = None, False
    pieces: list[_Piece] = []
    name: str | None = None
    at = 0
    for match in _STRING.finditer(text):
        pieces += _gap(text, at, match.start(), name, valid)
        at = match.end() - len(match["colon"] or "")
        start, end = match.span("body")
        pieces.append(_Piece(start, end, "json", None if match["colon"] else name))
        if match["colon"]:
            name = _decoded(match["body"])[0]
    pieces += _gap(text, at, len(text), name, valid)
    fields = (
        {str(k): str(v) for k, v in value.items() if isinstance(v, (str, int))}
        if isinstance(value, dict)
        else {}
    )
    return _Row(text, pieces, fields)


def _gap(text: str, start: int, end: int, name: str | None, valid: bool) -> list[_Piece]:
    """Return the numbers between two strings; of a broken row also the text around them."""
    if valid:
        return [
            _Piece(*match.span(), "json", name, bare=True)
            for match in _NUMBER.finditer(text, start, end)
        ]
    pieces: list[_Piece] = []
    at = start
    for match in _LOOSE.finditer(text, start, end):
        which = next(key for key in ("said", "digits", "number") if match[key] is not None)
        low, high = match.span(which)
        pieces.append(_Piece(at, low, "text"))
        if which == "number":
            pieces.append(_Piece(low, high, "json", name, bare=True))
        else:
            pieces.append(_Piece(low, high, "text", match["key"]))
        at = high
    return [*pieces, _Piece(at, end, "text")]


def _table_rows(text: str) -> Iterator[_Row]:
    head = text.split("\n", 1)[0]
    delimiter = max(_DELIMITERS, key=head.count)
    end = re.escape(delimiter)
    cell = re.compile(rf'"(?P<body>(?:[^"]|"")*)"(?={end}|\r|\n|\Z)|(?P<plain>[^{end}\r\n]*)')
    header: list[str] = []
    at = 0
    while at < len(text):
        start = at
        pieces: list[_Piece] = []
        values: list[str] = []
        while True:
            match = cell.match(text, at)
            if match is None:  # can't be: the second form matches the empty text
                break
            which = "body" if match["body"] is not None else "plain"
            low, high = match.span(which)
            inside: Inside = "csv" if which == "body" else "text"
            name = header[len(values)] if len(values) < len(header) else None
            quotes = inside == "text"
            pieces.append(_Piece(low - start, high - start, inside, name, quotes=quotes))
            values.append(match[which].replace('""', '"') if which == "body" else match[which])
            at = match.end()
            if text[at : at + 1] != delimiter:
                break
            at += 1
        line = re.compile(r"\r?\n|\r|\Z").match(text, at)
        at = line.end() if line else at + 1
        yield _Row(text[start:at], pieces, dict(zip(header, values, strict=False)))
        if not header:
            header = [value.strip().lstrip("\ufeff") for value in values]


def _redact_row(row: _Row, replacer: Replacer, group: str | None, result: FileResult) -> str:
    whose = row.fields.get(group, "") if group else ""
    parts: list[str] = []
    at = found = 0
    for piece in row.pieces:
        raw = row.text[piece.start : piece.end]
        if group is not None and piece.field == group and raw.strip():
            done, spans = _redact_group(raw, piece, replacer)
        else:
            done, spans = _redact_piece(raw, piece, replacer, whose)
        parts += [row.text[at : piece.start], done]
        at = piece.end
        result.counts.update(span.kind for span in spans)
        found += len(spans)
        for span in spans[: 1 if len(result.examples) < 12 else 0]:
            result.examples.append((span.kind, _around(done)))
    result.rows += bool(found)
    return "".join([*parts, row.text[at:]])


def _around(done: str) -> str:
    token = _SHOWN.search(done)
    if token is None:
        return ""
    low, high = max(0, token.start() - 30), token.end() + 20
    return " ".join(done[low:high].split())


def _redact_piece(
    raw: str, piece: _Piece, replacer: Replacer, group: str
) -> tuple[str, list[Span]]:
    text, places = _reading(raw, piece)
    if piece.bare:
        spans = [s for s in replacer.spans(text, piece.field) if s.end - s.start == len(text)]
        if not spans:
            return raw, []
        return f'"{replacer.token(spans[0], Form(text, raw, True), group)}"', spans
    spans = _kept_inside(replacer.spans(text, piece.field), text, piece)
    parts: list[str] = []
    at = 0
    for span in spans:
        low, high = places(span.start), places(span.end)
        found = text[span.start : span.end]
        written = raw[low:high]
        usual = piece.inside != "json" or json_inside(found) == written
        form = Form(found) if usual else Form(found, written)
        parts += [raw[at:low], replacer.token(span, form, group)]
        at = high
    return "".join([*parts, raw[at:]]), [s for s in spans if s.kind != "text"]


def _redact_group(raw: str, piece: _Piece, replacer: Replacer) -> tuple[str, list[Span]]:
    """Return the pseudonym of the field that says whose a row is: all of it, whatever it holds."""
    text, _ = _reading(raw, piece)
    span = Span(0, len(text), "group", 1.0, "its field says whose the row is", text)
    usual = piece.inside != "json" or piece.bare or json_inside(text) == raw
    token = replacer.token(span, Form(text, None if usual else raw, piece.bare))
    return (f'"{token}"' if piece.bare else token), [span]


def _kept_inside(spans: list[Span], text: str, piece: _Piece) -> list[Span]:
    """Return the spans, cut at quotes where a quote would change how the file is read."""
    if not piece.quotes or '"' not in text:
        return spans
    kept = []
    for span in spans:
        said = text[span.start : span.end]
        if '"' not in said:
            kept.append(span)
            continue
        for part in re.finditer(r'[^"]+', said):
            start = span.start + part.start()
            end = start + len(part[0])
            kept.append(Span(start, end, span.kind, span.confidence, span.reason))
    return kept


def _reading(raw: str, piece: _Piece) -> tuple[str, Callable[[int], int]]:
    """Return what a piece says, and where each of its characters stands in `raw`."""
    if piece.inside == "json" and "\\" in raw:
        text, starts = _decoded(raw)
        return text, starts.__getitem__
    if piece.inside == "csv" and '""' in raw:
        starts = []
        at = 0
        while at < len(raw):
            starts.append(at)
            at += 2 if raw[at] == '"' else 1
        return raw.replace('""', '"'), [*starts, len(raw)].__getitem__
    return raw, lambda place: place


def _decoded(raw: str) -> tuple[str, list[int]]:
    """Return a JSON string's text and the place of each character, one more for the end."""
    out: list[str] = []
    starts: list[int] = []
    at = 0
    for match in _ESCAPE.finditer(raw):
        out.extend(raw[at : match.start()])
        starts.extend(range(at, match.start()))
        try:
            text = json.loads(f'"{match[0]}"')
        except ValueError:
            text = match[0]
        out.extend(text)
        starts.extend([match.start()] * len(text))
        at = match.end()
    out.extend(raw[at:])
    starts.extend(range(at, len(raw)))
    return "".join(out), [*starts, len(raw)]


def _number_again(match: re.Match[str], pseudonyms: Pseudonyms) -> str:
    form = pseudonyms.form_of(match[1])
    return form.text if form is not None and form.bare else match[0]
