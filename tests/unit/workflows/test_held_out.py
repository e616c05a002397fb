"""A production row that turns out to be a twin of a test row leaves versions and training."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from tutelage.core.artifact import utc_now
from tutelage.core.errors import DataError
from tutelage.core.example import SPLITS
from tutelage.core.workspace import atomic_write
from tutelage.data.version import DROPPED, load_version
from tutelage.store.records import RecordRow
from tutelage.training.recipe import Recipe
from tutelage.workflows.context import Context, open_context
from tutelage.workflows.curate import curate
from tutelage.workflows.feedback.feedback import add as say
from tutelage.workflows.feedback.segment import hold_apart, ready_rows
from tutelage.workflows.training.plan import make_job

WARM, COLD = "sun fire lava ember toast oven desert", "ice snow frost glacier hail sleet winter"
ASKED = "a very hot cup of tea with milk"


@pytest.fixture
def ctx(tmp_path: Path) -> Context:
    rows = [
        {"input": f"the {word} of a {place} day", "output": label}
        for label, words in (("warm", WARM), ("cold", COLD))
        for word in words.split()
        for place in ("march", "tuesday")
    ]
    learnt = {"input": ASKED, "output": "warm", "origin": {"kind": "production"}, "record": "rec_1"}
    lines = "\n".join(map(json.dumps, [*rows, learnt]))
    atomic_write(tmp_path / "data" / "rows.jsonl", lines.encode())
    settings = "name: things\ntask: classification\nmodel: demo\n"
    atomic_write(tmp_path / "tutelage.yaml", settings.encode())
    return open_context(tmp_path)


def add(ctx: Context, name: str, split: str, text: str) -> None:
    with ctx.store.begin() as session:
        session.add(
            RecordRow(
                id=name, deployment="d", release="r", arm="stable", split=split, group_key="g",
                messages=[{"role": "user", "content": text}], response="", finish_reason="stop",
                status=200, latency_ms=1, prompt_tokens=1, completion_tokens=1, checks={},
                at=utc_now(),
            )
        )  # fmt: skip


def test_a_row_that_became_held_out_is_refused_and_then_left_out(
    ctx: Context, tmp_path: Path
) -> None:
    add(ctx, "rec_1", "train", ASKED)
    first = load_version(ctx.path_of(curate(ctx).artifact))
    assert ASKED in [row.input_text for row in first.rows("train")]
    make_job(ctx, first, Recipe(), tmp_path)
    add(ctx, "rec_2", "test", ASKED.replace("cup", "cups"))
    assert hold_apart(ctx, everything=True)["moved"] == 1
    with pytest.raises(DataError) as caught:
        make_job(ctx, first, Recipe(), tmp_path)
    assert "nearly equal to rec_2 on the test side" in caught.value.sentence()
    second = load_version(ctx.path_of(curate(ctx).artifact))
    assert ASKED not in [row.input_text for row in second.rows("train")]
    assert "nearly equal to rec_2" in (second.directory / DROPPED).read_text()
    make_job(ctx, second, Recipe(), tmp_path)
    assert curate(ctx).skipped


def test_a_held_out_record_that_comes_back_in_a_file_is_not_trained_on(ctx: Context) -> None:
    """Exported to judge another model, say, and put among the sources."""
    curate(ctx)
    things = ["violin", "harbour", "pepper", "island", "cactus", "mirror", "rocket", "saddle"]
    asked = [f"{thing} {thing[::-1]} {number * 7919}" for number, thing in enumerate(things, 1)]
    for number, text in enumerate(asked):
        add(ctx, f"rec_{number}", ("test", "validation")[number % 2], text)
    path = ctx.workspace.root / "data" / "back.jsonl"
    path.write_text("".join(json.dumps({"input": text, "output": "warm"}) + "\n" for text in asked))
    said: list[str] = []
    listening = replace(ctx, emit=lambda event: said.append(event.message))
    version = load_version(ctx.path_of(curate(listening).artifact))
    assert any(one.startswith("8 rows of files ask what production asked") for one in said)
    inputs = {split: {row.input_text for row in version.rows(split)} for split in SPLITS}
    assert not inputs["train"] & set(asked)
    assert set(asked[::2]) <= inputs["test"]
    assert set(asked[1::2]) <= inputs["validation"]


def test_twins_of_the_frozen_test_rows_are_not_ready(ctx: Context) -> None:
    version = load_version(ctx.path_of(curate(ctx).artifact))
    held = version.rows("test")[0].input_text
    add(ctx, "rec_7", "train", f"{held}!")
    add(ctx, "rec_8", "train", "something that nobody has asked before")
    for record in ("rec_7", "rec_8"):
        say(ctx, {"record_id": record, "edit": "warm"})
    assert [item.record for item in ready_rows(ctx)] == ["rec_8"]
    assert hold_apart(ctx)["by_side"] == {"test": 1}
