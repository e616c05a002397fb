"""The store and the request log on a real PostgreSQL, as on SQLite."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import inspect, text
from tests.postgres_server import Postgres, running_postgres
from tests.unit.serving.log_rows import ids, keys, metric, record, signal
from tests.unit.serving.test_serving_ledger import Crowd, account, holds, spent

from tutelage.core.artifact import utc_now
from tutelage.core.errors import EnvironmentProblem
from tutelage.serving.access.usage import read_usage
from tutelage.serving.records.request_log import KeyReused, LogSlow, RequestLog
from tutelage.serving.records.retention import delete_old
from tutelage.store.base import Base, Store, open_store
from tutelage.store.migrate import add_missing
from tutelage.store.records import RecordRow, SignalRow


@pytest.fixture(scope="module")
def server() -> Iterator[Postgres]:
    with running_postgres() as server:
        yield server


@pytest.fixture
def store(server: Postgres, request: pytest.FixtureRequest) -> Iterator[Store]:
    store = open_store(server.database(f"db{abs(hash(request.node.name))}"))
    yield store
    store.close()


def test_the_scripts_and_the_classes_agree(store: Store) -> None:
    with store.engine.connect() as connection:
        assert set(inspect(connection).get_table_names()) >= set(Base.metadata.tables)


def test_what_a_database_lacks_is_added(store: Store) -> None:
    log = RequestLog(store)
    log.record(record(1))
    log.start()
    log.close()
    with store.engine.begin() as connection:
        connection.execute(text("DROP TABLE signals"))
        connection.execute(text("ALTER TABLE records DROP COLUMN checks, DROP COLUMN status"))
        add_missing(connection)
    with store.engine.connect() as connection:
        row = connection.execute(text("SELECT checks, status FROM records")).one()
    assert (row.checks, row.status) == ({}, 0)
    assert keys(store) == set()


def test_many_that_open_a_new_database_together_all_succeed(server: Postgres) -> None:
    url = server.database("together")
    with ThreadPoolExecutor(4) as pool:
        for store in pool.map(open_store, [url] * 4):
            assert ids(store) == set()
            store.close()


def test_a_server_that_is_not_there_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(EnvironmentProblem, match="the store can't be opened"):
        open_store(f"postgresql+psycopg://nobody@/none?host={tmp_path}")


def test_the_log_keeps_rows_once_and_knows_retries(store: Store, tmp_path: Path) -> None:
    log = RequestLog(store, ahead=tmp_path / "ahead")
    log.start()
    for number in [*range(1000), 7, 8]:
        log.record(record(number, response="\ud83d\ude00" if number == 5 else ""))
    asyncio.run(log.signals([signal("up")], "key 1", "up"))
    asyncio.run(log.signals([signal("down", at=utc_now())], "key 2", "down"))
    asyncio.run(log.signals([signal("up", at=utc_now())], "key 1", "up"))
    with pytest.raises(KeyReused):
        asyncio.run(log.signals([signal("other")], "key 1", "other"))
    assert log.flush()
    log.close()
    assert len(ids(store)) + metric(log, "tutelage_records_lost_total", reason="store") == 1000
    with store.session() as session:
        assert max(session.query(SignalRow), key=lambda row: row.at).key == "down"


def test_a_server_that_goes_and_comes_back_costs_nothing_acknowledged(
    server: Postgres, store: Store, tmp_path: Path
) -> None:
    log = RequestLog(store, ahead=tmp_path / "ahead")
    log.start()
    asyncio.run(log.signals([signal("a")]))
    log.patience_s = 0.5
    server.stop()
    try:
        for number in range(50):
            assert log.record(record(number))
        with pytest.raises(LogSlow):
            asyncio.run(log.signals([signal("b")]))
    finally:
        server.start()
    assert log.flush()
    log.close()
    assert len(ids(store)) == 50
    assert "a" in keys(store)


def test_budgets_are_exact_over_gateways(store: Store) -> None:
    crowd = Crowd(store, account("tokens", 400), most=70, actual=15)
    asyncio.run(crowd.run(60))
    assert crowd.answered == 27
    assert (list(spent(store).values()), holds(store)) == ([27 * 15.0], 0)


def test_use_is_added_up_and_stays_when_records_go(store: Store) -> None:
    with store.begin() as session:
        session.add_all(RecordRow(**record(number)) for number in range(5))
    day = timedelta(days=1)
    before = read_usage(store, utc_now() - day, utc_now() + day)
    assert delete_old(store, utc_now() + day) == 5
    assert read_usage(store, utc_now() - day, utc_now() + day) == before
    assert sum(line.requests for line in before) == 5


def test_only_a_lazy_write_is_not_waited_for(store: Store) -> None:
    told = []
    for lazy in (False, True, False):
        with store.begin(lazy=lazy) as session:
            told.append(session.execute(text("SHOW synchronous_commit")).scalar_one())
    assert told == ["on", "off", "on"]
