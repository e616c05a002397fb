"""Set fields of `train` in tutelage.yaml in place: comments, order and the rest stay as they are.

The text is changed at the places that the YAML parser names, and read again before it is kept.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from tutelage.core.config_file import parse_config
from tutelage.core.config_yaml import read_yaml
from tutelage.core.errors import ConfigError
from tutelage.core.workspace import atomic_write
from tutelage.workflows.training.search_report import fragment, number

_SECTION = "train"


def write_overrides(path: Path, overrides: Mapping[str, Any]) -> None:
    """Write `overrides` under `train` in the file; whole or not at all.

    Raises ConfigError, with the lines to add by hand, if the file is written in a way that can't
    be changed safely.
    """
    text = path.read_text(encoding="utf-8")
    changed = with_overrides(text, overrides)
    wanted = read_yaml(text)
    wanted[_SECTION] = {**(wanted.get(_SECTION) or {}), **overrides}
    try:
        same = read_yaml(changed) == wanted
    except yaml.YAMLError:
        same = False
    if not same:
        lines = fragment(overrides).strip().replace("\n", "; ")
        raise ConfigError(
            "the settings could not be written in place",
            where=str(path),
            fix=f"Write them by hand: {lines}",
        )
    parse_config(changed, str(path))
    atomic_write(path, changed.encode())


def with_overrides(text: str, overrides: Mapping[str, Any]) -> str:
    """Return `text` with the fields of `train` set."""
    for name, value in reversed(list(overrides.items())):  # each new one goes before the others
        text = _with_one(text, name, number(value))
    return text


def _with_one(text: str, name: str, value: str) -> str:
    root = yaml.compose(text, Loader=yaml.SafeLoader)
    if not isinstance(root, yaml.MappingNode):
        return text
    found = _value(root, _SECTION)
    if found is None:
        return f"{text.rstrip()}\n{_SECTION}:\n  {name}: {value}\n"
    if not isinstance(found, yaml.MappingNode):  # `train:` with nothing below it
        at = found.start_mark.index
        head = text[:at].rstrip() if found.value == "" else text[:at]
        return f"{head}\n  {name}: {value}\n{text[at:].lstrip()}"
    own = _value(found, name)
    if own is not None:
        return text[: own.start_mark.index] + value + text[own.end_mark.index :]
    if found.flow_style:
        at = text.rindex("}", 0, found.end_mark.index)
        comma = ", " if found.value else ""
        return f"{text[:at].rstrip()}{comma}{name}: {value}{text[at:]}"
    first = found.value[0][0].start_mark
    return f"{text[: first.index]}{name}: {value}\n{' ' * first.column}{text[first.index :]}"


def _value(mapping: yaml.MappingNode, name: str) -> yaml.Node | None:
    return next((value for key, value in mapping.value if key.value == name), None)
