"""A turn whose rows were erased meanwhile, and letters that other programs take for line ends."""

from __future__ import annotations

import pytest
from tests.unit.workflows.killed_turn import parts
from tests.unit.workflows.test_improve import ASKED, ctx

from tutelage.core.artifact import Artifact, describe
from tutelage.core.example import SPLITS
from tutelage.data.version import VersionDraft, bury_version, load_version, write_version
from tutelage.store.annotations import AnnotatorRow
from tutelage.store.artifacts import StageRow
from tutelage.store.records import RecordRow
from tutelage.workflows import improve as loop
from tutelage.workflows import improve_rows, improve_start
from tutelage.workflows import improve_turns as kept
from tutelage.workflows.context import Context, last_output, register
from tutelage.workflows.curate import curate
from tutelage.workflows.improve_turns import Move
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
        row = session.get_one(RecordRow, "r0")
        row.messages = [{"role": "user", "content": f"{ASKED[0]}\u2028in the\x85evening"}]
    judged = [one for one in improve_rows.edits(ctx) if one.accepted]
    path = improve_rows.write_edits(ctx, judged)
    assert path is not None
    assert improve_rows.write_edits(ctx, judged) is None, "they are there already"
