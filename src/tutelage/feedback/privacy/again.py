"""Calls of forgotten users in a log that is imported again, whatever their date.

A call is theirs if the keyed hash of its user or group is that of somebody who was forgotten; one
that names nobody, if its id is that of an erased record. What was asked after the erasure is new,
and is kept; a call that does not say when it was asked can't be, and is left out.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from tutelage.feedback.privacy.tables import parts
from tutelage.feedback.privacy.traces import keyed
from tutelage.store.privacy import ErasureRow, ForgottenRow


class Erased:
    """Who was forgotten until when, and which of the records `ids` were erased."""

    def __init__(self, session: Session, key: bytes, ids: Iterable[str]) -> None:
        self._key = key
        self._users: dict[str, datetime] = {}
        rows = session.execute(
            select(ErasureRow.user, ErasureRow.hashed, ErasureRow.at).order_by(ErasureRow.at)
        )
        for user, hashed, at in rows:
            self._users |= {user: at, hashed: at}
        self._records: dict[str, datetime] = {}
        for part in parts(keyed(key, "record", one) for one in ids) if self._users else ():
            mine = ForgottenRow.record.in_(part)
            found = session.execute(select(ForgottenRow.record, ForgottenRow.at).where(mine))
            self._records.update(found.tuples().all())

    def holds(self, record: str, names: Iterable[str | None], at: datetime | None) -> bool:
        """Return whether a call of that time is one of somebody who was forgotten.

        `names` are its user and its group, as they are or hashed.
        """
        if not self._users:
            return False
        said = {name for name in names if name}
        if said:
            ends = [self._users.get(keyed(self._key, "user", name)) for name in said]
        else:
            ends = [self._records.get(keyed(self._key, "record", record))]
        return any(end is not None and (at is None or at <= end) for end in ends)
