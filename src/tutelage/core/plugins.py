"""Entry points are the only registry: built-ins and other people's plug-ins load the same way.

A group is `tutelage.<folder>` (readers, filters, dedup, augment, methods, hosted, trackers,
generators, scorers, strategies, guards, launchers). A plug-in is any object that meets the
folder's Protocol.
"""

from __future__ import annotations

from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from tutelage.core.errors import ConfigError, EnvironmentProblem, did_you_mean

GROUPS = (
    "readers", "filters", "detectors", "dedup", "embedders", "augment", "methods", "hosted",
    "trackers", "generators", "scorers", "strategies", "guards", "launchers",
)  # fmt: skip


@cache
def available(group: str) -> dict[str, EntryPoint]:
    """Return the plug-ins of a group by name."""
    return {point.name: point for point in entry_points(group=f"tutelage.{group}")}


def load(group: str, name: str) -> Any:
    """Return the plug-in `name` of `group`; an unknown name lists the known ones."""
    known = available(group)
    if name not in known:
        hint = did_you_mean(name, known)
        raise ConfigError(
            f"{name!r} is not one of tutelage's {group}",
            fix=f"{hint}Known: {', '.join(sorted(known)) or 'none installed'}",
        )
    try:
        return known[name].load()
    except ImportError as error:
        raise EnvironmentProblem(
            f"the plug-in {name!r} needs a package that is not installed ({error.name})",
            fix=f"Run `pip install {error.name}` or the extra that carries it",
        ) from error
