"""Read YAML as settings mean it: keys are words, and none stands twice in one section.

YAML 1.1 takes a bare off, on, yes or no for true or false, also as a key.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import yaml

_BOOL = "tag:yaml.org,2002:bool"
_MERGE = "tag:yaml.org,2002:merge"


class _Loader(yaml.SafeLoader):
    """YAML's safe types, with the keys of sections as they are written."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        for key, _ in node.value:
            if key.tag == _BOOL:
                key.tag = "tag:yaml.org,2002:str"
        return super().construct_mapping(node, deep=deep)


def read_yaml(text: str) -> Any:
    """Return what `text` holds; raise yaml.YAMLError if it is no YAML."""
    return yaml.load(text, Loader=_Loader)  # noqa: S506 - a safe loader of our own


def repeated_keys(node: yaml.Node | None) -> list[tuple[str, int, int]]:
    """Return each key that stands twice in a section, with both lines (from 1)."""
    found: list[tuple[str, int, int]] = []
    for section in _sections(node, set()):
        first: dict[str, int] = {}
        for key, _ in section.value:
            if not isinstance(key, yaml.ScalarNode) or key.tag == _MERGE:
                continue
            line = key.start_mark.line + 1
            if key.value in first:
                found.append((key.value, first[key.value], line))
            first.setdefault(key.value, line)
    return found


def _sections(node: yaml.Node | None, seen: set[int]) -> Iterator[yaml.MappingNode]:
    if node is None or id(node) in seen:  # an alias may lead back to where it stands
        return
    seen.add(id(node))
    if isinstance(node, yaml.MappingNode):
        yield node
        for _, value in node.value:
            yield from _sections(value, seen)
    elif isinstance(node, yaml.SequenceNode):
        for value in node.value:
            yield from _sections(value, seen)
