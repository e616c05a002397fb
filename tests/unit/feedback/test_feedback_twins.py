"""Twins of held-out rows leave training, never the other way, and nobody trains on a test row."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tutelage.core.artifact import utc_now
from tutelage.core.errors import DataError
from tutelage.core.example import Example, Message, Origin
from tutelage.core.output import OutputFormat
from tutelage.feedback.segment import held_out_rows, require_trainable, trainable
from tutelage.feedback.segment_twins import HeldOut, held_out_inputs, move_twins, moves
from tutelage.feedback.signals import read_feedback
from tutelage.store.artifacts import SplitRow
from tutelage.store.base import Store, open_store
from tutelage.store.records import RecordRow, SignalRow

LOST = "My card was lost on the train to Cambridge"
LOST_NEARLY = "my card was losst on the train to Cambridge!"


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = open_store(f"sqlite:///{tmp_path / 'store.db'}")
    yield store
    store.close()


def add(store: Store, name: str, split: str, text: str, edit: str | None = None) -> None:
    with store.begin() as session:
        session.add(
            RecordRow(
                id=name, deployment="d", release="r", arm="stable", split=split, group_key="g",
                messages=[{"role": "user", "content": text}] if text else [], response="",
                finish_reason="stop", status=200, latency_ms=1, prompt_tokens=1,
                completion_tokens=1, checks={}, at=utc_now(),
            )
        )  # fmt: skip
        if edit is not None:
            (row,) = read_feedback({"record_id": name, "edit": edit}, OutputFormat()).rows
            session.add(SignalRow(**row))


def sides(store: Store) -> dict[str, str]:
    with store.session() as session:
        return {row.id: row.split for row in session.query(RecordRow)}


def example(text: str, answer: str = "lost", **origin: Any) -> Example:
    turns = (Message(role="user", content=text), Message(role="assistant", content=answer))
    return Example(messages=turns, origin=Origin(**origin))


def test_equal_and_nearly_equal_inputs_move_to_the_held_out_side(store: Store) -> None:
    add(store, "rec_test", "test", LOST)
    add(store, "rec_equal", "train", LOST.upper())
    add(store, "rec_near", "train", LOST_NEARLY, "lost")
    add(store, "rec_valid", "validation", LOST, "lost")
    add(store, "rec_other", "train", "how do I top up by cheque", "top_up")
    add(store, "rec_near_unedited", "train", LOST_NEARLY + "!")
    add(store, "rec_textless", "train", "")
    moved = move_twins(store, held_out_inputs(store))
    assert {one.record for one in moved} == {"rec_equal", "rec_near", "rec_valid"}
    after = sides(store)
    assert after["rec_near"] == after["rec_equal"] == after["rec_valid"] == "test"
    assert after["rec_other"] == after["rec_near_unedited"] == after["rec_textless"] == "train"
    kept = {row.record: (row.before, row.after, row.how, row.twin) for row in moves(store)}
    assert kept["rec_near"] == ("train", "test", "near", "rec_test")
    assert kept["rec_equal"] == ("train", "test", "exact", "rec_test")
    assert kept["rec_valid"][0] == "validation"
    assert moves(store, 1)[0].similarity > 0.9
    assert move_twins(store, held_out_inputs(store)) == []


def test_a_test_record_never_moves_back(store: Store) -> None:
    add(store, "rec_test", "test", LOST, "lost")
    add(store, "rec_valid", "validation", LOST_NEARLY, "lost")
    add(store, "rec_train", "train", "something else", "other")
    frozen = {"something else": HeldOut("validation", "row_1")}
    move_twins(store, held_out_inputs(store, frozen), everything=True)
    assert sides(store) == {"rec_test": "test", "rec_valid": "test", "rec_train": "validation"}


def test_twins_of_twins_move_as_well(store: Store) -> None:
    add(store, "rec_0", "test", "where is the money i sent to my brother")
    add(store, "rec_1", "train", "where is the money i sent to my brothers now", "transfer")
    add(store, "rec_2", "train", "so where is the money i sent to my brothers now ok", "transfer")
    add(store, "rec_3", "train", "so where is the money i sent to my brothers now ok")
    moved = {one.record: one.twin for one in move_twins(store, held_out_inputs(store))}
    assert moved["rec_1"].of.name == "rec_0"
    assert moved["rec_2"].of.name == "rec_1"
    assert moved["rec_3"].how == "exact"
    assert move_twins(store, held_out_inputs(store), everything=True) == []


def test_an_embedder_finds_other_words_for_the_same(store: Store) -> None:
    add(store, "rec_test", "test", "my card is gone")
    add(store, "rec_train", "train", "I can't find my plastic", "lost")
    add(store, "rec_far", "train", "top up please", "top_up")

    def embed(texts: Sequence[str]) -> Any:
        far = [[0.0, 1.0] if "top" in text else [1.0, 0.0] for text in texts]
        return np.array(far, dtype=np.float32)

    (moved,) = move_twins(store, held_out_inputs(store), embed=embed)
    assert (moved.record, moved.twin.how) == ("rec_train", "meaning")
    assert moved.twin.reason == "means the same as rec_test on the test side"


def test_near_twins_of_held_out_rows_are_not_trainable_before_they_move(store: Store) -> None:
    add(store, "rec_test", "test", LOST)
    add(store, "rec_near", "train", LOST_NEARLY, "lost")
    add(store, "rec_frozen", "train", "how do i top up by cheques", "top_up")
    add(store, "rec_good", "train", "is there a fee for cash", "fee")
    ready = trainable(store, held_out=["how do I top up by cheque"])
    assert [item.record for item in ready] == ["rec_good"]


def test_training_on_a_test_row_is_an_error_that_names_it(store: Store) -> None:
    good, frozen = example("fine", source="rows.csv:1"), example("kept", source="rows.csv:2")
    with store.begin() as session:
        session.add(SplitRow(example_id=frozen.id, split="test", cluster="c"))
    require_trainable(store, [good])
    with pytest.raises(DataError) as caught:
        require_trainable(store, [good, frozen], "train")
    assert caught.value.sentence() == (
        "train: row rows.csv:2 can't be trained on: it is a test row. "
        "Make a new version without it: `tutelage data split`."
    )


def test_a_record_that_arrived_or_was_moved_out_of_training_is_refused(store: Store) -> None:
    add(store, "rec_test", "test", LOST)
    add(store, "rec_near", "train", LOST_NEARLY, "lost")
    arrived = example(LOST, kind="production", source="rec_test")
    near = example(LOST_NEARLY, kind="production", source="rec_near")
    of_file = near.model_copy(
        update={
            "origin": Origin(kind="production", source="f.csv:9"),
            "meta": {"record": "rec_near"},
        }
    )
    require_trainable(store, [near])
    move_twins(store, held_out_inputs(store))
    found = [why for _, why in held_out_rows(store, [arrived, near, of_file])]
    assert found[0] == "its record arrived on the test side"
    assert found[1] == found[2]
    assert found[1].startswith("nearly equal to rec_test on the test side (9")
