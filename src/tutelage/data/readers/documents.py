"""Documents as raw text for continued pre-training: txt, md, html, pdf, docx.

A document is cut into passages at the borders of paragraphs; each passage is one row, and all
passages of a document stay on one side of the split. Plain text and Markdown are read as they
are, the others through markitdown (the extra `documents`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from tutelage.core.errors import EnvironmentProblem
from tutelage.data.readers.base import Broken, Item, RawRow

PASSAGE = 4000  # characters, about 1,000 tokens
_PLAIN = (".txt", ".text", ".md", ".markdown")
_CONVERTED = (".html", ".htm", ".pdf", ".docx")
_BLANK = re.compile(r"\n\s*\n|\f")
_BORDERS = (re.compile(r"\n"), re.compile(r"(?<=[.!?…。])\s+"), re.compile(r"\s+"))
_CHUNK = 1 << 20  # characters


class DocumentReader:
    """Reads documents passage by passage, where the project's task is text."""

    raw_text = True
    binary = True  # `read` looks for the encoding, where the document is plain text

    def accepts(self, path: Path, head: bytes) -> bool:
        """Return whether the name ends like a document."""
        return path.suffix.lower() in (*_PLAIN, *_CONVERTED)

    def read(self, path: Path, encoding: str) -> Iterator[Item]:
        """Yield the passages in order; a document that can't be read gives one Broken."""
        if path.suffix.lower() in _PLAIN:
            yield from _plain(path, encoding)
            return
        try:
            text = _converted(path)
        except _Unreadable as problem:
            yield Broken("D1-R10", str(problem), "", "")
            return
        if not text.strip():
            yield Broken("D1-R10", "the document holds no text (scanned pages?)", "", "")
        yield from _rows(passages(_paragraphs([text])))


class _Unreadable(Exception):
    """Why a document can't be read."""


def _plain(path: Path, encoding: str) -> Iterator[Item]:
    from tutelage.data.readers.files import encoding_of, head_of

    found = encoding or encoding_of(head_of(path))
    if found is None:
        yield Broken("D1-R10", "this is binary data, not text", "", "")
        return
    with path.open(encoding=found, errors="surrogateescape") as stream:
        yield from _rows(passages(_paragraphs(iter(lambda: stream.read(_CHUNK), ""))))


def _rows(found: Iterable[str]) -> Iterator[Item]:
    for number, text in enumerate(found, start=1):
        place = f"#{number}"
        try:
            text.encode()
        except UnicodeEncodeError as error:
            byte = (ord(text[error.start]) - 0xDC00) & 0xFF
            yield Broken("D1-R02", f"not UTF-8 text: byte 0x{byte:02x}", place, text)
            continue
        yield RawRow({"text": text, "passage": number}, place)


def _converted(path: Path) -> str:
    """Return a document as Markdown, by the converter of its format alone."""
    try:
        from markitdown import StreamInfo, converters
    except ImportError as error:
        raise EnvironmentProblem(
            f"reading {path.suffix} needs markitdown",
            where=path.name,
            fix="Run `pip install 'tutelage[documents]'`",
        ) from error
    ending = path.suffix.lower()
    kinds: dict[str, Any] = {
        ".pdf": converters.PdfConverter,
        ".docx": converters.DocxConverter,
    }
    kind: Any = kinds.get(ending, converters.HtmlConverter)
    try:
        with path.open("rb") as stream:
            return str(kind().convert(stream, StreamInfo(extension=ending)).markdown)
    except Exception as error:  # each format's library has its own
        first = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
        reason = first[:160] or type(error).__name__
        raise _Unreadable(f"the document can't be read ({reason})") from error


def _paragraphs(parts: Iterable[str]) -> Iterator[str]:
    """Yield the paragraphs of a text that comes in parts: what blank lines or page ends divide."""
    rest = ""
    for part in parts:
        *whole, rest = _BLANK.split(rest + part)
        yield from (text for text in whole if text.strip())
        if len(rest) > _CHUNK:  # no blank line for long: lines must do
            head, _, rest = rest.rpartition("\n")
            yield from (line for line in head.split("\n") if line.strip())
    if rest.strip():
        yield rest


def passages(paragraphs: Iterable[str], limit: int = PASSAGE) -> Iterator[str]:
    """Yield passages of at most `limit` characters, made of whole paragraphs where they fit.

    A longer paragraph is cut between lines, else sentences, else words. A heading at a passage's
    end moves to the next one.
    """
    held: list[str] = []
    size = 0
    for paragraph in (piece for text in paragraphs for piece in _pieces(text.strip(), limit)):
        if held and size + 2 + len(paragraph) > limit:
            moved = [held.pop()] if len(held) > 1 and held[-1].startswith("#") else []
            yield "\n\n".join(held)
            held = moved if sum(map(len, moved)) + 2 + len(paragraph) <= limit else []
            if moved and not held:
                yield moved[0]
            size = sum(map(len, held))
        held.append(paragraph)
        size += len(paragraph) + (2 if len(held) > 1 else 0)
    if held:
        yield "\n\n".join(held)


def _pieces(text: str, limit: int) -> Iterator[str]:
    """Yield `text` in pieces of at most `limit` characters, cut at the widest border that helps."""
    while len(text) > limit:
        for border in _BORDERS:
            cuts = [match for match in border.finditer(text, 0, limit + 1) if match.start() > 0]
            if cuts and cuts[-1].start() >= limit // 4:
                end, start = cuts[-1].start(), cuts[-1].end()
                break
        else:
            end = start = limit
        yield text[:end].rstrip()
        text = text[start:].lstrip()
    if text:
        yield text
