"""API keys as people manage them: lengths of time and limits in, plain data out.

A running gateway sees a change within a second: it reads the keys from the store.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

from tutelage.core.artifact import utc_now
from tutelage.core.durations import seconds
from tutelage.core.errors import DataError
from tutelage.serving.access import key_store
from tutelage.serving.access.pricing import Pricing
from tutelage.workflows.context import Context


class KeysDesk:
    """`project.keys`: who may call the gateway, what, how fast and how much."""

    def __init__(self, context: Context) -> None:
        self._ctx = context

    def all(self) -> list[dict[str, Any]]:
        """Return every key's name, role, state and limits; never a secret."""
        return key_store.list_keys(self._ctx.store)

    def create(
        self,
        name: str,
        role: str = "client",
        *,
        expires: str | None = None,
        deployments: Sequence[str] | None = None,
        requests_per_minute: int | None = None,
        tokens_per_minute: int | None = None,
        budgets: Sequence[Mapping[str, Any]] = (),
    ) -> dict[str, Any]:
        """Return a new key with its secret under `key`: it is shown this once.

        `expires` is a length such as 90d. A budget is {"unit": "tokens", "per": "day",
        "limit": 100000}; units are requests, tokens and cost.
        """
        limits: dict[str, Any] = {
            "deployments": list(deployments) if deployments else None,
            "requests_per_minute": requests_per_minute,
            "tokens_per_minute": tokens_per_minute,
            "budgets": list(budgets),
        }
        _need_prices(self._ctx, budgets)
        if expires is not None:
            limits["expires_at"] = utc_now() + timedelta(seconds=_length(expires))
        secret = key_store.create_key(self._ctx.store, name, role, **limits)
        return {**self.show(name), "key": secret}

    def show(self, name: str) -> dict[str, Any]:
        """Return one key without its secret."""
        return key_store.update_key(self._ctx.store, name, {})

    def update(self, name: str, **changes: Any) -> dict[str, Any]:
        """Change a key's role or limits, as for `create`; None takes a limit away."""
        if "expires" in changes:
            length = changes.pop("expires")
            until = None if length is None else utc_now() + timedelta(seconds=_length(length))
            changes["expires_at"] = until
        _need_prices(self._ctx, changes.get("budgets") or ())
        return key_store.update_key(self._ctx.store, name, changes)

    def rotate(self, name: str, *, grace: str = "0s") -> dict[str, Any]:
        """Return the key with a new secret under `key`; the old one works for `grace` more."""
        secret = key_store.rotate_key(self._ctx.store, name, _length(grace))
        return {**self.show(name), "key": secret}

    def revoke(self, name: str) -> dict[str, Any]:
        """Make a key unusable for good, and return it."""
        key_store.revoke_key(self._ctx.store, name)
        return self.show(name)


def _length(text: str) -> float:
    try:
        return seconds(text)
    except ValueError as error:
        raise DataError(str(error)) from None


def _need_prices(ctx: Context, budgets: Sequence[Mapping[str, Any]]) -> None:
    in_money = any(budget.get("unit") == "cost" for budget in budgets)
    if in_money and not Pricing(ctx.config).known:
        raise DataError(
            "a budget limits the cost, and nothing has a price",
            where=str(ctx.workspace.config_path),
            fix="Add prices.tokens or prices.hour there",
        )
