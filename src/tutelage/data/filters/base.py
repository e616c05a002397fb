"""The protocol of validation layers, and the step that runs them row by row.

An error sends the row to quarantine; warnings and notes keep it. Nothing is corrected here.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from tutelage.core import plugins
from tutelage.core.config import Task
from tutelage.core.example import Example
from tutelage.core.output import OutputFormat
from tutelage.data.findings import Finding, catalogue, reason
from tutelage.data.pipeline import Dropped, StepResult

LAYERS = ("schema", "content", "statistics")


@dataclass(frozen=True)
class FilterSettings:
    """What the layers need to know of the project. `previous`: rows of the last version."""

    task: Task = "generation"
    output: OutputFormat = field(default_factory=OutputFormat)
    json_schema: dict[str, Any] | None = None
    language: str | None = None
    max_tokens: int | None = None
    refusal_share: float = 0.05
    previous: tuple[Example, ...] = ()


class Filter(Protocol):
    """One validation layer."""

    def check(self, example: Example) -> Iterable[Finding]:
        """Return what is wrong with one row."""
        ...

    def check_all(self, rows: Sequence[Example]) -> Iterable[Finding]:
        """Return what is wrong with the rows as a whole."""
        ...


def load_filters(settings: FilterSettings) -> dict[str, Filter]:
    """Return every installed layer by name: the built-in ones in order, then plug-ins."""
    names = sorted(
        plugins.available("filters"),
        key=lambda name: (LAYERS.index(name) if name in LAYERS else len(LAYERS), name),
    )
    return {name: plugins.load("filters", name)(settings) for name in names}


class FilterStep:
    """Runs one layer: rows with an error leave for quarantine."""

    def __init__(self, name: str, layer: Filter) -> None:
        self.name = name
        self._layer = layer

    def run(self, rows: Sequence[Example]) -> StepResult:
        """Return the rows without an error, the others with all their reasons."""
        kept: list[Example] = []
        quarantined: list[Dropped] = []
        findings: list[Finding] = []
        for example in rows:
            found = list(self._layer.check(example))
            findings += found
            errors = [f for f in found if catalogue()[f.id].severity == "error"]
            if errors:
                why = "; ".join(reason(f.id, f.detail) for f in errors)
                quarantined.append(Dropped(example, errors[0].id, why))
            else:
                kept.append(example)
        findings += self._layer.check_all(kept)
        return StepResult(kept, quarantined=quarantined, findings=findings)


def at(example: Example, finding_id: str, detail: str) -> Finding:
    """Return a finding about one row."""
    return Finding(finding_id, detail, example.origin.source, example.id)
