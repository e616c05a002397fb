"""Budgets hold to one request: in a crowd, over gateways that share a store, after a crash."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select, update

from tutelage.core.artifact import utc_now
from tutelage.serving.access.accounts import Account
from tutelage.serving.access.ledger import BudgetInUse, BudgetSpent, Ledger
from tutelage.serving.access.ledger_book import Book, Claim, decide
from tutelage.store.base import Store, open_store
from tutelage.store.records import RecordRow
from tutelage.store.usage import BudgetRow, HoldRow

PERIOD = "2026-11-26"


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = open_store(f"sqlite:///{tmp_path / 'store.db'}")
    yield store
    store.close()


def account(unit: str, limit: float, key: str = "shop") -> Account:
    return Account(key, None, unit, "day", limit)


def used(row: RecordRow) -> dict[str, float]:
    return {"requests": 1.0, "tokens": float(row.prompt_tokens + row.completion_tokens)}


def spent(store: Store) -> dict[str, float]:
    with store.session() as session:
        return {row.account: row.spent for row in session.scalars(select(BudgetRow))}


def holds(store: Store) -> int:
    with store.session() as session:
        return len(list(session.scalars(select(HoldRow))))


class Crowd:
    """Clients that ask two gateways on one store until each is refused or has had its turn."""

    def __init__(self, store: Store, limit: Account, most: float, actual: float) -> None:
        self.ledgers = [Ledger(store, used), Ledger(store, used)]
        self.claims = [Claim(limit, PERIOD, most)]
        self.actual = {limit.unit: actual}
        self.answered = 0
        self.refused = 0

    async def client(self, number: int) -> None:
        ledger = self.ledgers[number % 2]
        while True:
            try:
                await ledger.reserve(f"r{number}", self.claims)
            except BudgetSpent:
                self.refused += 1
                return
            except BudgetInUse:
                continue
            await asyncio.sleep(0)
            self.answered += 1
            ledger.settle(f"r{number}", self.actual)
            return

    async def run(self, clients: int) -> None:
        for ledger in self.ledgers:
            ledger.start()
        await asyncio.gather(*(self.client(number) for number in range(clients)))
        for ledger in self.ledgers:
            await asyncio.to_thread(ledger.close)


@pytest.mark.parametrize(
    ("already", "held", "most", "answer"),
    [
        (0, 0, 10, "yes"),
        (90, 0, 10, "yes"),
        (80, 10, 10, "yes"),  # it certainly fits
        (85, 10, 10, "wait"),  # it may not fit beside what is under way
        (95, 0, 10, "yes"),  # alone, the last one may run over
        (100, 0, 10, "spent"),
        (100, 5, 10, "spent"),
        (0, 0, 500, "yes"),  # larger than the whole budget: only by itself
        (1, 1, 500, "wait"),
    ],
)
def test_who_may_start(already: float, held: float, most: float, answer: str) -> None:
    assert decide(already, held, most, limit=100) == answer


def test_two_gateways_let_in_exactly_as_many_requests_as_the_budget_has(store: Store) -> None:
    crowd = Crowd(store, account("requests", 50), most=1, actual=1)
    asyncio.run(crowd.run(120))
    assert (crowd.answered, crowd.refused) == (50, 70)
    assert list(spent(store).values()) == [50.0]
    assert holds(store) == 0


def test_tokens_are_used_up_and_passed_by_less_than_one_request(store: Store) -> None:
    crowd = Crowd(store, account("tokens", 400), most=70, actual=15)
    asyncio.run(crowd.run(60))
    (total,) = spent(store).values()
    assert crowd.answered == 27  # 26 * 15 = 390 < 400: one more may start
    assert total == 27 * 15
    assert holds(store) == 0


async def one(ledger: Ledger, record: str, *claims: Claim) -> None:
    await ledger.reserve(record, claims)


def run(ledger: Ledger, work: Any) -> Any:
    ledger.start()

    async def all_of_it() -> Any:
        try:
            return await work()
        finally:
            await asyncio.to_thread(ledger.close)

    return asyncio.run(all_of_it())


def test_a_request_needs_room_in_all_its_accounts_and_takes_none_otherwise(store: Store) -> None:
    ledger = Ledger(store, used)
    mine = Claim(account("requests", 5), PERIOD, 1)
    full = Claim(account("tokens", 0, "all"), PERIOD, 10)

    async def work() -> None:
        with pytest.raises(BudgetSpent) as caught:
            await one(ledger, "r1", mine, full)
        assert caught.value.account.key == "all"
        assert not ledger.holds("r1")
        await one(ledger, "r2", mine)
        ledger.settle("r2", {"requests": 0.0})  # it failed at the engine

    run(ledger, work)
    assert spent(store)[mine.account.id] == 0.0
    assert holds(store) == 0


def test_a_raised_limit_counts_at_once_and_a_new_period_starts_anew(store: Store) -> None:
    ledger = Ledger(store, used)

    async def work() -> None:
        await one(ledger, "r1", Claim(account("requests", 1), PERIOD, 1))
        ledger.settle("r1", {"requests": 1.0})
        with pytest.raises(BudgetSpent):
            await one(ledger, "r2", Claim(account("requests", 1), PERIOD, 1))
        await one(ledger, "r3", Claim(account("requests", 2), PERIOD, 1))
        await one(ledger, "r4", Claim(account("requests", 1), "2026-11-27", 1))

    run(ledger, work)


def test_a_client_that_leaves_while_it_waits_holds_nothing(store: Store) -> None:
    ledger = Ledger(store, used)
    claim = Claim(account("tokens", 100), PERIOD, 80)

    async def work() -> None:
        await one(ledger, "first", claim)
        waiting = asyncio.create_task(one(ledger, "second", claim))
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        ledger.settle("second", {})
        ledger.settle("first", {"tokens": 30.0})
        await one(ledger, "third", claim)
        ledger.settle("third", {"tokens": 5.0})

    run(ledger, work)
    assert spent(store)[claim.account.id] == 35.0
    assert holds(store) == 0


def record(name: str) -> RecordRow:
    return RecordRow(
        id=name, deployment="colours", release="r" * 64, rollout=None, step=None, arm="stable",
        user=None, key_name="shop", split="train", group_key="g", messages=[], response="",
        finish_reason="stop", status=200, error=None, latency_ms=1.0, first_token_ms=None,
        prompt_tokens=11, completion_tokens=4, checks={},
    )  # fmt: skip


def test_what_a_dead_gateway_held_is_charged_by_its_records_else_in_full(store: Store) -> None:
    dead = Ledger(store, used)
    claim = Claim(account("tokens", 1000), PERIOD, 100)

    async def work() -> None:
        await one(dead, "answered", claim)
        await one(dead, "broken", claim)

    run(dead, work)  # ended without settling, as by kill -9
    assert holds(store) == 2
    with store.begin() as session:
        session.add(record("answered"))
    other = Book(store, used, "other", 60.0)
    assert other.reclaim() == 0  # the holds are fresh: the gateway may be alive
    with store.begin() as session:
        session.execute(update(HoldRow).values(expires_at=utc_now() - timedelta(seconds=1)))
    assert other.reclaim() == 2
    assert spent(store) == {claim.account.id: 15.0 + 100.0}
    assert holds(store) == 0
    assert other.reclaim() == 0


def test_a_living_gateway_renews_what_it_holds(store: Store) -> None:
    ledger = Ledger(store, used)
    run(ledger, lambda: one(ledger, "r1", Claim(account("tokens", 1000), PERIOD, 100)))
    with store.begin() as session:
        session.execute(update(HoldRow).values(expires_at=utc_now() - timedelta(seconds=1)))
    mine = Book(store, used, ledger.holder, 60.0)
    mine.renew()
    assert mine.reclaim() == 0
    assert holds(store) == 1


def test_a_store_that_fails_refuses_and_loses_no_charge(store: Store) -> None:
    ledger = Ledger(store, used)
    claim = Claim(account("requests", 9), PERIOD, 1)
    commit = ledger._book.commit

    async def work() -> None:
        await one(ledger, "r1", claim)
        from sqlalchemy.exc import OperationalError

        def fail(*_: Any) -> Any:
            raise OperationalError("", None, Exception("database is locked"))

        ledger._book.commit = fail  # type: ignore[assignment]
        with pytest.raises(OperationalError):
            await one(ledger, "r2", claim)
        ledger.settle("r1", {"requests": 1.0})
        ledger._book.commit = commit  # type: ignore[method-assign]
        assert await asyncio.to_thread(ledger.flush)

    run(ledger, work)
    assert spent(store)[claim.account.id] == 1.0
