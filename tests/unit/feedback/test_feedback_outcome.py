"""How signals become one score of an answer, and which records have one."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tutelage.core.artifact import utc_now
from tutelage.core.config_feedback import Feedback
from tutelage.core.output import OutputFormat
from tutelage.feedback.outcome import goodness, outcomes, score_of
from tutelage.feedback.signals import DECLARED, declare, read_feedback
from tutelage.store.base import Store, open_store
from tutelage.store.records import RecordRow, SignalRow

OWN = declare(
    Feedback.model_validate(
        {
            "signals": {
                "stars": {"kind": "number", "between": [1, 5], "explicit": True, "weight": 2},
                "reading": {"kind": "seconds", "direction": "down", "between": [0, 20]},
                "rating": {"weight": 0},
                "note": {"kind": "text", "direction": "none"},
                "resolved": {"weight": 3},
            }
        }
    )
)


def said(body: dict[str, Any], record: str = "rec_1", **more: Any) -> list[SignalRow]:
    found = read_feedback({"record_id": record, **body}, OutputFormat(), declared=OWN, **more)
    return [SignalRow(**row) for row in found.rows]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = open_store(f"sqlite:///{tmp_path / 'store.db'}")
    yield store
    store.close()


def add_record(store: Store, name: str, response: str = "", at: datetime | None = None) -> None:
    with store.begin() as session:
        session.add(
            RecordRow(
                id=name, deployment="d", release="r", arm="stable", split="train", group_key="g",
                messages=[], response=response, finish_reason="stop", status=200, latency_ms=1,
                prompt_tokens=1, completion_tokens=1, checks={}, at=at or utc_now(),
            )
        )  # fmt: skip


def keep(store: Store, rows: list[SignalRow]) -> None:
    with store.begin() as session:
        session.add_all(rows)


@pytest.mark.parametrize(
    ("body", "score"),
    [
        ({"rating": 0.25}, 0.25),
        ({"edit": "better"}, 0.0),
        ({"comment": "hm"}, None),
        ({"signals": ["resolved"]}, 1.0),
        ({"signals": {"resolved": False}}, 0.0),
        ({"signals": ["escalated"]}, 0.0),
        ({"signals": {"retried": 3}}, 0.0),
        ({"signals": {"time_to_next": 12.5}}, None),
        ({"signals": {"unheard_of": 1}}, None),
        ({"rating": 1, "signals": ["retried"]}, 1 / 1.5),  # explicit weighs 1, implicit 0.5
        ({"rating": 0, "signals": ["resolved", "copied"]}, 1 / 2),
    ],
)
def test_the_score_weighs_what_each_signal_says(body: dict[str, Any], score: float | None) -> None:
    found = score_of(said(body), DECLARED)
    assert found == pytest.approx(score)


def test_a_project_declares_direction_weight_and_scale() -> None:
    assert score_of(said({"signals": {"stars": 4}}), OWN) == 0.75
    assert score_of(said({"signals": {"stars": 9}}), OWN) == 1.0
    assert score_of(said({"signals": {"reading": 5}}), OWN) == 0.75
    assert score_of(said({"signals": {"note": "x"}, "rating": 0}), OWN) is None
    both = said({"signals": {"stars": 1, "resolved": True}})
    assert score_of(both, OWN) == pytest.approx(3 / 5)
    assert OWN["resolved"].direction == 1
    assert not OWN["resolved"].explicit
    assert OWN["stars"].explicit


def test_of_each_author_the_newest_counts_in_any_order() -> None:
    bodies = [
        {"rating": 0, "author": "bo", "at": "2026-01-01T10:00:00Z"},
        {"rating": 1, "author": "bo", "at": "2026-01-01T11:00:00+00:00"},
        {"rating": 0, "author": "al", "at": "2026-01-01T12:30:00+02:00"},  # 10:30 UTC
        {"rating": 0.5, "author": "al", "at": "2026-01-01T10:15:00Z"},
    ]
    rows = [row for body in bodies for row in said(body)]
    assert score_of(rows, DECLARED) == score_of(rows[::-1], DECLARED) == 0.5


def test_an_edit_that_says_the_same_is_praise() -> None:
    (edit,) = said({"edit": '{"family": "warm"}'})
    assert score_of([edit], DECLARED, answer='{"family":"warm"}') == 1.0
    assert score_of([edit], DECLARED, answer='{"family": "cold"}') == 0.0
    assert score_of([edit], DECLARED) == 0.0


def test_a_value_that_is_no_number_says_nothing() -> None:
    assert goodness(float("nan"), OWN["stars"]) is None
    assert goodness("much", OWN["stars"]) is None


def test_outcomes_are_of_records_that_came_within_the_time(store: Store) -> None:
    start = datetime(2026, 3, 1, tzinfo=UTC)
    for number in range(4):
        add_record(store, f"rec_{number}", "yes", at=start + timedelta(days=number))
    keep(store, said({"rating": 1}, "rec_0"))
    keep(store, said({"edit": "yes"}, "rec_1"))
    keep(store, said({"edit": "no"}, "rec_2"))
    keep(store, said({"comment": "well"}, "rec_3"))
    keep(store, said({"rating": 1}, "rec_early"))
    assert outcomes(store, DECLARED) == {"rec_0": 1.0, "rec_1": 1.0, "rec_2": 0.0}
    later = outcomes(store, DECLARED, since=start + timedelta(days=1))
    assert set(later) == {"rec_1", "rec_2"}
    assert set(outcomes(store, DECLARED, until=start + timedelta(days=1))) == {"rec_0"}
    assert outcomes(store, DECLARED, records=["rec_2", "rec_9", "rec_2"]) == {"rec_2": 0.0}


def test_times_of_every_zone_are_kept_as_one(store: Store) -> None:
    (row,) = said({"rating": 1, "at": "2026-01-01T12:30:00+02:00"})
    keep(store, [row])
    with store.session() as session:
        (kept,) = session.query(SignalRow)
    assert kept.at == datetime(2026, 1, 1, 10, 30, tzinfo=UTC)
