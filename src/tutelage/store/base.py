"""Open the store, in SQLite (WAL) by default or PostgreSQL by URL, migrated to this version."""

from __future__ import annotations

import sqlite3
import time
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sqlalchemy import JSON, URL, Connection, DateTime, Engine, create_engine, event, make_url
from sqlalchemy.dialects.postgresql import insert as postgres_insert
from sqlalchemy.dialects.sqlite import insert as sqlite_insert
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError, OperationalError
from sqlalchemy.orm import DeclarativeBase, Session, sessionmaker
from sqlalchemy.types import TypeDecorator

from tutelage.core.artifact import utc_now
from tutelage.core.errors import EnvironmentProblem

_WAIT_S = 15  # for another writer of an SQLite file
_PAUSE_S = 0.02  # between two tries where SQLite does not wait by itself


class UTCDateTime(TypeDecorator[datetime]):
    """A point in time, kept in UTC: SQLite forgets the zone, this puts it back."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Any) -> datetime | None:
        if value is None or value.tzinfo is None or value.tzinfo is UTC:
            return value
        return value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Any) -> datetime | None:
        if value is not None and value.tzinfo is None:
            return value.replace(tzinfo=utc_now().tzinfo)
        return value


class Base(DeclarativeBase):
    """The parent of all tables."""

    type_annotation_map = {dict[str, Any]: JSON, list[Any]: JSON, datetime: UTCDateTime}


class Store:
    """One project's database: `session()` to read, `begin()` to write in one transaction."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self._read = sessionmaker(engine, expire_on_commit=False)
        self._write, self._write_lazily = (
            sessionmaker(
                engine.execution_options(tutelage_write=True, tutelage_lazy=lazy),
                expire_on_commit=False,
            )
            for lazy in (False, True)
        )

    def session(self) -> Session:
        """Return a session for reading; use it as a context manager."""
        return self._read()

    def begin(self, *, lazy: bool = False) -> AbstractContextManager[Session]:
        """Return a context manager: a session in one write transaction, committed at the end.

        A `lazy` one is not waited for until it is on the disk, and no other writer waits for that
        either: if the machine's power fails, it may be gone, with the lazy ones after it.
        """
        return (self._write_lazily if lazy else self._write).begin()

    def close(self) -> None:
        """Close every pooled connection."""
        self.engine.dispose()


def insert_into(engine: Engine, table: Any) -> Any:
    """Return an insert that can say what to do on a conflict, in the engine's dialect."""
    made = {"sqlite": sqlite_insert, "postgresql": postgres_insert}[engine.dialect.name]
    return made(table)


def _durable(connection: Any, _record: Any) -> None:
    cursor = connection.cursor()
    cursor.execute(f"PRAGMA busy_timeout={1000 * _WAIT_S}")
    _write_ahead(cursor)
    for pragma in ("synchronous=FULL", "foreign_keys=ON"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _write_ahead(cursor: Any) -> None:
    """Turn the write-ahead log on.

    While another process does so, or makes the first tables, SQLite refuses at once and does not
    wait for the lock as it does for statements.
    """
    until = time.monotonic() + _WAIT_S
    while True:
        try:
            cursor.execute("PRAGMA journal_mode=WAL")
            return
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > until:
                raise
            time.sleep(_PAUSE_S)


def _begin(connection: Connection) -> None:
    """Take SQLite's write lock at the start, so that a read-then-write can't be overtaken."""
    options = connection.get_execution_options()
    lazy = options.get("tutelage_lazy", False)
    if connection.info.get("tutelage_lazy", False) != lazy:
        connection.exec_driver_sql(f"PRAGMA synchronous={'NORMAL' if lazy else 'FULL'}")
        connection.info["tutelage_lazy"] = lazy
    connection.exec_driver_sql("BEGIN IMMEDIATE" if options.get("tutelage_write") else "BEGIN")


def _begin_lazily(connection: Connection) -> None:
    """Let PostgreSQL not wait for the disk in this transaction, if it is a lazy one."""
    if connection.get_execution_options().get("tutelage_lazy"):
        connection.exec_driver_sql("SET LOCAL synchronous_commit TO OFF")


def _no_autobegin(connection: Any, _record: Any) -> None:
    connection.isolation_level = None


def make_engine(url: str) -> Engine:
    """Return an engine for a store URL with this project's durability settings.

    Raises EnvironmentProblem if the URL makes no sense or its driver is not installed.
    """
    parsed = _parse(url)
    if parsed.get_backend_name() == "sqlite":
        if parsed.database and parsed.database != ":memory:":
            Path(parsed.database).parent.mkdir(parents=True, exist_ok=True)
        engine = create_engine(parsed, connect_args={"timeout": _WAIT_S})
        event.listen(engine, "connect", _no_autobegin)
        event.listen(engine, "connect", _durable)
        event.listen(engine, "begin", _begin)
        return engine
    try:
        engine = create_engine(parsed, pool_pre_ping=True, connect_args=_patience(parsed))
    except (ModuleNotFoundError, NoSuchModuleError) as error:
        raise EnvironmentProblem(
            f"the driver for the store is not installed ({parsed.drivername})",
            where=parsed.render_as_string(hide_password=True),
            fix="For PostgreSQL: pip install 'tutelage[postgres]'",
        ) from error
    event.listen(engine, "begin", _begin_lazily)
    return engine


def _parse(url: str) -> URL:
    try:
        parsed = make_url(url)
        if parsed.get_backend_name() in ("sqlite", "postgresql"):
            return parsed
    except ArgumentError:
        pass
    raise EnvironmentProblem(
        "TUTELAGE_STORE_URL is not the address of a SQLite or PostgreSQL database",
        fix="Use the form postgresql+psycopg://USER@HOST/DATABASE, or unset it for SQLite",
    )


def _patience(url: URL) -> dict[str, Any]:
    """Return settings by which a server that is gone is noticed; what the URL says goes first."""
    if url.get_driver_name() != "psycopg":
        return {}
    waits = {"connect_timeout": 10, "tcp_user_timeout": 15_000}  # seconds, milliseconds
    return {name: value for name, value in waits.items() if name not in url.query}


def open_store(url: str, *, migrate: bool = True) -> Store:
    """Return the store at `url`, its tables brought to this version.

    Raises EnvironmentProblem if the database can't be opened.
    """
    from tutelage.store.migrate import upgrade

    engine = make_engine(url)
    try:
        if migrate:
            upgrade(engine)
        else:
            with engine.connect():
                pass
    except (OperationalError, DBAPIError) as error:
        raise EnvironmentProblem(
            f"the store can't be opened ({str(error.orig).splitlines()[0]})",
            where=engine.url.render_as_string(hide_password=True),
            fix="Check the path or URL, its permissions and the free disk space",
        ) from error
    return Store(engine)
