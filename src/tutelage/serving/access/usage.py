"""Tokens and cost by day, deployment, release and key: read from the records, exact as they are.

Days whose records were deleted stand in `usage_days`, where deleting put them in the same
transaction (retention.py); so nothing is counted twice or lost. Nothing here is on the hot path.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal, get_args

from sqlalchemy import Select, SQLColumnExpression, String, cast, func, select

from tutelage.core.errors import DataError, did_you_mean
from tutelage.serving.access.accounts import LOCAL_NAME
from tutelage.serving.access.pricing import Pricing
from tutelage.store.base import Store
from tutelage.store.records import IMPORTED, RecordRow
from tutelage.store.releases import ReleaseRow
from tutelage.store.usage import UsageRow

Field = Literal["day", "deployment", "release", "key"]
FIELDS: tuple[str, ...] = get_args(Field)
SHADOW = "(shadow)"  # stands for requests that were copied to a release and never answered with
_SUMS = ("requests", "failed", "prompt_tokens", "completion_tokens", "seconds")


@dataclass(frozen=True)
class Line:
    """What one caller asked of one release on one day."""

    day: str
    deployment: str
    release: str  # its id
    key: str
    requests: int
    failed: int
    prompt_tokens: int
    completion_tokens: int
    seconds: float


def day_of(store: Store) -> SQLColumnExpression[str]:
    """Return the SQL of a record's day in UTC, as 2026-11-26."""
    if store.engine.dialect.name == "postgresql":
        return func.to_char(func.timezone("UTC", RecordRow.at), "YYYY-MM-DD")
    return func.substr(cast(RecordRow.at, String), 1, 10)


def sums_of_records(store: Store) -> Select[Any]:
    """Return the query that adds records up, in the columns of UsageRow."""
    names: tuple[Any, ...] = (
        day_of(store).label("day"),
        RecordRow.deployment,
        RecordRow.release,
        func.coalesce(RecordRow.key_name, "").label("key"),
        RecordRow.arm,
    )
    return select(
        *names,
        func.count().label("requests"),
        func.count().filter(RecordRow.status >= 400).label("failed"),
        func.sum(RecordRow.prompt_tokens).label("prompt_tokens"),
        func.sum(RecordRow.completion_tokens).label("completion_tokens"),
        (func.sum(RecordRow.latency_ms) / 1000.0).label("seconds"),
    ).group_by(*names)


def read_usage(store: Store, since: datetime, until: datetime) -> list[Line]:
    """Return the use from `since` to before `until`; of deleted records, whole days."""
    mine = RecordRow.arm != IMPORTED
    records = sums_of_records(store).where(mine, RecordRow.at >= since, RecordRow.at < until)
    columns = (UsageRow.day, UsageRow.deployment, UsageRow.release, UsageRow.key, UsageRow.arm)
    sums = (getattr(UsageRow, name) for name in _SUMS)
    first, last = f"{since.astimezone(UTC):%Y-%m-%d}", f"{until.astimezone(UTC):%Y-%m-%d %H:%M:%S}"
    days = select(*columns, *sums).where(
        UsageRow.day >= first, UsageRow.day < last, UsageRow.arm != IMPORTED
    )
    with store.session() as session:
        found = [*session.execute(records), *session.execute(days)]
    lines = []
    for day, deployment, release, key, arm, *values in found:
        name = SHADOW if arm == "shadow" else key or LOCAL_NAME
        lines.append(Line(day, deployment, release, name, *values))
    return lines


def report(
    store: Store,
    pricing: Pricing,
    ends: tuple[datetime, datetime],
    by: Sequence[str] = ("deployment", "release"),
    *,
    key: str | None = None,
    deployment: str | None = None,
) -> dict[str, Any]:
    """Return sums by the fields of `by`, largest first, with their cost where there is a price.

    They are of the time between `ends`, and of one key or deployment if it is named. Raises
    DataError for an unknown field.
    """
    _check_fields(by)
    since, until = ends
    lines = [
        line
        for line in read_usage(store, since, until)
        if key in (None, line.key) and deployment in (None, line.deployment)
    ]
    with store.session() as session:
        known = {row.id: row for row in session.scalars(select(ReleaseRow))}
    rows: dict[tuple[str, ...], dict[str, Any]] = {}
    total = _empty()
    for line in lines:
        row = known.get(line.release)
        name = row.name if row else line.release[:12]
        tuned = bool(row and row.manifest.get("adapter"))
        tokens = (line.prompt_tokens, line.completion_tokens)
        cost = pricing.cost(name, tuned, tokens, line.seconds)
        values = {"day": line.day, "deployment": line.deployment, "release": name, "key": line.key}
        group = tuple(values[field] for field in by)
        _add(rows.setdefault(group, {**{f: values[f] for f in by}, **_empty()}), line, cost)
        _add(total, line, cost)
    ordered = sorted(rows.values(), key=lambda row: -row["tokens"])
    if "day" in by:
        ordered.sort(key=lambda row: str(row["day"]))
    return {
        "since": since,
        "until": until,
        "by": list(by),
        "currency": pricing.currency,
        "rows": [_rounded(row) for row in ordered],
        "total": _rounded(total),
    }


def _check_fields(by: Sequence[str]) -> None:
    for field in by:
        if field not in FIELDS:
            hint = did_you_mean(field, FIELDS)
            raise DataError(
                f"use can't be shown by {field!r}", fix=f"{hint}Known: {', '.join(FIELDS)}"
            )


def _empty() -> dict[str, Any]:
    return {"requests": 0, "failed": 0, "prompt_tokens": 0, "completion_tokens": 0, "tokens": 0,
            "seconds": 0.0, "cost": None, "unpriced": 0}  # fmt: skip


def _add(row: dict[str, Any], line: Line, cost: float | None) -> None:
    for name in _SUMS:
        row[name] += getattr(line, name)
    row["tokens"] += line.prompt_tokens + line.completion_tokens
    if cost is None:
        row["unpriced"] += line.requests
    else:
        row["cost"] = (row["cost"] or 0.0) + cost


def _rounded(row: Mapping[str, Any]) -> dict[str, Any]:
    cost = row["cost"]
    return {**row, "seconds": round(row["seconds"], 3),
            "cost": None if cost is None else round(cost, 9)}  # fmt: skip
