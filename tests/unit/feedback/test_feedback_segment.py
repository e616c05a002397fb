"""From feedback over HTTP to what may be trained on, and what never may."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.fakes.gateway import gateway_project
from tests.fakes.openai_backend import FakeBackend

from tutelage.core.artifact import utc_now
from tutelage.core.config import Splits
from tutelage.core.output import OutputFormat
from tutelage.data.split import load_split_key, side_of
from tutelage.feedback.segment import corrected, learning_summary, trainable
from tutelage.feedback.signals import read_feedback
from tutelage.store.artifacts import SplitRow
from tutelage.store.base import Store, open_store
from tutelage.store.records import RecordRow, SignalRow
from tutelage.workflows.serving.serve import Serving

FAMILY = OutputFormat("family", ("warm", "cold"))


def post(url: str, body: Any) -> tuple[int, Any]:
    request = urllib.request.Request(
        url, json.dumps(body).encode(), {"content-type": "application/json"}
    )
    try:
        with urllib.request.urlopen(request, timeout=60) as response:
            return response.status, json.loads(response.read())
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read())


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = open_store(f"sqlite:///{tmp_path / 'store.db'}")
    yield store
    store.close()


def add(store: Store, number: int, split: str, text: str, edit: str | None = None) -> None:
    record = f"rec_{number}"
    with store.begin() as session:
        session.add(
            RecordRow(
                id=record, deployment="d", release="r", arm="stable", split=split, group_key="g",
                messages=[{"role": "user", "content": text}], response="", finish_reason="stop",
                status=200, latency_ms=1, prompt_tokens=1, completion_tokens=1, checks={},
                at=utc_now(),
            )
        )  # fmt: skip
        if edit is not None:
            for row in read_feedback({"record_id": record, "edit": edit}, FAMILY).rows:
                session.add(SignalRow(**row))


def test_an_edit_becomes_an_example_with_its_origin(store: Store) -> None:
    add(store, 1, "train", "the sun", "warm")
    (item,) = trainable(store, FAMILY)
    assert item.example.input_text == "the sun"
    assert item.example.answer == '{"family": "warm"}'
    assert item.example.label == "warm"
    assert item.example.origin.kind == "production"
    assert item.example.origin.source == "rec_1"


def test_held_out_rows_and_their_twins_are_never_trainable(store: Store) -> None:
    add(store, 1, "train", "the sun", "warm")
    add(store, 2, "test", "the moon", "cold")
    add(store, 3, "train", "The  MOON", "cold")  # the same input, on the train side
    add(store, 4, "validation", "snow", "cold")
    add(store, 5, "train", "embers", "warm")
    ready = {i.record for i in trainable(store, FAMILY, held_out=["Embers"])}
    assert ready == {"rec_1"}


def test_rows_of_a_dataset_version_are_not_counted_again(store: Store) -> None:
    add(store, 1, "train", "the sun", "warm")
    (item,) = trainable(store, FAMILY)
    with store.begin() as session:
        session.add(SplitRow(example_id=item.example.id, split="train", cluster="c"))
    assert trainable(store, FAMILY) == []
    assert learning_summary(store, FAMILY)["edits"] == 0


def test_the_summary_says_where_the_loop_stands(store: Store) -> None:
    assert learning_summary(store)["sentence"] == "no production records yet"
    for number, split in enumerate(["train", "train", "train", "validation", "test"]):
        add(store, number, split, f"thing {number}", "cold")
    add(store, 9, "train", "unseen")
    add(store, 10, "train", "thing 4", "warm")
    add(store, 11, "train", "thing 4", "cold")
    summary = learning_summary(store)
    assert summary["train"] == 3
    assert summary["sentence"] == (
        "8 records, 6 corrected answers: 3 train, 1 validation, 1 test "
        "(1 kept out of training: the same input is held out)"
    )


def test_feedback_over_http_is_durable_repeatable_and_may_come_early(tmp_path: Path) -> None:
    with FakeBackend() as backend:
        ctx = gateway_project(tmp_path / "project", backend.url)
        with Serving(ctx) as serving:
            ask = {"model": "colours", "messages": [{"role": "user", "content": "ice"}]}
            record = post(f"{serving.base_url}/v1/chat/completions", ask)[1]["id"]
            url = f"{serving.base_url}/v1/feedback"
            note = {"response_id": record, "rating": "down", "edit": "cold", "comment": "no"}
            assert post(url, note) == (
                200,
                {"object": "feedback", "record_id": record, "kept": ["rating", "edit", "comment"]},
            )
            with ctx.store.session() as session:  # acknowledged, so it is there already
                assert session.query(SignalRow).count() == 3
            assert post(url, note)[0] == 200
            status, answer = post(url, {"record_id": "rec_early", "signals": ["reslved"]})
            assert (status, answer["undeclared"]) == (200, {"reslved": "resolved"})
            status, answer = post(url, {"record_id": record, "rating": "great"})
            assert (status, answer["error"]["code"]) == (400, "invalid_feedback")
        with ctx.store.session() as session:
            assert session.query(SignalRow).count() == 4
        (item,) = corrected(ctx.store, FAMILY)
        assert item.example.answer == '{"family": "cold"}'
        ctx.store.close()


def test_the_side_of_a_record_is_the_keyed_hash_of_its_group(tmp_path: Path) -> None:
    with FakeBackend() as backend:
        ctx = gateway_project(tmp_path / "project", backend.url)
        groups = {f"patient-{n}" for n in range(30)}
        with Serving(ctx) as serving:
            for group in sorted(groups):
                for text in ("ice", "fire"):
                    ask = {
                        "model": "colours",
                        "messages": [{"role": "user", "content": f"{group} {text}"}],
                        "metadata": {"group": group},
                    }
                    assert post(f"{serving.base_url}/v1/chat/completions", ask)[0] == 200
        key = load_split_key(ctx.workspace)
        with ctx.store.session() as session:
            rows = list(session.query(RecordRow))
        assert len(rows) == 60
        for row in rows:
            group = row.messages[0]["content"].split(" ")[0]
            assert row.split == side_of(key, group, Splits())
        assert {row.split for row in rows} == {"train", "validation", "test"}
        ctx.store.close()
