"""Tokens, cost and budgets as plain data, for the CLI, the page and Python."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tutelage.release.routes import deployments
from tutelage.serving.access.accounts import idle
from tutelage.serving.access.budgets import all_accounts, levels
from tutelage.serving.access.key_store import load_keys
from tutelage.serving.access.keys import Caller
from tutelage.serving.access.pricing import Pricing
from tutelage.serving.access.usage import report
from tutelage.serving.access.usage_span import span
from tutelage.workflows.context import Context


def usage(
    ctx: Context,
    *,
    since: str | None = None,
    until: str | None = None,
    by: Sequence[str] = ("deployment", "release"),
    key: str | None = None,
    deployment: str | None = None,
) -> dict[str, Any]:
    """Return what was used, in `rows` by the fields of `by` and in `total`.

    `since` is a length such as 7d (the default is 30d) or a day; fields are day, deployment,
    release and key. Costs are in `currency`, null where nothing has a price.
    """
    ends = span(since, until)
    return report(ctx.store, Pricing(ctx.config), ends, by, key=key, deployment=deployment)


def budgets(ctx: Context) -> list[dict[str, Any]]:
    """Return every budget with what is spent and left of it in its present period."""
    return levels(ctx.store, all_accounts(ctx.config.budgets, *_subjects(ctx)))


def idle_budgets(ctx: Context) -> list[str]:
    """Return, for each budget of the settings that holds nobody, whom it names in vain."""
    return idle(ctx.config.budgets, *_subjects(ctx))


def _subjects(ctx: Context) -> tuple[list[Caller], list[str]]:
    """Return who may call, and what."""
    callers = {caller.name: caller for caller in load_keys(ctx.store).values()}
    names = [row.name for row in deployments(ctx.store)]
    return list(callers.values()), names or [ctx.config.name]


class UsageDesk:
    """`project.usage`: what requests used, and how far the budgets are."""

    def __init__(self, context: Context) -> None:
        self._ctx = context

    def report(
        self,
        *,
        since: str | None = None,
        until: str | None = None,
        by: Sequence[str] = ("deployment", "release"),
        key: str | None = None,
        deployment: str | None = None,
    ) -> dict[str, Any]:
        """Return tokens, cost and requests by the fields of `by`, for the last 30 days."""
        return usage(self._ctx, since=since, until=until, by=by, key=key, deployment=deployment)

    def budgets(self) -> list[dict[str, Any]]:
        """Return every budget with what is spent and left of it in its present period."""
        return budgets(self._ctx)

    def idle_budgets(self) -> list[str]:
        """Return, for each budget of the settings that holds nobody, whom it names in vain."""
        return idle_budgets(self._ctx)
