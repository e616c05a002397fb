"""Keep, list and undo what people decided on rows; the next curation applies it."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from typing import Any

from sqlalchemy import select

from tutelage.core.artifact import utc_now
from tutelage.core.errors import DataError
from tutelage.data.repairs import ACTIONS, Repair
from tutelage.store.repairs import RepairRow
from tutelage.workflows.context import Context
from tutelage.workflows.data.privacy import hidden_repairs


def record(ctx: Context, repairs: Sequence[Repair]) -> str:
    """Keep repairs that were decided together, in one transaction; return their batch.

    With data.privacy.mode redact, identifiers in their values become pseudonyms first.
    """
    for repair in repairs:
        if repair.action not in ACTIONS:
            raise DataError(f"{repair.action!r} is no repair", fix=f"Use {', '.join(ACTIONS)}")
    batch = secrets.token_hex(6)
    repairs = hidden_repairs(ctx, repairs)
    with ctx.store.begin() as session:
        session.add_all(
            RepairRow(
                example_id=repair.example_id,
                action=repair.action,
                value=repair.value,
                reason=repair.reason,
                author=repair.author,
                batch=batch,
            )
            for repair in repairs
        )
    return batch


def active(ctx: Context) -> list[Repair]:
    """Return the repairs in force, oldest first."""
    with ctx.store.session() as session:
        rows = session.scalars(
            select(RepairRow).where(RepairRow.undone_at.is_(None)).order_by(RepairRow.number)
        )
        return [
            Repair(row.example_id, row.action, row.value, row.reason, row.author)  # type: ignore[arg-type]
            for row in rows
        ]


def batches(ctx: Context) -> list[dict[str, Any]]:
    """Return every batch, newest first: batch, at, rows, actions, reason, author, undone."""
    found: dict[str, dict[str, Any]] = {}
    with ctx.store.session() as session:
        for row in session.scalars(select(RepairRow).order_by(RepairRow.number.desc())):
            entry = found.setdefault(
                row.batch,
                {
                    "batch": row.batch,
                    "at": row.at.isoformat(timespec="seconds"),
                    "rows": 0,
                    "actions": [],
                    "reason": row.reason,
                    "author": row.author,
                    "undone": row.undone_at is not None,
                },
            )
            entry["rows"] += 1
            if row.action not in entry["actions"]:
                entry["actions"].append(row.action)
    return list(found.values())


def undo(ctx: Context, batch: str) -> int:
    """Take a batch back; return how many repairs were in force. Raises DataError if unknown."""
    with ctx.store.begin() as session:
        rows = session.scalars(select(RepairRow).where(RepairRow.batch == batch)).all()
        if not rows:
            raise DataError(
                f"there is no batch of repairs {batch!r}",
                fix="`tutelage data repairs` lists the batches",
            )
        standing = [row for row in rows if row.undone_at is None]
        for row in standing:
            row.undone_at = utc_now()
    return len(standing)
