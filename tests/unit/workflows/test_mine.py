"""Mining on whole projects: from records to ranked reasons, the label queue and the test side."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sqlalchemy import func, select
from tests.unit.workflows.test_learning import CONFIG, lines, things
from typer.testing import CliRunner

import tutelage
from tutelage.cli.main import app
from tutelage.core.artifact import utc_now
from tutelage.core.errors import ConfigError, DataError
from tutelage.feedback.segment import corrected, trainable
from tutelage.feedback.signals import read_feedback
from tutelage.release.deployments import ensure_deployment
from tutelage.store.annotations import BatchRow
from tutelage.store.artifacts import SplitRow
from tutelage.store.feedback import SideMoveRow
from tutelage.store.judgements import JudgeVerdictRow
from tutelage.store.mining import MinedRecordRow
from tutelage.store.records import RecordRow, SignalRow
from tutelage.store.releases import ReleaseRow
from tutelage.store.scores import ScoreRow
from tutelage.workflows.context import Context, open_context
from tutelage.workflows.curate import curate
from tutelage.workflows.data.experts import Given, submit, todo
from tutelage.workflows.data.experts_people import add_annotators
from tutelage.workflows.data.experts_publish import publish
from tutelage.workflows.data.experts_rows import newest_version
from tutelage.workflows.feedback import mine_known
from tutelage.workflows.feedback.mine import mine
from tutelage.workflows.feedback.mine_queue import give_out, looks, mine_and_give, show
from tutelage.workflows.feedback.mine_similar import applied, apply, similar, undo

MakeProject = Callable[..., Path]
WARM, COLD = '{"family": "warm"}', '{"family": "cold"}'


@pytest.fixture
def ctx(make_project: MakeProject) -> Context:
    root = make_project({"rows.jsonl": lines(things(80))}, CONFIG % "demo")
    opened = open_context(root)
    curate(opened)
    return opened


def call(*arguments: str) -> tuple[int, str, str]:
    done = CliRunner().invoke(app, list(arguments))
    return done.exit_code, done.stdout, " ".join(done.stderr.split())


def add(ctx: Context, name: str, text: str, response: str = WARM, **changed: Any) -> None:
    row = {
        "deployment": "d", "release": "r1", "arm": "stable", "split": "train", "group_key": "g",
        "finish_reason": "stop", "status": 200, "latency_ms": 1, "prompt_tokens": 1,
        "completion_tokens": 1, "checks": {}, "at": utc_now() - timedelta(minutes=5),
    } | changed  # fmt: skip
    with ctx.store.begin() as session:
        turns = [{"role": "user", "content": text}]
        session.add(RecordRow(id=name, messages=turns, response=response, **row))


def say(ctx: Context, record: str, **body: Any) -> None:
    output = ctx.config.output.format()
    with ctx.store.begin() as session:
        for row in read_feedback({"record_id": record, **body}, output).rows:
            session.add(SignalRow(**row))


def kinds(row: Any) -> list[str]:
    return [reason.kind for reason in row.reasons]


def test_every_signal_gives_its_reason_in_words(ctx: Context) -> None:
    add(ctx, "form", "ember on the hill by the road", "warm, I think")
    add(ctx, "rated", "snow on the lake by the town")
    say(ctx, "rated", rating=0, signals={"escalated": True})
    add(ctx, "two", "candle in the harbour at the wall", WARM)
    add(ctx, "two-shadow", "candle in the harbour at the wall", COLD, arm="shadow", release="r2")
    add(ctx, "odd", "quarterly tax return of a limited company")
    add(ctx, "against", "glacier and fjord and frost near the snow", WARM)
    add(ctx, "judged", "lava and fire near the desert and chili", WARM)
    add_live(ctx, "judged")
    add(ctx, "wavered", "sunset on the wall of the garden", WARM, entropy=0.9)
    found = {row.record: row for row in mine(ctx, budget=20, held_out=0).rows}
    assert found["form"].reasons[0].words == "the answer can't be used: not JSON"
    assert found["rated"].reasons[0].words == "users: rating 0, escalated"
    assert found["judged"].reasons[0].words == "live evaluation gave judge 0"
    judges = next(r for r in found["judged"].reasons if r.kind == "disagreement")
    assert "judges differ on helpful: big 4, small 1" in judges.words
    wavered = next(r for r in found["wavered"].reasons if r.kind == "uncertainty")
    assert wavered.words.startswith("the model wavered: 0.90 nats a token")
    differ = next(r for r in found["two"].reasons if r.kind == "disagreement")
    assert differ.words == "releases differ: r1 says 'warm', r2 says 'cold'"
    odd = next(r for r in found["odd"].reasons if r.kind == "novelty")
    assert odd.words.startswith("unlike the dataset: its nearest row is ")
    said = next(r for r in found["against"].reasons if r.kind == "disagreement")
    assert said.words.startswith("the model said 'warm', the dataset's rows say 'cold' (")
    assert "two-shadow" not in found
    assert [row.rank for row in found.values()] == list(range(1, len(found) + 1))
    assert found["rated"].score > found["odd"].score > 0


def add_live(ctx: Context, record: str) -> None:
    from tutelage.store.live import LiveRow

    at = utc_now() - timedelta(minutes=4)
    with ctx.store.begin() as session:
        session.add(
            LiveRow(record=record, deployment="d", release="r1", arm="stable", at=at, state="done")
        )
        session.add(
            JudgeVerdictRow(
                key="k1",
                judge="big",
                criterion="helpful",
                item=record,
                outcome="4",
                reply="",
                prompt_tokens=1,
                completion_tokens=1,
            )
        )
        session.add(
            JudgeVerdictRow(
                key="k2",
                judge="small",
                criterion="helpful",
                item=record,
                outcome="1",
                reply="",
                prompt_tokens=1,
                completion_tokens=1,
            )
        )
        session.add(
            ScoreRow(item=record, candidate="r1", metric="judge", value=0.0, evidence={},
                     source="judge")
        )  # fmt: skip


def test_what_needs_no_label_is_left_out_and_counted(ctx: Context) -> None:
    add(ctx, "known", things(80)[3]["text"].upper(), "broken")
    add(ctx, "edited", "an edited text of the harbour", "broken")
    add_annotators(ctx, ["anna"])
    say(ctx, "edited", edit="warm", author="anna")
    add(ctx, "twice", "a text that two people corrected", "broken")
    say(ctx, "twice", edit="warm", author="user-1")
    say(ctx, "twice", edit="warm", author="user-2")
    add(ctx, "once", "a text that one user corrected")
    say(ctx, "once", edit="cold", author="user-1")
    add(ctx, "bare", "", "broken")
    add(ctx, "refused", "a refused text", "broken", status=429)
    add(ctx, "wanted", "a text that is wanted", "broken")
    found = mine(ctx, budget=5, held_out=0)
    assert {row.record for row in found.rows} == {"wanted", "once"}
    once = next(row for row in found.rows if row.record == "once")
    assert once.reasons[0].words == "users: corrected"
    assert found.left_out == {
        "a row of the dataset already": 1,
        "corrected by an expert, or by two people alike": 2,
        "kept without texts, or not ending with a question": 1,
    }
    assert found.records == 6
    kept = show(ctx)
    assert kept.rows == found.rows
    assert kept.left_out == found.left_out


def test_a_turn_of_the_loop_mines_and_gives_out_in_one_call(ctx: Context) -> None:
    add(ctx, "a", "smouldering coals of the tower", "broken")
    add_annotators(ctx, ["anna", "ben"])
    given = mine_and_give(ctx, ["anna", "ben"], 5)
    assert given["items"] == 1
    assert given["why"] == ["the answer can't be used: not JSON"]
    with ctx.store.session() as session:
        assert session.get_one(BatchRow, given["batch"]).source == "mined"


def test_a_complaint_of_many_askings_says_less_than_one_of_one(ctx: Context) -> None:
    for number in range(8):
        add(ctx, f"often{number}", "ember and lava near the tower", WARM)
    add(ctx, "once", "fire and coal near the tower", WARM)
    for record in ("often7", "once"):
        say(ctx, record, signals={"escalated": True})
    found = {row.record: row for row in mine(ctx, budget=5, held_out=0).rows}
    assert found["once"].score > 2 * found["often7"].score
    assert any(reason.words == "users: escalated" for reason in found["often7"].reasons)


def test_the_newest_answer_is_the_one_that_is_looked_at(ctx: Context) -> None:
    """A release that has learned better since is not blamed for what the one before said."""
    at = utc_now() - timedelta(days=9)
    add(ctx, "before", "glacier and fjord and frost near the snow", WARM, at=at)
    add(ctx, "now", "glacier and fjord and frost near the snow", COLD, release="r2")
    (row,) = mine(ctx, budget=5, held_out=0).rows
    assert row.record == "now"
    assert not any(reason.words.startswith("the model said") for reason in row.reasons)


def test_a_complaint_of_a_release_that_serves_no_more_says_less_and_says_so(ctx: Context) -> None:
    for name, release in (("of-before", "r1"), ("of-now", "r2")):
        add(ctx, name, f"ember and lava near the tower {release}", WARM, release=release)
        say(ctx, name, signals={"escalated": True})
    deploy(ctx, "r2")
    found = {row.record: row for row in mine(ctx, budget=5, held_out=0, explore=0).rows}
    assert found["of-now"].score > 2 * found["of-before"].score
    assert "users: escalated" in [reason.words for reason in found["of-now"].reasons]
    before = [reason.words for reason in found["of-before"].reasons]
    assert "users: escalated (of r1, which serves no more)" in before


def deploy(ctx: Context, release: str) -> None:
    with ctx.store.begin() as session:
        session.add(ReleaseRow(id=release, name=release, kind="base", manifest={}, path=""))
    ensure_deployment(ctx.store, "d", release)


def test_what_was_asked_lately_goes_first(ctx: Context) -> None:
    at = utc_now() - timedelta(days=360)
    for number in range(6):
        add(ctx, f"old{number}", f"ember and lava near the tower {number}", "broken", at=at)
    add(ctx, "new", "snow and hail near the bridge", "broken")
    found = mine(ctx, budget=3, held_out=0, explore=0)
    assert found.rows[0].record == "new"
    lately = mine(ctx, budget=9, held_out=0, since=utc_now() - timedelta(days=7))
    assert [row.record for row in lately.rows] == ["new"]


def test_held_out_rows_are_drawn_at_random_and_one_side_rules_a_text(ctx: Context) -> None:
    for number in range(8):
        add(ctx, f"test{number}", f"held out text {number} of the tower", "broken", split="test")
    add(ctx, "twin", "held out text 0 of the tower", "broken")
    add(ctx, "train", "a train text of the tower", "broken")
    found = mine(ctx, budget=10, held_out=0.4, explore=0)
    sides = {row.record: row.split for row in found.rows}
    assert sides.pop("train") == "train"
    assert "test0" not in sides, "a text is asked for once, by its newest record"
    assert set(sides.values()) == {"test"}
    assert len(sides) >= 4
    first = next(row for row in found.rows if row.split == "test")
    assert first.reasons[0].words == "drawn at random for the test side: to judge, not train"


def test_mined_rows_are_labelled_and_a_test_row_goes_to_the_test_set_alone(ctx: Context) -> None:
    add(ctx, "a", "smouldering coals of the tower", "broken")
    add(ctx, "b", "a held out snowdrift", "broken", split="test")
    add_annotators(ctx, ["anna"])
    root = str(ctx.workspace.root)
    code, out, _ = call("mine", "run", "-n", "2", "--held-out", "0.5", "--explore", "0",
                        "--to", "anna", "--json", "-p", root)  # fmt: skip
    assert code == 0
    data = json.loads(out)
    assert {row["record"]: row["split"] for row in data["rows"]} == {"a": "train", "b": "test"}
    assert looks(ctx)[0]["batch"] == data["batch"]
    for shown in todo(ctx, "anna"):
        label = "warm" if "coals" in shown.text else "cold"
        submit(ctx, Given(shown.item, "anna", label=label))
    assert looks(ctx)[0]["answered"] == 2
    with pytest.raises(DataError, match="none is left to label: 2 given to experts already"):
        mine(ctx, budget=2)
    with pytest.raises(DataError, match="were given out before"):
        give_out(ctx, None, ("anna",))
    assert publish(ctx)["new"] == 2
    config = ctx.workspace.config_path
    config.write_text(config.read_text().replace("[data/rows.jsonl]", "[data/*.jsonl]"))
    again = open_context(ctx.workspace.root)
    curate(again)
    version = newest_version(again)
    assert version is not None
    texts = {side: [row.input_text for row in version.rows(side)]
             for side in version.splits}  # fmt: skip
    assert "a held out snowdrift" in texts["test"]
    assert "smouldering coals of the tower" in texts["train"]


def test_a_look_that_finds_nothing_left_says_so_with_any_embedder(
    ctx: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The cache of a model's vectors can't know how wide they are where there are none."""

    def make(*asked: Any) -> mine_known.Bench:
        bench = mine_known.make_bench(*asked)
        none = np.zeros((0, 1), np.float32)
        return replace(bench, project=lambda texts: bench.project(texts) if texts else none)

    monkeypatch.setattr("tutelage.workflows.feedback.mine.make_bench", make)
    add(ctx, "a", "smouldering coals of the tower", "broken")
    add_annotators(ctx, ["anna"])
    mine_and_give(ctx, ["anna"], 2)
    with pytest.raises(DataError, match="none is left to label: 1 given to experts already"):
        mine(ctx, budget=2)


def test_a_request_that_was_moved_while_it_was_labelled_is_not_trained_on(ctx: Context) -> None:
    """It turned out to be a twin of a held-out row after it was given out as a train row."""
    add(ctx, "a", "smouldering coals of the tower", "broken")
    add_annotators(ctx, ["anna"])
    mine_and_give(ctx, ["anna"], 1)
    with ctx.store.begin() as session:
        session.get_one(RecordRow, "a").split = "test"
    (shown,) = todo(ctx, "anna")
    submit(ctx, Given(shown.item, "anna", label="warm"))
    assert publish(ctx)["new"] == 1
    with ctx.store.session() as session:
        (side,) = session.scalars(select(SplitRow.split).where(SplitRow.reason == "production"))
    assert side == "test"


def test_a_published_request_that_is_moved_later_leaves_training(ctx: Context) -> None:
    """Its row names its record in what was told of the answer, not as its source."""
    add(ctx, "a", "smouldering coals of the tower", "broken")
    with ctx.store.begin() as session:
        session.get_one(RecordRow, "a").split = "train"
    add_annotators(ctx, ["anna"])
    mine_and_give(ctx, ["anna"], 1)
    (shown,) = todo(ctx, "anna")
    submit(ctx, Given(shown.item, "anna", label="warm"))
    publish(ctx)
    config = ctx.workspace.config_path
    config.write_text(config.read_text().replace("[data/rows.jsonl]", "[data/*.jsonl]"))
    again = open_context(ctx.workspace.root)

    def trained_on() -> list[str]:
        curate(again)
        version = newest_version(again)
        assert version is not None
        return [row.input_text for row in version.rows("train")]

    assert "smouldering coals of the tower" in trained_on()
    with ctx.store.begin() as session:
        session.get_one(RecordRow, "a").split = "test"
        session.add(SideMoveRow(record="a", before="train", after="test", how="near",
                                similarity=0.9, twin="b"))  # fmt: skip
    assert "smouldering coals of the tower" not in trained_on()


@pytest.fixture
def alike(make_project: MakeProject) -> Context:
    ctx = open_context(make_project({"rows.jsonl": lines(things(40))}, CONFIG % "demo"))
    add(ctx, "first", "my card was declined at the shop in 5 minutes", WARM)
    add(ctx, "same", "my card was declined in the shop in 5 minutes", WARM)
    add(ctx, "right", "my card was declined at a shop in 5 minutes", COLD)
    add(ctx, "held", "my card is declined at the shop in 5 minutes", WARM, split="test")
    add(ctx, "number", "my card was declined at the shop in 50 minutes", WARM)
    add(ctx, "far", "the lava of a desert", WARM)
    say(ctx, "first", edit="cold", author="anna")
    return ctx


def test_a_correction_is_shown_applied_to_similar_rows_and_taken_back(alike: Context) -> None:
    before = len(corrected(alike.store))
    found = similar(alike, "first", threshold=0.7)
    assert 0 < found.nearest_below < 0.7
    status = {row.record: row.status for row in found.rows}
    assert status == {
        "same": "",
        "right": "answered so already",
        "held": "held out: only a person who looks at it may label it",
    }
    assert len(corrected(alike.store)) == before  # a preview changes nothing
    done = apply(alike, found, "anna")
    assert done.batch is not None
    labelled = {item.record: item for item in corrected(alike.store)}
    assert labelled["same"].example.answer == COLD
    assert labelled["same"].example.origin.author == "anna"
    assert {item.record for item in trainable(alike.store)} <= {"first", "same"}
    assert applied(alike)[0]["rows"] == 1
    assert undo(alike, done.batch) == 1
    assert undo(alike, done.batch) == 0
    assert len(corrected(alike.store)) == before
    assert applied(alike)[0]["undone"]


def test_taking_back_leaves_what_its_author_said_again(alike: Context) -> None:
    from tutelage.workflows.feedback import feedback

    done = apply(alike, similar(alike, "first", threshold=0.7), "anna")
    feedback.add(alike, {"record_id": "same", "edit": "cold", "author": "anna"})
    assert undo(alike, str(done.batch)) == 0
    assert "same" in {item.record for item in corrected(alike.store)}


def test_applying_twice_counts_once_and_an_own_edit_is_never_replaced(alike: Context) -> None:
    found = similar(alike, "first", threshold=0.7)
    apply(alike, found, "anna")
    with pytest.raises(DataError, match="no request that the correction applies to"):
        apply(alike, similar(alike, "first", threshold=0.7), "anna")
    apply(alike, found, "anna")  # the preview of before, once more
    with alike.store.session() as session:
        edits = session.scalar(
            select(func.count()).select_from(SignalRow).where(SignalRow.record == "same")
        )
    assert edits == 1


def test_the_command_line_shows_a_preview_first(alike: Context) -> None:
    root = str(alike.workspace.root)
    code, out, _ = call("mine", "similar", "first", "-t", "0.7", "-p", root)
    assert code == 0
    assert "3 requests are alike from cosine 0.7 on, 1 would be corrected" in " ".join(out.split())
    assert "add --apply --author NAME" in out
    code, out, _ = call("mine", "similar", "far", "--label", "cold", "-t", "0.95", "--apply",
                        "--author", "anna", "-p", root)  # fmt: skip
    assert code == 2
    code, out, _ = call("mine", "similar", "first", "-t", "0.7", "--apply", "--author", "anna",
                        "--json", "-p", root)  # fmt: skip
    batch = json.loads(out)["batch"]
    assert call("mine", "undo", batch, "-p", root)[1].strip() == f"1 corrections of {batch} removed"
    assert batch in call("mine", "applied", "-p", root)[1]


BAD_INPUT = (
    (("similar", "nobody"), "there is no record 'nobody'"),
    (("similar", "far"), "nobody has corrected this record"),
    (("similar", "far", "--label", "lukewarm"), "Did you mean 'warm'?"),
    (("similar", "far", "--label", "cold", "-t", "0.2"), "a threshold of 0.2"),
    (("undo", "nothing"), "there is no applied correction 'nothing'"),
    (("show",), "nothing was mined yet"),
    (("show", "nothing"), "there is no look 'nothing'"),
    (("assign", "--to", "nobody"), "'nobody'"),
    (("run", "--to", "nobody"), "'nobody'"),
    (("run", "--since", "soon"), "'soon' is no length of time"),
    (("run", "--held-out", "2"), "a share of 2 for held-out"),
    (("run", "--held-out", "0.8", "--explore", "0.8"), "together are more than 1"),
)


def test_bad_input_is_one_sentence(alike: Context) -> None:
    for arguments, said in BAD_INPUT:
        code, _, error = call("mine", *arguments, "-p", str(alike.workspace.root))
        assert code == 2
        assert said in error
        assert "Traceback" not in error


def test_without_traffic_or_dataset(make_project: MakeProject) -> None:
    root = make_project({"rows.jsonl": lines(things(40))}, CONFIG % "demo")
    project = tutelage.open(root)
    with pytest.raises(DataError, match="there is no record of production"):
        project.mining.run()
    with pytest.raises(ConfigError, match="a budget of 0 rows"):
        project.mining.run(0)
    add(project.context, "a", "no dataset knows this", "broken")
    found = project.mining.run(5, held_out=0)
    assert found.known == 0
    assert kinds(found.rows[0]) == ["failure"]
    with project.context.store.begin() as session:
        session.delete(session.get_one(RecordRow, "a"))
    assert project.mining.show().rows[0].text == ""
    assert project.mining.list()[0]["rows"] == 1
    with project.context.store.session() as session:
        assert session.scalar(select(MinedRecordRow.record)) == "a"


def test_free_answers_that_differ_are_compared_as_texts(make_project: MakeProject) -> None:
    config = CONFIG % "demo"
    config = config.replace("task: classification", "task: qa")
    config = config.replace("output: {field: family, labels: [warm, cold]}\n", "")
    root = make_project({"rows.jsonl": lines(things(40))}, config)
    ctx = open_context(root)
    near = ("the parcel comes on monday morning", "the parcel comes on monday mornings")
    far = ("the parcel comes on monday", "nobody knows, please ask the carrier")
    for number in range(2):
        add(ctx, f"near{number}", "when does my parcel come", near[number])
        add(ctx, f"far{number}", "where is my lost parcel", far[number])
    rows = {row.text: row for row in mine(ctx, budget=5, held_out=0, explore=0).rows}
    assert kinds(rows["where is my lost parcel"]) == ["uncertainty"]
    assert "when does my parcel come" not in rows or (
        rows["when does my parcel come"].score < rows["where is my lost parcel"].score
    )


def test_a_forgotten_user_leaves_no_mined_row(ctx: Context) -> None:
    from tutelage.workflows.feedback.forget import forget

    add(ctx, "theirs", "smouldering coals of the tower", "broken", user="customer-4711")
    add(ctx, "other", "a snowdrift near the bridge", "broken", user="customer-1")
    mine(ctx, budget=4, held_out=0)
    forget(ctx, "customer-4711")
    with ctx.store.session() as session:
        assert set(session.scalars(select(MinedRecordRow.record))) == {"other"}
    assert [row.record for row in show(ctx).rows] == ["other"]


def test_a_record_that_is_too_old_leaves_no_words_in_a_look(ctx: Context) -> None:
    from tutelage.serving.records.retention import delete_old

    add(ctx, "old", "smouldering coals of the tower", "broken answer")
    mine(ctx, budget=4, held_out=0)
    assert show(ctx).rows[0].reasons
    assert delete_old(ctx.store, utc_now()) == 1
    (row,) = show(ctx).rows
    assert (row.record, row.reasons, row.text) == ("old", (), "")
