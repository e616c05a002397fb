"""Tables grow with the program: what a database lacks is added, what it holds stays."""

from __future__ import annotations

import multiprocessing
import sqlite3
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, inspect, text
from sqlalchemy.orm import Mapped, mapped_column

from tutelage.core.artifact import utc_now
from tutelage.core.errors import EnvironmentProblem
from tutelage.store import migrate
from tutelage.store.base import Base, make_engine, open_store
from tutelage.store.migrate import add_missing, upgrade
from tutelage.store.records import RecordRow


class LaterRow(Base):
    """A table that a later version grew; it never reaches the real ones."""

    __tablename__ = "later"

    id: Mapped[int] = mapped_column(primary_key=True)
    note: Mapped[str | None]
    count: Mapped[int] = mapped_column(default=7)
    name: Mapped[str] = mapped_column(index=True)
    labels: Mapped[list[Any]] = mapped_column(default=list)
    facts: Mapped[dict[str, Any]]
    kept: Mapped[bool] = mapped_column(default=True)
    share: Mapped[float]
    at: Mapped[datetime] = mapped_column(default=utc_now)


LATER: Any = LaterRow.__table__
Base.metadata.remove(LATER)


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    engine = make_engine(f"sqlite:///{tmp_path / 'store.db'}")
    yield engine
    engine.dispose()


@pytest.fixture
def later() -> Iterator[None]:
    """Make the later table one of the program's while a test runs."""
    Base.metadata._add_table(LATER.name, None, LATER)
    migrate._shape.cache_clear()
    yield
    Base.metadata.remove(LATER)
    migrate._shape.cache_clear()


def write(engine: Engine) -> Any:
    return engine.execution_options(tutelage_write=True).begin()


def columns(connection: Connection, table: str) -> set[str]:
    return {column["name"] for column in inspect(connection).get_columns(table)}


def test_a_missing_table_is_made(engine: Engine) -> None:
    upgrade(engine)
    with write(engine) as connection:
        connection.execute(text("DROP TABLE signals"))
        add_missing(connection)
        assert "key" in columns(connection, "signals")


def test_new_columns_reach_an_old_table_and_its_rows(engine: Engine, later: None) -> None:
    with write(engine) as connection:
        connection.execute(text("CREATE TABLE later (id INTEGER PRIMARY KEY)"))
        connection.execute(text("INSERT INTO later (id) VALUES (1)"))
    upgrade(engine)
    with engine.connect() as connection:
        (old,) = connection.execute(LATER.select()).mappings()
        assert [i["name"] for i in inspect(connection).get_indexes("later")] == ["ix_later_name"]
    assert abs((utc_now() - old["at"]).total_seconds()) < 3600
    assert {k: v for k, v in old.items() if k != "at"} == {
        "id": 1, "note": None, "count": 7, "name": "", "labels": [], "facts": {}, "kept": True,
        "share": 0.0,
    }  # fmt: skip


def test_a_current_database_is_not_touched(engine: Engine, monkeypatch: Any) -> None:
    upgrade(engine)
    monkeypatch.setattr(migrate, "add_missing", pytest.fail)
    upgrade(engine)


def test_an_older_program_reads_what_a_newer_one_grew(engine: Engine) -> None:
    upgrade(engine)
    with write(engine) as connection:
        connection.execute(text("ALTER TABLE signals ADD COLUMN mood TEXT"))
    migrate._shape.cache_clear()
    with write(engine) as connection:
        add_missing(connection)
        assert "mood" in columns(connection, "signals"), "nothing is removed"


def test_a_newer_version_s_store_is_refused_in_one_sentence(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'store.db'}"
    store = open_store(url)
    with write(store.engine) as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    store.close()
    with pytest.raises(EnvironmentProblem, match=r"a newer version of Tutelage.*at 9999"):
        open_store(url)


def test_a_failing_change_leaves_the_database_as_it_was(engine: Engine, monkeypatch: Any) -> None:
    def fail(connection: Connection) -> None:
        raise OSError("the disk is full")

    monkeypatch.setattr(migrate, "add_missing", fail)
    with pytest.raises(OSError, match="full"):
        upgrade(engine)
    with engine.connect() as connection:
        assert inspect(connection).get_table_names() == []


def test_a_new_store_is_waited_for_while_another_process_makes_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "store.db"
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")  # with the rollback journal that a new file begins with
    other.execute("CREATE TABLE more (x)")
    waited: list[float] = []

    def sleep(seconds: float) -> None:
        waited.append(seconds)
        other.execute("COMMIT")

    monkeypatch.setattr("tutelage.store.base.time.sleep", sleep)
    open_store(f"sqlite:///{path}").close()
    assert len(waited) == 1
    other.close()


def open_once(url: str, go: Any) -> None:
    go.wait()
    store = open_store(url)
    with store.begin() as session:
        assert session.query(RecordRow).count() == 0
    store.close()


def test_processes_that_open_a_new_store_together_all_succeed(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'store.db'}"
    context = multiprocessing.get_context("fork")
    go = context.Event()
    workers = [context.Process(target=open_once, args=(url, go)) for _ in range(4)]
    for worker in workers:
        worker.start()
    go.set()
    for worker in workers:
        worker.join(60)
    assert [worker.exitcode for worker in workers] == [0, 0, 0, 0]


@pytest.mark.parametrize(
    ("url", "sentence"),
    [
        ("not a url", r"not the address of a SQLite or PostgreSQL database\. Use the form"),
        ("mysql://x/y", r"not the address of a SQLite or PostgreSQL database\. Use the form"),
        (
            "postgresql+pg8000://x/y",
            r"driver for the store is not installed \(.*pg8000\)",
        ),
        ("postgresql+none://x/y", r"driver for the store is not installed \(postgresql\+none\)"),
    ],
)
def test_an_address_that_makes_no_sense_is_one_sentence(url: str, sentence: str) -> None:
    with pytest.raises(EnvironmentProblem, match=sentence):
        open_store(url)
