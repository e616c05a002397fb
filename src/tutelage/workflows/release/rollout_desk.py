"""Rollouts from Python: what `tutelage rollout …` does."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tutelage.workflows.context import Context
from tutelage.workflows.release import rollout as work


class RolloutsDesk:
    """`project.rollouts`. Every method but `history` returns the status as `status` does.

    `deployment` is the project's own unless named. `rollout` is the id of the one that is meant:
    Conflict if another is under way.
    """

    def __init__(self, context: Context) -> None:
        self._ctx = context

    def start(
        self,
        release: str,
        deployment: str | None = None,
        *,
        strategy: str | None = None,
        steps: Sequence[float] | None = None,
        split: float | None = None,
    ) -> dict[str, Any]:
        """Start moving traffic to a release; see workflows.rollout.start."""
        return work.start(
            self._ctx, release, deployment, strategy=strategy, steps=steps, split=split
        )

    def status(self, deployment: str | None = None) -> dict[str, Any]:
        """Return who answers and the newest rollout: step, verdict, evidence, journal."""
        return work.status(self._ctx, deployment)

    def history(self, deployment: str | None = None) -> list[dict[str, Any]]:
        """Return the newest rollouts and how each ended."""
        return work.history(self._ctx, deployment)

    def promote(
        self, deployment: str | None = None, *, rollout: str | None = None
    ) -> dict[str, Any]:
        """Give the candidate all traffic now."""
        return work.promote(self._ctx, deployment, rollout=rollout)

    def abort(self, deployment: str | None = None, *, rollout: str | None = None) -> dict[str, Any]:
        """Take the candidate's traffic away."""
        return work.abort(self._ctx, deployment, rollout=rollout)

    def pause(self, deployment: str | None = None, *, rollout: str | None = None) -> dict[str, Any]:
        """Take no further step until `resume`."""
        return work.pause(self._ctx, deployment, rollout=rollout)

    def resume(
        self, deployment: str | None = None, *, rollout: str | None = None
    ) -> dict[str, Any]:
        """Let a paused or frozen rollout go on."""
        return work.resume(self._ctx, deployment, rollout=rollout)

    def rollback(
        self,
        deployment: str | None = None,
        *,
        rollout: str | None = None,
        to: str | None = None,
    ) -> dict[str, Any]:
        """End the rollout under way, or return to the release before (`to` says which that is)."""
        return work.rollback(self._ctx, deployment, rollout=rollout, to=to)
