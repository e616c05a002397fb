"""Delivers notices to webhooks: signed, tried again with growing pauses, in the order of events.

Delivery is at least once: the id of a notice stays the same, so a receiver can drop a repeat.
Signatures follow the Standard Webhooks specification 1.0 (standardwebhooks.com): HMAC-SHA256 of
`id.timestamp.body`. Addresses and secrets are read from the environment and never logged.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import hmac
import json
import logging
import os
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import aiohttp
from prometheus_client import Counter
from sqlalchemy import Select, select

from tutelage.core.artifact import utc_now
from tutelage.core.config_alerts import Webhook
from tutelage.core.retry_after import retry_after_s
from tutelage.store.alerts import NoticeRow
from tutelage.store.base import Store

_TIMEOUT_S = 10.0
_LEASE = timedelta(seconds=20)  # a notice that is being tried is nobody else's
_FIRST_S, _LONGEST_S = 2.0, 900.0
_LONGEST_ASKED_S = 3600.0  # that a receiver may ask for
_GIVE_UP = timedelta(hours=24)
_AT_ONCE = 16
_GONE = 410  # the receiver asks for no more
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Reply:
    """How one delivery went: the status, or 0 and what was wrong; when to come back, in s."""

    status: int
    error: str | None = None
    retry_after_s: float | None = None

    @property
    def delivered(self) -> bool:
        """Whether the receiver took it."""
        return 200 <= self.status < 300


def pause_s(attempts: int, draw: float) -> float:
    """Return the wait after this many attempts: doubling, capped, spread by `draw` in 0..1."""
    longest = min(_LONGEST_S, _FIRST_S * 2.0 ** (attempts - 1))
    return longest * (0.5 + 0.5 * draw)


def signature(secret: str, notice: str, at: int, body: bytes) -> str:
    """Return the value of `webhook-signature`. `whsec_…` secrets are base64, others plain text."""
    key = secret.encode()
    if secret.startswith("whsec_"):
        try:
            key = base64.b64decode(secret[6:], validate=True)
        except binascii.Error:
            _log.warning("a webhook's secret begins with whsec_ and is not base64: used as it is")
    signed = f"{notice}.{at}.".encode() + body
    return "v1," + base64.b64encode(hmac.digest(key, signed, hashlib.sha256)).decode()


def lacks(hook: Webhook, environment: Mapping[str, str] = os.environ) -> str | None:
    """Return what a webhook needs of the environment and is not there, in words; None: nothing."""
    for name in (hook.url_env, hook.secret_env):
        if name is not None and not environment.get(name):
            return f"the environment variable {name} is not set"
    return None


async def post(
    client: aiohttp.ClientSession,
    hook: Webhook,
    notice: str,
    body: Mapping[str, Any],
    environment: Mapping[str, str] = os.environ,
) -> Reply:
    """Send one notice once. Redirects are not followed."""
    if (problem := lacks(hook, environment)) is not None:
        return Reply(0, problem)
    url = hook.url or environment[hook.url_env or ""]
    told = {"text": body["text"]} if hook.format == "slack" else dict(body)
    raw = json.dumps(told, ensure_ascii=False).encode()
    at = int(utc_now().timestamp())
    headers = {
        "content-type": "application/json",
        "user-agent": "tutelage",
        "webhook-id": notice,
        "webhook-timestamp": str(at),
    }
    if hook.secret_env:
        headers["webhook-signature"] = signature(environment[hook.secret_env], notice, at, raw)
    try:
        async with client.post(url, data=raw, headers=headers, allow_redirects=False) as answer:
            error = None if 200 <= answer.status < 300 else f"the receiver said {answer.status}"
            asked = answer.headers.get("retry-after")
            later = retry_after_s(asked, longest_s=_LONGEST_ASKED_S, now=utc_now())
            return Reply(answer.status, error, later)
    except TimeoutError:
        return Reply(0, f"no answer within {_TIMEOUT_S:g} s")
    except (aiohttp.ClientError, OSError, ValueError) as error:
        return Reply(0, f"it can't be reached ({type(error).__name__})")  # the address is a secret


def open_client() -> aiohttp.ClientSession:
    """Return the client that notices are sent with; close it."""
    return aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=_TIMEOUT_S))


class Dispatcher:
    """Sends what waits in the store. Several gateways may: each notice is one's at a time."""

    def __init__(
        self, store: Store, webhooks: Sequence[Webhook], counter: Counter | None = None
    ) -> None:
        self.store = store
        self.webhooks = {hook.name: hook for hook in webhooks}
        self._counter = counter  # by webhook and outcome
        self._client: aiohttp.ClientSession | None = None

    async def close(self) -> None:
        """Close the connections."""
        if self._client is not None:
            await self._client.close()

    async def deliver(self, now: datetime | None = None) -> int:
        """Try each notice that is due once, oldest first; return how many were delivered."""
        due = await asyncio.to_thread(self._claim, now or utc_now())
        if not due:
            return 0
        self._client = self._client or open_client()
        replies = await asyncio.gather(*(self._send(self._client, row) for row in due))
        await asyncio.to_thread(self._note, due, replies, now or utc_now())
        return sum(reply.delivered for reply in replies)

    async def _send(self, client: aiohttp.ClientSession, row: NoticeRow) -> Reply:
        hook = self.webhooks.get(row.webhook)
        if hook is None:
            return Reply(_GONE, "the webhook is no longer in tutelage.yaml")
        return await post(client, hook, row.id, row.body)

    def _claim(self, now: datetime) -> list[NoticeRow]:
        with self.store.session() as session:
            if not _due(list(session.scalars(_waiting())), now):
                return []
        with self.store.begin() as session:
            rows = _due(list(session.scalars(_waiting().with_for_update())), now)[:_AT_ONCE]
            for row in rows:
                row.attempts += 1
                row.next_at = now + _LEASE
            session.flush()
            session.expunge_all()
            return rows

    def _note(self, rows: Sequence[NoticeRow], replies: Sequence[Reply], now: datetime) -> None:
        with self.store.begin() as session:
            for sent, reply in zip(rows, replies, strict=True):
                row = session.get(NoticeRow, sent.id)
                if row is None:
                    continue
                outcome = _settle(row, reply, now)
                if self._counter is not None:
                    self._counter.labels(row.webhook, outcome).inc()
                if outcome != "sent":
                    _log.warning("webhook %s: %s (%s)", row.webhook, reply.error, outcome)


def _waiting() -> Select[NoticeRow]:
    query = select(NoticeRow).where(NoticeRow.state == "waiting")
    return query.order_by(NoticeRow.created_at, NoticeRow.id).limit(1000)


def _due(rows: Sequence[NoticeRow], now: datetime) -> list[NoticeRow]:
    """Return the first notice of each alert and webhook, where its time has come.

    A time further ahead than any pause is one that the clock was set back from: it has come too.
    """
    found, seen = [], set()
    for row in sorted(rows, key=lambda r: (r.created_at, r.status == "resolved", r.id)):
        first = (row.alert, row.webhook) not in seen
        seen.add((row.alert, row.webhook))
        ahead = (row.next_at - now).total_seconds()
        if first and (ahead <= 0 or ahead > _LONGEST_ASKED_S + _LONGEST_S):
            found.append(row)
    return found


def _settle(row: NoticeRow, reply: Reply, now: datetime) -> str:
    """Write what a try gave; return sent, retried or given_up."""
    row.error = reply.error
    if reply.delivered:
        row.state, row.sent_at = "sent", now
        return "sent"
    if reply.status == _GONE or now - row.created_at >= _GIVE_UP:
        row.state = "failed"
        return "given_up"
    wait = max(pause_s(row.attempts, random.random()), reply.retry_after_s or 0.0)
    row.next_at = now + timedelta(seconds=wait)
    return "retried"
