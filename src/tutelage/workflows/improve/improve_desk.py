"""The loop from Python: what `tutelage improve` and `tutelage schedule` do."""

from __future__ import annotations

from typing import Any

from tutelage.workflows.context import Context
from tutelage.workflows.improve import improve as work
from tutelage.workflows.improve import schedule


class ImproveDesk:
    """`project.loop`. A turn is plain data: turn, state, waits, facts, sentence, journal."""

    def __init__(self, context: Context) -> None:
        self._ctx = context

    def improve(self, *, why: str = work.BY_HAND) -> dict[str, Any]:
        """Begin a turn, or go on with the one under way, until it waits or ends."""
        return work.status(self._ctx, work.improve(self._ctx, why=why).id)

    def resume(self) -> dict[str, Any]:
        """Go on with the turn under way; DataError if there is none."""
        return work.status(self._ctx, work.resume(self._ctx).id)

    def decide(self, accept: bool, *, why: str = "", author: str | None = None) -> dict[str, Any]:
        """Keep a person's decision on what the turn waits for; `resume` goes on with it."""
        return work.status(self._ctx, work.decide(self._ctx, accept, why=why, author=author).id)

    def cancel(self, *, why: str = "", author: str | None = None) -> dict[str, Any]:
        """Give the turn under way up."""
        return work.status(self._ctx, work.cancel(self._ctx, why=why, author=author).id)

    def status(self, turn: str | None = None) -> dict[str, Any]:
        """Return a turn with its journal; the newest unless named."""
        return work.status(self._ctx, turn)

    def history(self, limit: int = 50) -> list[dict[str, Any]]:
        """Return the newest turns and how each ended."""
        return work.history(self._ctx, limit)

    def schedule(self) -> dict[str, Any]:
        """Return what starts a turn, and whether one is due."""
        return schedule.show(self._ctx)

    def act(self) -> dict[str, Any]:
        """Do what the schedule calls for now; return the look."""
        return schedule.act(self._ctx).as_dict()
