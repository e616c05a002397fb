"""What general ability is measured on: the built-in probes, and a project's own.

A probe is an unfinished sentence or a question with choices, weighed by likelihood; a text is
read for its perplexity. A project's own come from JSONL files, one set a file. Nothing is measured
here.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from tutelage.core.errors import ConfigError, DataError
from tutelage.core.lines import lines_of

_SETTING = "tutelage.yaml, evaluate.probes"


@dataclass(frozen=True)
class Probe:
    """One question as an unfinished sentence; the first choice is right."""

    topic: str
    stem: str
    choices: tuple[str, ...]
    end: str = "."  # closes the sentence

    @property
    def right(self) -> str:
        """The sentence as it should end."""
        return f"{self.stem} {self.choices[0]}"

    @property
    def sentences(self) -> list[str]:
        """The whole sentence with each choice."""
        return [f"{self.stem} {choice}{self.end}" for choice in self.choices]


@dataclass(frozen=True)
class ProbeSet:
    """The probes and texts of one source. `digest` is that of its file."""

    name: str
    probes: tuple[Probe, ...]
    texts: tuple[str, ...]
    digest: str = ""


@cache
def built_in() -> ProbeSet:
    """Return the built-in set: plain world knowledge and general English."""
    items = json.loads(_read("general.json"))["items"]
    probes = tuple(Probe(i["topic"], i["stem"], tuple(i["choices"])) for i in items)
    return ProbeSet("general", probes, tuple(json.loads(_read("texts.json"))["texts"]))


def _read(name: str) -> str:
    return (files("tutelage.evaluation") / "probes" / name).read_text(encoding="utf-8")


def own_probes(paths: Sequence[str], root: Path) -> list[ProbeSet]:
    """Return the sets of `evaluate.probes`; paths are relative to the project's folder.

    Raises ConfigError if a file is missing or two have one name, DataError for a row that is
    neither {question or stem, choices, answer} nor {text}.
    """
    found: list[ProbeSet] = []
    for path in paths:
        file = root / path
        if not file.is_file():
            raise ConfigError(
                f"probes: there is no file {path}", where=_SETTING,
                fix="Give the path of a JSONL file, from the project's folder on",
            )  # fmt: skip
        if file.stem in {made.name for made in found}:
            raise ConfigError(
                f"probes: two files are called {file.stem!r}", where=_SETTING,
                fix="Rename one: the name stands in the report",
            )  # fmt: skip
        found.append(_load(file, path))
    return found


def _load(file: Path, shown: str) -> ProbeSet:
    raw = file.read_bytes()
    probes: list[Probe] = []
    texts: list[str] = []
    try:
        lines = lines_of(raw.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise DataError("the probes are not UTF-8 text", where=shown, fix="Save it so") from error
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        row = _row(line, f"{shown}, line {number}")
        if isinstance(row, Probe):
            probes.append(row)
        else:
            texts.append(row)
    for rows, what in ((probes, "question"), (texts, "text")):
        if len(rows) == 1 or not (probes or texts):
            raise DataError(
                f"the probes have {'one' if rows else 'no'} {what}, which says nothing of others",
                where=shown, fix="Give 20 or more, or none of the kind",
            )  # fmt: skip
    return ProbeSet(file.stem, tuple(probes), tuple(texts), hashlib.sha256(raw).hexdigest())


def _row(line: str, where: str) -> Probe | str:
    """Return the question or the text of one line. Raises DataError."""
    try:
        row = json.loads(line)
    except ValueError as error:
        raise DataError(
            "the line is no JSON", where=where, fix="Write one object a line"
        ) from error
    if not isinstance(row, dict):
        raise DataError("the line is no JSON object", where=where, fix="Write one object a line")
    if "text" in row:
        text = row["text"]
        if not isinstance(text, str) or len(text.split()) < 2:
            raise DataError("text must have two words or more", where=where, fix="Mend the row")
        return text
    return _question(row, where)


def _question(row: Mapping[str, Any], where: str) -> Probe:
    asked = row.get("question", row.get("stem"))
    if not isinstance(asked, str) or not asked.strip():
        raise DataError(
            "the row has no question, stem or text", where=where,
            fix='Write {"question": "…", "choices": ["…", "…"], "answer": 0} or {"text": "…"}',
        )  # fmt: skip
    choices = row.get("choices")
    if (
        not isinstance(choices, list) or len(choices) < 2
        or not all(isinstance(c, str) and c.strip() for c in choices)
        or len(set(choices)) < len(choices)
    ):  # fmt: skip
        raise DataError(
            "choices must be a list of two or more different texts", where=where,
            fix='Write "choices": ["…", "…"]',
        )  # fmt: skip
    right = _right(row.get("answer"), choices, where)
    others = [c for i, c in enumerate(choices) if i != right]
    ordered = tuple(c.strip() for c in (choices[right], *others))
    topic = str(row.get("topic", ""))
    if "question" in row:
        return Probe(topic, f"Question: {asked.strip()}\nAnswer:", ordered, "")
    return Probe(topic, asked.strip(), ordered)


def _right(answer: Any, choices: Sequence[str], where: str) -> int:
    """Return the place of the right choice: given as its number from 0, its text, or its letter."""
    if isinstance(answer, int) and not isinstance(answer, bool) and 0 <= answer < len(choices):
        return answer
    if isinstance(answer, str):
        if answer in choices:
            return choices.index(answer)
        letter = ord(answer.upper()) - ord("A") if len(answer) == 1 else -1
        if 0 <= letter < len(choices):
            return letter
    raise DataError(
        f"answer {answer!r} is none of the {len(choices)} choices", where=where,
        fix="Give the right choice's text, its letter, or its number counted from 0",
    )  # fmt: skip
