"""What is written ahead outlives its process; a store in trouble costs no feedback, no memory."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import signal as signals
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event
from sqlalchemy.exc import OperationalError
from tests.unit.serving.log_rows import ids, keys, lost, metric, record, signal

from tutelage.core.artifact import utc_now
from tutelage.serving.records import request_log
from tutelage.serving.records.request_log import KeyReused, LogSlow, RequestLog
from tutelage.serving.records.spill import Spill, decode_row, encode_row
from tutelage.store.base import Store, open_store
from tutelage.store.records import DeliveryRow, RecordRow, SignalRow


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = open_store(f"sqlite:///{tmp_path / 'store.db'}")
    yield store
    store.close()


@pytest.fixture
def ahead(tmp_path: Path) -> Path:
    return tmp_path / "ahead"


def die_with_records(url: str, ahead: Path, count: int) -> None:
    """Write records ahead, none into the store, and be killed."""
    log = RequestLog(open_store(url, migrate=False), ahead=ahead)
    for number in range(count):
        log.record(record(number, messages=[{"role": "user", "content": f"thing {number}"}]))
    os.kill(os.getpid(), signals.SIGKILL)


def in_killed_process(*arguments: Any) -> None:
    process = multiprocessing.get_context("fork").Process(target=die_with_records, args=arguments)
    process.start()
    process.join(60)
    assert process.exitcode == -signals.SIGKILL


def run(log: RequestLog) -> None:
    log.start()
    assert log.flush()
    log.close()


def test_the_next_process_takes_over_what_a_killed_one_wrote_ahead(
    store: Store, ahead: Path
) -> None:
    in_killed_process(str(store.engine.url), ahead, 1200)
    assert ids(store) == set()
    log = RequestLog(store, ahead=ahead)
    run(log)
    assert ids(store) == {f"rec_{number}" for number in range(1200)}
    assert metric(log, "tutelage_records_recovered_total") == 1200
    assert list(ahead.iterdir()) == []
    with store.session() as session:
        row = session.get_one(RecordRow, "rec_7")
    assert row.messages == [{"role": "user", "content": "thing 7"}]
    assert (utc_now() - row.at).total_seconds() < 600


def test_a_line_cut_off_by_the_kill_spoils_no_other(store: Store, ahead: Path) -> None:
    in_killed_process(str(store.engine.url), ahead, 3)
    (path,) = ahead.iterdir()
    path.write_bytes(path.read_bytes()[:-40])
    run(RequestLog(store, ahead=ahead))
    assert ids(store) == {"rec_0", "rec_1"}


def test_the_files_of_a_living_process_are_left_alone(store: Store, ahead: Path) -> None:
    living = RequestLog(store, ahead=ahead)
    living.record(record(1))
    run(RequestLog(store, ahead=ahead))
    assert ids(store) == set()
    run(living)
    assert ids(store) == {"rec_1"}


def test_what_the_store_has_is_not_offered_again(ahead: Path) -> None:
    """A record that was erased from the store must not come back with the next start."""
    spill = Spill(ahead)
    places = [spill.append(encode_row(record(number))) for number in range(3)]
    spill.done([place for place in places[:2] if place])
    assert list(Spill(ahead).leftovers(10)) == []  # the process lives
    spill.close()
    assert [row["id"] for rows in Spill(ahead).leftovers(10) for row in rows] == ["rec_2"]


def test_files_are_emptied_and_begun_anew(ahead: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr("tutelage.serving.records.spill._SEGMENT", 4096)
    spill = Spill(ahead)
    places = [spill.append(encode_row(record(number))) for number in range(40)]
    assert len(list(ahead.iterdir())) > 2
    spill.done([place for place in places[:-1] if place])
    assert len(list(ahead.iterdir())) == 1
    last = places[-1]
    assert last is not None
    assert decode_row(spill.read(last))["id"] == "rec_39"
    spill.done([last], idle=True)
    (path,) = ahead.iterdir()
    assert path.stat().st_size == spill.size < 100
    assert path.stat().st_mode & 0o077 == 0, "texts are for the owner's eyes"


def test_under_a_locked_store_records_wait_and_feedback_is_not_acknowledged(
    store: Store, ahead: Path, monkeypatch: Any
) -> None:
    monkeypatch.setattr(request_log, "_MEMORY", 2000)
    log = RequestLog(store, ahead=ahead, patience_s=0.2)
    locked = open_store(str(store.engine.url), migrate=False)
    log.start()
    with locked.begin() as session:
        session.connection()  # takes the write lock
        for number in range(300):
            assert log.record(record(number))
        kept = [item for item in log._records if item.row is not None]
        assert len(kept) < 10, "the others wait on disk alone"
        with pytest.raises(LogSlow):
            asyncio.run(log.signals([signal("a")]))
        assert keys(locked) == set()
    log.patience_s = 60
    asyncio.run(log.signals([signal("b")]))
    assert log.flush()
    log.close()
    assert len(ids(store)) == 300
    assert "b" in keys(store)
    assert log._memory == 0
    assert log._feedback == [0, 0]
    locked.close()


class Disk:
    """Makes SQLite's disk full: it may use no more pages than it has."""

    def __init__(self, store: Store) -> None:
        self.full = False
        event.listen(store.engine, "begin", self._limit)

    def _limit(self, connection: Any) -> None:
        pages = 1 if self.full else 1_000_000  # never less than are in use
        connection.exec_driver_sql(f"PRAGMA max_page_count={pages}")


def test_on_a_full_disk_feedback_fails_at_once_and_records_wait_for_room(
    store: Store, ahead: Path
) -> None:
    disk, long = Disk(store), "x" * 5000
    log = RequestLog(store, ahead=ahead)
    log.start()
    disk.full = True
    for number in range(20):
        log.record(record(number, response=long))
    with pytest.raises(OperationalError, match="full"):
        asyncio.run(log.signals([signal("a", value={"value": long})]))
    assert metric(log, "tutelage_store_trouble") == 1
    assert lost(log, "store") == 0
    disk.full = False
    assert log.flush()
    log.close()
    assert len(ids(store)) == 20
    assert metric(log, "tutelage_store_trouble") == 0


def test_records_that_the_store_refuses_to_the_end_wait_for_the_next_start(
    store: Store, ahead: Path
) -> None:
    disk = Disk(store)
    disk.full = True
    log = RequestLog(store, ahead=ahead)
    for number in range(3):
        log.record(record(number, response="x" * 5000))
    log.start()
    log.close()
    assert lost(log, "store") == 0
    disk.full = False
    run(RequestLog(store, ahead=ahead))
    assert len(ids(store)) == 3


def test_a_row_that_never_fits_does_not_hold_up_the_others(store: Store, ahead: Path) -> None:
    disk = Disk(store)
    log = RequestLog(store, ahead=ahead)
    log.record(record(0, response="x" * 2_000_000))
    for number in range(1, 5):
        log.record(record(number))
    disk.full = True
    with store.begin() as session:  # pages that small rows can use
        session.connection().exec_driver_sql("PRAGMA max_page_count=1000000")
        session.connection().exec_driver_sql("CREATE TABLE room AS SELECT zeroblob(40000) AS x")
        session.connection().exec_driver_sql("DROP TABLE room")
    run(log)
    assert ids(store) == {f"rec_{number}" for number in range(1, 5)}
    assert lost(log, "store") == 1


def test_when_disk_and_memory_have_no_room_the_newest_are_shed(
    store: Store, ahead: Path, monkeypatch: Any
) -> None:
    monkeypatch.setattr(request_log, "_MEMORY", 4000)
    log = RequestLog(store, ahead=ahead)
    assert log.spill is not None
    log.spill.limit = 4000
    kept = [log.record(record(number)) for number in range(100)]
    assert 5 < sum(kept) < 30
    assert lost(log, "shed") == 100 - sum(kept)
    assert metric(log, "tutelage_records_unguarded_total") > 0
    run(log)
    assert len(ids(store)) == sum(kept)


def test_a_retry_with_its_key_changes_nothing(store: Store) -> None:
    log = RequestLog(store)
    log.start()
    first, later = utc_now(), utc_now()
    asyncio.run(log.signals([signal("up", at=first)], "key 1", "up"))
    asyncio.run(log.signals([signal("down", at=later)], "key 2", "down"))
    asyncio.run(log.signals([signal("up", at=utc_now())], "key 1", "up"))
    with pytest.raises(KeyReused):
        asyncio.run(log.signals([signal("other")], "key 1", "other"))

    async def together() -> list[Any]:
        twice = [log.signals([signal("x")], "key 3", "x"), log.signals([signal("y")], "key 3", "y")]
        return await asyncio.gather(*twice, return_exceptions=True)

    assert [type(answer) for answer in asyncio.run(together())] == [type(None), KeyReused]
    log.close()
    with store.session() as session:
        newest = max(session.query(SignalRow).filter(SignalRow.key != "x"), key=lambda r: r.at)
    assert newest.key == "down"
    assert keys(store) == {"up", "down", "x"}


def test_old_keys_are_forgotten_in_a_quiet_moment(store: Store) -> None:
    with store.begin() as session:
        for key, days in (("old", 8), ("young", 6)):
            at = utc_now() - timedelta(days=days)
            session.add(DeliveryRow(key=key, digest="", at=at))
    RequestLog(store)._tidy()
    with store.session() as session:
        assert [row.key for row in session.query(DeliveryRow)] == ["young"]
