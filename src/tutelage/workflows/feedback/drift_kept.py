"""What is kept of drift: reports without their texts, and traffic that was accepted as normal."""

from __future__ import annotations

import secrets
from datetime import datetime
from typing import Any

from sqlalchemy import select

from tutelage.feedback.drift.report import DriftReport
from tutelage.store.drift import DriftReferenceRow, DriftReportRow
from tutelage.workflows.context import Context


def keep_report(ctx: Context, deployment: str, found: DriftReport, kind: str, at: datetime) -> str:
    """Keep a report without its texts; return its id."""
    row = report_row(deployment, found, kind, at)
    with ctx.store.begin() as session:
        session.add(row)
        return row.id


def report_row(deployment: str, found: DriftReport, kind: str, at: datetime) -> DriftReportRow:
    """Return the row that keeps a report."""
    return DriftReportRow(
        id=f"dr_{secrets.token_hex(6)}",
        deployment=deployment,
        kind=kind,
        moved=found.moved,
        sentence=found.sentence,
        report=found.as_dict(),
        at=at,
    )


def report_view(row: DriftReportRow) -> dict[str, Any]:
    """Return a kept report in short."""
    return {
        "id": row.id, "deployment": row.deployment, "kind": row.kind, "moved": row.moved,
        "sentence": row.sentence, "at": row.at.isoformat(),
    }  # fmt: skip


def reference_view(row: DriftReferenceRow) -> dict[str, Any]:
    """Return accepted traffic as plain data."""
    return {
        "deployment": row.deployment, "rows": row.rows, "since": row.since.isoformat(),
        "until": row.until.isoformat(), "note": row.note, "author": row.author,
        "at": row.at.isoformat(),
    }  # fmt: skip


def accepted(ctx: Context, deployment: str) -> DriftReferenceRow | None:
    """Return the traffic that was accepted last."""
    query = select(DriftReferenceRow).where(DriftReferenceRow.deployment == deployment)
    with ctx.store.session() as session:
        return session.scalars(query.order_by(DriftReferenceRow.id.desc()).limit(1)).first()
