"""Events, alerts and notices of a project: plain data in and out, for the CLI and Python.

Most of it reads the store, so it works whether a gateway runs or not.
"""

from __future__ import annotations

import asyncio
import getpass
import secrets
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

from tutelage.core.artifact import utc_now
from tutelage.core.config_alerts import Webhook
from tutelage.core.durations import seconds
from tutelage.core.errors import ConfigError, DataError, did_you_mean
from tutelage.release.routes import require_place
from tutelage.serving.monitoring import alert_store, event_kinds
from tutelage.serving.monitoring.alerts import Watch, require_rule, rules_of
from tutelage.serving.monitoring.events import copy_moves, read_events
from tutelage.serving.monitoring.monitor_views import (
    alert_view,
    event_view,
    notice_view,
    rule_views,
    silence_view,
)
from tutelage.workflows.context import Context


def events(
    ctx: Context,
    *,
    kind: str | None = None,
    deployment: str | None = None,
    since: str | None = None,
    after: int = 0,
    limit: int = 50,
) -> list[dict[str, Any]]:
    """Return the newest events, oldest first. `since` is a length of time, such as 24h.

    Raises DataError for a `kind` that is neither a kind nor a topic.
    """
    if kind is not None and (fix := event_kinds.unknown(kind)):
        raise DataError(f"there is no event {kind!r}", fix=fix)
    copy_moves(ctx.store)
    start = utc_now() - timedelta(seconds=_length(since, "since")) if since else None
    rows = read_events(
        ctx.store, since=start, after=after, kind=kind, deployment=deployment, limit=limit
    )
    return [event_view(row) for row in rows]


def follow(
    ctx: Context, after: int, *, kind: str | None = None, deployment: str | None = None
) -> Iterator[dict[str, Any]]:
    """Yield events newer than `after` as they come, for ever."""
    import time

    while True:
        for row in events(ctx, kind=kind, deployment=deployment, after=after, limit=500):
            after = row["id"]
            yield row
        time.sleep(1)


def alerts(ctx: Context, *, ended: bool = False, limit: int = 50) -> dict[str, Any]:
    """Return the alerts that fire, newest first (with `ended`, past ones too), and silences."""
    rows = alert_store.list_alerts(ctx.store, ended=ended, limit=limit)
    return {
        "alerts": [alert_view(row) for row in rows],
        "silences": [silence_view(row) for row in alert_store.list_silences(ctx.store)],
        "webhooks": [hook.name for hook in ctx.config.alerts.webhooks],
    }


def rules(ctx: Context) -> list[dict[str, Any]]:
    """Return the rules in force; raise ConfigError for one that can't be evaluated."""
    from tutelage.serving.monitoring.telemetry_catalog import registry_of_all

    found = rules_of(ctx.config.alerts)
    Watch(found, registry_of_all())
    return rule_views(found)


def measures() -> list[dict[str, Any]]:
    """Return what a rule may compare: the measures, then the metrics of /metrics."""
    from tutelage.serving.monitoring.measures import MEASURES
    from tutelage.serving.monitoring.telemetry_catalog import catalog

    own = [
        {"name": name, "kind": "measure", "says": says, "labels": []}
        for name, says in MEASURES.items()
    ]
    return own + [
        {"name": m.name, "kind": m.kind, "says": m.help, "labels": list(m.labels)}
        for m in catalog()
    ]


def notices(ctx: Context, limit: int = 50) -> list[dict[str, Any]]:
    """Return the newest notices with how their delivery went."""
    return [notice_view(row) for row in alert_store.list_notices(ctx.store, limit)]


def send_test(ctx: Context, webhook: str | None = None) -> list[dict[str, Any]]:
    """Send a test notice to each webhook (or the one named) now; return how it went.

    Raises ConfigError if there is none, DataError for a name there is not.
    """
    hooks = ctx.config.alerts.webhooks
    if not hooks:
        raise ConfigError(
            "no webhook is set", where="alerts.webhooks", fix="Add one with a name and a url"
        )
    if webhook is not None:
        names = [hook.name for hook in hooks]
        if webhook not in names:
            hint = did_you_mean(webhook, names)
            raise DataError(
                f"there is no webhook {webhook!r}", fix=f"{hint}Known: {', '.join(names)}"
            )
        hooks = [hook for hook in hooks if hook.name == webhook]
    return asyncio.run(_send(ctx.config.name, hooks))


async def _send(project: str, hooks: list[Webhook]) -> list[dict[str, Any]]:
    from tutelage.serving.monitoring.webhooks import open_client, post

    found = []
    async with open_client() as client:
        for hook in hooks:
            name = f"ntc_{secrets.token_hex(12)}"
            text = f"[test] {project}: alerts arrive here"
            body = {
                "id": name,
                "status": "test",
                "alert": "test",
                "level": "info",
                "text": text,
                "project": project,
                "at": utc_now().isoformat(),
            }
            reply = await post(client, hook, name, body)
            found.append(
                {"webhook": hook.name, "delivered": reply.delivered, "status": reply.status or None}
                | {"error": reply.error}
            )
    return found


def silence(
    ctx: Context,
    rule: str,
    length: str = "1h",
    *,
    deployment: str | None = None,
    reason: str = "",
    author: str | None = None,
) -> dict[str, Any]:
    """Tell nobody of a rule's alerts for a while; `rule` is a name, or a pattern with *.

    Raises DataError if it matches no rule in force, or there is no such deployment.
    """
    require_rule(ctx.config.alerts, rule)
    require_place(ctx.store, deployment, ctx.config.name)
    until = utc_now() + timedelta(seconds=_length(length, "for"))
    who = author or getpass.getuser()
    row = alert_store.silence(
        ctx.store, rule, until, deployment=deployment, author=who, reason=reason
    )
    return silence_view(row)


def unsilence(ctx: Context, rule: str) -> dict[str, Any]:
    """End a silence; raise DataError if none of that name is in force."""
    ended = alert_store.unsilence(ctx.store, rule)
    if not ended:
        raise DataError(
            f"no silence of {rule!r} is in force",
            fix="`tutelage alerts list` shows those there are",
        )
    return {"rule": rule, "ended": ended}


def _length(text: str, name: str) -> float:
    try:
        length = seconds(text)
        utc_now() - timedelta(seconds=length)
        utc_now() + timedelta(seconds=length)
    except (ValueError, OverflowError) as error:
        raise DataError(f"{name}: {error}", fix="Write 30m or 24h, for one") from error
    return length
