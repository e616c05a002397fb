"""What the checks said of past traffic, and how far it has drifted: read from the request log.

Drift is computed again from the records with the gateway's own method, so it needs no gateway;
texts that were redacted or not logged are left out of it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import select

from tutelage.core.artifact import utc_now
from tutelage.core.errors import DataError
from tutelage.core.example import Message
from tutelage.serving.guards.monitor import Sight, watches_of
from tutelage.store.records import RecordRow
from tutelage.store.releases import ReleaseRow
from tutelage.workflows.context import Context
from tutelage.workflows.serving.guards import surroundings

SEED = 7
REPLAYED = 1_000  # latest records of a release that drift is computed from


def report(ctx: Context, hours: float = 24.0) -> dict[str, Any]:
    """Return what the checks said in the last `hours`, by deployment and release.

    `checks` counts requests a check objected to; `drift` compares the latest 1,000 requests with
    the golden rows. Raises DataError for no number of hours.
    """
    since = _ago(hours)
    groups: dict[tuple[str, str], list[tuple[int, dict[str, Any]]]] = {}
    columns = (RecordRow.deployment, RecordRow.release, RecordRow.status, RecordRow.checks)
    with ctx.store.session() as session:
        for deployment, release, status, checks in session.execute(
            select(*columns).where(RecordRow.at >= since).execution_options(yield_per=1000)
        ):
            groups.setdefault((deployment, release), []).append((status, checks or {}))
        names = {row.id: row.name for row in session.scalars(select(ReleaseRow))}
    return {
        "hours": hours,
        "releases": [
            {
                "deployment": deployment,
                "release": names.get(release, release[:12]),
                **_counted(records),
                "drift": _drift(ctx, deployment, release),
            }
            for (deployment, release), records in sorted(groups.items())
        ],
    }


def _ago(hours: float) -> datetime:
    try:
        return utc_now() - timedelta(hours=hours)
    except (ValueError, OverflowError):  # no number; before the calendar begins
        raise DataError(
            f"{hours:g} hours can't be looked back", fix="Give fewer hours, such as 24"
        ) from None


def _counted(records: list[tuple[int, dict[str, Any]]]) -> dict[str, Any]:
    counts: Counter[tuple[str, str]] = Counter()
    flagged = 0
    for _, checks in records:
        bad = {key: note for key, note in checks.items() if note.get("ok") is False}
        flagged += bool(bad)
        for key, note in bad.items():
            side = "request" if key.endswith(".request") else "answer"
            guard = key.removesuffix(".request")
            for check in note.get("checks") or [""]:
                counts[f"{guard}.{check}" if check else guard, side] += 1
    return {
        "requests": len(records),
        "objected": flagged,
        "checks": [
            {"check": check, "side": side, "requests": count, "share": count / len(records)}
            for (check, side), count in counts.most_common()
        ],
    }


def _drift(ctx: Context, deployment: str, release: str) -> list[dict[str, Any]]:
    with ctx.store.session() as session:
        row = session.get(ReleaseRow, release)
    if row is None:
        return []
    layer = ctx.config.deploy.guards.statistics
    watches = watches_of(row, surroundings(ctx)(row).window, layer, SEED)
    if watches is None:
        return []
    for sight in past_sights(ctx)(deployment, release):
        watches.add(sight)
    return [drift.as_dict() for drift in watches.states()]


def past_sights(ctx: Context) -> Callable[[str, str], Iterator[Sight]]:
    """Return what gives the latest records of a release, oldest first.

    Nothing comes where texts are redacted or not all logged: their lengths would be others.
    """
    deploy = ctx.config.deploy
    format_ = ctx.config.output.format()
    labels = bool(format_.field or format_.labels)

    def sights(deployment: str, release: str) -> Iterator[Sight]:
        if deploy.redact or deploy.log != "all":
            return
        with ctx.store.session() as session:
            rows = session.execute(
                select(RecordRow.messages, RecordRow.response)
                .where(
                    RecordRow.deployment == deployment,
                    RecordRow.release == release,
                    RecordRow.status == 200,
                    RecordRow.arm != "shadow",
                )
                .order_by(RecordRow.at.desc())
                .limit(REPLAYED)
            ).all()
        for messages, response in reversed(rows):
            turns = [Message(role=turn["role"], content=turn["content"]) for turn in messages]
            yield Sight.of(turns, response, labels=labels)

    return sights
