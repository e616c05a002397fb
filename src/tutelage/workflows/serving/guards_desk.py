"""Checks of live traffic from Python: what `tutelage guard …` does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tutelage.workflows.context import Context


class GuardsDesk:
    """`project.guards`: the checks in force, a trial on a file, what they said lately."""

    def __init__(self, context: Context) -> None:
        self._ctx = context

    def all(self, release: str | None = None) -> dict[str, Any]:
        """Return the layers in force for a release (unset: the one that serves)."""
        from tutelage.workflows.serving.guards import describe

        return describe(self._ctx, release)

    def test(self, path: str | Path, release: str | None = None) -> dict[str, Any]:
        """Return what they say of the requests and answers in a file."""
        from tutelage.workflows.serving.guard_trial import try_file

        return try_file(self._ctx, Path(path), release).as_dict()

    def report(self, hours: float = 24.0) -> dict[str, Any]:
        """Return what they said of the last hours' traffic, and how far it has drifted."""
        from tutelage.workflows.serving.guard_report import report

        return report(self._ctx, hours)
