"""The rows of a turn: erased meanwhile, with odd letters in them, corrected by several people."""

from __future__ import annotations

import json
from datetime import timedelta

import pytest
from tests.unit.workflows.killed_turn import parts
from tests.unit.workflows.test_improve import ASKED, ctx

from tutelage.core.artifact import Artifact, describe, utc_now
from tutelage.core.example import SPLITS
from tutelage.data.version import VersionDraft, bury_version, load_version, write_version
from tutelage.store.annotations import AnnotatorRow
from tutelage.store.artifacts import StageRow
from tutelage.store.records import RecordRow, SignalRow
from tutelage.workflows.context import Context, last_output, register
from tutelage.workflows.curate import curate
from tutelage.workflows.data.experts import Given, submit, todo
from tutelage.workflows.data.experts_publish import publish
from tutelage.workflows.feedback.mine_queue import mine_and_give
from tutelage.workflows.improve import improve as loop
from tutelage.workflows.improve import improve_rows, improve_start
from tutelage.workflows.improve import improve_turns as kept
from tutelage.workflows.improve.improve_turns import Move
from tutelage.workflows.living import living

__all__ = ["ctx"]


def _erase(ctx: Context, artifact: Artifact) -> Artifact:
    """Let a version without its first row take the place of one, as forgetting a user does."""
    old = load_version(ctx.path_of(artifact))
    rows = {split: old.rows(split)[split == "train" :] for split in SPLITS}
    ids = {row.id for split in SPLITS for row in rows[split]}
    clusters = {name: at for name, at in old.clusters.items() if name in ids}
    new = write_version(old.directory.parent, VersionDraft(rows, clusters))
    bury_version(old.directory, new.hash, 1)
    path = ctx.workspace.relative(new.directory)
    made = register(ctx.store, describe("dataset", new.hash, path, parents=[old.hash]))
    with ctx.store.begin() as session:
        session.get_one(StageRow, "curate").output = new.hash
    return made


def _ask_nobody(ctx: Context) -> None:
    with ctx.store.begin() as session:
        for row in session.query(AnnotatorRow):
            row.active = False


def test_a_turn_goes_on_from_the_version_that_took_an_erased_ones_place(ctx: Context) -> None:
    """What it builds on was erased: only what came since counts as new."""
    first = last_output(ctx, "curate")
    assert first is not None
    _ask_nobody(ctx)
    turn = kept.begin(ctx.store, "colours", "a test", {"previous": first.hash})
    found = _erase(ctx, first)
    kept.move(ctx.store, turn, Move("dataset", "on"))
    ended = loop.improve(ctx, parts=parts())
    assert 2 <= sum(ended.facts["new"].values()) <= 3
    assert living(ctx, first) == found


@pytest.mark.parametrize("state", ["start", "train", "gate", "release"])
def test_a_candidate_that_learned_erased_rows_is_not_released(ctx: Context, state: str) -> None:
    """Rows of its data set are erased in the middle of a turn: it trains again, without them."""
    seen: list[str] = []
    real = dict(parts())

    def note(ctx: Context, turn: kept.Turn) -> Move:
        seen.append(turn.facts["dataset"])
        return real["train"](ctx, turn)

    turn = kept.begin(ctx.store, "colours", "a test", {"previous": curate(ctx).artifact.hash})
    first = last_output(ctx, "curate")
    assert first is not None
    kept.move(ctx.store, turn, Move("start", "on", {"dataset": first.hash}))
    loop.improve(
        ctx,
        parts={**real, "train": note, state: lambda ctx, turn: Move(state, "x", waits="a test")},
    )
    new = _erase(ctx, first)
    done = loop.improve(ctx, parts={**real, "train": note})
    assert (done.state, done.facts["dataset"]) == ("done", new.hash)
    assert seen[-1] == new.hash
    told = [row["reason"] for row in kept.journal(ctx.store, turn.id)]
    assert "rows of the data set were erased since: training begins anew without them" in told


def test_weights_that_learned_erased_rows_are_not_gone_on_from(ctx: Context) -> None:
    """Not even where another version that they were trained on is still there."""
    first = last_output(ctx, "curate")
    assert first is not None
    other = _erase(ctx, first)
    made = describe("adapter", "a" * 64, "adapters/a", parents=[first.hash, other.hash],
                    meta={"model": ctx.config.model, "recipe": {}})  # fmt: skip
    version = load_version(ctx.path_of(other))
    bar = improve_start.barrier(ctx, made, version)
    assert bar == "the rows that it was trained on are not known any more"


def test_a_line_separator_inside_a_request_ends_no_line(ctx: Context) -> None:
    """Browsers send U+2028 and U+0085; the file of edits is read again in the next turn."""
    with ctx.store.begin() as session:
        for number in (0, 2):
            row = session.get_one(RecordRow, f"r{number}")
            text = f"{ASKED[number]}\u2028in the\x85evening"
            row.messages = [{"role": "user", "content": text}]
    judged = [one for one in improve_rows.edits(ctx) if one.accepted]
    path = improve_rows.write_edits(ctx, judged)
    assert path is not None
    assert improve_rows.write_edits(ctx, judged) is None, "they are there already"
    mine_and_give(ctx, ["anna"], 10)
    for shown in todo(ctx, "anna"):
        submit(ctx, Given(shown.item, "anna", label="cold"))
    assert publish(ctx)["new"]
    assert not publish(ctx)["new"], "what was published is read again"


def _edits(ctx: Context, *said: tuple[int, str, str]) -> dict[str, tuple[bool, str]]:
    """Keep edits (record, label, author), one a minute; return what counts of each record."""
    review = ctx.config.improve.review.model_copy(update={"edits": "agreed"})
    improve = ctx.config.improve.model_copy(update={"review": review})
    asked = Context(ctx.workspace, ctx.config.model_copy(update={"improve": improve}), ctx.store)
    began = utc_now()
    with ctx.store.begin() as session:
        session.query(SignalRow).delete()
        for place, (number, label, author) in enumerate(said):
            value = {"value": json.dumps({"family": label})}
            session.add(SignalRow(key=f"s{place}", record=f"r{number}", kind="edit", explicit=True,
                                  author=author, value=value,
                                  at=began + timedelta(minutes=place)))  # fmt: skip
    return {one.edit.record: (one.accepted, one.edit.value) for one in improve_rows.edits(asked)}


def test_two_people_who_correct_the_same_answer_alike_are_two(ctx: Context) -> None:
    """On one record or on two that ask the same; one person who says it twice is one."""
    with ctx.store.begin() as session:
        twin = session.get_one(RecordRow, "r5")
        twin.messages, twin.split = [{"role": "user", "content": ASKED[2]}], "train"
    found = _edits(
        ctx, (0, "cold", "ann"), (0, "cold", "ben"), (1, "cold", "ann"), (1, "cold", "ann"),
        (2, "cold", "ann"), (5, "cold", "cat"),
    )  # fmt: skip
    assert (found.pop("r0"), found.pop("r1")) == ((True, "cold"), (False, "cold"))
    assert list(found.values()) == [(True, "cold")], "and the request is one row"


def test_where_as_many_people_say_something_else_nobody_is_right(ctx: Context) -> None:
    """Two against one count, whoever spoke last; two against two do not."""
    found = _edits(
        ctx, (0, "cold", "ann"), (0, "cold", "ben"), (0, "warm", "cat"), (1, "cold", "ann"),
        (1, "cold", "ben"), (1, "warm", "cat"), (1, "warm", "dan"),
    )  # fmt: skip
    assert found["r0"] == (True, "cold")
    assert not found["r1"][0]


def test_a_turn_that_finds_too_little_says_what_does_not_count(ctx: Context) -> None:
    """Edits of strangers are no rows, and the journal says why."""
    _ask_nobody(ctx)
    review = ctx.config.improve.review.model_copy(update={"edits": "agreed"})
    improve = ctx.config.improve.model_copy(update={"review": review})
    asked = Context(ctx.workspace, ctx.config.model_copy(update={"improve": improve}), ctx.store)
    turn = loop.improve(asked, parts=parts())
    assert kept.journal(ctx.store, turn.id)[-1]["reason"] == (
        "0 new rows, 3 make a turn worthwhile; 2 edits do not count, because its author is not "
        "trusted yet, and nobody else says the same"
    )
