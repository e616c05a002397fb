"""Words that the text must hold, and words that it may not."""

from __future__ import annotations

import re
from typing import Any, Literal

from tutelage.core.config_base import Section
from tutelage.core.example import Example
from tutelage.evaluation.scorers.base import HERE, Place, Score


class ContainsOptions(Section):
    """What is looked for; without either, the reference answer."""

    texts: list[str] | None = None
    field: str | None = None  # the row's field that holds a text, or a list of them
    need: Literal["all", "any"] = "all"
    ignore_case: bool = True
    whole_words: bool = False


class NotContainsOptions(Section):
    """What may not stand in the text."""

    texts: list[str] | None = None
    field: str | None = None  # the row's field that holds a text, or a list of them
    ignore_case: bool = True
    whole_words: bool = False


class Contains:
    """1 if the text holds all (or any) of the given texts, else 0."""

    Options = ContainsOptions
    rule = True

    def __init__(self, options: ContainsOptions, place: Place = HERE) -> None:
        del place
        self._options = options

    def score(self, row: Example, text: str) -> Score:
        """Give what was found and what is missing."""
        wanted = _wanted(self._options, row)
        if wanted is None and self._options.field is None and row.answer is not None:
            wanted = [row.answer]
        if not wanted:
            return Score(None, {"why": "the row names nothing to look for"})
        found = [part for part in wanted if _holds(text, part, self._options)]
        missing = [part for part in wanted if part not in found]
        right = not missing if self._options.need == "all" else bool(found)
        evidence: dict[str, Any] = {"found": found, "missing": missing}
        if not right:
            evidence["why"] = f"missing: {', '.join(missing)[:200]}"
        return Score(float(right), evidence)


class NotContains:
    """1 if the text holds none of the given texts, else 0."""

    Options = NotContainsOptions
    rule = True

    def __init__(self, options: NotContainsOptions, place: Place = HERE) -> None:
        if options.texts is None and options.field is None:
            raise place.wrong("not_contains: there is nothing to look for", "Give texts or field")
        self._options = options

    def score(self, row: Example, text: str) -> Score:
        """Give what was found."""
        unwanted = _wanted(self._options, row)
        if not unwanted:
            return Score(None, {"why": "the row names nothing to look for"})
        found = [part for part in unwanted if _holds(text, part, self._options)]
        why = {"why": f"found: {', '.join(found)[:200]}"} if found else {}
        return Score(float(not found), {"found": found, **why})


def _wanted(options: ContainsOptions | NotContainsOptions, row: Example) -> list[str] | None:
    if options.texts is None and options.field is None:
        return None
    given = row.meta.get(options.field) if options.field is not None else None
    listed = given if isinstance(given, list) else [] if given is None else [given]
    return [*(options.texts or []), *map(str, listed)]


def _holds(text: str, part: str, options: ContainsOptions | NotContainsOptions) -> bool:
    """Look for a text, runs of space as one."""
    text, part = " ".join(text.split()), " ".join(part.split())
    if options.ignore_case:
        text, part = text.casefold(), part.casefold()
    if options.whole_words:
        return re.search(rf"(?<!\w){re.escape(part)}(?!\w)", text) is not None
    return part in text
