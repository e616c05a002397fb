"""Writes that are not waited for, and ordinary ones after them, which are."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import text

from tutelage.store.base import Store, open_store

OFTEN, SELDOM = 2, 1  # what SQLite calls FULL and NORMAL


def synchronous(store: Store, **how: bool) -> int:
    with store.begin(**how) as session:
        return int(session.execute(text("PRAGMA synchronous")).scalar_one())


def test_only_a_lazy_write_is_not_waited_for(tmp_path: Path) -> None:
    store = open_store(f"sqlite:///{tmp_path / 'store.db'}")
    assert synchronous(store) == OFTEN
    assert synchronous(store, lazy=True) == SELDOM
    assert synchronous(store) == OFTEN  # on the same pooled connection
    with store.session() as session:
        assert session.execute(text("PRAGMA synchronous")).scalar_one() == OFTEN
    store.close()
