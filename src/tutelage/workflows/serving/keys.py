"""API keys as people manage them: lengths of time and limits in, plain data out.

A running gateway sees a change within a second: it reads the keys from the store.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tutelage.serving.access import key_store
from tutelage.serving.access.key_terms import length_s, require_prices, with_expiry
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
        if expires is not None:
            limits["expires"] = expires
        secret = key_store.create_key(self._ctx.store, name, role, **self._checked(limits))
        return {**self.show(name), "key": secret}

    def show(self, name: str) -> dict[str, Any]:
        """Return one key without its secret."""
        return key_store.get_key(self._ctx.store, name)

    def update(self, name: str, **changes: Any) -> dict[str, Any]:
        """Change a key's role or limits, as for `create`; None takes a limit away."""
        return key_store.update_key(self._ctx.store, name, self._checked(changes))

    def rotate(self, name: str, *, grace: str = "0s") -> dict[str, Any]:
        """Return the key with a new secret under `key`; the old one works for `grace` more."""
        secret = key_store.rotate_key(self._ctx.store, name, length_s(grace))
        return {**self.show(name), "key": secret}

    def revoke(self, name: str) -> dict[str, Any]:
        """Make a key unusable for good, and return it."""
        key_store.revoke_key(self._ctx.store, name)
        return self.show(name)

    def _checked(self, changes: Mapping[str, Any]) -> dict[str, Any]:
        """Return changes as the store takes them; raise DataError for what makes no sense."""
        found = with_expiry(changes)
        path = str(self._ctx.workspace.config_path)
        require_prices(self._ctx.config, found.get("budgets"), path)
        return found
