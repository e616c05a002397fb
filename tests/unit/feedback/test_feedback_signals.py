"""What feedback is taken, how it is understood, and which of several counts."""

from __future__ import annotations

from typing import Any

import pytest

from tutelage.core.errors import DataError
from tutelage.core.output import OutputFormat
from tutelage.feedback.signals import newest, read_feedback
from tutelage.store.records import SignalRow

FAMILY = OutputFormat("family", ("warm", "cold"))


def kept(body: dict[str, Any], output: OutputFormat = FAMILY) -> dict[str, Any]:
    rows = read_feedback({"record_id": "rec_1", **body}, output).rows
    return {row["kind"]: row["value"]["value"] for row in rows}


@pytest.mark.parametrize(
    ("given", "value"),
    [("up", 1.0), ("down", 0.0), (True, 1.0), (False, 0.0), (1, 1.0), (0.25, 0.25)],
)
def test_ratings_become_numbers_from_bad_to_good(given: Any, value: float) -> None:
    assert kept({"rating": given}) == {"rating": value}


def test_an_edit_is_a_label_in_the_form_the_model_is_taught() -> None:
    assert kept({"edit": '{"family": "cold"}'}) == {"edit": '{"family": "cold"}'}
    assert kept({"edit": "cold"}) == {"edit": '{"family": "cold"}'}
    assert kept({"edit": "any text"}, OutputFormat()) == {"edit": "any text"}


def test_implicit_signals_come_as_a_list_or_with_values() -> None:
    assert kept({"signals": ["resolved", "copied"]}) == {"resolved": True, "copied": True}
    assert kept({"signals": {"retried": 2, "dwell_s": 3.5}}) == {"retried": 2, "dwell_s": 3.5}


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"record_id": None}, "'record_id' (or 'response_id') is missing"),
        ({"record_id": "a/../b"}, "is not an id"),
        ({}, "there is no feedback in the body"),
        ({"rating": 5}, "'rating' is 5. Send up, down"),
        ({"rating": "great"}, "'rating' is 'great'"),
        ({"rating": float("nan")}, "'rating' is nan"),
        ({"edit": "warmm"}, "Did you mean 'warm'?"),
        ({"edit": '{"family": "hot"}'}, "'hot' is not one of the labels"),
        ({"edit": "  "}, "'edit' is not text"),
        ({"comment": 3}, "'comment' is not text"),
        ({"signals": "resolved"}, "'signals' is not an object"),
        ({"signals": [1]}, "'signals' is not an object"),
        ({"signals": {"resolved": "yes"}}, "the value of 'resolved' is 'yes'. Send true, false"),
        ({"signals": {"resolved": -1}}, "the value of 'resolved' is -1"),
        ({"signals": {"time_to_next": -2}}, "Send a number of seconds"),
        ({"signals": {"dwell": float("inf")}}, "the value of 'dwell' is not plain"),
        ({"rating": 1, "author": 7}, "'author' is 7"),
        ({"rating": 1, "at": "0001-01-01T00:00:00+05:00"}, "'at' is '0001"),
        ({"rating": 1, "response_id": "rec_2"}, "name two records"),
        ({"signals": {"Bad Name": 1}}, "'Bad Name' is not a signal's name"),
        ({"signals": {"rating": 1}}, "'rating' is not one of the signals"),
        ({"signals": {"resolved": {"a": 1}}}, "the value of 'resolved' is not plain"),
        ({"rating": "up", "at": "yesterday"}, "'at' is 'yesterday'"),
        ({"rating": "up", "resolved": True}, "'resolved' is one of the signals. Send it as"),
        ({"comment": "so", "Rating": "down"}, "no field 'Rating'. Send it as 'rating'."),
        ({"rating": "up", "coment": "so"}, "no field 'coment'. Send it as 'comment'."),
        ({"signals": {f"n{i}": 1 for i in range(101)}}, "Send at most 100 of them at once"),
    ],
)
def test_bad_feedback_is_one_clear_sentence(body: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError) as caught:
        read_feedback({"record_id": "rec_1", **body}, FAMILY)
    assert message in caught.value.sentence()


def test_a_signal_nobody_declared_is_kept_and_reported() -> None:
    found = read_feedback({"record_id": "rec_1", "signals": ["reslved"]}, FAMILY)
    assert found.undeclared == ("reslved",)


def row(value: float, at: str) -> SignalRow:
    body = {"response_id": "rec_1", "rating": value, "at": at}
    (made,) = read_feedback(body, FAMILY).rows
    return SignalRow(**made)


def test_the_newest_counts_in_whatever_order_it_arrives() -> None:
    early, late = row(1.0, "2026-01-01T10:00:00Z"), row(0.0, "2026-01-01T11:00:00+00:00")
    for order in ([early, late], [late, early]):
        assert newest(order)["rec_1", "rating"].value == {"value": 0.0}


def test_the_same_thing_said_twice_has_one_key() -> None:
    bodies = [{"record_id": "rec_1", "rating": "up"}, {"response_id": "rec_1", "rating": 1}]
    keys = {read_feedback(body, FAMILY).rows[0]["key"] for body in bodies}
    assert len(keys) == 1
    other = read_feedback(bodies[0], FAMILY, author="bo").rows[0]["key"]
    assert other not in keys
