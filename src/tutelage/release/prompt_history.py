"""The journal of the prompt's versions: who did what, when, on which evidence. Rows are only added.

It reads and writes inside a session that it is given; which moves are allowed is decided in
release/prompt_moves.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from tutelage.store.base import Store
from tutelage.store.releases import PromptEventRow, PromptRow


def note_event(
    session: Session,
    row: PromptRow,
    action: str,
    author: str,
    note: str = "",
    evidence: Mapping[str, Any] | None = None,
) -> None:
    """Add one line to the journal, in the caller's transaction."""
    session.add(
        PromptEventRow(
            version=row.hash, action=action, author=author, note=note, evidence=dict(evidence or {})
        )
    )


def published_row(session: Session, *, lock: bool = False) -> PromptRow | None:
    """Return the published version, or None; `lock` keeps others from moving it (PostgreSQL)."""
    query = select(PromptRow).where(PromptRow.state == "published")
    return session.scalars(query.with_for_update() if lock else query).first()


def history(store: Store) -> list[dict[str, Any]]:
    """Return everything that happened, newest first, as plain data."""
    query = (
        select(PromptEventRow, PromptRow.number)
        .join(PromptRow, PromptRow.hash == PromptEventRow.version)
        .order_by(PromptEventRow.id.desc())
    )
    with store.session() as session:
        return [plain_event(event, number) for event, number in session.execute(query)]


def notes(session: Session) -> dict[str, str]:
    """Return the last note that was written about each version, by hash."""
    query = select(PromptEventRow.version, PromptEventRow.note).where(PromptEventRow.note != "")
    return {row.version: row.note for row in session.execute(query.order_by(PromptEventRow.id))}


def tests(session: Session) -> dict[str, dict[str, Any]]:
    """Return the last test that was attached to each version, by hash."""
    query = select(PromptEventRow.version, PromptEventRow.evidence)
    query = query.where(PromptEventRow.action == "tested").order_by(PromptEventRow.id)
    return {row.version: row.evidence for row in session.execute(query)}


def plain_event(event: PromptEventRow, number: int) -> dict[str, Any]:
    """Return one line of the journal as plain data."""
    return {
        "at": event.at.isoformat(timespec="seconds"),
        "number": number,
        "version": event.version,
        "action": event.action,
        "by": event.author,
        "note": event.note,
        "evidence": event.evidence,
    }
