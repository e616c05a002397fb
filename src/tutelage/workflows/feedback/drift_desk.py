"""Drift from Python: what `tutelage drift …` does."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tutelage.core.workspace import atomic_write
from tutelage.workflows.context import Context

if TYPE_CHECKING:
    from tutelage.feedback.drift.report import DriftReport


class DriftDesk:
    """`project.drift`: compare now, let the watch look, accept what is normal, read reports."""

    def __init__(self, context: Context) -> None:
        self._ctx = context

    def check(
        self,
        *,
        deployment: str | None = None,
        against: str | None = None,
        last: int | None = None,
        since: str | None = None,
    ) -> DriftReport:
        """Compare recent requests with a reference, once."""
        from tutelage.workflows.feedback.drift import check_traffic

        return check_traffic(
            self._ctx, deployment=deployment, against=against, last=last, since=since
        )

    def look(self, *, deployment: str | None = None) -> list[dict[str, Any]]:
        """Let the watch read what came since its last look; return where each watch stands."""
        from tutelage.workflows.feedback.drift_watch import look

        return look(self._ctx, deployment=deployment)

    def status(self, deployment: str | None = None) -> dict[str, Any]:
        """Return where a watch stands, without a look."""
        from tutelage.workflows.feedback.drift_watch import standing

        return standing(self._ctx, deployment)

    def accept(
        self, *, deployment: str | None = None, since: str | None = None, note: str = ""
    ) -> dict[str, Any]:
        """Make recent traffic the normal one: the alarm ends, the watch begins anew from it."""
        from tutelage.workflows.feedback.drift import accept

        return accept(self._ctx, deployment=deployment, since=since, note=note)

    def history(self, *, deployment: str | None = None, limit: int = 20) -> list[dict[str, Any]]:
        """Return the comparisons and alarms that were kept, newest first."""
        from tutelage.workflows.feedback.drift import history

        return history(self._ctx, deployment=deployment, limit=limit)

    def show(self, report: str | None = None) -> dict[str, Any]:
        """Return one of them with the requests it points at; unset, the newest."""
        from tutelage.workflows.feedback.drift import show

        return show(self._ctx, report)

    def page(self, report: Mapping[str, Any], *, deployment: str | None = None) -> Path:
        """Write a report, as `check` (its `as_dict(texts=True)`) or `show` gave it, as a page."""
        from tutelage.feedback.drift.page import page
        from tutelage.workflows.feedback.drift_watch import standing

        where = standing(self._ctx, deployment)
        path = self._ctx.workspace.home / "reports" / "drift.html"
        path.parent.mkdir(parents=True, exist_ok=True)
        atomic_write(path, page(report, project=self._ctx.config.name, standing=where).encode())
        return path
