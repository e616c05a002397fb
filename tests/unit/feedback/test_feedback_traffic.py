"""What the order of a user's requests says about the answers in between."""

from __future__ import annotations

import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tutelage.core.config_feedback import Feedback
from tutelage.feedback.traffic_signals import TRAFFIC, Look, read_traffic
from tutelage.store.base import Store, open_store
from tutelage.store.records import RecordRow, SignalRow

START = datetime(2026, 3, 1, 9, tzinfo=UTC)
LATER = START + timedelta(days=1)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = open_store(f"sqlite:///{tmp_path / 'store.db'}")
    yield store
    store.close()


def add(store: Store, name: str, at_s: float, text: str = "", **more: Any) -> None:
    fields: dict[str, Any] = {
        "deployment": "d", "release": "r", "arm": "stable", "split": "train", "group_key": "g",
        "messages": [{"role": "user", "content": text}] if text else [], "response": "yes",
        "finish_reason": "stop", "status": 200, "latency_ms": 2000.0, "prompt_tokens": 1,
        "completion_tokens": 1, "checks": {}, "user": "anna",
        "at": START + timedelta(seconds=at_s), **more,
    }  # fmt: skip
    with store.begin() as session:
        session.add(RecordRow(id=name, **fields))


def said(store: Store) -> dict[tuple[str, str], Any]:
    with store.session() as session:
        rows = list(session.query(SignalRow).filter_by(author=TRAFFIC))
    return {(row.record, row.kind): row.value["value"] for row in rows}


def test_the_time_to_the_next_request_is_from_answer_to_question(store: Store) -> None:
    add(store, "rec_1", 0, "where is my card")
    add(store, "rec_2", 32, "and what is the fee")
    add(store, "rec_bo", 33, "where is my card", user="bo")
    add(store, "rec_nobody", 34, "where is my card", user=None)
    look = read_traffic(store, Feedback(), now=LATER)
    assert said(store) == {("rec_1", "time_to_next"): 30.0}
    assert look == Look(records=3, written=1, removed=0)


def test_asking_the_same_again_soon_is_retried(store: Store) -> None:
    add(store, "rec_1", 0, "where is my new card")
    add(store, "rec_2", 20, "Where is my new card??")
    add(store, "rec_3", 40, "what is the fee of 5 pounds")
    add(store, "rec_4", 60, "what is the fee of 9 pounds")
    add(store, "rec_5", 600, "what is the fee of 9 pounds")
    read_traffic(store, Feedback(), now=LATER)
    assert {name for name, kind in said(store) if kind == "retried"} == {"rec_1"}


def test_who_leaves_a_broken_answer_and_stays_away_gave_up(store: Store) -> None:
    add(store, "rec_left", 0, "a", status=499)
    add(store, "rec_left_and_asked", 0, "b", status=499, user="bo")
    add(store, "rec_bo", 60, "c", user="bo")
    add(store, "rec_failed", 0, "d", status=502, user="cy")
    add(store, "rec_next_day", 80_000, "e", user="cy")
    add(store, "rec_refused", 0, "f", status=429, user="di")
    read_traffic(store, Feedback(), now=LATER)
    gave_up = {name for name, kind in said(store) if kind == "abandoned"}
    assert gave_up == {"rec_left", "rec_failed"}


def test_nothing_is_said_of_users_who_may_come_back(store: Store) -> None:
    add(store, "rec_1", 0, "a", status=499)
    assert read_traffic(store, Feedback(), now=START + timedelta(minutes=10)).written == 0
    assert read_traffic(store, Feedback(), now=START + timedelta(minutes=31)).written == 1


def test_a_second_look_begins_where_the_first_ended_and_changes_nothing(store: Store) -> None:
    for number in range(4):
        add(store, f"rec_{number}", number * 10, "same")
    now = START + timedelta(minutes=5)
    assert read_traffic(store, Feedback(), now=now).written == 6
    before = said(store)
    assert read_traffic(store, Feedback(), now=now).written == 0
    assert read_traffic(store, Feedback(), now=LATER).written == 0
    assert read_traffic(store, Feedback(), now=LATER + timedelta(1)).records == 0
    assert read_traffic(store, Feedback(), now=LATER, everything=True).records == 4
    assert said(store) == before


def test_a_record_that_comes_late_corrects_what_was_read(store: Store) -> None:
    add(store, "rec_1", 0, "where is my card")
    add(store, "rec_3", 40, "where is my card")
    read_traffic(store, Feedback(), now=START + timedelta(minutes=1))
    assert ("rec_1", "retried") in said(store)
    add(store, "rec_2", 20, "something else entirely")
    look = read_traffic(store, Feedback(), now=START + timedelta(minutes=2))
    assert look.removed == 1
    assert said(store)["rec_1", "time_to_next"] == 18.0
    assert ("rec_1", "retried") not in said(store)


def test_without_texts_nobody_knows_what_was_repeated(store: Store) -> None:
    add(store, "rec_1", 0)
    add(store, "rec_2", 10)
    read_traffic(store, Feedback(), now=LATER)
    assert said(store) == {("rec_1", "time_to_next"): 8.0}


def test_looks_now_and_then_say_what_one_over_everything_says(tmp_path: Path) -> None:
    rng = random.Random(3)
    often, once = (open_store(f"sqlite:///{tmp_path / name}.db") for name in ("often", "once"))
    at_s, settings = 0.0, Feedback()
    for number in range(300):
        at_s += rng.choice((1.0, 20.0, 400.0, 2_000.0))
        text = rng.choice(("where is my card", "Where is my card?", "what is the fee"))
        status, user = rng.choice((200, 200, 200, 499, 502)), rng.choice(("anna", "bo", "cy"))
        for store in (often, once):
            add(store, f"rec_{number}", at_s, text, status=status, user=user)
        if rng.random() < 0.2:
            read_traffic(often, settings, now=START + timedelta(seconds=at_s + rng.random()))
    now = START + timedelta(seconds=at_s + 10_000)
    read_traffic(often, settings, now=now)
    again = read_traffic(often, settings, now=now, everything=True)
    assert (again.written, again.removed) == (0, 0)
    read_traffic(once, settings, now=now)
    assert said(often) == said(once)
    assert {kind for _, kind in said(once)} == {"time_to_next", "retried", "abandoned"}
    often.close()
    once.close()


def test_a_later_look_reads_what_came_since_and_the_last_request_of_each_user(store: Store) -> None:
    for number in range(20):
        add(store, f"rec_{number}", number * 30, f"question {number}")
    read_traffic(store, Feedback(), now=START + timedelta(seconds=600))
    add(store, "rec_new", 1_000, "a new one")
    look = read_traffic(store, Feedback(), now=START + timedelta(seconds=1_000))
    assert look == Look(records=11, written=1, removed=0)  # ten of the last five minutes again
    assert said(store)["rec_19", "time_to_next"] == 428.0
