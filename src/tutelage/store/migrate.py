"""Bring a database to this version of the tables, in one transaction: all of it or nothing.

Alembic's scripts come first, for what must be renamed, converted or dropped. Then whatever the
classes declare and the database lacks is added: tables, columns, indexes. A new column of old
rows holds its default, or the zero of its type if it may not be null. Nothing is ever removed.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from alembic.operations import Operations
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import (
    JSON,
    Column,
    Connection,
    DateTime,
    Engine,
    Table,
    insert,
    inspect,
    literal,
    select,
    text,
)

from tutelage.core.artifact import content_hash, utc_now
from tutelage.core.errors import EnvironmentProblem
from tutelage.store import tables
from tutelage.store.base import Base, UTCDateTime
from tutelage.store.shapes import ShapeRow

assert tables  # importing it registers every table with Base

_HERE = Path(__file__).parent / "migrations"
_LOCK = 7_309_181  # PostgreSQL's advisory lock: one process at a time changes tables


def upgrade(engine: Engine) -> None:
    """Bring the tables to this version; nothing happens when they are current.

    Raises EnvironmentProblem if a newer version's scripts have run on this database.
    """
    with engine.connect() as connection:
        if _is_current(connection):
            return
    with _alone(engine) as connection:
        _run_scripts(connection)
        add_missing(connection)


def add_missing(connection: Connection) -> None:
    """Create the tables, columns and indexes that the classes declare and this database lacks."""
    Base.metadata.create_all(connection)
    inspector = inspect(connection)
    operations = Operations(MigrationContext.configure(connection))
    for table in Base.metadata.sorted_tables:
        there = {column["name"] for column in inspector.get_columns(table.name)}
        for column in table.columns:
            if column.name not in there:
                operations.add_column(table.name, _addable(column))
        indexes = {index["name"] for index in inspector.get_indexes(table.name)}
        for index in table.indexes:
            if index.name not in indexes:
                index.create(connection)
    shapes: Any = ShapeRow.__table__
    if connection.execute(select(shapes).where(shapes.c.digest == _shape())).first() is None:
        connection.execute(insert(shapes).values(digest=_shape(), at=utc_now()))


@cache
def _head() -> str | None:
    return ScriptDirectory.from_config(_config()).get_current_head()


@cache
def _shape() -> str:
    """Return the digest of every table, column and index that this version declares."""
    return content_hash({table.name: _shape_of(table) for table in Base.metadata.sorted_tables})


def _shape_of(table: Table) -> list[str]:
    columns = [f"{column.name} {type(column.type).__name__}" for column in table.columns]
    return columns + sorted(str(index.name) for index in table.indexes)


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(_HERE))
    return config


def _is_current(connection: Connection) -> bool:
    if MigrationContext.configure(connection).get_current_revision() != _head():
        return False
    shapes: Any = ShapeRow.__table__
    if not inspect(connection).has_table(shapes.name):
        return False
    return connection.execute(select(shapes).where(shapes.c.digest == _shape())).first() is not None


@contextmanager
def _alone(engine: Engine) -> Iterator[Connection]:
    """Yield a connection in one transaction that no other process can change tables beside."""
    with engine.execution_options(tutelage_write=True).begin() as connection:
        if connection.dialect.name == "postgresql":
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK})
        yield connection


def _run_scripts(connection: Connection) -> None:
    """Apply the scripts that this database has not seen."""
    config = _config()
    config.attributes["connection"] = connection
    try:
        command.upgrade(config, "head")
    except CommandError as error:
        found = MigrationContext.configure(connection).get_current_revision()
        raise EnvironmentProblem(
            f"the store was changed by a newer version of Tutelage (its tables are at {found}, "
            f"this version knows {_head()})",
            where=connection.engine.url.render_as_string(hide_password=True),
            fix="Install that version, or open another project",
        ) from error


def _addable(column: Column[Any]) -> Column[Any]:
    """Return a copy of `column` that a table with rows can be given."""
    default = column.server_default
    if default is None and not column.nullable:
        default = text(_as_sql(column))  # type: ignore[assignment]
    return Column(column.name, column.type, nullable=column.nullable, server_default=default)


def _as_sql(column: Column[Any]) -> str:
    """Return the SQL of the value that old rows get in `column`."""
    kind = column.type
    if isinstance(kind, (DateTime, UTCDateTime)):
        return f"'{utc_now():%Y-%m-%d %H:%M:%S.%f}'"
    default = column.default
    given = default.arg if default is not None and default.is_scalar else None  # type: ignore[attr-defined]
    if isinstance(kind, JSON):
        value = given if given is not None else _empty(default)
        return "'" + json.dumps(value).replace("'", "''") + "'"
    value = given if given is not None else kind.python_type()
    return str(literal(value).compile(compile_kwargs={"literal_binds": True}))


def _empty(default: Any) -> Any:
    """Return what a factory (`list`, `dict`) makes; SQLAlchemy gave it a context to take."""
    return default.arg(None) if default is not None and default.is_callable else {}
