"""`tutelage init`: a project around the user's own rows, filled in with what they show."""

from __future__ import annotations

import csv
import json
import re
import shutil
from collections import Counter
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import yaml

from tutelage.core.config_file import parse_config
from tutelage.core.errors import ConfigError, DataError
from tutelage.core.workspace import CONFIG_NAME, Workspace, atomic_write

_SAMPLE = 2000  # rows looked at to guess
_MOST_LABELS = 100
_INPUTS = ("input", "text", "question", "prompt", "description", "instruction", "content")
_OUTPUTS = ("output", "label", "answer", "completion", "category", "response", "target", "class")


@dataclass(frozen=True)
class Guess:
    """What the first rows look like."""

    task: str
    input: str | None = None
    output: str | None = None
    labels: tuple[str, ...] = ()


def init(
    directory: Path,
    *,
    data: Path | None = None,
    name: str | None = None,
    task: str | None = None,
    model: str = "demo",
    prompt: str | None = None,
) -> Path:
    """Write tutelage.yaml in `directory` and copy `data` into its data folder.

    Returns the path of tutelage.yaml. Raises ConfigError if there is one already, DataError if
    `data` can't be read.
    """
    target = directory / CONFIG_NAME
    if target.exists():
        raise ConfigError(
            "there is a tutelage.yaml already", where=str(target), fix="Edit it, or remove it first"
        )
    if data is not None and not data.is_file():
        raise DataError("no such file", where=str(data), fix="Check the path after --data")
    guess = guess_columns(data) if data else Guess("generation")
    settings = _settings(directory, guess, name, task, model, prompt)
    if data is not None:
        folder = directory / "data"
        folder.mkdir(parents=True, exist_ok=True)
        copy = folder / data.name
        if copy.resolve() != data.resolve():
            shutil.copyfile(data, copy)
        settings["data"] = {"sources": [f"data/{data.name}"], **_columns(guess)}
    text = _HEADER + yaml.safe_dump(settings, sort_keys=False, allow_unicode=True, width=88)
    parse_config(text, str(target))
    atomic_write(target, text.encode())
    Workspace(directory.resolve()).create()
    return target


_HEADER = """\
# The only settings file. Everything left out has a default; `tutelage train --plan` shows them.
"""


def _settings(
    directory: Path,
    guess: Guess,
    name: str | None,
    task: str | None,
    model: str,
    prompt: str | None,
) -> dict[str, object]:
    chosen = task or guess.task
    settings: dict[str, object] = {
        "name": name or _slug(directory.resolve().name),
        "task": chosen,
        "model": model,
        "prompt": prompt or _prompt(chosen, guess),
    }
    if chosen == "classification" and guess.labels:
        settings["output"] = {"field": "label", "labels": list(guess.labels)}
    return settings


def _columns(guess: Guess) -> dict[str, dict[str, str]]:
    named = {"input": guess.input, "output": guess.output}
    found = {key: value for key, value in named.items() if value}
    return {"columns": found} if len(found) == 2 else {}


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9_-]+", "-", text.lower()).strip("-_")[:63] or "my-domain"


def _prompt(task: str, guess: Guess) -> str:
    if task == "classification" and guess.labels:
        names = ", ".join(guess.labels)
        return (
            "Read the text and choose the one label that fits. Answer with JSON only, like "
            f'{{"label": "{guess.labels[0]}"}}.\nLabels: {names}.\n'
        )
    return "Answer the request the way an expert of this domain would.\n"


def guess_columns(path: Path) -> Guess:
    """Return the task, the two columns and the labels that the first rows suggest."""
    rows = _sample(path)
    if not rows or any(not isinstance(row, dict) for row in rows):
        return Guess("generation")
    keys = list(rows[0])
    source = next((k for k in _INPUTS if k in keys), None)
    target = next((k for k in _OUTPUTS if k in keys and k != source), None)
    if len(keys) == 2 and (source is None) != (target is None):
        other = next(k for k in keys if k not in (source, target))
        source, target = source or other, target or other
    if source is None or target is None:
        return Guess("generation")
    counts = Counter(str(row.get(target) or "").strip() for row in rows)
    counts.pop("", None)
    short = all(len(label) <= 60 for label in counts)
    if short and 2 <= len(counts) <= min(_MOST_LABELS, max(2, len(rows) // 3)):
        return Guess("classification", source, target, tuple(sorted(counts)))
    return Guess("generation", source, target)


def _sample(path: Path) -> list[dict[str, object]]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            if path.suffix.lower() in (".csv", ".tsv"):
                delimiter = "\t" if path.suffix.lower() == ".tsv" else ","
                return [
                    dict(row)
                    for row in islice(csv.DictReader(stream, delimiter=delimiter), _SAMPLE)
                ]
            rows = []
            for line in islice(stream, _SAMPLE):
                try:
                    rows.append(json.loads(line))
                except ValueError:
                    continue
            return rows
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(
            "the file can't be read as text", where=str(path), fix="Save it as UTF-8 CSV or JSONL"
        ) from error
