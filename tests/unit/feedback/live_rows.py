"""A project with logged answers, for tests of live evaluation."""

from __future__ import annotations

import secrets
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import select
from tests.fakes.gateway import PROMPT, make_release
from tests.fakes.limited_project import limited_project
from tests.unit.serving.log_rows import record

from tutelage.core.artifact import utc_now
from tutelage.store.records import RecordRow
from tutelage.store.scores import ScoreRow
from tutelage.workflows.context import Context

WARM, WRONG = '{"family": "warm"}', "no family at all"


def live_project(
    root: Path, live: dict[str, Any] | None = None, judge: str | None = None, **deploy: Any
) -> Context:
    """Return the project `colours` with live evaluation on; `judge` is a server's address."""
    settings: dict[str, Any] = {"live_evaluation": {"share": 1.0, **(live or {})}}
    if judge is not None:
        settings["judge"] = {"base_url": judge, "model": "judge"}
        settings["live_evaluation"]["judge"] = True
    return limited_project(root, "http://127.0.0.1:9", settings, **deploy)


def log_answers(
    ctx: Context, texts: list[str], *, release: str | None = None, ago_s: float = 60.0,
    **more: Any,
) -> list[str]:  # fmt: skip
    """Log answers to "Thing N", a millisecond apart; return the record ids in order."""
    release = release or make_release(ctx, PROMPT).id
    start: datetime = utc_now() - timedelta(seconds=ago_s)
    rows = [
        record(
            number,
            **{
                "id": f"rec_{secrets.token_hex(12)}", "deployment": "colours", "release": release,
                "messages": [{"role": "user", "content": f"Thing {number}"}], "response": text,
                "at": start + timedelta(milliseconds=number), **more,
            },
        )
        for number, text in enumerate(texts)
    ]  # fmt: skip
    with ctx.store.begin() as session:
        session.add_all(RecordRow(**row) for row in rows)
    return [row["id"] for row in rows]


def kept(ctx: Context, metric: str) -> dict[str, ScoreRow]:
    """Return the live scores of a metric by record."""
    with ctx.store.session() as session:
        rows = session.scalars(
            select(ScoreRow).where(ScoreRow.metric == metric, ScoreRow.evaluation.is_(None))
        ).all()
    assert len({row.item for row in rows}) == len(rows), "an answer was scored twice"
    return {row.item: row for row in rows}
