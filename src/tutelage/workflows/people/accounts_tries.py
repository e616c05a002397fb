"""Slowing down whoever guesses passwords, over all processes and restarts.

Wrong passwords count for a name from one address, for the address, and for the name from
anywhere. After a few free ones each more makes the next wait twice as long. It never locks
anybody out for good, and it does not look at passwords.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy import delete

from tutelage.core.artifact import utc_now
from tutelage.store.accounts import TryRow
from tutelage.store.base import Store


@dataclass(frozen=True)
class _Limit:
    free: int  # wrong ones that cost nothing
    longest_s: float  # wait at most


_PAIR = _Limit(free=5, longest_s=900)
_ADDRESS = _Limit(free=30, longest_s=900)
_NAME = _Limit(free=50, longest_s=60)  # short: a stranger can make the right person wait
_FIRST_S = 8.0  # the first wait
_FORGOTTEN = timedelta(days=1)


def begin(store: Store, name: str, address: str) -> int:
    """Count a try and return 0, or return the seconds to wait before one is looked at."""
    now = utc_now()
    with store.begin() as session:
        session.execute(delete(TryRow).where(TryRow.at < now - _FORGOTTEN))
        rows = []
        for key, limit in _keys(name, address):
            row = session.get(TryRow, key)
            if row is None:
                row = TryRow(key=key, count=0, next_at=now, at=now)
                session.add(row)
            rows.append((row, limit))
        wait_s = max((row.next_at - now).total_seconds() for row, _ in rows)
        if wait_s > 0:
            return math.ceil(wait_s)
        for row, limit in rows:
            row.count += 1
            row.at = now
            row.next_at = now + timedelta(seconds=_wait_s(row.count, limit))
    return 0


def clear(store: Store, name: str, address: str) -> None:
    """Take back what a right password counted; of an address only its own try."""
    with store.begin() as session:
        for key, limit in _keys(name, address):
            row = session.get(TryRow, key)
            if row is None:
                continue
            if limit is _ADDRESS:
                row.count = max(0, row.count - 1)
                row.next_at = utc_now()
            else:
                session.delete(row)


def _wait_s(count: int, limit: _Limit) -> float:
    over = count - limit.free
    return 0.0 if over < 0 else min(limit.longest_s, _FIRST_S * 2.0 ** min(over, 20))


def _keys(name: str, address: str) -> list[tuple[str, _Limit]]:
    return [
        (_key("pair", name, address), _PAIR),
        (_key("address", address), _ADDRESS),
        (_key("name", name), _NAME),
    ]


def _key(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode("utf-8", "surrogatepass")).hexdigest()
