"""What happened to what is served, from Python: what `tutelage events` and `alerts` do."""

from __future__ import annotations

from typing import Any

from tutelage.workflows.context import Context
from tutelage.workflows.serving import monitor


class MonitorDesk:
    """`project.monitor`: events, alerts and the notices that webhooks got."""

    def __init__(self, context: Context) -> None:
        self._ctx = context

    def events(
        self,
        *,
        kind: str | None = None,
        deployment: str | None = None,
        since: str | None = None,
        limit: int = 50,
    ) -> list[dict[str, Any]]:
        """Return the newest events, oldest first; `since` such as 24h."""
        return monitor.events(self._ctx, kind=kind, deployment=deployment, since=since, limit=limit)

    def alerts(self, *, ended: bool = False) -> list[dict[str, Any]]:
        """Return the alerts that fire; with `ended`, those that are over too."""
        found: list[dict[str, Any]] = monitor.alerts(self._ctx, ended=ended)["alerts"]
        return found

    def rules(self) -> list[dict[str, Any]]:
        """Return the alert rules in force."""
        return monitor.rules(self._ctx)

    def notices(self) -> list[dict[str, Any]]:
        """Return what webhooks were told, and how the delivery went."""
        return monitor.notices(self._ctx)

    def test(self, webhook: str | None = None) -> list[dict[str, Any]]:
        """Send a test notice to each webhook now, or to the one named."""
        return monitor.send_test(self._ctx, webhook)

    def silence(
        self, rule: str, length: str = "1h", *, deployment: str | None = None, reason: str = ""
    ) -> dict[str, Any]:
        """Tell nobody of a rule's alerts for a while."""
        return monitor.silence(self._ctx, rule, length, deployment=deployment, reason=reason)

    def unsilence(self, rule: str) -> dict[str, Any]:
        """End a silence."""
        return monitor.unsilence(self._ctx, rule)
