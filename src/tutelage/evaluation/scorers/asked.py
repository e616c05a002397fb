"""The scorers that a project asks for: which plug-in stands behind a metric, with which options.

An entry of `evaluate.scorers` with the name of a metric that the task has anyway replaces it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from tutelage.core.config import Project
from tutelage.core.example import Example
from tutelage.core.plugins import load
from tutelage.evaluation.scorers.base import Place, Scorer, make_scorer


@dataclass(frozen=True)
class Asked:
    """One metric: the plug-in's name, its options, and the setting that named it."""

    plugin: str
    options: Mapping[str, Any] = field(default_factory=dict)
    where: str = "evaluate.primary"


@dataclass(frozen=True)
class Traits:
    """What the scorers need besides written answers."""

    likelihood: bool  # how likely the reference is
    choices: Mapping[str, tuple[str, ...]]  # by example id: the only possible answers


def asked(project: Project) -> dict[str, Asked]:
    """Return the entries of `evaluate.scorers` by their name in reports."""
    found = {}
    for number, given in enumerate(project.evaluate.scorers, start=1):
        values = {"name": given} if isinstance(given, str) else dict(given)
        name = str(values.pop("name"))
        shown = str(values.pop("as", name))
        found[shown] = Asked(name, values, f"evaluate.scorers, entry {number}")
    return found


def make_scorers(project: Project, metrics: Sequence[str], place: Place) -> dict[str, Scorer]:
    """Return a scorer a metric. Raises ConfigError for an unknown name or a wrong option."""
    own = asked(project)
    made = {}
    for metric in metrics:
        entry = own.get(metric, Asked(metric))
        there = replace(place, where=entry.where)
        made[metric] = make_scorer(entry.plugin, options=entry.options, place=there)
    return made


def traits(project: Project, metrics: Sequence[str], rows: Sequence[Example]) -> Traits:
    """Return what the metrics' scorers need, from their classes' `likelihood` and `choices`.

    Rows are asked for their choices only where a scorer reads choices.
    """
    own = asked(project)
    likelihood = False
    choices: dict[str, tuple[str, ...]] = {}
    for metric in metrics:
        entry = own.get(metric, Asked(metric))
        kind = load("scorers", entry.plugin)
        likelihood = likelihood or bool(getattr(kind, "likelihood", False))
        if hasattr(kind, "choices"):
            scorer = make_scorer(entry.plugin, options=entry.options, place=Place())
            choices |= {row.id: kind.choices(scorer, row) for row in rows}
    return Traits(likelihood, {item: given for item, given in choices.items() if given})
