"""Live evaluation from Python: what `tutelage live …` does."""

from __future__ import annotations

from typing import Any

from tutelage.workflows.context import Context


class LiveDesk:
    """`project.live`: scores of served answers, and what they say of a release."""

    def __init__(self, context: Context) -> None:
        self._ctx = context

    def run(
        self,
        *,
        since: str = "24h",
        share: float | None = None,
        tokens: int | None = None,
        limit: int | None = None,
    ) -> dict[str, Any]:
        """Score logged answers now, without a gateway; those that are scored stay as they are."""
        from tutelage.workflows.feedback.live_evaluation import score_log

        return score_log(self._ctx, since=since, share=share, tokens=tokens, limit=limit)

    def report(self, release: str | None = None) -> dict[str, Any]:
        """Return each release's mean scores with bounds, and which are proven worse."""
        from tutelage.workflows.feedback.live_evaluation import report

        return report(self._ctx, release)

    def worst(
        self,
        *,
        metric: str | None = None,
        release: str | None = None,
        since: str = "7d",
        limit: int = 20,
    ) -> dict[str, Any]:
        """Return the answers with the lowest scores, and why they have them."""
        from tutelage.workflows.feedback.live_evaluation import worst

        return worst(self._ctx, metric=metric, release=release, since=since, limit=limit)
