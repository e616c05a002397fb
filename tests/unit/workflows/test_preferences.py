"""Preferences of a project: gathered from everywhere, settled, kept off the test, frozen."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select
from tests.fakes.openai_backend import FakeBackend
from typer.testing import CliRunner

from tutelage.cli.main import app
from tutelage.core.artifact import utc_now
from tutelage.core.config import Endpoint
from tutelage.core.errors import DataError
from tutelage.core.events import Event
from tutelage.core.example import Message
from tutelage.data.annotation.items import item_id
from tutelage.data.preferences import Pair, length_bias, pair_id, settle
from tutelage.data.version import load_version
from tutelage.store.artifacts import SplitRow
from tutelage.store.preferences import ComparisonRow
from tutelage.store.records import RecordRow, SignalRow
from tutelage.workflows.context import Context, open_context
from tutelage.workflows.curate import curate
from tutelage.workflows.data.experts import Given, submit, todo
from tutelage.workflows.data.experts_draft import draft
from tutelage.workflows.data.experts_items import Order, assign
from tutelage.workflows.data.experts_people import add_annotators
from tutelage.workflows.data.preferences import collect, material, preference_dataset
from tutelage.workflows.project import Project

CONFIG = """\
name: desk
task: generation
model: demo
prompt: Answer as a polite clerk.
data:
  quality: {embedder: tfidf, outliers: false, label_errors: false}
"""
TOPICS = (
    "renewing a passport", "parking near the station", "the opening hours of the library",
    "a lost umbrella", "registering a dog", "the water bill", "a wedding in May",
    "moving to another flat", "a broken street lamp", "voting by letter", "a fishing licence",
    "the school holidays", "a noisy neighbour", "tax on a small shop", "recycling old paint",
    "a birth certificate", "renting the town hall", "the swimming pool", "a tree on my land",
    "the bus timetable",
)  # fmt: skip


def line(index: int, **more: str) -> str:
    topic = TOPICS[index]
    row = {
        "prompt": f"I have a question about {topic}.",
        "chosen": f"With pleasure: about {topic} ask at desk {index}.",
        "rejected": f"No idea about {topic}, number {index}.",
    }
    return json.dumps(row | more) + "\n"


@pytest.fixture
def root(make_project: Callable[..., Path]) -> Path:
    """Twenty pairs; the first input has two more worse answers, one of them equal."""
    again = line(0, rejected="Go away.") + line(1, rejected=json.loads(line(1))["chosen"] + " ")
    return make_project({"pairs.jsonl": "".join(map(line, range(20))) + again}, CONFIG)


@pytest.fixture
def ctx(root: Path) -> Iterator[Context]:
    opened = open_context(root)
    yield opened
    opened.store.close()


def topics_of(ctx: Context, side: Any) -> list[str]:
    rows = load_version(ctx.path_of(curate(ctx).artifact)).rows(side)
    return [row.messages[0].content for row in rows]


def test_pairs_of_files_keep_the_side_of_their_row(ctx: Context) -> None:
    sides = {side: topics_of(ctx, side) for side in ("train", "validation", "test")}
    found = collect(ctx)
    for pair in found.pairs:
        assert pair.context[-1].content in sides[str(pair.split)]
    assert len(found.refused) == len(sides["test"]) > 0
    refused = {pair.context[-1].content for pair in found.refused}
    assert refused == set(sides["test"])
    report = found.as_dict()
    assert report["refused_test"] == len(refused)
    assert {f["id"] for f in report["findings"]} >= {"D8-P05", "D8-P01"}
    (equal,) = [f for f in report["findings"] if f["id"] == "D8-P01"]
    assert equal["count"] == 1
    assert equal["examples"][0]["where"] == "data/pairs.jsonl:22"
    assert "so neither is better" in equal["examples"][0]["detail"]


def test_a_second_worse_answer_is_not_lost_as_a_duplicate(ctx: Context) -> None:
    question = json.loads(line(0))["prompt"]
    curate(ctx)
    found = collect(ctx)
    everything = [*found.pairs, *found.refused]
    worse = sorted(p.rejected for p in everything if p.context[-1].content == question)  # type: ignore[union-attr]
    assert worse == ["Go away.", json.loads(line(0))["rejected"]]


def test_frozen_preferences_read_like_a_version_without_test_rows(ctx: Context) -> None:
    dataset = curate(ctx).artifact
    made = preference_dataset(ctx, dataset, "dpo")
    version = load_version(ctx.path_of(made))
    assert version.rows("test") == [] and made.parents == (dataset.hash,)
    rows = [*version.rows("train"), *version.rows("validation")]
    assert len(rows) == len(collect(ctx).pairs)
    assert all(isinstance(row.meta["rejected"], str) for row in rows)
    assert len({pair_id(row) for row in rows}) == len(rows)
    assert preference_dataset(ctx, dataset, "dpo") == made
    assert "both answers" not in (ctx.path_of(made) / "train.jsonl").read_text()
    (aside,) = (ctx.path_of(made) / "quarantine.jsonl").read_text().splitlines()
    assert json.loads(aside)["reason"].endswith("so neither is better [D8-P01]")
    judged = load_version(ctx.path_of(preference_dataset(ctx, dataset, "kto"))).rows("train")
    marks = [row.meta["desirable"] for row in judged]
    assert marks == [True, False] * len(version.rows("train"))


def test_only_preference_methods_train_on_preferences(ctx: Context) -> None:
    dataset = curate(ctx).artifact
    assert material(ctx, dataset) == dataset
    train = ctx.config.train.model_copy(update={"method": "dpo"})
    changed = ctx.config.model_copy(update={"train": train})
    other = Context(ctx.workspace, changed, ctx.store, ctx.emit)
    assert material(other, dataset).kind == "preferences"
    assert material(other, material(other, dataset)).kind == "preferences"


def test_without_pairs_there_is_one_sentence(make_project: Callable[..., Path]) -> None:
    rows = "".join(
        json.dumps({"prompt": f"about {topic}", "completion": f"desk {i}, please"}) + "\n"
        for i, topic in enumerate(TOPICS)
    )
    opened = open_context(make_project({"rows.jsonl": rows}, CONFIG))
    dataset = curate(opened).artifact
    with pytest.raises(DataError) as caught:
        preference_dataset(opened, dataset, "dpo")
    assert caught.value.sentence() == (
        "there are no preference pairs to train on. Bring rows with chosen and rejected, let "
        "experts correct drafts or compare answers; `tutelage data pairs` shows what there is."
    )
    opened.store.close()


def say(better: str, worse: str, votes: int = 1, where: str = "") -> Pair:
    turns = (Message(role="user", content="Which way?"),)
    return Pair(turns, better, worse, "comparison", where, votes=votes)


def test_contradictions_go_to_the_majority_and_draws_are_left_out() -> None:
    found = settle([say("left", "right"), say("right", "left"), say("left", "right")])
    assert [(p.chosen, p.rejected, p.votes) for p in found.pairs] == [("left", "right", 2)]
    (conflict,) = found.conflicts
    assert (conflict.first, conflict.votes, conflict.settled) == ("left", (2, 1), True)
    draw = settle([say("left", "right", where="a:1"), say("right", "left", where="a:2")])
    assert draw.pairs == [] and not draw.conflicts[0].settled
    assert draw.conflicts[0].where == ("a:1", "a:2")
    assert [f.id for f in draw.findings] == ["D8-P03"]
    agreed = settle([say("left", "right"), say("left ", "right")])
    assert (len(agreed.pairs), agreed.repeated, agreed.pairs[0].votes) == (1, 1, 2)
    empty = settle([say("left", "  ")])
    assert [key for _, key, _ in empty.set_aside] == ["D8-P02"]


def test_a_bias_to_length_is_told() -> None:
    fair = [say("a" * 10, "b" * 10), say("a" * 12, "b" * 8), say("a" * 8, "b" * 12)] * 4
    assert length_bias(fair).warning() is None
    long = length_bias([say("a" * 30, "b" * 10)] * 12)
    assert long.longer == 1.0
    assert long.warning() == (
        "the model may learn to be long instead of good: better answers have 30 characters on "
        "average, worse ones 10; the better one is the longer in 100% of the pairs"
    )
    short = length_bias([say("a" * 5, "b" * 10)] * 12).warning()
    assert short is not None and "to be short" in short
    assert length_bias([say("a" * 30, "b")] * 9).warning() is None  # too few to say
    assert length_bias([]).as_dict()["pairs"] == 0


def test_a_person_may_change_a_choice_and_files_count_once(ctx: Context, tmp_path: Path) -> None:
    curate(ctx)
    desk = Project(ctx).experts.preferences
    assert desk.choose("Where is the sea?", "South.", "Dunno.", "a", by="anna")
    assert not desk.choose("Where is the sea?", "Dunno.", "South.", "b", by="anna")  # the same
    assert desk.choose("Where is the sea?", "South.", "Dunno.", "b", by="anna")
    assert desk.choose("Where is the sea?", "South.", "Dunno.", "a", by="anna")
    assert desk.choose("Where is the sun?", "Up.", "Down.", "tie", by="ben")
    pairs = [p for p in desk.pairs() if p.source == "comparison"]
    assert [(p.chosen, p.rejected, p.author) for p in pairs] == [("South.", "Dunno.", "anna")]
    assert desk.report()["ties"] == 1
    path = tmp_path / "choices.csv"
    path.write_text(
        "prompt,a,b,choice,author\nWhere is the moon?,There.,Gone.,left,ben\n"
        "Where is the moon?,There.,,a,ben\nWhere?,x,y,maybe,ben\n"
    )
    with pytest.raises(DataError, match=r"choices.csv:3: a comparison needs two answers"):
        desk.add_file(path)
    path.write_text("prompt,a,b,choice\nWhere is the moon?,There.,Gone.,left\nWhere?,x,y,maybe\n")
    first = desk.add_file(path, by="carl")
    assert (first["read"], first["new"], first["known"]) == (1, 1, 0)
    assert first["findings"][0]["examples"][0]["detail"] == "'maybe' is not a choice"
    again = desk.add_file(path, by="carl")
    assert (again["new"], again["known"]) == (0, 1)
    with ctx.store.session() as session:
        rows = list(session.scalars(select(ComparisonRow)))
    assert len(rows) == 5
    assert rows[0].item == item_id((Message(role="user", content="Where is the sea?"),))
    (moon,) = [p for p in desk.pairs() if p.author == "carl"]
    assert (moon.where, moon.chosen) == ("choices.csv:2", "There.")


def test_comparisons_on_test_inputs_and_their_twins_are_refused(ctx: Context) -> None:
    (question, *_) = topics_of(ctx, "test")
    desk = Project(ctx).experts.preferences
    desk.choose(question, "South.", "Dunno.", "a", by="anna")
    desk.choose(question.replace("I have", "i hav"), "South.", "Dunno.", "a", by="anna")
    desk.choose("Is there life on Mars at all?", "Perhaps.", "Dunno.", "a", by="anna")
    found = collect(ctx)
    refused = [one for one in found.refused if one.author == "anna"]
    assert len(refused) == 2
    (kept,) = [pair for pair in found.pairs if pair.author == "anna"]
    assert kept.context[-1].content.startswith("Is there life") and kept.split != "test"


def test_the_side_of_a_new_input_is_kept(ctx: Context) -> None:
    dataset = curate(ctx).artifact
    Project(ctx).experts.preferences.choose("Is there life on Mars?", "No.", "Eh.", "a", by="anna")
    preference_dataset(ctx, dataset, "dpo")
    with ctx.store.session() as session:
        rows = list(session.scalars(select(SplitRow).where(SplitRow.reason == "preferences")))
    (pair,) = [p for p in collect(ctx).pairs if p.author == "anna"]
    assert len(rows) == 2 and {row.split for row in rows} == {pair.split}


@pytest.fixture
def backend() -> Iterator[FakeBackend]:
    with FakeBackend() as running:
        yield running


def test_an_experts_correction_of_a_draft_is_a_pair(ctx: Context, backend: FakeBackend) -> None:
    curate(ctx)
    (ctx.workspace.root / "texts.txt").write_text("May I fish?\nMay I swim?\nMay I sing?\n")
    add_annotators(ctx, ["anna"])
    assign(ctx, Order(("anna",), source="file", file=ctx.workspace.root / "texts.txt"))
    backend.script.by_model["*"] = {"text": "Nope."}
    teacher = Endpoint(base_url=f"{backend.url}/v1", model="base")
    taught = Context(
        ctx.workspace, ctx.config.model_copy(update={"teacher": teacher}), ctx.store, ctx.emit
    )
    assert draft(taught).drafted == 3
    answers = {"May I fish?": "With a licence, yes.", "May I swim?": "Nope."}
    for item in todo(ctx, "anna"):
        if item.text in answers:
            assert item.draft is not None
            submit(ctx, Given(item.item, "anna", answer=answers[item.text], draft=item.draft["id"]))
    edits = [pair for pair in collect(ctx).pairs if pair.source == "expert edit"]
    assert [(p.chosen, p.rejected, p.author) for p in edits] == [
        ("With a licence, yes.", "Nope.", "anna")  # a draft left as it was says nothing
    ]


def record(name: str, text: str, split: str, response: str) -> RecordRow:
    return RecordRow(
        id=name, deployment="desk", release="r1", rollout=None, step=None, arm="stable",
        user=None, key_name=None, split=split, group_key=name,
        messages=[
            {"role": "system", "content": "Answer as a polite clerk."},
            {"role": "user", "content": text},
        ],
        response=response, finish_reason="stop", status=200, error=None, latency_ms=1.0,
        first_token_ms=None, prompt_tokens=1, completion_tokens=1, checks={}, at=utc_now(),
    )  # fmt: skip


def signal(name: str, kind: str, value: Any) -> SignalRow:
    return SignalRow(
        key=f"{name}{kind}{value}", record=name, kind=kind, explicit=True,
        value={"value": value}, author="eve", at=utc_now(),
    )  # fmt: skip


def test_production_gives_corrections_and_thumbs(ctx: Context) -> None:
    dataset = curate(ctx).artifact
    with ctx.store.begin() as session:
        session.add_all(
            [
                record("p1", "Is the mayor in today?", "train", "No."),
                record("p2", "Can I pay in coins here?", "test", "No."),
                record("p3", "Why is the sky so grey?", "train", "Clouds, I am afraid."),
                record("p4", "Why is the sky so grey?", "train", "Whatever."),
                record("p5", "Which form do I need to ski?", "train", "None at all."),
                signal("p1", "edit", "She is, until noon."),
                signal("p1", "rating", 0.0),
                signal("p2", "edit", "Gladly."),
                signal("p3", "rating", 1.0),
                signal("p4", "rating", 0.0),
                signal("p5", "rating", 0.5),
            ]
        )
    found = collect(ctx)
    own = [pair for pair in found.pairs if pair.source != "file"]
    assert [(p.source, p.chosen, p.rejected, p.where) for p in own] == [
        ("production edit", "She is, until noon.", "No.", "p1"),
        ("thumbs", "Clouds, I am afraid.", "Whatever.", "p3"),
    ]
    assert [turn.role for turn in own[0].context] == ["user"]
    assert {one.where for one in found.refused} >= {"p2"}
    assert [(one.where, one.desirable) for one in found.judged] == [("p3", True), ("p4", False)]
    rows = load_version(ctx.path_of(preference_dataset(ctx, dataset, "kto"))).rows("train")
    marks = {row.answer: row.meta["desirable"] for row in rows}
    assert marks["Whatever."] is False and marks["She is, until noon."] is True
    assert sum(row.answer == "Clouds, I am afraid." for row in rows) == 1


def test_praise_alone_teaches_nothing(make_project: Callable[..., Path]) -> None:
    rows = "".join(
        json.dumps({"prompt": f"about {topic}", "completion": f"desk {i}, please"}) + "\n"
        for i, topic in enumerate(TOPICS)
    )
    opened = open_context(make_project({"rows.jsonl": rows}, CONFIG))
    dataset = curate(opened).artifact
    with opened.store.begin() as session:
        session.add_all([record("p1", "Is it late?", "train", "No."), signal("p1", "rating", 1.0)])
    with pytest.raises(DataError, match="all 1 judged answers in train are praised"):
        preference_dataset(opened, dataset, "kto")
    opened.store.close()


def test_identifiers_are_replaced_in_both_answers(make_project: Callable[..., Path]) -> None:
    mail = "Write to anna.berg@example.org, please."
    pairs = line(0, chosen=mail, rejected="ask anna.berg@example.org yourself")
    text = CONFIG + "  privacy: {mode: redact}\n"
    opened = open_context(
        make_project({"pairs.jsonl": pairs + "".join(map(line, range(1, 20)))}, text)
    )
    curate(opened)
    Project(opened).experts.preferences.choose(
        "Who decides on trees?", mail, "Nobody.", "a", by="ben"
    )
    with opened.store.begin() as session:
        session.add(record("p1", "Who cuts the hedge?", "train", "anna.berg@example.org does"))
        session.add(signal("p1", "edit", "Ask anna.berg@example.org, please."))
    assert {pair.source for pair in collect(opened).pairs} >= {"comparison", "production edit"}
    everything = json.dumps(
        [[p.chosen, p.rejected] for p in [*collect(opened).pairs, *collect(opened).refused]  # type: ignore[union-attr]
        ]
    )  # fmt: skip
    assert "anna.berg" not in everything and "Write to" in everything
    opened.store.close()


def call(*arguments: str) -> tuple[int, str, str]:
    done = CliRunner().invoke(app, list(arguments))
    return done.exit_code, " ".join(done.stdout.split()), " ".join(done.stderr.split())


def test_the_command_counts_and_explains(ctx: Context, root: Path, tmp_path: Path) -> None:
    code, out, _ = call("data", "pairs", "-p", str(root))
    assert code == 0 and "files not counted: there is no dataset version yet" in out
    curate(ctx)
    path = tmp_path / "choices.jsonl"
    path.write_text(
        '{"prompt": "Is it far to Rome?", "a": "Very far.", "b": "Eh?", "choice": "a"}\n'
        '{"prompt": "Is it far to Rome?", "a": "Very far.", "b": "Eh?", "choice": "b", '
        '"author": "ben"}\n'
    )
    code, out, err = call("data", "pairs", "-p", str(root), "--add", str(path), "--list", "2")
    assert code == 0, err
    assert "added 2 choices, 0 were known" in out
    assert "on inputs of the test split: refused" in out
    assert "conflict 'Very far.' / 'Eh?' on 'Is it far to Rome?': 1 to 1, left out" in out
    assert "error Preference pairs with two equal answers (1); data/pairs.jsonl:22:" in out
    code, out, _ = call("data", "pairs", "-p", str(root), "--json", "--list", "1")
    found = json.loads(out)
    assert code == 0 and found["pairs"] == sum(found["sources"].values())
    assert found["splits"]["train"] + found["splits"]["validation"] == found["pairs"]
    assert set(found["list"][0]) >= {"input", "chosen", "rejected", "source", "split", "votes"}
    code, _, err = call("data", "pairs", "-p", str(root), "--add", str(tmp_path / "none.csv"))
    assert code == 2 and "there is no such file" in err


def test_set_aside_pairs_are_told_before_training(ctx: Context) -> None:
    dataset = curate(ctx).artifact
    events: list[Event] = []
    told = Context(ctx.workspace, ctx.config, ctx.store, events.append)
    preference_dataset(told, dataset, "dpo")
    texts = [event.message for event in events if event.kind == "warning"]
    assert any(text.startswith("data/pairs.jsonl:22 is set aside: both answers") for text in texts)
