"""The audit log: who did what, and when. Lines are added, never changed.

Each line holds a hash over itself and the line before, so that a line which was changed or taken
out shows. It does not decide what is worth a line: whoever acts says so.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import func, select, text
from sqlalchemy.orm import Session

from tutelage.core.artifact import content_hash, utc_now
from tutelage.store.accounts import AuditRow
from tutelage.store.base import Store

_LOCK = 7_309_182  # PostgreSQL's advisory lock: lines are added one at a time
_LONGEST = 300  # letters of a value
_SHORT = 80  # letters of a name


def write(
    session: Session, user: str, action: str, what: Mapping[str, Any], address: str = ""
) -> None:
    """Add a line within the caller's transaction: it stands if what it tells of stands."""
    if session.get_bind().dialect.name == "postgresql":
        session.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK})
    session.flush()
    before = session.scalar(select(AuditRow.chain).order_by(AuditRow.id.desc()).limit(1))
    row = AuditRow(
        at=utc_now(),
        user=user[:_SHORT],
        action=action[:_SHORT],
        what={name: str(value)[:_LONGEST] for name, value in what.items()},
        address=address[:64],
        chain="",
    )
    row.chain = _chained(row, before)
    session.add(row)
    session.flush()


def record(
    store: Store, user: str, action: str, what: Mapping[str, Any], address: str = ""
) -> None:
    """Add a line in a transaction of its own."""
    with store.begin() as session:
        write(session, user, action, what, address)


def lines(
    store: Store,
    *,
    user: str | None = None,
    action: str | None = None,
    since: datetime | None = None,
    limit: int = 50,
    offset: int = 0,
) -> tuple[list[dict[str, Any]], int]:
    """Return lines, newest first, and how many there are in all. `action` may be a beginning."""
    wanted = select(AuditRow)
    if user:
        wanted = wanted.where(AuditRow.user == user)
    if action:
        wanted = wanted.where(AuditRow.action.startswith(action, autoescape=True))
    if since is not None:
        wanted = wanted.where(AuditRow.at >= since)
    with store.session() as session:
        count = session.scalar(select(func.count()).select_from(wanted.subquery())) or 0
        rows = session.scalars(wanted.order_by(AuditRow.id.desc()).limit(limit).offset(offset))
        return [_as_dict(row) for row in rows], count


def first_broken(store: Store) -> int | None:
    """Return the id of the first line whose hash does not follow from the lines before, or None."""
    before: str | None = None
    with store.session() as session:
        for row in session.scalars(
            select(AuditRow).order_by(AuditRow.id).execution_options(yield_per=1000)
        ):
            if row.chain != _chained(row, before):
                return row.id
            before = row.chain
    return None


def _chained(row: AuditRow, before: str | None) -> str:
    told = [before or "", row.at.isoformat(), row.user, row.action, row.what, row.address]
    return content_hash(told)


def _as_dict(row: AuditRow) -> dict[str, Any]:
    return {
        "id": row.id,
        "at": row.at,
        "user": row.user,
        "action": row.action,
        "what": row.what,
        "address": row.address,
    }
