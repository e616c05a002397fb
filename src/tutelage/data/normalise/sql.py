"""SQL answers: reserved words in capitals, single spaces between words, no trailing space.

A small tokenizer finds text, quoted names, comments and template marks and leaves them alone; line
breaks and indentation stay. What it can't read for certain is left as it is. Names never change:
a word is written in capitals only where it can be nothing but a reserved word.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_ANYWHERE = frozenset((
    "select", "from", "where", "group", "order", "having", "join", "as", "and", "or", "not", "in",
    "is", "null", "like", "between", "union", "distinct", "case", "when", "then", "else", "insert",
    "update", "delete", "create", "drop", "alter", "exists",
))  # fmt: skip
# Words that are reserved only after one of these.
_AFTER = {
    "by": {"group", "order", "partition"},
    "all": {"union", "intersect", "except", "select"},
    "table": {"create", "drop", "alter", "temporary", "temp"},
    "into": {"insert"},
}
# Words that are reserved only once one of these was seen in the statement.
_SINCE = {"on": "join", "set": "update", "asc": "order", "desc": "order", "end": "case",
          "values": "insert"}  # fmt: skip
_JOINS = frozenset(("inner", "left", "right", "full", "cross"))
_START = re.compile(
    r"\s*(?:(?:--[^\n]*\n|/\*.*?\*/)\s*)*(?:select\b.*\bfrom\b|select\s+[\w'*(]|insert\s+into\b"
    r"|update\s+\S+\s+set\b|delete\s+from\b|with\s+\w+(?:\s*\([^)]*\))?\s+as\s*\("
    r"|(?:create|drop|alter)\s+(?:or\s+replace\s+|temporary\s+|temp\s+|unique\s+)*"
    r"(?:table|view|index|schema|function|procedure|trigger|database|sequence)\b)",
    re.IGNORECASE | re.DOTALL,
)
_TOKEN = re.compile(
    r"""(?P<space>[ \t]+)|(?P<line>\r?\n)
    |(?P<word>[^\W\d]\w*)
    |(?P<text>'(?:[^']|'')*'|"(?:[^"]|"")*"|`[^`]*`|\[[^\]\n]*\]|\{\{.*?\}\}|\{%.*?%\}
        |\$(\w*)\$.*?\$\5\$|[@:$%]\w+)
    |(?P<comment>--[^\n]*|\#[^\n]*|/\*.*?\*/)
    |(?P<open>['"`]|/\*|\{\{|\{%|\$\w*\$)
    |(?P<other>.)""",
    re.VERBOSE | re.DOTALL,
)


@dataclass(frozen=True)
class _Word:
    """A word and the place of its piece; `before` and `after` are the pieces beside it."""

    place: int
    low: str
    before: str


def looks_like_sql(text: str) -> bool:
    """Return whether the text starts as a statement of SQL does."""
    return _START.match(text[:4000]) is not None


def normalise_sql(text: str) -> str:
    """Return the statement in the one format, or `text` where it can't be read for certain."""
    if "\\'" in text or '\\"' in text or "\\`" in text:
        return text  # an escape in one database, the end of a text in another
    pieces: list[str] = []
    words: list[_Word] = []
    for token in _TOKEN.finditer(text):
        piece = token[0]
        if token["open"] or (token["comment"] and _doubtful(piece)):
            return text
        before = pieces[-1] if pieces else "\n"
        if token["space"]:
            piece = piece if before == "\n" else " "
        elif token["line"]:
            while pieces and pieces[-1].isspace() and pieces[-1] != "\n":
                pieces.pop()
            piece = "\n"
        elif token["word"]:
            words.append(_Word(len(pieces), piece.lower(), before))
        pieces.append(piece)
    for place in _reserved(words, pieces):
        pieces[place] = pieces[place].upper()
    return "".join(pieces).strip()


def _doubtful(comment: str) -> bool:
    """Return whether this may be no comment everywhere, or hold another."""
    if comment.startswith("/*"):
        return "/*" in comment[2:]
    sure = comment.startswith("--") and comment[2:3] in ("", " ", "\t", "-")
    return not sure and any(mark in comment for mark in "'\"`[{$/")


def _reserved(words: list[_Word], pieces: list[str]) -> list[int]:
    """Return the places of the words that can be nothing but reserved words."""
    found: list[int] = []
    seen: set[str] = set()
    for index, word in enumerate(words):
        after = pieces[word.place + 1] if word.place + 1 < len(pieces) else ""
        if word.before == "." or after == ".":
            continue
        last = words[index - 1].low if index else ""
        following = [later.low for later in words[index + 1 : index + 3]]
        join = word.low in _JOINS and (following[:1] == ["join"] or following == ["outer", "join"])
        outer = word.low == "outer" and last in _JOINS and following[:1] == ["join"]
        if (
            word.low in _ANYWHERE
            or last in _AFTER.get(word.low, ())
            or _SINCE.get(word.low) in seen
            or (word.low == "with" and index == 0)
            or (word.low in ("limit", "offset") and _number_follows(word.place, pieces))
            or join
            or outer
        ):
            found.append(word.place)
            seen.add(word.low)
    return found


def _number_follows(place: int, pieces: list[str]) -> bool:
    rest = [piece for piece in pieces[place + 1 : place + 4] if piece.strip()]
    return bool(rest) and rest[0].isdigit()
