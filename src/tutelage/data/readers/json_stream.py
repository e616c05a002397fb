"""Read the values of a large JSON text one by one, through a window that slides over it.

The text may be a list, an object around a list (`{"data": […]}`), an object of objects with the
same fields (`{"id1": {…}, "id2": {…}}`), or values one after another. After a broken value
reading goes on at the next line that begins one, if the text is written in lines.
"""

from __future__ import annotations

import json
import re
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from typing import IO, Any

_CHUNK = 1 << 20  # characters read at once, at least
_NEAR_END = 16  # characters before the window's end in which a value may be cut off
_LONGEST_INDENT = 40  # characters before an object that is looked for
_SPACE = re.compile(r"[ \t\r\n\ufeff]*")
WRAPPERS = (
    "data", "rows", "examples", "items", "records", "results", "entries", "samples", "dataset",
    "logs", "traces", "observations", "generations", "completions",
)  # fmt: skip


@dataclass
class BadJson(Exception):
    """A value that could not be read: the finding, the sentence, the text."""

    finding_id: str
    detail: str
    raw: str


class Window:
    """The part of a text that is being read; what was read is let go."""

    def __init__(self, stream: IO[str], limit: int) -> None:
        self._stream = stream
        self._limit = limit  # characters one value may have
        self._decode = json.JSONDecoder().raw_decode
        self._ended = False
        self.text = ""
        self.at = 0
        self.raw = ""  # the text of the value read last
        self.indents: set[str] = set()  # space before objects that begin a line, as read so far

    def more(self) -> bool:
        """Read on; return False at the end of the text."""
        if self._ended:
            return False
        part = self._stream.read(max(_CHUNK, len(self.text) - self.at))
        self._ended = not part
        self.text = self.text[self.at :] + part
        self.at = 0
        return bool(part)

    def peek(self) -> str:
        """Return the next character that is not space; empty at the end."""
        while True:
            match = _SPACE.match(self.text, self.at)
            self.at = match.end() if match else self.at
            if self.at < len(self.text):
                return self.text[self.at]
            if not self.more():
                return ""

    def take(self, character: str) -> bool:
        """Step over `character` if it comes next."""
        found = self.peek() == character
        self.at += found
        return found

    def value(self) -> Any:
        """Return the next value and step over it; raise BadJson and stay before it."""
        self.peek()
        while True:
            try:
                value, end = self._decode(self.text, self.at)
            except json.JSONDecodeError as error:
                if self._may_go_on(error) and self.more():
                    continue
                raise self._bad("D1-R01", f"not valid JSON: {_message(error, self.at)}") from error
            except ValueError as error:
                raise self._bad("D1-R08", f"a number is too long to read ({error})") from error
            except RecursionError as error:
                raise self._bad("D1-R08", "the entry is nested too deeply") from error
            if end == len(self.text) and self.text[self.at] not in '[{"' and self.more():
                continue  # a number may have more digits
            self.raw, self.at = self.text[self.at : end], end
            return value

    def _may_go_on(self, error: json.JSONDecodeError) -> bool:
        """Return whether the value may only be cut off by the window's end."""
        if len(self.text) - self.at > self._limit:
            return False
        cut = error.msg.startswith("Unterminated string")
        return cut or error.pos >= len(self.text) - _NEAR_END

    def _bad(self, finding_id: str, detail: str) -> BadJson:
        if len(self.text) - self.at > self._limit:
            finding_id, detail = "D1-R08", f"the entry has over {self._limit:,} characters"
        return BadJson(finding_id, detail, self.text[self.at : self.at + 2000])

    def skip_to_next(self, indent: str | None) -> bool:
        """Step to the next line that begins an object as others began; False if there is none.

        `indent` is the space to look for where no object was read yet.
        """
        pattern = self._beginning(indent)
        if pattern is None:
            return False
        self.at += 1
        while (match := pattern.search(self.text, self.at)) is None:
            self.at = max(self.at, len(self.text) - _LONGEST_INDENT)
            if not self.more():
                return False
        self.at = match.end()
        return True

    def before_next(self, raw: str, indent: str | None) -> str:
        """Return the part of `raw` before the line that `skip_to_next` would step to."""
        pattern = self._beginning(indent)
        return pattern.split(raw, maxsplit=1)[0].rstrip() if pattern is not None else raw

    def _beginning(self, indent: str | None) -> re.Pattern[str] | None:
        known = self.indents or ({indent} if indent is not None else set())
        if not known:
            return None
        spaces = "|".join(map(re.escape, sorted(known)))
        return re.compile(rf"\n(?:{spaces})(?=\{{)")

    def indent(self) -> str | None:
        """Return the space before the next value if it is the first on its line."""
        self.peek()
        start = self.text.rfind("\n", 0, self.at)
        before = self.text[start + 1 : self.at]
        return before if start >= 0 and not before.strip() else None


def read_values(window: Window) -> Iterator[Any]:
    """Yield the values in order; a BadJson stands for one that could not be read."""
    while (character := window.peek()) and character:
        if character == "[":
            window.take("[")
            yield from _elements(window)
        elif character == "{":
            yield from _object(window)
        elif character in ",]":
            window.take(character)
            yield BadJson("D1-R01", "the list ends here, and more follows", character)
            yield from _elements(window)
        elif not (yield from _one(window, window.indent())):
            yield _lost(window)


def _one(window: Window, indent: str | None) -> Generator[Any, None, bool]:
    """Yield the next value; return whether reading can go on."""
    try:
        value = window.value()
    except BadJson as bad:
        bad.raw = window.before_next(bad.raw, indent)
        yield bad
        return window.skip_to_next(indent)
    if isinstance(value, dict) and indent is not None and len(indent) < _LONGEST_INDENT:
        window.indents.add(indent)
    if _is_batch(value):
        yield from value
    else:
        yield value
    return True


def _is_batch(value: Any) -> bool:
    """Return whether an element is a list of rows, not the turns of one row."""
    return (
        isinstance(value, list)
        and len(value) > 0
        and all(isinstance(row, dict) and not row.keys() & {"role", "from"} for row in value)
    )


def _elements(window: Window) -> Iterator[Any]:
    """Yield the elements of a list whose bracket was taken."""
    while (character := window.peek()) and character != "]":
        if character == ",":
            window.take(",")
            continue
        if not (yield from _one(window, window.indent())):
            yield _lost(window)
            return
    if not window.take("]"):
        yield BadJson("D1-R01", "the list is not closed: the file may be cut off", "")


def _lost(window: Window) -> BadJson:
    """Give up on the rest of the text, and say so."""
    size = len(window.text) - window.at
    while window.more():
        size += len(window.text) - window.at
        window.at = len(window.text)
    window.at = len(window.text)
    return BadJson("D1-R01", f"what follows ({size:,} characters) can't be read", "")


def _object(window: Window) -> Iterator[Any]:
    """Yield a top-level object: its wrapped list, its members, or itself."""
    start = window.text[window.at : window.at + 2000]
    window.take("{")
    fields: dict[str, Any] = {}
    wrapped = keyed = False
    try:
        while (character := window.peek()) and character != "}":
            if character == ",":
                window.take(",")
                continue
            key = window.value()
            if isinstance(key, dict) and not fields:
                yield BadJson("D1-R01", "the list begins with the wrong bracket", "{")
                yield key
                yield from _elements(window)
                return
            if not isinstance(key, str) or not window.take(":"):
                raise BadJson("D1-R01", "not valid JSON: a field has no name or no value", start)
            if window.peek() == "[" and key.lower() in WRAPPERS and _holds_objects(window):
                wrapped = True
                window.take("[")
                yield from _elements(window)
                continue
            value = window.value()
            if keyed:
                yield _with_id(key, value)
                continue
            fields[key] = value
            keyed = len(fields) == 2 and _alike(*fields.values())
            if keyed:
                yield from (_with_id(k, v) for k, v in fields.items())
    except BadJson as bad:
        yield BadJson(bad.finding_id, bad.detail, start)
        if not window.skip_to_next(""):
            yield _lost(window)
        return
    closed = window.take("}")
    if not closed and not wrapped:
        yield BadJson("D1-R01", "the object is not closed: the file may be cut off", start)
    elif not wrapped and not keyed:
        yield fields


def _holds_objects(window: Window) -> bool:
    """Return whether the list that comes next is empty or begins with an object."""
    while True:
        match = re.compile(r"\[[ \t\r\n]*").match(window.text, window.at)
        if match is not None and match.end() < len(window.text):
            return window.text[match.end()] in "{]"
        if not window.more():
            return False


def _alike(one: Any, two: Any) -> bool:
    """Return whether two members are rows of one table: objects with the same fields."""
    if not isinstance(one, dict) or not isinstance(two, dict):
        return False
    shared = len(one.keys() & two.keys())
    return shared > 1 and shared >= 0.5 * len(one.keys() | two.keys())


def _with_id(key: str, value: Any) -> Any:
    return {"id": key, **value} if isinstance(value, dict) else value


def _message(error: json.JSONDecodeError, start: int) -> str:
    text = error.msg[0].lower() + error.msg[1:]
    around = error.doc[max(start, error.pos - 20) : error.pos + 10]
    return f"{text} near {around!r}"
