"""Events, alerts, notices and silences as plain data, for the CLI, HTTP and Python."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from tutelage.core.config_alerts import AlertRule
from tutelage.serving.monitoring.alerts import BUILT_IN
from tutelage.serving.monitoring.measures import MEASURES
from tutelage.store.alerts import AlertRow, EventRow, NoticeRow, SilenceRow


def event_view(row: EventRow) -> dict[str, Any]:
    """Return one event."""
    return {
        "id": row.id,
        "at": moment(row.at),
        "kind": row.kind,
        "level": row.level,
        "deployment": row.deployment,
        "subject": row.subject or None,
        "message": row.message,
        "data": row.data,
    }


def alert_view(row: AlertRow) -> dict[str, Any]:
    """Return one alert."""
    return {
        "id": row.id,
        "alert": row.rule,
        "state": row.state,
        "level": row.level,
        "message": row.message,
        "labels": row.labels,
        "value": row.value,
        "threshold": row.threshold,
        "count": row.count,
        "since": moment(row.since),
        "seen_at": moment(row.seen_at),
        "told_at": moment(row.told_at),
        "ended_at": moment(row.ended_at),
    }


def notice_view(row: NoticeRow) -> dict[str, Any]:
    """Return one notice, without its body."""
    return {
        "id": row.id,
        "alert": row.body.get("alert"),
        "status": row.status,
        "webhook": row.webhook,
        "state": row.state,
        "attempts": row.attempts,
        "error": row.error,
        "created_at": moment(row.created_at),
        "next_at": moment(row.next_at) if row.state == "waiting" else None,
        "sent_at": moment(row.sent_at),
    }


def silence_view(row: SilenceRow) -> dict[str, Any]:
    """Return one silence."""
    return {
        "rule": row.rule,
        "deployment": row.deployment,
        "until": moment(row.until),
        "reason": row.reason,
        "author": row.author,
    }


def rule_views(rules: Sequence[AlertRule]) -> list[dict[str, Any]]:
    """Return the rules in force with where each comes from and what it waits for, in words."""
    built_in = {rule.name: rule for rule in BUILT_IN}
    return [
        {
            "name": rule.name,
            "level": rule.level,
            "source": "built in" if built_in.get(rule.name) == rule else "tutelage.yaml",
            "when": condition(rule),
            **rule.model_dump(exclude={"name", "level"}, exclude_none=True),
        }
        for rule in rules
    ]


def condition(rule: AlertRule) -> str:
    """Return what a rule waits for: `error_rate > 0.05 over 5m, for 1m`."""
    if rule.event is not None:
        return f"an event {rule.event}"
    side, limit = (">", rule.above) if rule.above is not None else ("<", rule.below)
    name = rule.metric or ""
    if rule.quantile is not None:
        name = f"{name} p{rule.quantile * 100:g}"
    held = "" if rule.hold.startswith("0") else f", for {rule.hold}"
    spans = rule.metric in MEASURES or rule.quantile is not None or name.endswith("_total")
    over = f" over {rule.window}" if spans else ""
    return f"{name} {side} {limit:g}{over}{held}"


def moment(at: datetime | None) -> str | None:
    """Return a point in time as ISO 8601, or None."""
    return at.isoformat(timespec="seconds") if at is not None else None
