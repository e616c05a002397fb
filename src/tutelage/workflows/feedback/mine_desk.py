"""The Python API for mining: `project.mining`, a method a command."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from tutelage.workflows.context import Context

if TYPE_CHECKING:
    from tutelage.feedback.mining.mined import Mined
    from tutelage.workflows.feedback.mine_similar import Spread


class MiningDesk:
    """`project.mining`: what production says is worth a label, and corrections that spread."""

    def __init__(self, context: Context) -> None:
        self._ctx = context

    def run(
        self,
        budget: int = 50,
        *,
        since: datetime | None = None,
        held_out: float = 0.15,
        explore: float = 0.05,
        seed: int = 7,
    ) -> Mined:
        """Look at production and return the rows worth a label, ranked, with their reasons."""
        from tutelage.workflows.feedback.mine import mine

        return mine(
            self._ctx, budget=budget, since=since, held_out=held_out, explore=explore, seed=seed
        )

    def show(self, run: str | None = None) -> Mined:
        """Return a look that was kept; unset: the newest."""
        from tutelage.workflows.feedback.mine_queue import show

        return show(self._ctx, run)

    def list(self) -> list[dict[str, Any]]:
        """Return every look that was kept, newest first."""
        from tutelage.workflows.feedback.mine_queue import looks

        return looks(self._ctx)

    def assign(
        self,
        *people: str,
        run: str | None = None,
        overlap: int = 1,
        shared: bool = False,
    ) -> dict[str, Any]:
        """Give the rows of a look (unset: the newest) to people, the most wanted first."""
        from tutelage.workflows.feedback.mine_queue import give_out

        return give_out(self._ctx, run, people, overlap=overlap, shared=shared)

    def similar(
        self,
        record: str,
        *,
        correction: str | None = None,
        threshold: float = 0.8,
        since: datetime | None = None,
    ) -> Spread:
        """Return the requests that say what a record says; nothing is changed yet."""
        from tutelage.workflows.feedback.mine_similar import similar

        return similar(self._ctx, record, correction=correction, threshold=threshold, since=since)

    def apply(self, spread: Spread, author: str) -> Spread:
        """Correct the requests of a preview that it applies to; return it with its batch."""
        from tutelage.workflows.feedback.mine_similar import apply

        return apply(self._ctx, spread, author)

    def undo(self, batch: str) -> int:
        """Take an applied correction back; return how many edits were removed."""
        from tutelage.workflows.feedback.mine_similar import undo

        return undo(self._ctx, batch)

    def applied(self) -> Sequence[dict[str, Any]]:
        """Return every correction that was applied to similar rows."""
        from tutelage.workflows.feedback.mine_similar import applied

        return applied(self._ctx)
