"""The transactions behind budgets: what ended is charged, what fits is held, the dead are settled.

Sums are kept in the store alone; rows are locked in one order, so that gateways never deadlock.
It has no thread and knows nothing of requests; ledger.py calls it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Literal

from sqlalchemy import Connection, bindparam, delete, func, insert, select, update
from sqlalchemy.dialects.postgresql import insert as postgres_insert
from sqlalchemy.dialects.sqlite import insert as sqlite_insert

from tutelage.core.artifact import utc_now
from tutelage.serving.accounts import Account
from tutelage.store.base import Store
from tutelage.store.records import RecordRow
from tutelage.store.usage import BudgetRow, HoldRow

_AT_ONCE = 200  # requests of a dead gateway that are settled in one transaction
_MOST_KNOWN = 10_000
_log = logging.getLogger(__name__)

Answer = Literal["yes", "wait", "spent"]
Pair = tuple[str, str]  # account, period
Charge = Callable[[RecordRow], Mapping[str, float]]  # units of a record that was kept


@dataclass(frozen=True)
class Claim:
    """What one request may take from one account in one period, at most."""

    account: Account
    period: str
    most: float

    @property
    def pair(self) -> Pair:
        """Return the row that is charged."""
        return self.account.id, self.period


def decide(spent: float, held: float, most: float, limit: float) -> Answer:
    """Return whether a request that takes at most `most` may start."""
    if spent >= limit:
        return "spent"
    if spent + held + most <= limit or held <= 0:
        return "yes"
    return "wait"


@dataclass(frozen=True, slots=True)
class Wish:
    """A request that wants to start: all of its claims or none."""

    record: str
    claims: Sequence[Claim]


@dataclass(frozen=True, slots=True)
class End:
    """A request that ended: what it is charged on the accounts it held."""

    record: str
    pairs: tuple[Pair, ...]
    units: Mapping[str, float]


class Book:
    """The holds and sums of one gateway, `holder`. `charge` tells what a kept record used."""

    def __init__(self, store: Store, charge: Charge, holder: str, hold_s: float) -> None:
        self.store, self._charge, self._holder, self._hold_s = store, charge, holder, hold_s
        self._budgets: Any = BudgetRow.__table__
        self._holds: Any = HoldRow.__table__
        postgres = store.engine.dialect.name == "postgresql"
        make: Any = postgres_insert if postgres else sqlite_insert
        keys = [self._budgets.c.account, self._budgets.c.period]
        self._add = make(self._budgets).on_conflict_do_nothing(index_elements=keys)
        self._known: set[Pair] = set()  # rows that are there

    def commit(
        self, ends: Sequence[End], asks: Sequence[Wish]
    ) -> list[tuple[Answer, Account | None]]:
        """Charge what ended, then hold what fits; return an answer for each of `asks`."""
        pairs = {pair for end in ends for pair in end.pairs}
        pairs |= {claim.pair for ask in asks for claim in ask.claims}
        with self.store.begin() as session:
            connection = session.connection()
            before = self._lock(connection, pairs)
            spent = dict(before)
            self._end(connection, ends, spent)
            answers = self._admit(connection, asks, spent) if asks else []
            self._save(connection, before, spent)
        if len(self._known) > _MOST_KNOWN:
            self._known.clear()
        self._known |= pairs
        return answers

    def renew(self) -> None:
        """Say that this gateway's requests are still under way."""
        until = utc_now() + timedelta(seconds=self._hold_s)
        mine = self._holds.c.holder == self._holder
        with self.store.begin() as session:
            session.execute(update(self._holds).where(mine).values(expires_at=until))

    def reclaim(self) -> int:
        """Charge holds of gateways that died: what the record says, else all that was held.

        Returns how many requests that were.
        """
        table = self._holds
        expired = table.c.expires_at < utc_now()
        with self.store.session() as session:
            query = select(table.c.record).where(expired).distinct().limit(_AT_ONCE)
            records = list(session.scalars(query))
            theirs = (expired, table.c.record.in_(records))
            query = select(table.c.account, table.c.period).where(*theirs).distinct()
            pairs = {(account, period) for account, period in session.execute(query)}
        if not pairs:
            return 0
        with self.store.begin() as session:
            connection = session.connection()
            before = self._lock(connection, pairs)
            named = session.scalars(select(RecordRow).where(RecordRow.id.in_(records)))
            kept = {row.id: self._charge(row) for row in named}
            spent = dict(before)
            for row in list(connection.execute(select(table).where(*theirs))):
                used = kept.get(row.record, {}).get(row.unit, row.amount)
                spent[row.account, row.period] += used
            connection.execute(delete(table).where(*theirs))
            self._save(connection, before, spent)
        _log.warning("%d requests of a gateway that died were charged", len(records))
        return len(records)

    def _lock(self, connection: Connection, pairs: Iterable[Pair]) -> dict[Pair, float]:
        """Return what each account has spent, its row made if need be and locked."""
        ordered = sorted(pairs)
        fresh = [pair for pair in ordered if pair not in self._known]
        if fresh:
            rows = [{"account": a, "period": p, "spent": 0.0} for a, p in fresh]
            connection.execute(self._add, rows)
        table = self._budgets
        query = (
            select(table.c.account, table.c.period, table.c.spent)
            .where(table.c.account.in_(sorted({a for a, _ in ordered})))
            .where(table.c.period.in_(sorted({p for _, p in ordered})))
            .order_by(table.c.account, table.c.period)
            .with_for_update()
        )
        return {(a, p): spent for a, p, spent in connection.execute(query)}

    def _end(self, connection: Connection, ends: Sequence[End], spent: dict[Pair, float]) -> None:
        if not ends:
            return
        units = {end.record: end.units for end in ends}
        mine = self._holds.c.record.in_(list(units))
        for row in connection.execute(select(self._holds).where(mine)):
            spent[row.account, row.period] += units[row.record].get(row.unit, 0.0)
        connection.execute(delete(self._holds).where(mine))

    def _admit(
        self, connection: Connection, asks: Sequence[Wish], spent: Mapping[Pair, float]
    ) -> list[tuple[Answer, Account | None]]:
        table = self._holds
        held: dict[Pair, float] = dict.fromkeys(spent, 0.0)
        sums = (
            select(table.c.account, table.c.period, func.sum(table.c.amount))
            .where(table.c.account.in_(sorted({a for a, _ in spent})))
            .group_by(table.c.account, table.c.period)
        )
        held.update({(a, p): total for a, p, total in connection.execute(sums)})
        blocked: set[Pair] = set()  # first come, first served
        rows: list[dict[str, Any]] = []
        answers = [self._one(ask, spent, held, blocked, rows) for ask in asks]
        if rows:
            connection.execute(insert(table), rows)
        return answers

    def _one(
        self,
        ask: Wish,
        spent: Mapping[Pair, float],
        held: dict[Pair, float],
        blocked: set[Pair],
        rows: list[dict[str, Any]],
    ) -> tuple[Answer, Account | None]:
        """Decide on one request and add its holds to `rows` if it may start."""
        found: dict[Answer, Account] = {}
        for claim in ask.claims:
            pair, limit = claim.pair, claim.account.limit
            answer = decide(spent[pair], held[pair], claim.most, limit)
            if answer == "yes" and pair in blocked:
                answer = "wait"
            if answer != "yes":
                found.setdefault(answer, claim.account)
        if "spent" in found:
            return "spent", found["spent"]
        if found:
            blocked.update(claim.pair for claim in ask.claims)
            return "wait", found["wait"]
        until = utc_now() + timedelta(seconds=self._hold_s)
        for claim in ask.claims:
            held[claim.pair] += claim.most
            rows.append(
                {
                    "record": ask.record,
                    "account": claim.account.id,
                    "period": claim.period,
                    "unit": claim.account.unit,
                    "amount": claim.most,
                    "holder": self._holder,
                    "expires_at": until,
                }
            )
        return "yes", None

    def _save(
        self, connection: Connection, before: Mapping[Pair, float], spent: Mapping[Pair, float]
    ) -> None:
        now = utc_now()
        changed = [
            {"b_account": a, "b_period": p, "spent": value, "updated_at": now}
            for (a, p), value in spent.items()
            if value != before[a, p]
        ]
        if changed:
            table = self._budgets
            mine = table.c.account == bindparam("b_account")
            that = table.c.period == bindparam("b_period")
            connection.execute(update(table).where(mine, that), changed)
