"""The one alert that can't be kept in the store: that the store takes no rows.

It goes to the webhooks straight away, once when it begins and once when it ends; a restart in
between forgets it, and a store that still fails is told of again.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from tutelage.core.artifact import utc_now
from tutelage.core.config_alerts import Webhook
from tutelage.serving.monitoring.webhooks import open_client, post

_LOOKS = 3  # failures in a row before somebody is told: one may be a passing lock
_log = logging.getLogger(__name__)


class StoreAlarm:
    """Counts looks that the store refused, and tells the webhooks."""

    def __init__(self, project: str, webhooks: Sequence[Webhook]) -> None:
        self._project, self._webhooks = project, webhooks
        self._failures = 0
        self._since: datetime | None = None

    async def failed(self, error: Exception) -> None:
        """Note a look that failed."""
        self._failures += 1
        if self._failures == _LOOKS:
            self._since = utc_now()
            _log.error(
                "the store takes no rows (%s): alerts and records wait", type(error).__name__
            )
            await self._tell("firing", "the store takes no rows: alerts and records wait")

    async def well(self) -> None:
        """Note a look that the store took."""
        if self._failures >= _LOOKS:
            await self._tell("resolved", "the store takes rows again")
        self._failures, self._since = 0, None

    async def _tell(self, status: str, text: str) -> None:
        if not self._webhooks:
            return
        name = f"ntc_{secrets.token_hex(12)}"
        body: dict[str, Any] = {
            "id": name,
            "status": status,
            "alert": "store",
            "level": "error",
            "text": f"[{status}] {self._project}, store: {text}",
            "message": text,
            "project": self._project,
            "since": self._since.isoformat() if self._since else None,
            "at": utc_now().isoformat(),
        }
        async with open_client() as client:
            sent = (post(client, hook, name, body) for hook in self._webhooks)
            for hook, reply in zip(self._webhooks, await asyncio.gather(*sent), strict=True):
                if not reply.delivered:
                    _log.warning("webhook %s: %s", hook.name, reply.error)
