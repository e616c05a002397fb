"""Events, alerts and notices on a real PostgreSQL: once, whoever writes at the same time."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from sqlalchemy.exc import IntegrityError
from tests.fakes.webhook import Receiver
from tests.postgres_server import running_postgres

from tutelage.core.artifact import utc_now
from tutelage.core.config_alerts import AlertRule, Alerts
from tutelage.serving.monitoring.alert_store import AlertBook, list_alerts, list_notices
from tutelage.serving.monitoring.alerts import Finding, Look, rules_of
from tutelage.serving.monitoring.events import EventLog, Happening, forget_old, read_events
from tutelage.serving.monitoring.webhooks import Dispatcher
from tutelage.store.base import Store, open_store

SLOW = AlertRule(name="slow", metric="latency_p99", above=2)
HOLDS = Look(holds=[Finding(SLOW, {"deployment": "d"}, "it is slow", 3.0)])


@pytest.fixture(scope="module")
def store() -> Iterator[Store]:
    with running_postgres() as server:
        opened = open_store(server.database("alerts"))
        yield opened
        opened.close()


def test_gateways_that_see_the_same_at_once_tell_of_it_once(store: Store) -> None:
    with Receiver() as receiver:
        hook = {"name": "ops", "url": receiver.url}
        alerts = Alerts.model_validate({"webhooks": [hook], "rules": [SLOW]})
        books = [AlertBook(store, "p", alerts, rules_of(alerts)) for _ in range(4)]
        log = EventLog(store)
        log.start()
        log.tell(Happening("budget.spent", "used up", "warning", "d", once="b1"))
        log.tell(Happening("budget.spent", "used up", "warning", "d", once="b1"))
        log.close()
        now = utc_now()

        def look(book: AlertBook) -> None:
            try:
                book.settle(HOLDS, now)
            except IntegrityError:  # the other was first: the next look finds its alert
                book.settle(HOLDS, now)

        with ThreadPoolExecutor(4) as pool:
            list(pool.map(look, books))
        assert sorted(n.status for n in list_notices(store)) == ["firing", "noted"]

        async def deliver() -> list[int]:
            dispatchers = [Dispatcher(store, alerts.webhooks) for _ in range(3)]
            counts = await asyncio.gather(*(d.deliver(now) for d in dispatchers))
            for dispatcher in dispatchers:
                await dispatcher.close()
            return list(counts)

        assert sum(asyncio.run(deliver())) == 2
        assert len(receiver.got) == 2
    fine = Look(fine={HOLDS.holds[0].key})
    assert books[0].settle(fine, now + timedelta(seconds=60)) == []
    assert [row.state for row in list_alerts(store, ended=True)] == ["resolved", "resolved"]
    assert [row.kind for row in read_events(store)] == [
        "budget.spent", "alert.firing", "alert.resolved",
    ]  # fmt: skip
    assert forget_old(store, now + timedelta(days=1)) > 0
    assert list_notices(store) == []
