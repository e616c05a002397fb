"""The prompt's versions from Python: what `tutelage prompt …` does."""

from __future__ import annotations

from typing import Any

from tutelage.workflows.context import Context


class PromptsDesk:
    """`project.prompts`: draft, test, review, publish, restore; versions by number or hash."""

    def __init__(self, context: Context) -> None:
        self._ctx = context

    @property
    def text(self) -> str:
        """The prompt in force: the published one, or a newer one in tutelage.yaml."""
        return self._ctx.config.prompt

    def versions(self) -> list[dict[str, Any]]:
        """Return every version, newest first."""
        from tutelage.release.prompts import listing

        return listing(self._ctx.store)

    def show(self, version: str) -> dict[str, Any]:
        """Return one version with its text, its last test and all that happened to it."""
        from tutelage.release.prompts import show

        return show(self._ctx.store, version)

    def diff(self, old: str, new: str) -> str:
        """Return what changed between two versions, word by word."""
        from tutelage.release.prompts import diff

        return diff(self._ctx.store, old, new)

    def draft(self, text: str, *, note: str = "", by: str | None = None) -> dict[str, Any]:
        """Keep `text` as a new draft."""
        from tutelage.workflows.release.prompt import draft

        return draft(self._ctx, text, note=note, by=by)

    def test(
        self, version: str | None = None, *, rows: int = 0, by: str | None = None
    ) -> dict[str, Any]:
        """Test a draft beside the published version and attach the result to it."""
        from tutelage.workflows.release.prompt_trial import trial

        return trial(self._ctx, version, rows=rows, by=by)

    def review(self, version: str, *, approve: bool, by: str, note: str = "") -> dict[str, Any]:
        """Approve or reject a tested version in somebody's name."""
        from tutelage.workflows.release.prompt import review

        return review(self._ctx, version, approve=approve, by=by, note=note)

    def publish(
        self, version: str, *, note: str, by: str | None = None, force: bool = False
    ) -> dict[str, Any]:
        """Publish a version whose test did not regress; a project opened after that uses it."""
        from tutelage.workflows.release.prompt import publish

        return publish(self._ctx, version, note=note, by=by, force=force)

    def restore(self, version: str, *, note: str = "", by: str | None = None) -> dict[str, Any]:
        """Publish again a version that was published before."""
        from tutelage.workflows.release.prompt import restore

        return restore(self._ctx, version, note=note, by=by)

    def log(self) -> list[dict[str, Any]]:
        """Return everything that happened to the prompt, newest first."""
        from tutelage.workflows.release.prompt import log

        return log(self._ctx)
