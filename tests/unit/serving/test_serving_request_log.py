"""The log's promises: acknowledged means durable, shed is counted, one bad row spoils no other."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy.exc import SQLAlchemyError
from tests.unit.serving.log_rows import ids, lost, record, signal

from tutelage.core.artifact import utc_now
from tutelage.serving.records.request_log import LogFull, RequestLog, safe_text
from tutelage.store.base import Store, open_store
from tutelage.store.records import SignalRow


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = open_store(f"sqlite:///{tmp_path / 'store.db'}")
    yield store
    store.close()


def test_a_signal_is_in_the_store_when_its_wait_ends(store: Store) -> None:
    log = RequestLog(store)
    log.start()
    asyncio.run(log.signals([signal("a"), signal("b")]))
    other = open_store(str(store.engine.url))  # another connection sees it before any shutdown
    with other.session() as session:
        assert {row.key for row in session.query(SignalRow)} == {"a", "b"}
    other.close()
    log.close()


def test_closing_writes_what_is_queued(store: Store) -> None:
    log = RequestLog(store)
    for number in range(3000):
        assert log.record(record(number))
    log.start()
    log.close()
    assert len(ids(store)) == 3000
    assert log.records_written == 3000
    assert not log.record(record(3000)), "a closed log takes nothing"


def test_what_does_not_fit_is_shed_and_counted(store: Store) -> None:
    log = RequestLog(store, capacity=10)
    kept = [log.record(record(number)) for number in range(15)]
    assert kept == [True] * 10 + [False] * 5
    assert lost(log, "shed") == 5
    log.start()
    asyncio.run(log.signals([signal("late")]))  # feedback still has room
    log.close()
    assert len(ids(store)) == 10


def test_too_much_feedback_is_refused_rather_than_acknowledged(store: Store) -> None:
    log = RequestLog(store)
    with pytest.raises(LogFull):
        asyncio.run(log.signals([signal(str(number)) for number in range(3000)]))
    with pytest.raises(LogFull):
        asyncio.run(log.signals([signal("long", value={"value": "x" * 2**25})]))
    log.start()
    log.close()


def test_one_bad_row_spoils_no_other(store: Store) -> None:
    log = RequestLog(store)
    for number in range(5):
        log.record(record(number))
    log.record(record(99, response="\ud800"))  # SQLite can't keep it as UTF-8
    log.start()
    log.close()
    assert ids(store) == {f"rec_{n}" for n in range(5)}
    assert lost(log, "store") == 1


def test_a_signal_that_can_t_be_written_raises(store: Store) -> None:
    log = RequestLog(store)
    log.start()
    with pytest.raises((SQLAlchemyError, UnicodeEncodeError)):
        asyncio.run(log.signals([signal("x", author="\ud800")]))
    asyncio.run(log.signals([signal("y")]))  # the writer lives on
    log.close()


def test_the_same_delivery_twice_is_one_row_with_the_newest_time(store: Store) -> None:
    log = RequestLog(store)
    log.start()
    first, second = utc_now(), utc_now()
    asyncio.run(log.signals([signal("a", at=first)]))
    asyncio.run(log.signals([signal("a", at=second)]))
    log.close()
    with store.session() as session:
        (row,) = session.query(SignalRow)
    assert row.at == second


def test_safe_text_keeps_all_that_can_be_kept() -> None:
    assert safe_text("plain ü 😀") == "plain ü 😀"
    assert safe_text("\ud83d\ude00") == "😀"
    assert safe_text("a\ud800b\x00") == "a\ufffdb\ufffd"
