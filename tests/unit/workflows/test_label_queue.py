"""What a labelling page stands on: reasons, leases, unfinished text, answers taken back, marks."""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from tests.conftest import BASIC_CONFIG

from tutelage.core.artifact import utc_now
from tutelage.core.errors import DataError
from tutelage.store.annotations import DraftRow
from tutelage.workflows.context import Context, open_context
from tutelage.workflows.curate import curate
from tutelage.workflows.data.experts import Given, next_item, show_item, skip, submit
from tutelage.workflows.data.experts_items import Order, assign, give
from tutelage.workflows.data.experts_leases import renew
from tutelage.workflows.data.experts_people import add_annotators
from tutelage.workflows.data.experts_publish import publish
from tutelage.workflows.data.experts_queue import join, queue_of, queues, said_last
from tutelage.workflows.data.experts_redact import kind_of, redact_item, restore_item
from tutelage.workflows.data.experts_review import load_votes
from tutelage.workflows.data.experts_rows import newest_version
from tutelage.workflows.data.experts_typed import keep_typed, take_back
from tutelage.workflows.data.repairs import active

MakeProject = Callable[..., Path]
TEXTS = [f"text number {i}: the {thing}" for i, thing in enumerate(("fire", "ice", "sea", "sun"))]


@pytest.fixture
def ctx(make_project: MakeProject) -> Iterator[Context]:
    """A project with forty rows, four texts in a file and two people."""
    rows = [
        {"text": f"the patient Ann Doe came for visit {i}", "label": "warm" if i % 2 else "cold"}
        for i in range(40)
    ]
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    root = make_project({"rows.jsonl": lines}, BASIC_CONFIG + "  quality: {embedder: tfidf}\n")
    (root / "texts.txt").write_text("\n".join(TEXTS) + "\n")
    opened = open_context(root)
    add_annotators(opened, ["anna", "ben"])
    yield opened
    opened.store.close()


def texts(ctx: Context, *people: str, overlap: int = 1, shared: bool = False) -> None:
    file = ctx.workspace.root / "texts.txt"
    assign(ctx, Order(people, overlap, source="file", file=file, shared=shared))


def say(ctx: Context, name: str, label: str = "warm") -> str:
    item = next_item(ctx, name)
    assert item is not None
    submit(ctx, Given(item.item, name, label))
    return item.item


def test_an_item_says_why_it_is_here(ctx: Context) -> None:
    texts(ctx, "anna", "ben", overlap=2)
    item = next_item(ctx, "anna")
    assert item is not None
    assert item.why == [
        "From the file texts.txt that was given out.",
        "2 people answer it, which shows how far they agree.",
    ]


def test_the_reason_that_chose_an_item_comes_first(ctx: Context) -> None:
    from tutelage.data.annotation.items import from_text

    items = [from_text("one", "a:1"), from_text("two", "a:2")]
    give(ctx, items, Order(("anna",), source="active"), ["typical of 3 other rows", ""])
    item = next_item(ctx, "anna")
    assert item is not None
    assert item.why[0] == "Typical of 3 other rows."
    assert item.why[1] == "Chosen because its label would teach the model most."


def test_people_who_ask_at_once_get_different_items(ctx: Context) -> None:
    names = [f"person {i}" for i in range(4)]
    add_annotators(ctx, names)
    texts(ctx, *names, shared=True)
    got: list[str] = []
    ready = threading.Barrier(len(names))

    def ask(name: str) -> None:
        ready.wait()
        item = next_item(ctx, name)
        assert item is not None
        got.append(item.item)

    threads = [threading.Thread(target=ask, args=(name,)) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert Counter(got).most_common(1)[0][1] == 1
    assert len(got) == 4


def test_a_renewed_lease_stays_and_one_that_ran_out_is_anyones(ctx: Context) -> None:
    texts(ctx, "anna", "ben", shared=True)
    start = utc_now()
    mine = next_item(ctx, "anna", now=start, lease_s=60)
    assert mine is not None
    assert renew(ctx, "anna", mine.item, now=start + timedelta(seconds=50), lease_s=60)
    other = next_item(ctx, "ben", now=start + timedelta(seconds=70), lease_s=600)
    assert other is not None
    assert other.item != mine.item
    submit(ctx, Given(other.item, "ben", "warm"))
    taken = next_item(ctx, "ben", now=start + timedelta(seconds=200))
    assert taken is not None
    assert taken.item == mine.item
    assert not renew(ctx, "anna", mine.item, now=start + timedelta(seconds=201))


def test_an_answer_that_comes_after_its_lease_fills_the_free_slot(ctx: Context) -> None:
    texts(ctx, "anna", "ben", shared=True)
    start = utc_now()
    mine = next_item(ctx, "anna", now=start, lease_s=1)
    assert mine is not None
    late = next_item(ctx, "ben", now=start + timedelta(seconds=5), lease_s=1)  # gives it back
    assert late is not None
    next_item(ctx, "anna", now=start + timedelta(seconds=10))  # ben's ran out too
    submit(ctx, Given(mine.item, "anna", "cold"))
    seen = {say(ctx, "ben") for _ in range(queue_of(ctx, "ben").anyone)}
    assert mine.item not in seen


def test_typed_text_stays_until_it_is_given(ctx: Context) -> None:
    texts(ctx, "anna")
    item = next_item(ctx, "anna")
    assert item is not None
    keep_typed(ctx, "anna", item.item, comment="hm")
    keep_typed(ctx, "anna", item.item, answer="half a sen")
    again = next_item(ctx, "anna")
    assert again is not None
    assert again.typed == {"comment": "hm", "answer": "half a sen"}
    assert show_item(ctx, item.item, "ben").typed == {}
    submit(ctx, Given(item.item, "anna", "warm", comment="hm"))
    assert show_item(ctx, item.item, "anna").typed == {}
    with pytest.raises(DataError, match="'colour' is nothing that is typed"):
        keep_typed(ctx, "anna", item.item, colour="red")


def test_answers_are_taken_back_one_after_another(ctx: Context) -> None:
    texts(ctx, "anna")
    first, second = say(ctx, "anna", "warm"), say(ctx, "anna", "cold")
    third = next_item(ctx, "anna")
    assert third is not None
    skip(ctx, "anna", third.item, comment="not mine")
    back = take_back(ctx, "anna")
    assert (back.item, back.comment) == (third.item, "not mine")
    assert take_back(ctx, "anna").item == second
    assert [one.item for one in said_last(ctx, "anna")] == [first]
    assert queue_of(ctx, "anna").done == 1
    votes = {one.item.id: one.votes for one in load_votes(ctx)}
    assert votes[second] == ()
    take_back(ctx, "anna")
    with pytest.raises(DataError, match="no answer that could be taken back"):
        take_back(ctx, "anna")
    assert queue_of(ctx, "anna").left == 4


def test_taking_a_correction_back_leaves_the_answer_before_it(ctx: Context) -> None:
    texts(ctx, "anna")
    item = say(ctx, "anna", "warm")
    submit(ctx, Given(item, "anna", "cold", flags=("unsure",)))
    assert take_back(ctx, "anna").label == "cold"
    (vote,) = next(one.votes for one in load_votes(ctx) if one.item.id == item)
    assert vote.label == "warm"
    assert queue_of(ctx, "anna").done == 1


def test_queues_say_who_has_work(ctx: Context) -> None:
    texts(ctx, "anna", "ben", shared=True)
    say(ctx, "anna")
    assert queue_of(ctx, "anna").as_dict() == {
        "name": "anna", "done": 1, "skipped": 0, "left": 0, "anyone": 3, "today": 1,
    }  # fmt: skip
    assert [one.name for one in queues(ctx)] == ["anna", "ben"]
    assert join(ctx, " carl  ") == "carl"
    assert join(ctx, "carl") == "carl"
    assert queue_of(ctx, "carl").anyone == 0


def test_marked_words_are_hidden_everywhere_in_the_item(ctx: Context) -> None:
    texts(ctx, "anna")
    item = next_item(ctx, "anna")
    assert item is not None
    with ctx.store.begin() as session:
        session.add(DraftRow(item=item.item, text="about fire", model="m", prompt="p"))
    keep_typed(ctx, "anna", item.item, answer="fire is hot, fired is not")
    done = redact_item(ctx, "anna", item.item, "fire", "name")
    assert (done.token, done.times, done.batch) == ("[NAME]", 3, None)
    seen = show_item(ctx, item.item, "anna")
    assert seen.text == "text number 0: the [NAME]"
    assert seen.draft is not None
    assert seen.draft["text"] == "about [NAME]"
    assert seen.typed["answer"] == "[NAME] is hot, fired is not"
    restore_item(ctx, done)
    assert show_item(ctx, item.item, "anna").text == item.text
    with pytest.raises(DataError, match="does not say what was marked"):
        redact_item(ctx, "anna", item.item, "nowhere", "name")
    with pytest.raises(DataError, match="no kind of identifier"):
        redact_item(ctx, "anna", item.item, "fire", "nmae")


def test_a_marked_row_is_repaired_and_its_label_still_finds_it(ctx: Context) -> None:
    curate(ctx)
    assign(ctx, Order(("anna",), count=1, split="train"))
    item = next_item(ctx, "anna")
    assert item is not None
    redact_item(ctx, "anna", item.item, "Ann Doe", kind_of(ctx, "Ann Doe"))
    (repair,) = active(ctx)
    assert repair.action == "input"
    assert "[NAME]" in repair.value
    curate(ctx)
    version = newest_version(ctx)
    assert version is not None
    assert sum("[NAME]" in row.input_text for row in version.all_rows()) == 1
    assert item.text not in {row.input_text for row in version.all_rows()}
    was = next(row.label for row in version.all_rows() if "[NAME]" in row.input_text)
    submit(ctx, Given(item.item, "anna", "cold" if was == "warm" else "warm"))
    assert publish(ctx)["repaired"] == 1


def test_what_a_mark_is_taken_for(ctx: Context) -> None:
    assert kind_of(ctx, "ann@example.org") == "email"
    assert kind_of(ctx, "something") == "name"
