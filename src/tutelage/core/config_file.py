"""Read tutelage.yaml: every problem at once, each with its line and the nearest valid key."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from tutelage.core.config import Project
from tutelage.core.config_yaml import read_yaml, repeated_keys
from tutelage.core.errors import ConfigError, nearest

_LIMIT_BYTES = 1_000_000


def load_config(path: Path) -> Project:
    """Return the project's settings; raise one ConfigError that lists all problems."""
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ConfigError(
            "the file is not UTF-8 text", where=str(path), fix="Save it as UTF-8"
        ) from error
    if len(text) > _LIMIT_BYTES:
        raise ConfigError("the file is over 1 MB", where=str(path), fix="Move data into data/")
    return parse_config(text, str(path))


def parse_config(text: str, where: str) -> Project:
    """Return the settings in `text`; `where` names the file in messages."""
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        values = read_yaml(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or "it can't be read"
        raise ConfigError(
            f"the YAML is broken ({problem})",
            where=f"{where}{line}",
            fix="Check the indentation and quotes on that line",
        ) from error
    if not isinstance(values, dict):
        raise ConfigError(
            "the file holds no settings", where=where, fix="Run `tutelage init` for a fresh one"
        )
    problems = [
        f"{where}:{line}: {key!r} stands in line {first} already, and only one of them can hold"
        for key, first, line in repeated_keys(node)
    ]
    try:
        project = Project.model_validate(values)
    except ValidationError as error:
        problems += [_problem(item, node, where) for item in error.errors()]
        raise ConfigError("; ".join(problems), fix=_remedy(len(problems))) from error
    if problems:
        raise ConfigError("; ".join(problems), fix=_remedy(len(problems)))
    return project


def _remedy(count: int) -> str:
    noun = "that key" if count == 1 else f"those {count} keys"
    return f"Correct {noun} and run the command again"


def _problem(item: Any, node: yaml.Node | None, where: str) -> str:
    path = [part for part in item["loc"] if isinstance(part, (str, int))]
    line = _line_of(node, path)
    dotted = ".".join(str(part) for part in path)
    place = f"{where}:{line}" if line else where
    if item["type"] == "extra_forbidden":
        known = _known_keys(tuple(p for p in path[:-1] if isinstance(p, str)))
        near = nearest(str(path[-1]), known, cutoff=0.4)
        hint = f", did you mean {near!r}" if near else f", valid keys are {', '.join(known)}"
        return f"{place}: unknown key {dotted!r}{hint}"
    if item["type"] == "missing":
        return f"{place}: {dotted!r} is missing"
    if item["type"] == "string_type" and isinstance(found := item["input"], (bool, int, float)):
        return f"{place}: {dotted}: text is wanted, and YAML reads {found!r} there: use quotes"
    message = str(item["msg"]).removeprefix("Value error, ")
    message = message[0].lower() + message[1:]
    return f"{place}: {dotted or 'the file'}: {message} (found {_shown(item.get('input'))})"


def _shown(value: Any) -> str:
    if isinstance(value, (dict, list, BaseModel)):
        return f"a {'list' if isinstance(value, list) else 'section'}"
    return repr(value)[:60]


@functools.cache
def _known_keys(path: tuple[str, ...]) -> list[str]:
    model: Any = Project
    for part in path:
        fields = {field.alias or name: field for name, field in model.model_fields.items()}
        field = fields.get(part)
        model = _section_of(field.annotation) if field else None
        if model is None:
            return []
    return [field.alias or name for name, field in model.model_fields.items()]


def _section_of(annotation: Any) -> type[BaseModel] | None:
    candidates = [annotation, *getattr(annotation, "__args__", ())]
    for kind in candidates:
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            return kind
    return None


def _line_of(node: yaml.Node | None, path: list[str | int]) -> int | None:
    """Return the 1-based line of the deepest part of `path` that the file has."""
    line = None
    for part in path:
        if isinstance(node, yaml.MappingNode):
            pair = next((p for p in node.value if p[0].value == part), None)
            if pair is None:
                break
            line, node = pair[0].start_mark.line + 1, pair[1]
        elif isinstance(node, yaml.SequenceNode) and isinstance(part, int):
            if part >= len(node.value):
                break
            node = node.value[part]
            line = node.start_mark.line + 1
        else:
            break
    return line
