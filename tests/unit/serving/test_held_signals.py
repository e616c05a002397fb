"""A key that is limited to some deployments rates their answers alone, early or late."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select
from tests.fakes.gateway import make_release
from tests.unit.serving.conftest import Running
from tests.unit.serving.log_rows import keys, metric, record, signal
from tests.unit.serving.test_serving_app import fetch

from tutelage.core.artifact import utc_now
from tutelage.serving.access.key_store import create_key
from tutelage.serving.records.log_writer import Batch, Delivery, Record, Writer
from tutelage.serving.records.request_log import RequestLog
from tutelage.serving.records.retention import delete_orphans
from tutelage.store.base import Store, open_store
from tutelage.store.records import HeldSignalRow, RecordRow, SignalRow
from tutelage.workflows.context import Context
from tutelage.workflows.release.deploy import create

ONLY = frozenset(("d",))


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = open_store(f"sqlite:///{tmp_path / 'store.db'}")
    yield store
    store.close()


def deliver(writer: Writer, *rows: dict[str, Any], only: frozenset[str] | None = ONLY) -> list[Any]:
    """Write one delivery; return what its sender is told."""
    told: list[Any] = []
    outcome = writer.write(Batch(deliveries=[Delivery(rows, told.append, only=only)]))
    assert outcome.trouble is None
    return told


def write(writer: Writer, *rows: dict[str, Any]) -> None:
    writer.write(Batch(records=[Record(row) for row in rows]))


def held(store: Store) -> set[str]:
    with store.session() as session:
        return set(session.scalars(select(HeldSignalRow.key)))


def writer_of(store: Store) -> tuple[Writer, list[int]]:
    left_out: list[int] = []

    def none(record: Record) -> dict[str, Any]:
        raise LookupError

    return Writer(store, none, left_out.append), left_out


def test_feedback_on_another_deployment_s_answer_is_left_out_and_looks_the_same(
    store: Store,
) -> None:
    writer, left_out = writer_of(store)
    write(writer, record(1), record(2, deployment="other"))
    assert deliver(writer, signal("mine"), signal("foreign", record="rec_2")) == [None]
    assert keys(store) == {"mine"}
    assert (held(store), left_out) == (set(), [1])
    assert deliver(writer, signal("free", record="rec_2"), only=None) == [None]
    assert keys(store) == {"mine", "free"}


def test_feedback_that_comes_before_its_record_waits_for_it(store: Store) -> None:
    writer, left_out = writer_of(store)
    early = [signal("mine"), signal("foreign", record="rec_2"), signal("lost", record="rec_3")]
    assert deliver(writer, *early) == [None]
    assert (keys(store), held(store)) == (set(), {"mine", "foreign", "lost"})
    writer.release_held()
    assert held(store) == {"mine", "foreign", "lost"}
    write(writer, record(1), record(2, deployment="other"))
    writer.release_held()
    assert (keys(store), held(store), left_out) == ({"mine"}, {"lost"}, [1])
    with store.session() as session:
        kept = session.scalars(select(SignalRow)).one()
        assert (kept.record, kept.value, kept.at) == ("rec_1", {"value": 1.0}, early[0]["at"])
    assert delete_orphans(store, utc_now() + timedelta(days=1)) == 1
    assert held(store) == set()


def test_a_record_of_the_same_moment_is_known(store: Store) -> None:
    writer, _ = writer_of(store)
    told: list[Any] = []
    delivery = Delivery([signal("mine")], told.append, only=ONLY)
    writer.write(Batch(records=[Record(record(1))], deliveries=[delivery]))
    assert (told, keys(store), held(store)) == ([None], {"mine"}, set())


def test_the_log_lets_go_what_waited_and_counts(store: Store) -> None:
    writer, _ = writer_of(store)
    deliver(writer, signal("mine"), signal("foreign", record="rec_2"))
    write(writer, record(1), record(2, deployment="other"))
    log = RequestLog(store)
    log.start()  # another process than the one that held them
    asyncio.run(log.signals([signal("next")]))
    log.close()
    assert keys(store) == {"mine", "next"}
    assert metric(log, "tutelage_feedback_left_out_total") == 1


def test_over_http_a_limited_key_can_not_rate_another_s_answer(
    gateway: Callable[..., Running],
) -> None:
    bearer: dict[str, Any] = {}

    def prepare(ctx: Context) -> None:
        create(ctx, "other", make_release(ctx, "Other: name the colour family.").name)
        secret = create_key(ctx.store, "shop", "client", deployments=["other"])
        bearer["authorization"] = f"Bearer {secret}"

    running = gateway(prepare)
    ask = {"model": "colours", "messages": [{"role": "user", "content": "moss"}]}
    answer = fetch(f"{running.url}/v1/chat/completions", ask)[1]
    assert running.record(answer["id"]).deployment == "colours"
    said = {"rating": "down"}
    foreign = fetch(f"{running.url}/v1/feedback", {"record_id": answer["id"], **said}, **bearer)
    unknown = fetch(f"{running.url}/v1/feedback", {"record_id": "nobody", **said}, **bearer)
    assert foreign[0] == unknown[0] == 200
    assert {**foreign[1], "record_id": ""} == {**unknown[1], "record_id": ""}
    assert keys(running.ctx.store) == set()
    with running.ctx.store.session() as session:
        assert session.scalars(select(RecordRow.id)).all() == [answer["id"]]
