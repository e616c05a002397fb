"""A/B tests as plain data and as a page: what `tutelage ab …` and `project.ab` do."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tutelage.core.workspace import atomic_write
from tutelage.feedback.ab.page import as_html
from tutelage.feedback.ab.study import Proposal, as_question, plan, study, tests
from tutelage.workflows.context import Context


class AbDesk:
    """`project.ab`: which of two releases users are better off with.

    `deployment` is the project's own unless named. `primary` is the metric that decides (unset:
    `feedback`), `metrics` those beside it (unset: all), `alpha` the risk of a wrong statement,
    `margin` the smallest difference that matters. Name them before you look.
    """

    def __init__(self, context: Context) -> None:
        self._ctx = context

    def list(self, deployment: str | None = None) -> list[dict[str, Any]]:
        """Return the A/B tests there were, newest first."""
        return tests(self._ctx.store, deployment)

    def report(
        self,
        deployment: str | None = None,
        rollout: str | None = None,
        *,
        html: str | Path | None = None,
        **question: Any,
    ) -> dict[str, Any]:
        """Return the analysis of a test, the newest unless named; `html` writes a page too.

        `question` may hold primary, metrics, alpha, margin and horizon.
        """
        name = deployment or self._ctx.config.name
        asked = as_question(_listed(question))
        found = study(self._ctx.store, self._ctx.config, asked, name, rollout)
        if html is not None:
            atomic_write(Path(html), as_html(found).encode())
            found["page"] = str(html)
        return found

    def plan(
        self,
        deployment: str | None = None,
        *,
        split: float | None = None,
        difference: float | None = None,
        days: float = 30.0,
        **question: Any,
    ) -> dict[str, Any]:
        """Return how many users a test needs, from the traffic of the last `days`.

        `split` is the candidate's percent, `difference` the one to find; `question` as in
        `report`.
        """
        ctx = self._ctx
        share = (ctx.config.deploy.split if split is None else split) / 100
        return plan(
            ctx.store,
            ctx.config,
            as_question(_listed(question)),
            deployment or ctx.config.name,
            Proposal(share, difference, days),
        )


def _listed(question: dict[str, Any]) -> dict[str, Any]:
    """Return the question with its metrics as a tuple."""
    names: Sequence[str] | None = question.get("metrics")
    return {**question, "metrics": tuple(names) if names is not None else None}
