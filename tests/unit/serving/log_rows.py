"""Rows for tests of the request log."""

from __future__ import annotations

from typing import Any

from tutelage.core.artifact import utc_now
from tutelage.serving.records.request_log import RequestLog
from tutelage.store.base import Store
from tutelage.store.records import RecordRow, SignalRow


def record(number: int, **changes: Any) -> dict[str, Any]:
    row = {
        "id": f"rec_{number}", "deployment": "d", "release": "r", "rollout": None, "step": None,
        "arm": "stable", "user": None, "key_name": None, "split": "train", "group_key": "g",
        "messages": [], "response": "", "finish_reason": "stop", "status": 200, "error": None,
        "latency_ms": 1.0, "first_token_ms": None, "prompt_tokens": 1, "completion_tokens": 1,
        "checks": {}, "at": utc_now(),
    }  # fmt: skip
    return {**row, **changes}


def signal(key: str, **changes: Any) -> dict[str, Any]:
    row = {
        "key": key, "record": "rec_1", "kind": "rating", "explicit": True,
        "value": {"value": 1.0}, "author": None, "at": utc_now(),
    }  # fmt: skip
    return {**row, **changes}


def ids(store: Store) -> set[str]:
    with store.session() as session:
        return {row[0] for row in session.query(RecordRow.id)}


def keys(store: Store) -> set[str]:
    with store.session() as session:
        return {row[0] for row in session.query(SignalRow.key)}


def metric(log: RequestLog, name: str, **labels: str) -> float:
    return log.telemetry.registry.get_sample_value(name, labels) or 0


def lost(log: RequestLog, reason: str) -> float:
    return metric(log, "tutelage_records_lost_total", reason=reason)
