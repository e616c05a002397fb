"""The dashboard as plain data and a page: `tutelage dashboard` and `project.dashboard`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tutelage.core.workspace import atomic_write
from tutelage.feedback.dashboard.board import board
from tutelage.feedback.dashboard.page import as_html
from tutelage.serving.access.usage_span import span
from tutelage.workflows.context import Context


class DashboardDesk:
    """`project.dashboard`: how releases do over time."""

    def __init__(self, context: Context) -> None:
        self._ctx = context

    def report(
        self,
        deployment: str | None = None,
        *,
        since: str | None = None,
        until: str | None = None,
        every: str | None = None,
        html: str | Path | None = None,
    ) -> dict[str, Any]:
        """Return quality, latency, cost and feedback over time by release, for the last 30 days.

        `since` is a length such as 7d or a day, `every` hour, day or week; `html` writes a page.
        """
        ctx = self._ctx
        name = deployment or ctx.config.name
        found = board(ctx.store, ctx.config, name, span(since, until), every)
        if html is not None:
            atomic_write(Path(html), as_html(found).encode())
            found["page"] = str(html)
        return found
