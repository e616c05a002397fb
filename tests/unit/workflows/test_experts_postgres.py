"""The label queue, its figures and the audit log on a real PostgreSQL, used by several at once."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.fakes.web_projects import LABELS, labelling_project
from tests.postgres_server import running_postgres

from tutelage.workflows.context import Context, open_context
from tutelage.workflows.data.experts import Given, next_item, submit
from tutelage.workflows.data.experts_figures import FiguresDesk
from tutelage.workflows.data.experts_items import Order, assign
from tutelage.workflows.data.experts_people import add_annotators
from tutelage.workflows.people import audit

PEOPLE = ("anna", "ben", "carl", "dora")


@pytest.fixture
def ctx(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Context]:
    """A project whose store is PostgreSQL, with 24 items that four people share."""
    with running_postgres() as server:
        monkeypatch.setenv("TUTELAGE_STORE_URL", server.database("experts"))
        opened = labelling_project(tmp_path / "project", items=2)
        assert opened.store.engine.dialect.name == "postgresql"
        add_annotators(opened, list(PEOPLE))
        file = tmp_path / "shared.txt"
        file.write_text("".join(f"shared text {number}\n" for number in range(24)))
        assign(opened, Order(PEOPLE, source="file", file=file, shared=True))
        assign(opened, Order(PEOPLE[:2], source="file", file=file, overlap=2, again=True))
        yield opened
        opened.store.close()


def at_once(ctx: Context, work: Callable[[Context, str], None]) -> None:
    """Let all people work in threads of their own, each with a connection of its own."""
    failed: list[BaseException] = []

    def run(name: str) -> None:
        own = open_context(ctx.workspace.root)
        try:
            work(own, name)
        except BaseException as error:
            failed.append(error)
        finally:
            own.store.close()

    threads = [threading.Thread(target=run, args=(name,)) for name in PEOPLE]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not failed, failed


def test_nobody_gets_anothers_item_and_every_answer_is_counted(ctx: Context) -> None:
    taken: dict[str, list[str]] = {name: [] for name in PEOPLE}

    def label(own: Context, name: str) -> None:
        while (shown := next_item(own, name)) is not None:
            taken[name].append(shown.item)
            submit(own, Given(shown.item, name, label=LABELS[len(shown.text) % 2]))

    at_once(ctx, label)
    for name in PEOPLE:
        assert len(taken[name]) == len(set(taken[name]))
    assert len({item for items in taken.values() for item in items}) == 24
    figures = FiguresDesk(ctx).figures()
    assert figures.agreement is not None
    assert figures.agreement.answers == sum(map(len, taken.values()))
    assert figures.progress["states"]["agreed"] == 24


def test_lines_that_come_at_once_stay_one_chain(ctx: Context) -> None:
    def act(own: Context, name: str) -> None:
        for number in range(10):
            audit.record(own.store, name, "label.given", {"number": number})

    at_once(ctx, act)
    assert len(audit.lines(ctx.store, limit=100)[0]) == 40
    assert audit.first_broken(ctx.store) is None
