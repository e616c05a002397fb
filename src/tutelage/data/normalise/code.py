"""Code answers: the fence around the whole answer off, trailing space off, tabs of Python spaced.

Indentation stays. A change is made only where the program stays the same: for Python the syntax
trees are compared; where another language may hold text over several lines, space is left.
"""

from __future__ import annotations

import ast
import re
import warnings

_FENCE = re.compile(r"\A(`{3,}|~{3,})[ \t]*([\w+#.-]*)[ \t]*\n(.*?)\n?\1[ \t]*\Z", re.DOTALL)
_INNER_FENCE = re.compile(r"^(?:```|~~~)", re.MULTILINE)
_TRAILING = re.compile(r"(?<![ \t])[ \t]++(?=\n|\Z)")
_LEADING = re.compile(r"^[ \t]*\t[ \t]*", re.MULTILINE)
_TEXT_OVER_LINES = ('"""', "'''", "`", "<<", 'R"', "[[", "\\ ", "\\\t", "%q", "=begin")


def strip_fence(text: str) -> tuple[str, str]:
    """Return (the code, its language) if one fence holds the whole text; else (text, "")."""
    if text.lstrip()[:3] not in ("```", "~~~"):
        return text, ""
    found = _FENCE.match(text.strip())
    if found is None or _INNER_FENCE.search(found[3]):
        return text, ""
    return found[3].strip("\n"), found[2].lower()


def tidy_code(text: str) -> str:
    """Return code without trailing space and blank edges, its indentation kept.

    Python's leading tabs become four spaces each.
    """
    edged = _edges(text)
    if edged.endswith("\\"):
        return text  # the line goes on in the one that would be cut off
    bare = _TRAILING.sub("", edged)
    spaced = _LEADING.sub(lambda found: found[0].expandtabs(4), bare)
    if spaced == edged:
        return edged
    tree = _tree(edged)
    if tree is None:
        return edged if any(mark in edged for mark in _TEXT_OVER_LINES) else bare
    return next((new for new in (spaced, bare) if _tree(new) == tree), edged)


def _edges(text: str) -> str:
    """Return text without blank lines before and after it."""
    lines = text.split("\n")
    while lines and not lines[0].strip():
        lines.pop(0)
    return "\n".join(lines).rstrip()


def _tree(text: str) -> str | None:
    """Return the syntax tree as text, or None for what is not Python."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return ast.dump(ast.parse(text))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
