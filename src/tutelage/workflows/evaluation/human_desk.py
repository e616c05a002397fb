"""Human evaluation from Python: what `tutelage human …` does, and what a page calls."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tutelage.workflows.context import Context

if TYPE_CHECKING:
    from tutelage.workflows.evaluation.human import Order
    from tutelage.workflows.evaluation.human_answer import Given, Kept, Shown


class HumanDesk:
    """`project.human`: studies, sheets, judgements, results. `study` defaults to the newest."""

    def __init__(self, context: Context) -> None:
        self._ctx = context

    def new(self, order: Order) -> dict[str, Any]:
        """Make a study over an evaluation's answers."""
        from tutelage.workflows.evaluation.human import new_study

        return new_study(self._ctx, order)

    def export(
        self,
        path: Path,
        *,
        study: str | None = None,
        raters: Sequence[str] = (),
        rows: int | None = None,
        force: bool = False,
    ) -> dict[str, Any]:
        """Write one blind sheet a rater."""
        from tutelage.workflows.evaluation.human_sheets import export

        return export(self._ctx, path, study=study, raters=raters, rows=rows, force=force)

    def read(self, path: Path, *, study: str | None = None) -> dict[str, Any]:
        """Keep the judgements of a filled sheet; rows that can't be used are told."""
        from tutelage.workflows.evaluation.human_sheets import import_sheet

        return import_sheet(self._ctx, path, study=study)

    def next(self, rater: str, *, study: str | None = None) -> Shown | None:
        """Return what a rater judges next, leased to them; None if nothing is left."""
        from tutelage.workflows.evaluation.human_answer import next_task

        return next_task(self._ctx, rater, study)

    def submit(self, given: Given) -> Kept:
        """Keep a judgement; it is durable when this returns."""
        from tutelage.workflows.evaluation.human_answer import submit

        return submit(self._ctx, given)

    def undo(self, rater: str, *, study: str | None = None) -> str | None:
        """Take back a rater's newest judgement; return its assignment."""
        from tutelage.workflows.evaluation.human_answer import undo

        return undo(self._ctx, rater, study)

    def status(self) -> list[dict[str, Any]]:
        """Return every study and how far it is."""
        from tutelage.workflows.evaluation.human_results import status

        return status(self._ctx)

    def results(self, *, study: str | None = None) -> dict[str, Any]:
        """Return what a study found."""
        from tutelage.workflows.evaluation.human_results import results

        return results(self._ctx, study)
