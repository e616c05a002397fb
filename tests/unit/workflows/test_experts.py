"""Experts at work in a project: given out, answered, drafted, decided, published, curated."""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from tests.conftest import BASIC_CONFIG
from tests.fakes.openai_backend import FakeBackend
from typer.testing import CliRunner

from tutelage.cli.main import app
from tutelage.core.artifact import utc_now
from tutelage.core.config import Endpoint
from tutelage.core.errors import ConfigError, DataError, ModelError
from tutelage.core.events import Event
from tutelage.inference.base import Completion, OnDone, Prompt
from tutelage.inference.openai import OpenAIGenerator
from tutelage.store.artifacts import SplitRow
from tutelage.store.records import RecordRow
from tutelage.workflows.context import Context, open_context
from tutelage.workflows.curate import curate
from tutelage.workflows.data.experts import Given, next_item, show_item, skip, submit, todo
from tutelage.workflows.data.experts_draft import draft
from tutelage.workflows.data.experts_import import import_answers
from tutelage.workflows.data.experts_items import Order, assign
from tutelage.workflows.data.experts_people import (
    add_annotators,
    guideline,
    guidelines,
    retire_annotator,
    set_guideline,
)
from tutelage.workflows.data.experts_progress import progress
from tutelage.workflows.data.experts_publish import publish
from tutelage.workflows.data.experts_review import (
    adjudicate,
    agree,
    disputed,
    findings,
    load_votes,
    people,
    sections,
)
from tutelage.workflows.data.experts_rows import newest_version
from tutelage.workflows.data.repairs import active, undo

MakeProject = Callable[..., Path]
THINGS = ("fire", "ice", "ember", "snow", "sunset", "glacier", "lava", "frost", "amber", "sea")
ADJECTIVES = ("old", "bright", "quiet", "distant", "small", "heavy")
ROWS = [
    (f"the {adjective} {thing} number {i}", "warm" if i % 2 else "cold")
    for i, (adjective, thing) in enumerate((a, t) for a in ADJECTIVES for t in THINGS)
]
NEW = [f"a {colour} {thing} by the road" for colour in ("red", "blue") for thing in THINGS[:6]]


@pytest.fixture
def project(make_project: MakeProject) -> Path:
    """A project with sixty rows and a file of twelve texts without labels."""
    lines = "".join(json.dumps({"text": t, "label": label}) + "\n" for t, label in ROWS)
    config = BASIC_CONFIG + "  quality: {embedder: tfidf}\n"
    root = make_project({"rows.jsonl": lines}, config)
    (root / "texts.txt").write_text("\n".join(NEW) + "\n")
    return root


@pytest.fixture
def ctx(project: Path) -> Iterator[Context]:
    """The opened project with three people."""
    opened = open_context(project)
    add_annotators(opened, ["anna", "ben", "carl"])
    yield opened
    opened.store.close()


def texts(ctx: Context, people: str = "anna,ben", **more: Any) -> dict[str, Any]:
    """Give the twelve texts out."""
    file = ctx.workspace.root / "texts.txt"
    return assign(ctx, Order(tuple(people.split(",")), file=file, source="file", **more))


def answer_all(ctx: Context, name: str, label: Callable[[str], str]) -> int:
    count = 0
    while (item := next_item(ctx, name)) is not None:
        submit(ctx, Given(item.item, name, label(item.text), seconds=4.0))
        count += 1
    return count


def by_colour(text: str) -> str:
    return "warm" if "red" in text else "cold"


def call(*arguments: str, stdin: str = "") -> tuple[int, str, str]:
    """Run `tutelage data …`; return exit code, stdout, and stderr on one line."""
    done = CliRunner().invoke(app, ["data", *arguments], input=stdin)
    return done.exit_code, done.stdout, " ".join(done.stderr.split())


def test_items_are_given_out_evenly_and_answered_by_different_people(ctx: Context) -> None:
    set_guideline(ctx, "Red things are warm.")
    batch = texts(ctx, "anna,ben,carl", overlap=2)
    assert batch["people"] == {"anna": 8, "ben": 8, "carl": 8}
    assert sum(answer_all(ctx, name, by_colour) for name in ("anna", "ben", "carl")) == 24
    voted = load_votes(ctx)
    assert len(voted) == 12
    assert all(len({vote.annotator for vote in one.votes}) == 2 for one in voted)
    assert {one.state for one in voted} == {"agreed"}
    told = progress(ctx)
    assert told["states"] == {"agreed": 12}
    assert [one["left"] for one in told["people"]] == [0, 0, 0]
    assert agree(ctx).chosen.value == 1.0


def test_an_annotator_sees_neither_the_old_label_nor_the_others(ctx: Context) -> None:
    curate(ctx)
    assign(ctx, Order(("anna", "ben"), 2, 3))
    first = next_item(ctx, "anna")
    assert first is not None
    submit(ctx, Given(first.item, "anna", "warm", comment="sure"))
    shown = show_item(ctx, first.item, "ben").as_dict()
    assert set(shown) == {
        "item", "text", "messages", "labels", "draft", "guideline", "done", "total", "why", "typed",
    }  # fmt: skip
    assert [turn["role"] for turn in shown["messages"]] == ["user"]
    assert shown["labels"] == ["warm", "cold"]
    assert "sure" not in json.dumps(shown)


def test_the_same_seed_draws_the_same_rows(ctx: Context, tmp_path: Path) -> None:
    curate(ctx)
    assign(ctx, Order(("anna",), count=8, seed=3))
    first = [one.item for one in todo(ctx, "anna")]
    assign(ctx, Order(("ben",), count=8, seed=3, again=True))
    assert [one.item for one in todo(ctx, "ben")] == first
    fresh = assign(ctx, Order(("carl",), count=8, seed=3))
    assert fresh["items"] == 8
    assert not set(first) & {one.item for one in todo(ctx, "carl")}


def test_what_was_given_out_is_not_given_out_again_unasked(ctx: Context) -> None:
    texts(ctx)
    with pytest.raises(DataError, match=r"12 items were given out before.*--again"):
        texts(ctx, "carl")
    had = {one.item for one in todo(ctx, "anna")}
    again = texts(ctx, "anna,carl", again=True)
    assert (again["items"], again["answers"]) == (12, 12)
    ours = [one.item for one in todo(ctx, "anna")]
    assert len(ours) == len(set(ours)) and had < set(ours)


def test_a_left_item_comes_back_and_a_lease_runs_out(ctx: Context) -> None:
    texts(ctx, "anna,ben", overlap=1, shared=True)
    start = utc_now()
    mine = next_item(ctx, "anna", now=start, lease_s=600)
    assert mine is not None
    assert next_item(ctx, "anna", now=start, lease_s=600) == mine  # still before her
    other = next_item(ctx, "ben", now=start)
    assert other is not None and other.item != mine.item
    skip(ctx, "ben", other.item)
    late = start + timedelta(seconds=601)
    taken = next_item(ctx, "ben", now=late)
    assert taken is not None and taken.item == mine.item
    submit(ctx, Given(mine.item, "anna", "warm"), now=late)  # late, and still kept
    submit(ctx, Given(mine.item, "ben", "cold"), now=late)
    (one,) = [v for v in load_votes(ctx) if v.item.id == mine.item]
    assert {v.annotator: v.label for v in one.votes} == {"anna": "warm", "ben": "cold"}


def test_several_people_at_once_never_get_one_slot_twice(ctx: Context) -> None:
    texts(ctx, "anna,ben,carl", overlap=1, shared=True)
    got: list[tuple[str, str]] = []

    def work(name: str) -> None:
        while (item := next_item(ctx, name)) is not None:
            got.append((item.item, name))
            submit(ctx, Given(item.item, name, "warm"))

    threads = [threading.Thread(target=work, args=(name,)) for name in ("anna", "ben", "carl")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(got) == 12
    assert len({item for item, _ in got}) == 12


def test_who_leaves_hands_the_open_items_to_the_others(ctx: Context) -> None:
    texts(ctx, "anna,ben,carl", overlap=2)
    first = next_item(ctx, "anna")
    assert first is not None
    submit(ctx, Given(first.item, "anna", "warm"))
    assert retire_annotator(ctx, "anna") == 7
    with pytest.raises(DataError, match="'anna' no longer labels"):
        next_item(ctx, "anna")
    for name in ("ben", "carl"):
        answer_all(ctx, name, by_colour)
    assert {len(one.votes) for one in load_votes(ctx)} == {2}
    assert add_annotators(ctx, ["anna"]) == ["anna"]


def test_a_later_answer_supersedes_and_nothing_is_lost(ctx: Context) -> None:
    texts(ctx, "anna")
    item = next_item(ctx, "anna")
    assert item is not None
    first = submit(ctx, Given(item.item, "anna", "warm", key="tab-1"))
    again = submit(ctx, Given(item.item, "anna", "warm", key="tab-1"))  # sent twice
    assert again.repeated and again.number == first.number
    second = submit(ctx, Given(item.item, "anna", "Cold", flags=("unsure",)))
    assert (second.supersedes, second.label) == (first.number, "cold")
    one = next(v for v in load_votes(ctx) if v.item.id == item.item)
    assert (one.votes[0].label, one.state) == ("cold", "unsure")
    with ctx.store.session() as session:
        from tutelage.store.annotations import AnnotationRow

        assert session.query(AnnotationRow).count() == 2


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "label outside the list": ({"label": "wram"}, r"'wram' is not one.*'warm'"),
    "no label": ({}, "has no label"),
    "unknown person": ({"annotator": "bem", "label": "warm"}, r"no annotator 'bem'.*'ben'"),
    "unknown item": ({"item": "ffffffff", "label": "warm"}, "no item 'ffffffff'"),
    "unknown flag": ({"label": "warm", "flags": ("maybe",)}, "'maybe' is no flag"),
    "unknown draft": ({"label": "warm", "draft": 99}, "no draft 99"),
    "time": ({"label": "warm", "seconds": -1.0}, "not a time"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_answer_is_refused_in_one_sentence(ctx: Context, name: str) -> None:
    texts(ctx, "anna")
    fields, words = BAD[name]
    item = todo(ctx, "anna")[0].item
    with pytest.raises(DataError, match=words):
        submit(ctx, Given(**{"item": item, "annotator": "anna", **fields}))
    assert sum(len(one.votes) for one in load_votes(ctx)) == 0


def test_free_answers_are_held_against_the_projects_own_checks(make_project: MakeProject) -> None:
    config = """\
name: notes
task: extraction
model: demo
output: {json_schema: {type: object, required: [dose], properties: {dose: {type: integer}}}}
data: {sources: [data/*]}
"""
    root = make_project({}, config)
    (root / "texts.txt").write_text("Take two.\n")
    ctx = open_context(root)
    add_annotators(ctx, ["anna"])
    assign(ctx, Order(("anna",), source="file", file=root / "texts.txt"))
    item = todo(ctx, "anna")[0].item
    with pytest.raises(DataError, match="dose"):
        submit(ctx, Given(item, "anna", answer='{"dose": "two"}'))
    with pytest.raises(DataError, match="empty"):
        submit(ctx, Given(item, "anna", answer="  "))
    assert submit(ctx, Given(item, "anna", answer=' {"dose": 2} ')).answer == '{"dose": 2}'
    ctx.store.close()


def test_the_guideline_has_versions_and_answers_know_theirs(ctx: Context) -> None:
    assert guideline(ctx) is None
    assert set_guideline(ctx, "Red is warm.", author="anna") == 1
    assert set_guideline(ctx, "Red is warm.\n") == 1  # the same text
    assert set_guideline(ctx, "Red is warm, and so is amber.", note="amber") == 2
    assert [one["version"] for one in guidelines(ctx)] == [2, 1]
    with pytest.raises(DataError, match="no version 7"):
        guideline(ctx, 7)
    texts(ctx, "anna")
    item = next_item(ctx, "anna")
    assert item is not None and item.guideline == 2


# -- the terminal ------------------------------------------------------------------------------


def test_a_session_in_the_terminal(ctx: Context, project: Path) -> None:
    set_guideline(ctx, "Red things are warm.")
    texts(ctx, "anna")
    keys = "1\nu\ncold\nx\n?\nc\nhard to say\n2\nb\n1\ns\nq\n"
    code, out, err = call("label", "as", "anna", "-p", str(project), "--json", stdin=keys)
    assert code == 0, err
    assert json.loads(out) == {"annotator": "anna", "answers": 3, "skipped": 1, "left": 8}
    for words in ("1 of 12", "'x' is no label", "Red things are warm.", "1 warm", "2 cold"):
        assert words in err
    votes = [vote for one in load_votes(ctx) for vote in one.votes]
    assert Counter(vote.label for vote in votes) == {"warm": 2, "cold": 1, None: 1}
    assert [vote.flags for vote in votes if vote.label == "cold"] == [("unsure",)]
    assert all(vote.seconds is not None for vote in votes)


def test_a_session_goes_on_where_it_stopped(ctx: Context, project: Path) -> None:
    texts(ctx, "anna")
    call("label", "as", "anna", "-p", str(project), stdin="1\n1\n")
    code, out, _ = call("label", "as", "anna", "-p", str(project), stdin="1\n" * 20)
    assert code == 0 and "answers 10" in out and "left 0" in out
    _, _, err = call("label", "as", "anna", "-p", str(project))
    assert "nothing left" in err


def test_a_text_can_not_steer_the_terminal(ctx: Context, project: Path) -> None:
    (project / "texts.txt").write_text("harmless [red]\x1b[2Jtext[/red]\n")
    texts(ctx, "anna")
    _, _, err = call("label", "as", "anna", "-p", str(project), stdin="q\n")
    assert "\x1b[2J" not in err and "[red]�[2Jtext[/red]" in err


def test_answers_from_a_file_keep_the_good_and_name_the_bad(ctx: Context, project: Path) -> None:
    texts(ctx, "anna")
    lines = [
        {"text": NEW[0], "label": "warm", "seconds": 3},
        {"text": NEW[1], "label": "warn"},
        {"text": "no such text", "label": "warm"},
        {"text": NEW[2], "lable": "warm"},
        {"item": todo(ctx, "anna")[3].item, "label": "cold", "flags": ["unsure"], "comment": "?"},
    ]
    path = project / "answers.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines) + "{half\n")
    command = ("label", "as", "anna", "--answers", str(path), "-p", str(project), "--json")
    code, out, err = call(*command)
    assert code == 2
    assert "answers.jsonl:2" in err and "'warm'" in err and "4 lines" in err
    first = json.loads(out.splitlines()[0])
    assert (first["kept"], first["unchanged"]) == (2, 0)
    assert [entry["line"] for entry in first["refused"]] == [2, 3, 4, 6]
    assert "did you mean 'label'" in first["refused"][2]["why"].lower()
    _, out, _ = call(*command)
    again = json.loads(out.splitlines()[0])
    assert (again["kept"], again["unchanged"]) == (0, 2)


# -- drafts ------------------------------------------------------------------------------------


@pytest.fixture
def backend() -> Iterator[FakeBackend]:
    with FakeBackend() as running:
        yield running


def with_teacher(ctx: Context, backend: FakeBackend, tokens: int = 200_000) -> Context:
    """The project with the backend's model `base` as its teacher."""
    config = ctx.config.model_copy(
        update={
            "teacher": Endpoint(base_url=f"{backend.url}/v1", model="base"),
            "augment": ctx.config.augment.model_copy(update={"tokens": tokens}),
        }
    )
    return Context(ctx.workspace, config, ctx.store, ctx.emit)


def test_a_teacher_drafts_and_the_expert_corrects(ctx: Context, backend: FakeBackend) -> None:
    backend.script.by_model["*"] = {
        "text": '```json\n{"family": "warm"}\n```',
        "when": {"blue fire": {"text": "no idea"}},
    }
    set_guideline(ctx, "Red things are warm.")
    texts(ctx, "anna")
    taught = with_teacher(ctx, backend)
    done = draft(taught)
    assert (done.drafted, done.unreadable, done.failed, done.left) == (12, 1, 0, 0)
    assert done.tokens == 12 * 15
    system = backend.script.seen[0]["messages"][0]["content"]
    assert "Red things are warm." in system and '{"family": "warm"}' in system
    assert draft(taught).drafted == 0  # nothing is asked twice
    shown = todo(ctx, "anna")
    assert shown[0].draft is not None
    assert (shown[0].draft["label"], shown[0].draft["text"]) == ("warm", '{"family": "warm"}')
    assert [one.text for one in shown if one.draft is None] == ["a blue fire by the road"]
    kept = submit(ctx, Given(shown[0].item, "anna", "warm", draft=shown[0].draft["id"]))
    assert kept.edit_distance == 0
    changed = submit(ctx, Given(shown[1].item, "anna", "cold", draft=(shown[1].draft or {})["id"]))
    assert changed.edit_distance == 4
    published = publish(ctx)
    rows = [json.loads(line) for line in Path(published["path"]).read_text().splitlines()]
    assert {row["origin"]["kind"] for row in rows} == {"drafted"}
    told = {row["label"]: row["annotated"]["draft"] for row in rows}
    assert told["cold"]["edit_distance"] == 4
    assert (told["warm"]["model"], told["warm"]["prompt"]) == ("base", done.prompt)
    (anna,) = people(ctx)
    assert (anna["drafts"], anna["accepted"], anna["edited"]) == (2, 1, 4.0)


def test_a_new_guideline_means_new_drafts(ctx: Context, backend: FakeBackend) -> None:
    texts(ctx, "anna")
    taught = with_teacher(ctx, backend)
    assert draft(taught, 3).drafted == 3
    assert draft(taught, 3).drafted == 3
    set_guideline(ctx, "Red things are warm.")
    assert draft(taught).drafted == 12


def test_drafting_stops_before_the_budget_is_overrun(ctx: Context, backend: FakeBackend) -> None:
    texts(ctx, "anna")
    events: list[Event] = []
    taught = with_teacher(ctx, backend, tokens=200)
    taught = Context(taught.workspace, taught.config, taught.store, events.append)
    done = draft(taught)
    assert done.budget_spent and 0 < done.drafted < 12
    assert done.tokens <= 200
    assert any(e.kind == "warning" and "augment.tokens" in e.message for e in events)
    assert draft(taught).drafted > 0  # the next run has a budget of its own


class Cut:
    """A generator that is killed after some answers."""

    def __init__(self, inner: OpenAIGenerator, after: int) -> None:
        self.inner, self.after = inner, after

    def generate(
        self, prompts: Sequence[Prompt], on_done: OnDone | None = None
    ) -> list[Completion]:
        done = []
        for index, prompt in enumerate(prompts):
            if not self.after:
                raise KeyboardInterrupt
            self.after -= 1
            done += self.inner.generate([prompt])
            if on_done is not None:
                on_done(index, done[-1])
        return done

    def close(self) -> None:
        self.inner.close()


def test_a_job_that_was_cut_off_asks_only_for_the_rest(ctx: Context, backend: FakeBackend) -> None:
    texts(ctx, "anna")
    taught = with_teacher(ctx, backend)
    with pytest.raises(KeyboardInterrupt):
        draft(taught, generator=Cut(OpenAIGenerator(backend.url, "base"), 5))
    assert sum(one.draft is not None for one in todo(ctx, "anna")) == 5
    assert draft(taught).drafted == 7
    assert len(backend.script.seen) == 12


def test_a_teacher_that_fails_is_named(ctx: Context, backend: FakeBackend) -> None:
    texts(ctx, "anna")
    with pytest.raises(ConfigError, match=r"no teacher.*base_url"):
        draft(ctx)
    backend.script.by_model["*"] = {"status": 500, "message": "out of order"}
    broken = OpenAIGenerator(backend.url, "base", retries=0)
    with pytest.raises(ModelError, match=r"answered none of 12 requests.*out of order"):
        draft(with_teacher(ctx, backend), generator=broken)
    backend.script.by_model["*"] = {"when": {"red fire": {"status": 500}}}
    done = draft(with_teacher(ctx, backend), generator=broken)
    assert (done.drafted, done.failed, done.left) == (11, 1, 1)


def test_test_rows_get_no_draft(ctx: Context, backend: FakeBackend) -> None:
    curate(ctx)
    batch = assign(ctx, Order(("anna",), split="test"))
    assert batch["items"] == 9
    taught = with_teacher(ctx, backend)
    assert draft(taught).drafted == 0
    assert backend.script.seen == []
    assign(ctx, Order(("anna",), split="train", count=4))
    assert draft(taught).drafted == 4


# -- disputes, decisions, publication ------------------------------------------------------------


def disagree(ctx: Context) -> None:
    """Anna goes by colour; Ben calls the first two red things cold, Carl one of these."""
    texts(ctx, "anna,ben,carl", overlap=3)
    answer_all(ctx, "anna", by_colour)
    answer_all(ctx, "ben", lambda t: "cold" if t in NEW[:2] else by_colour(t))
    answer_all(ctx, "carl", lambda t: "cold" if t == NEW[0] else by_colour(t))


def test_disputes_come_with_a_suggestion_and_are_decided(ctx: Context, project: Path) -> None:
    disagree(ctx)
    queue = disputed(ctx)
    assert {one["text"] for one in queue} == set(NEW[:2])
    assert all(one["suggestion"]["by"].startswith("dawid-skene") for one in queue)
    assert publish(ctx)["undecided"] == 2
    item = next(one["item"] for one in queue if one["text"] == NEW[0])
    where = ("-p", str(project))
    code, _, err = call("label", "adjudicate", item[:8], "--label", "wram", "--by", "zoe", *where)
    assert code == 2 and "did you mean 'warm'" in err
    code, _, err = call("label", "adjudicate", item, "--label", "warm", *where)
    assert code == 2 and "--by" in err
    code, out, _ = call(
        "label", "adjudicate", item[:8], "--label", "warm", "--by", "zoe", "--why", "red", *where
    )
    assert code == 0 and "warm, by zoe" in out
    code, out, err = call("label", "adjudicate", "--by", "zoe", *where, stdin="\n")
    assert "decided 1, left 0" in out and "likely" in err
    assert disputed(ctx) == []
    by_name = {one["name"]: one for one in people(ctx)}
    assert by_name["anna"]["with_adjudicated"]["n"] == 2


def test_an_adjudication_can_be_changed_and_the_newest_rules(ctx: Context) -> None:
    disagree(ctx)
    item = disputed(ctx)[0]["item"]
    adjudicate(ctx, item, by="zoe", label="warm")
    adjudicate(ctx, item, by="yan", label="cold", why="second look")
    (one,) = [v for v in load_votes(ctx) if v.item.id == item]
    assert one.adjudicated is not None
    assert (one.adjudicated.label, one.adjudicated.by) == ("cold", ("yan",))


def test_disputed_items_can_go_to_somebody_else(ctx: Context) -> None:
    disagree(ctx)
    add_annotators(ctx, ["dora"])
    assert assign(ctx, Order(("dora",), source="disputed"))["items"] == 2
    assert answer_all(ctx, "dora", lambda _: "warm") == 2


def test_new_texts_enter_the_next_version_with_their_authors(ctx: Context) -> None:
    curate(ctx)
    texts(ctx, "anna,ben", overlap=2)
    for name in ("anna", "ben"):
        answer_all(ctx, name, by_colour)
    done = publish(ctx)
    assert (done["new"], done["repaired"], done["in_sources"]) == (12, 0, True)
    path = Path(done["path"])
    before = path.read_bytes()
    again = publish(ctx)
    assert (again["new"], again["repaired"], again["confirmed"]) == (0, 0, 12)
    curate(ctx)
    version = newest_version(ctx)
    assert version is not None
    rows = [row for row in version.all_rows() if "annotated" in row.meta]
    assert len(rows) == 12
    assert {row.origin.author for row in rows} == {"anna, ben"}
    assert {row.label for row in rows} == {"warm", "cold"}
    assert rows[0].meta["annotated"]["how"] == "agreed"
    assert rows[0].origin.source.startswith(f"data/{path.name}:")
    assert publish(ctx)["confirmed"] == 12
    assert path.read_bytes() == before


def test_a_decision_on_a_row_is_a_repair_that_keeps_its_side(ctx: Context) -> None:
    curate(ctx)
    version = newest_version(ctx)
    assert version is not None
    old = version.rows("test")
    flipped = {"warm": "cold", "cold": "warm"}
    truth = {row.input_text: str(row.label) for row in old}
    assign(ctx, Order(("anna", "ben"), 2, split="test"))
    wrong = old[0].input_text
    for name in ("anna", "ben"):
        answer_all(ctx, name, lambda t: flipped[truth[t]] if t == wrong else truth[t])
    done = publish(ctx)
    assert (done["new"], done["repaired"], done["confirmed"]) == (0, 1, len(old) - 1)
    assert publish(ctx)["repaired"] == 0  # once is enough
    (repair,) = active(ctx)
    assert (repair.author, repair.value) == ("anna, ben", flipped[truth[wrong]])
    curate(ctx)
    version = newest_version(ctx)
    assert version is not None
    (new,) = [row for row in version.rows("test") if row.input_text == wrong]
    assert (new.label, new.origin.author) == (flipped[truth[wrong]], "anna, ben")
    assert new.origin.parents == (old[0].id,)
    assert publish(ctx)["repaired"] == 0
    adjudicate(ctx, next(o.item.id for o in load_votes(ctx) if o.item.text == wrong),
               by="zoe", label=truth[wrong])  # fmt: skip
    assert publish(ctx)["repaired"] == 1  # back to what it was
    curate(ctx)
    version = newest_version(ctx)
    assert version is not None
    (back,) = [row for row in version.rows("test") if row.input_text == wrong]
    assert back.label == truth[wrong]
    undo(ctx, str(done["batch"]))


def test_a_published_text_can_be_corrected_later(ctx: Context) -> None:
    curate(ctx)
    texts(ctx, "anna")
    answer_all(ctx, "anna", by_colour)
    publish(ctx)
    item = next(one.item.id for one in load_votes(ctx) if one.item.text == NEW[0])
    submit(ctx, Given(item, "anna", "cold"))
    assert (publish(ctx)["new"], publish(ctx)["repaired"]) == (0, 0)  # the first call repaired it
    assert len(active(ctx)) == 1
    curate(ctx)
    version = newest_version(ctx)
    assert version is not None
    assert [row.label for row in version.all_rows() if row.input_text == NEW[0]] == ["cold"]


def test_text_that_curation_repairs_is_published_once(ctx: Context, project: Path) -> None:
    curate(ctx)
    (project / "texts.txt").write_text("a red cafÃ© by the road\n")
    texts(ctx, "anna")
    answer_all(ctx, "anna", by_colour)
    assert publish(ctx)["new"] == 1
    curate(ctx)
    again = publish(ctx)
    assert (again["new"], again["repaired"], again["confirmed"]) == (0, 0, 1)
    version = newest_version(ctx)
    assert version is not None
    assert "a red café by the road" in [row.input_text for row in version.all_rows()]


FREE = """\
name: notes
task: summarization
model: demo
data: {sources: [data/*]}
"""


def test_texts_are_corrected_to_the_letter(make_project: MakeProject) -> None:
    notes = [f"a note about case number {n}, which was long and dull" for n in range(12)]
    lines = "".join(
        json.dumps({"prompt": note, "completion": f"case {n} was dull"}) + "\n"
        for n, note in enumerate(notes)
    )
    ctx = open_context(make_project({"rows.jsonl": lines}, FREE))
    add_annotators(ctx, ["anna", "ben"])
    curate(ctx)
    assign(ctx, Order(("anna", "ben"), 2, 4))
    texts_ = {one.text: one.item for one in todo(ctx, "anna")}
    first, second, third, fourth = list(texts_.values())
    for name in ("anna", "ben"):
        submit(ctx, Given(first, name, answer="It was dull."))
        number = next(t for t, i in texts_.items() if i == second).split()[5].rstrip(",")
        submit(ctx, Given(second, name, answer=f"Case {number} was dull"))
        submit(ctx, Given(third, name, answer=f"{name} says it was dull"))
        skip(ctx, name, fourth)
    with pytest.raises(DataError, match="the answers are texts"):
        agree(ctx)
    assert [one["state"] for one in disputed(ctx)] == ["disputed", "skipped"]
    done = publish(ctx)
    assert (done["repaired"], done["undecided"]) == (2, 2)  # case counts in a text
    curate(ctx)
    version = newest_version(ctx)
    assert version is not None
    answers = {row.answer for row in version.all_rows()}
    assert {"It was dull.", f"Case {number} was dull"} <= answers
    assert publish(ctx)["repaired"] == 0
    ctx.store.close()


def test_labels_without_a_list_come_from_the_dataset(make_project: MakeProject) -> None:
    config = BASIC_CONFIG.replace("output: {field: family, labels: [warm, cold]}\n", "")
    lines = "".join(json.dumps({"text": t, "label": label}) + "\n" for t, label in ROWS)
    ctx = open_context(make_project({"rows.jsonl": lines}, config))
    add_annotators(ctx, ["anna"])
    curate(ctx)
    assign(ctx, Order(("anna",), count=2))
    item = next_item(ctx, "anna")
    assert item is not None and item.labels == ["cold", "warm"]
    assert submit(ctx, Given(item.item, "anna", "lukewarm")).label == "lukewarm"
    ctx.store.close()


def test_most_votes_count_only_when_asked(ctx: Context) -> None:
    disagree(ctx)
    assert publish(ctx)["new"] == 10
    assert publish(ctx, accept="majority")["new"] == 2
    item = next(o for o in load_votes(ctx) if o.item.text == NEW[0])
    assert item.state == "disputed"  # it stays in the queue


def test_a_file_that_no_source_names_is_said(ctx: Context, project: Path) -> None:
    config = (project / "tutelage.yaml").read_text()
    (project / "tutelage.yaml").write_text(config.replace("data/*", "data/rows.jsonl"))
    texts(ctx, "anna")
    answer_all(ctx, "anna", by_colour)
    code, out, err = call("label", "publish", "-p", str(project))
    assert code == 2
    assert "new rows 12" in out
    assert "Add data/annotated-*.jsonl to data.sources" in err


def record(name: str, text: str, split: str, response: str, at: datetime) -> RecordRow:
    return RecordRow(
        id=name, deployment="colours", release="r1", rollout=None, step=None, arm="stable",
        user=None, key_name=None, split=split, group_key=name,
        messages=[
            {"role": "system", "content": "Name the colour family of the thing."},
            {"role": "user", "content": text},
        ],
        response=response, finish_reason="stop", status=200, error=None, latency_ms=1.0,
        first_token_ms=None, prompt_tokens=1, completion_tokens=1, checks={}, at=at,
    )  # fmt: skip


def test_production_keeps_its_side_and_its_answer_is_a_draft(ctx: Context) -> None:
    curate(ctx)
    now = utc_now()
    with ctx.store.begin() as session:
        session.add(record("p1", "a warm autumn leaf", "train", '{"family": "warm"}', now))
        session.add(record("p2", "a polar bear", "test", '{"family": "warm"}', now))
        session.add(record("p3", "a desert road", "train", "it depends", now))
        session.add(record("p4", "a Desert road", "validation", '{"family": "warm"}', now))
    batch = assign(ctx, Order(("anna",), source="production"))
    assert (batch["items"], batch["drafts"]) == (3, 2)
    shown = {one.text.lower(): one for one in todo(ctx, "anna")}
    assert [turn["role"] for turn in shown["a polar bear"].messages] == ["user"]
    assert shown["a polar bear"].draft is None  # a test row
    leaf = shown["a warm autumn leaf"].draft
    assert leaf is not None and (leaf["label"], leaf["model"]) == ("warm", "release:r1")
    answer_all(ctx, "anna", lambda t: "cold" if "bear" in t else "warm")
    publish(ctx)
    curate(ctx)
    version = newest_version(ctx)
    assert version is not None
    sides = {
        row.input_text.lower(): split
        for split in ("train", "validation", "test")
        for row in version.rows(split)  # type: ignore[arg-type]
        if row.origin.kind in ("production", "drafted")
    }
    assert sides == {
        "a warm autumn leaf": "train", "a polar bear": "test", "a desert road": "validation",
    }  # fmt: skip
    with ctx.store.session() as session:
        reasons = session.query(SplitRow).filter(SplitRow.reason == "production").count()
    assert reasons == 3


def test_active_gives_out_what_is_worth_most(ctx: Context, project: Path) -> None:
    curate(ctx)
    batch = texts(ctx, "anna", count=4)  # plain file order
    assert [one.text for one in todo(ctx, "anna")] == NEW[:4]
    file = project / "texts.txt"
    batch = assign(ctx, Order(("ben",), count=3, source="active", file=file))
    assert (batch["items"], len(batch["why"]), batch["left_over"]) == (3, 3, 5)
    with pytest.raises(DataError, match="nothing to label"):
        assign(ctx, Order(("ben",), source="active"))


def test_the_report_and_the_findings(ctx: Context) -> None:
    assert (sections(ctx), findings(ctx)) == ([], [])
    disagree(ctx)
    text = "".join(sections(ctx))
    for words in ("Krippendorff", "Annotators", "anna", "Most disputed", NEW[0]):
        assert words in text
    assert "D8-Q01" in {finding.id for finding in findings(ctx)}


# -- imports, the store --------------------------------------------------------------------------


def studio(number: int, text: str, label: str, by: int, **more: Any) -> dict[str, Any]:
    result = [{"type": "choices", "from_name": "family", "to_name": "text",
               "value": {"choices": [label]}}]  # fmt: skip
    return {
        "id": number, "data": {"text": text}, "predictions": [
            {"model_version": "tiny-2", "result": result}],
        "annotations": [{"id": number, "completed_by": by, "result": result, "lead_time": 3.0,
                         "was_cancelled": False, "updated_at": "2026-03-09", **more}],
    }  # fmt: skip


def test_an_import_meets_the_rows_it_is_about_and_counts_once(ctx: Context, project: Path) -> None:
    curate(ctx)
    row_text, row_label = ROWS[0]
    other = "warm" if row_label == "cold" else "cold"
    export = [
        studio(1, row_text, other, 7, ground_truth=True),
        studio(2, "a new thing", "warm", 7),
    ]
    path = project / "export.json"
    path.write_text(json.dumps(export))
    command = ("label", "import", str(path), "--people", "7=dora", "-p", str(project), "--json")
    code, out, err = call(*command)
    assert code == 0, err
    first = json.loads(out)
    assert (first["answers"], first["in_dataset"], first["people"]) == (2, 1, ["dora"])
    assert (first["drafts"], first["final"]) == (2, 1)
    again = import_answers(ctx, path, people={"7": "dora"})
    assert (again["answers"], again["known"], again["new_items"], again["drafts"]) == (0, 2, 0, 0)
    done = publish(ctx)
    assert (done["new"], done["repaired"]) == (1, 1)
    assert active(ctx)[0].author == "dora"


def test_commands_name_what_is_wrong(ctx: Context, project: Path) -> None:
    where = ("-p", str(project))
    cases = {
        ("label", "assign", "--to", "anna,bem", "--file", str(project / "texts.txt")): "'ben'",
        ("label", "assign", "--to", "anna"): "tutelage data split",
        ("label", "assign", "--to", "anna", "--source", "randm"): "'random'",
        ("label", "assign", "--to", "anna", "--overlap", "2", "--file", "x"): "1 person",
        ("label", "assign", "--to", "anna", "--file", "none.txt"): "no such file",
        ("label", "as", "zed"): "people --add zed",
        ("label", "import", str(project / "data" / "rows.jsonl")): "no export",
        ("label", "import", "none.json"): "no such file",
        ("label", "draft"): "no teacher",
        ("label", "guideline", "none.md"): "no such file",
        ("label", "publish", "--accept", "all"): "Known: agreed, majority",
        ("label", "people", "--retire", "zed"): "no annotator 'zed'",
        ("label", "people", "--add", "x" * 90): "can't be an annotator's name",
        ("agree",): "nobody has labelled",
    }
    for arguments, words in cases.items():
        code, out, err = call(*arguments, *where)
        assert code == 2, (arguments, out, err)
        assert words in err, (arguments, err)
        assert "Traceback" not in err


def test_lists_are_for_people_and_for_programs(ctx: Context, project: Path) -> None:
    disagree(ctx)
    where = ("-p", str(project))
    for arguments in (("people",), ("progress",), ("disputes",), ("todo", "anna"), ("guideline",)):
        code, out, err = call("label", *arguments, *where)
        assert code == 0 and out.strip(), (arguments, err)
        code, out, _ = call("label", *arguments, *where, "--json")
        assert isinstance(json.loads(out), dict)
    code, out, _ = call("agree", *where)
    assert code == 0 and "Fleiss" in out


def test_the_tables_are_those_of_the_migrations(tmp_path: Path) -> None:
    from alembic.autogenerate import compare_metadata
    from alembic.runtime.migration import MigrationContext

    from tutelage.store.base import Base, make_engine
    from tutelage.store.migrate import upgrade

    engine = make_engine(f"sqlite:///{tmp_path / 'store.db'}")
    upgrade(engine)
    with engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), Base.metadata) == []
    engine.dispose()


def test_the_migration_is_sql_that_postgresql_takes() -> None:
    import importlib
    import io

    from alembic.migration import MigrationContext
    from alembic.operations import Operations

    text = io.StringIO()
    context = MigrationContext.configure(
        dialect_name="postgresql", opts={"as_sql": True, "output_buffer": text}
    )
    module = importlib.import_module("tutelage.store.migrations.versions.0003_annotations")
    with Operations.context(context):
        module.upgrade()
        module.downgrade()
    sql = text.getvalue()
    for table in module.TABLES:
        assert f"CREATE TABLE {table} (" in sql
        assert f"DROP TABLE {table};" in sql
    assert "TIMESTAMP WITH TIME ZONE" in sql and "SERIAL NOT NULL" in sql
