"""Releases from Python, besides `project.release`: what `tutelage release …` does."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from tutelage.workflows.context import Context

if TYPE_CHECKING:
    from tutelage.workflows.outputs import Output


class ReleasesDesk:
    """`project.releases`: releases by name or the start of their id."""

    def __init__(self, context: Context) -> None:
        self._ctx = context

    def all(self) -> list[dict[str, Any]]:
        """Return every release, newest first; `serves` says what it answers now."""
        from tutelage.workflows.release.release import releases

        return releases(self._ctx)

    def show(self, name: str) -> dict[str, Any]:
        """Return what a release is made of and where it comes from."""
        from tutelage.workflows.release.release import describe

        return describe(self._ctx, name)

    def create(self, adapter: str | None = None, *, force: bool = False) -> Output:
        """Release what was trained last, or an adapter by the start of its id."""
        from tutelage.workflows.outputs import Output
        from tutelage.workflows.release.release import create

        made = create(self._ctx, adapter, force=force).artifact
        return Output(made, self._ctx.path_of(made))

    def import_model(self, path: str | Path, *, name: str | None = None) -> Output:
        """Take in an adapter or a model that was tuned elsewhere, checked against the base."""
        from tutelage.workflows.outputs import Output
        from tutelage.workflows.release.import_model import import_model

        made = import_model(self._ctx, Path(path), name)
        return Output(made, self._ctx.path_of(made))

    def lineage(self, what: str, *, rows: bool = False) -> dict[str, Any]:
        """Trace an answer's id, a release or any output back to prompt, rows and people."""
        from tutelage.workflows.release.release_lineage import trace

        return trace(self._ctx, what, rows=rows)

    def verify(self, name: str | None = None) -> list[dict[str, Any]]:
        """Check by hash all that a release rests on; without a name, of every release."""
        from tutelage.workflows.release.release_verify import verify

        return verify(self._ctx, name)

    def promote(self, name: str) -> dict[str, Any]:
        """Make a release the stable one at once, without a canary."""
        from tutelage.workflows.release.rollout import switch

        return switch(self._ctx, name)

    def rollback(self) -> dict[str, Any]:
        """Return to the release that was stable before, its prompt and adapter."""
        from tutelage.workflows.release.rollout import rollback

        return rollback(self._ctx)
