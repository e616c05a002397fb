"""What a shape of rows is: a name, why a row was taken for it, and how one is read."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from tutelage.core.config import Columns, Task
from tutelage.core.example import Message
from tutelage.core.output import OutputFormat

Fields = Mapping[str, Any]
MISSING: Any = object()


@dataclass
class Reading:
    """What one row says.

    `used` are the fields that became messages; the others stay as `meta`. `answer` is a bare
    answer or label that is still to be written in the project's format.
    """

    messages: tuple[Message, ...]
    used: tuple[str, ...]
    answer: Any = MISSING
    is_label: bool = False
    label: str | None = None
    more: dict[str, Any] = field(default_factory=dict)  # added to meta
    form: dict[str, Any] = field(default_factory=dict)  # how the row was written (form.py)


@dataclass(frozen=True)
class Shape:
    """How rows with one set of fields are read; `why` completes "taken for `name` because …"."""

    name: str
    why: str
    read: Callable[[Fields], Reading]


@dataclass(frozen=True)
class Clues:
    """What a finder may look at: the fields by lower-case name, one row, and the settings."""

    folded: Mapping[str, str]
    row: Fields
    columns: Columns
    output: OutputFormat
    task: Task

    def first(self, *names: str) -> str | None:
        """Return the row's own spelling of the first of `names` that it has."""
        return next((self.folded[name] for name in names if name in self.folded), None)


Finder = Callable[[Clues], Shape | None]


def fold(keys: tuple[str, ...]) -> dict[str, str]:
    """Return the fields by their lower-case names; of two that differ in case the first counts."""
    return {key.strip().lower(): key for key in reversed(keys)}
