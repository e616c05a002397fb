"""Releases from Python, besides `project.release`: what `tutelage release …` does."""

from __future__ import annotations

from typing import Any

from tutelage.workflows.context import Context


class ReleasesDesk:
    """`project.releases`: releases by name or the start of their id."""

    def __init__(self, context: Context) -> None:
        self._ctx = context

    def all(self) -> list[dict[str, Any]]:
        """Return every release, newest first; `serves` says what it answers now."""
        from tutelage.workflows.release import releases

        return releases(self._ctx)

    def show(self, name: str) -> dict[str, Any]:
        """Return what a release is made of and where it comes from."""
        from tutelage.workflows.release import describe

        return describe(self._ctx, name)

    def promote(self, name: str) -> dict[str, Any]:
        """Make a release the stable one at once, without a canary."""
        from tutelage.workflows.rollout import switch

        return switch(self._ctx, name)

    def rollback(self) -> dict[str, Any]:
        """Return to the release that was stable before, its prompt and adapter."""
        from tutelage.workflows.rollout import rollback

        return rollback(self._ctx)
