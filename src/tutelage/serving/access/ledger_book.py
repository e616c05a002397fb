"""The transactions behind budgets: what ended is charged, what fits is held, the dead are settled.

Sums are kept in the store alone; rows are locked in one order, so that gateways never deadlock.
On SQLite these commits do not wait for the disk: a killed process loses nothing of them, and a
power cut no more than the time since the log's last commit, which writes the same file through.
It has no thread and knows nothing of requests; ledger.py calls it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Literal

from sqlalchemy import Connection, Engine, bindparam, delete, event, insert, select, update

from tutelage.core.artifact import utc_now
from tutelage.serving.access.accounts import Account
from tutelage.store.base import Store, insert_into, make_engine
from tutelage.store.records import RecordRow
from tutelage.store.usage import BudgetRow, HoldRow

_AT_ONCE = 200  # requests of a dead gateway that are settled in one transaction
_MOST_KNOWN = 10_000
_DUST = 1e-9  # what adding and taking away leaves of nothing
_log = logging.getLogger(__name__)

_BUDGETS: Any = BudgetRow.__table__
_HOLDS: Any = HoldRow.__table__
_LOCK = (
    select(_BUDGETS.c.account, _BUDGETS.c.period, _BUDGETS.c.spent, _BUDGETS.c.held)
    .where(_BUDGETS.c.account.in_(bindparam("accounts", expanding=True)))
    .where(_BUDGETS.c.period.in_(bindparam("periods", expanding=True)))
    .order_by(_BUDGETS.c.account, _BUDGETS.c.period)
    .with_for_update()
)
_SAVE = (
    update(_BUDGETS)
    .where(_BUDGETS.c.account == bindparam("b_account"), _BUDGETS.c.period == bindparam("b_period"))
    .values(spent=bindparam("b_spent"), held=bindparam("b_held"), updated_at=bindparam("b_at"))
)
_TAKE = (
    delete(_HOLDS)
    .where(_HOLDS.c.record.in_(bindparam("records", expanding=True)))
    .returning(_HOLDS.c.record, _HOLDS.c.account, _HOLDS.c.period, _HOLDS.c.unit, _HOLDS.c.amount)
)

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
    if spent >= limit - _DUST:
        return "spent"
    if spent + held + most <= limit or held <= _DUST:
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


@dataclass(slots=True)
class _Sums:
    """One account's row in a transaction."""

    spent: float
    held: float
    changed: bool = False

    def hold(self, amount: float) -> None:
        self.held, self.changed = self.held + amount, True

    def end(self, held: float, used: float) -> None:
        """Turn a hold into what was used."""
        left = self.held - held
        self.held = left if left > _DUST else 0.0
        self.spent, self.changed = self.spent + used, True


class Book:
    """The holds and sums of one gateway, `holder`. `charge` tells what a kept record used."""

    def __init__(self, store: Store, charge: Charge, holder: str, hold_s: float) -> None:
        self.store, self._charge, self._holder, self._hold_s = store, charge, holder, hold_s
        self._own = _quick_engine(store)
        self._engine = (self._own or store.engine).execution_options(tutelage_write=True)
        keys = [_BUDGETS.c.account, _BUDGETS.c.period]
        self._add = insert_into(store.engine, _BUDGETS).on_conflict_do_nothing(index_elements=keys)
        self._known: set[Pair] = set()  # rows that are there

    def close(self) -> None:
        """Close the connections of its own."""
        if self._own is not None:
            self._own.dispose()

    def commit(
        self, ends: Sequence[End], asks: Sequence[Wish]
    ) -> list[tuple[Answer, Account | None]]:
        """Charge what ended, then hold what fits; return an answer for each of `asks`."""
        pairs = {pair for end in ends for pair in end.pairs}
        pairs |= {claim.pair for ask in asks for claim in ask.claims}
        with self._locked(pairs) as (connection, sums):
            if ends:
                units = {end.record: end.units for end in ends}
                for row in connection.execute(_TAKE, {"records": list(units)}):
                    used = units[row.record].get(row.unit, 0.0)
                    sums[row.account, row.period].end(row.amount, used)
            answers = self._admit(connection, asks, sums) if asks else []
        if len(self._known) > _MOST_KNOWN:
            self._known.clear()
        self._known |= pairs
        return answers

    def renew(self) -> None:
        """Say that this gateway's requests are still under way."""
        until = utc_now() + timedelta(seconds=self._hold_s)
        mine = _HOLDS.c.holder == self._holder
        with self._engine.begin() as connection:
            connection.execute(update(_HOLDS).where(mine).values(expires_at=until))

    def reclaim(self) -> int:
        """Charge holds of gateways that died: what the record says, else all that was held.

        Returns how many requests that were.
        """
        expired = _HOLDS.c.expires_at < utc_now()
        with self.store.session() as session:
            query = select(_HOLDS.c.record).where(expired).distinct().limit(_AT_ONCE)
            records = list(session.scalars(query))
            theirs = (expired, _HOLDS.c.record.in_(records))
            query = select(_HOLDS.c.account, _HOLDS.c.period).where(*theirs).distinct()
            pairs = {(account, period) for account, period in session.execute(query)}
            named = session.scalars(select(RecordRow).where(RecordRow.id.in_(records)))
            kept = {row.id: self._charge(row) for row in named}
        if not pairs:
            return 0
        with self._locked(pairs) as (connection, sums):
            still = _TAKE.where(_HOLDS.c.expires_at < utc_now())
            for row in connection.execute(still, {"records": records}):
                used = kept.get(row.record, {}).get(row.unit, row.amount)
                sums[row.account, row.period].end(row.amount, used)
        _log.warning("%d requests of a gateway that died were charged", len(records))
        return len(records)

    @contextmanager
    def _locked(self, pairs: Iterable[Pair]) -> Iterator[tuple[Connection, dict[Pair, _Sums]]]:
        """Yield a transaction with the rows of `pairs`, made if need be, locked and saved after."""
        ordered = sorted(pairs)
        fresh = [pair for pair in ordered if pair not in self._known]
        asked = {
            "accounts": sorted({account for account, _ in ordered}),
            "periods": sorted({period for _, period in ordered}),
        }
        with self._engine.begin() as connection:
            if fresh:
                rows = [{"account": a, "period": p, "spent": 0.0, "held": 0.0} for a, p in fresh]
                connection.execute(self._add, rows)
            found = connection.execute(_LOCK, asked)
            sums = {(row.account, row.period): _Sums(row.spent, row.held) for row in found}
            yield connection, sums
            now = utc_now()
            changed = [
                {
                    "b_account": a,
                    "b_period": p,
                    "b_spent": one.spent,
                    "b_held": one.held,
                    "b_at": now,
                }
                for (a, p), one in sums.items()
                if one.changed
            ]
            if changed:
                connection.execute(_SAVE, changed)

    def _admit(
        self, connection: Connection, asks: Sequence[Wish], sums: Mapping[Pair, _Sums]
    ) -> list[tuple[Answer, Account | None]]:
        blocked: set[Pair] = set()  # first come, first served
        rows: list[dict[str, Any]] = []
        until = utc_now() + timedelta(seconds=self._hold_s)
        answers = []
        for ask in asks:
            answer = _decide_all(ask, sums, blocked)
            answers.append(answer)
            if answer[0] == "yes":
                for claim in ask.claims:
                    sums[claim.pair].hold(claim.most)
                    rows.append(self._hold(ask.record, claim, until))
        if rows:
            connection.execute(insert(_HOLDS), rows)
        return answers

    def _hold(self, record: str, claim: Claim, until: Any) -> dict[str, Any]:
        return {
            "record": record,
            "account": claim.account.id,
            "period": claim.period,
            "unit": claim.account.unit,
            "amount": claim.most,
            "holder": self._holder,
            "expires_at": until,
        }


def _decide_all(
    ask: Wish, sums: Mapping[Pair, _Sums], blocked: set[Pair]
) -> tuple[Answer, Account | None]:
    """Decide on all claims of a request; one that waits keeps later ones from overtaking it."""
    found: dict[Answer, Account] = {}
    for claim in ask.claims:
        one = sums[claim.pair]
        answer = decide(one.spent, one.held, claim.most, claim.account.limit)
        if answer == "yes" and claim.pair in blocked:
            answer = "wait"
        if answer != "yes":
            found.setdefault(answer, claim.account)
    if "spent" in found:
        return "spent", found["spent"]
    if found:
        blocked.update(claim.pair for claim in ask.claims)
        return "wait", found["wait"]
    return "yes", None


def _quick_engine(store: Store) -> Engine | None:
    """Return an engine whose commits do not wait for the disk, on SQLite; else None."""
    url = store.engine.url
    if url.get_backend_name() != "sqlite" or url.database in (None, "", ":memory:"):
        return None
    engine = make_engine(url.render_as_string(hide_password=False))
    event.listen(engine, "connect", _no_wait)
    return engine


def _no_wait(connection: Any, _record: Any) -> None:
    cursor = connection.cursor()
    cursor.execute("PRAGMA synchronous=NORMAL")
    cursor.close()
