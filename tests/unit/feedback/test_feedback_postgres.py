"""Feedback, signals from traffic and moves of twins on a real PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

import pytest
from tests.postgres_server import running_postgres
from tests.unit.feedback.test_feedback_traffic import LATER, START, add, said

from tutelage.core.config_feedback import Feedback
from tutelage.core.output import OutputFormat
from tutelage.feedback.deliveries import Given, keep_deliveries
from tutelage.feedback.outcome import outcomes
from tutelage.feedback.segment import held_out_rows
from tutelage.feedback.segment_twins import held_out_inputs, move_twins, moves, moves_so_far
from tutelage.feedback.signals import DECLARED, read_feedback
from tutelage.feedback.traffic_signals import read_traffic
from tutelage.store.base import Store, open_store


@pytest.fixture(scope="module")
def store() -> Iterator[Store]:
    with running_postgres() as server:
        opened = open_store(server.database("feedback"))
        yield opened
        opened.close()


def given(record: str, rating: float, at: str, key: str | None = None) -> Given:
    body = {"record_id": record, "rating": rating, "at": at}
    return Given(f"line {at}", read_feedback(body, OutputFormat()), key)


def test_what_was_said_and_done_is_read_as_from_sqlite(store: Store) -> None:
    add(store, "rec_1", 0, "where is my new card")
    add(store, "rec_2", 20, "Where is my new card?", split="test")
    add(store, "rec_3", 500, "nothing", status=499)
    up, down = given("rec_1", 1, "2026-03-01T10:00:00+01:00"), given("rec_1", 0, "2026-03-02")
    again = given("rec_1", 1, "2026-03-03T00:00:00Z")
    for batch in ([again, down], [up], [up, again]):
        kept = keep_deliveries(store, batch)
    assert (kept.deliveries, kept.signals, kept.repeated, kept.unknown) == (2, 0, 2, 0)
    assert read_traffic(store, Feedback(), now=LATER).written == 4
    assert read_traffic(store, Feedback(), now=LATER, everything=True).written == 0
    assert said(store)["rec_1", "retried"] is True
    scores = outcomes(store, DECLARED, since=START - timedelta(hours=1))
    assert scores == {"rec_1": pytest.approx(2 / 3), "rec_3": 0.0}
    keyed = [given("rec_2", 1, "2026-03-04", "k" * 64), given("rec_2", 0, "2026-03-04", "k" * 64)]
    assert keep_deliveries(store, keyed).refused == (
        ("line 2026-03-04", "its idempotency key came before with other content"),
    )
    (moved,) = move_twins(store, held_out_inputs(store), everything=True)
    assert (moved.record, moved.twin.how) == ("rec_1", "near")
    assert moves_so_far(store)[0] == len(moves(store)) == 1
    assert list(held_out_rows(store, [])) == []
