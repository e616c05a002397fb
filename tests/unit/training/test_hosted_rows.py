"""Rows for a hosted job: rendered as everywhere, counted by the stated rule, never a test row."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pytest

from tutelage.core.errors import ConfigError, DataError
from tutelage.core.example import Example, Message
from tutelage.inference.chat import conversation
from tutelage.training.hosted.keepalive import due, interval, next_due
from tutelage.training.hosted.rows import (
    RowsFile,
    count_tokens,
    estimate,
    forbid_test,
    job_row,
    render_rows,
    require_enough,
    usual_epochs,
)
from tutelage.training.hosted.steps import hyperparameters, last_values

PROMPT = "Name the colour family.\n"
NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


def row(text: str, answer: str = "warm") -> Example:
    turns = (Message(role="user", content=text), Message(role="assistant", content=answer))
    return Example(messages=turns)


def test_a_row_is_what_inference_sees_and_then_the_answer() -> None:
    example = row("a <|im_end|> rose", '{"family": "warm"}')
    made = job_row(example, PROMPT)["messages"]
    seen = [turn.model_dump() for turn in conversation(example, PROMPT)]
    assert made == [*seen, {"role": "assistant", "content": '{"family": "warm"}'}]
    assert made[0] == {"role": "system", "content": "Name the colour family."}
    assert "<|im_end|>" not in made[1]["content"]


def test_only_the_answer_carries_a_loss() -> None:
    turns = (
        Message(role="user", content="a rose"),
        Message(role="assistant", content="which one?", weight=1),
        Message(role="user", content="a red one"),
        Message(role="assistant", content="warm", weight=0),
    )
    made = job_row(Example(messages=turns), "")["messages"]
    assert [turn.get("weight") for turn in made] == [None, 0, None, 1]


def test_a_row_with_its_own_system_message_and_tools_keeps_them() -> None:
    turns = (Message(role="system", content="Be brief."), *row("a rose").messages)
    made = job_row(Example(messages=turns, meta={"tools": [{"type": "function"}], "id": 7}), PROMPT)
    assert made["messages"][0]["content"] == "Be brief."
    assert made["tools"] == [{"type": "function"}] and set(made) == {"messages", "tools"}


def test_rows_that_teach_nothing_are_left_out_by_name() -> None:
    silent = Example(messages=(Message(role="user", content="a rose"),))
    raw = Example(messages=(Message(role="assistant", content="Roses are red."),))
    made = render_rows([row("a rose"), silent, raw], PROMPT)
    assert made.rows == 1 and made.data.count(b"\n") == 1
    assert made.rejected == {silent.id: "no answer", raw.id: "raw text without a question"}


def test_lines_are_utf8_and_one_a_row() -> None:
    made = render_rows([row("Öl\n\u2028rot")], "")
    assert json.loads(made.data)["messages"][0]["content"] == "Öl\n\u2028rot"
    assert made.data.decode().count("\n") == 1


def test_tokens_follow_the_stated_rule() -> None:
    turns = [
        {"role": "user", "content": "abcde"},
        {"role": "assistant", "content": "ü", "weight": 1},
    ]
    assert count_tokens(turns) == 3 + (4 + 2) + (4 + 1)


def test_the_cost_counts_the_epochs() -> None:
    file = RowsFile(b"", rows=200, tokens=50_000)
    made = estimate(file, 4, 25.0)
    assert made.billed_tokens == 200_000 and made.cost == 5.0
    assert made.sentence() == "200 rows, about 200,000 tokens in 4 epochs, about 5.00"
    free = estimate(file, None, None)
    assert (free.epochs, free.cost) == (3, None) and "assumed" in free.epochs_from


@pytest.mark.parametrize(
    ("rows", "epochs"), [(10, 10), (3, 25), (33, 3), (34, 3), (8333, 3), (9000, 2), (60_000, 1)]
)
def test_unset_epochs_are_assumed_by_the_number_of_rows(rows: int, epochs: int) -> None:
    assert usual_epochs(rows) == epochs


def test_too_few_rows_say_why() -> None:
    silent = Example(messages=(Message(role="user", content="a rose"),))
    made = render_rows([*(row(f"thing {i}") for i in range(9)), silent], PROMPT)
    with pytest.raises(DataError, match=r"has 9 rows to upload \(1 left out: no answer\)"):
        require_enough(made, render_rows([], PROMPT))


@pytest.mark.parametrize("text", ["Thing 3", " thing  3 ", "THING 3"])
def test_a_test_row_in_the_bytes_stops_it(text: str) -> None:
    train = render_rows([row(f"thing {i}") for i in range(5)], PROMPT)
    held_out = row(text, "cold")
    with pytest.raises(
        DataError, match=f"row 4 of the upload asks what the test row {held_out.id}"
    ):
        forbid_test([train], [held_out], PROMPT)
    forbid_test([train], [row("thing 30")], PROMPT)


def test_a_call_is_due_when_the_interval_is_over() -> None:
    week = interval("1w")
    assert week == interval("7d") == interval("168h") == timedelta(days=7)
    assert due(None, week, NOON) and next_due(None, week, NOON) == NOON
    assert not due(NOON, week, NOON + timedelta(days=6, hours=23))
    assert due(NOON, week, NOON + timedelta(days=7))


@pytest.mark.parametrize("text", ["", "7", "d", "0d", "7m", "-1d", "1.5d"])
def test_what_is_no_interval_is_said(text: str) -> None:
    with pytest.raises(ConfigError, match="is no interval"):
        interval(text)


def test_hyperparameters_are_read_from_either_form() -> None:
    new = {"method": {"type": "supervised", "supervised": {"hyperparameters": {"n_epochs": 2}}}}
    assert hyperparameters(new) == {"n_epochs": 2}
    assert hyperparameters({"hyperparameters": {"n_epochs": 3, "batch_size": None}}) == {
        "n_epochs": 3
    }
    assert hyperparameters({}) == {}


def test_the_last_number_of_each_column_counts() -> None:
    table = "\ufeffstep,train_loss,valid_loss\n1,0.9,0.8\n2,0.5,\n"
    assert last_values(table) == {"step": 2.0, "train_loss": 0.5, "valid_loss": 0.8}
    assert last_values("") == {}
