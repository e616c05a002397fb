"""Several people decide and judge at once: what waits, who has it, and what is told when."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.fakes.web_projects import LABELS, labelling_project
from tests.fakes.web_teaching import PAIRS, add_evaluation

from tutelage.core.errors import Conflict, DataError
from tutelage.workflows.context import Context
from tutelage.workflows.data.experts import Given, skip, submit, todo
from tutelage.workflows.data.experts_decide import (
    CLAIM_S,
    FRESH_S,
    DecisionQueue,
    case_of,
    decisions_of,
)
from tutelage.workflows.data.experts_figures import FiguresDesk
from tutelage.workflows.data.experts_progress import progress
from tutelage.workflows.data.experts_review import adjudicate, disputed, load_votes
from tutelage.workflows.data.experts_typed import take_back
from tutelage.workflows.evaluation.human import Order, new_study
from tutelage.workflows.evaluation.human_answer import Given as Judged
from tutelage.workflows.evaluation.human_answer import next_task
from tutelage.workflows.evaluation.human_answer import submit as judge
from tutelage.workflows.evaluation.human_blind import (
    comparable,
    judged_pairs,
    reveal,
    standing,
    standings,
)


class Clock:
    """Time that passes when it is told to."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def ctx(tmp_path: Path) -> Iterator[Context]:
    """Six items that anna and ben answer: 0 and 1 differ, 2 both unsure, 3 both pass by."""
    opened = labelling_project(tmp_path, people=("anna", "ben"), items=6, overlap=2, drafts=False)
    for name in ("anna", "ben"):
        for one in todo(opened, name):
            number = int(one.text.rpartition(" ")[2])
            if number == 3:
                skip(opened, name, one.item)
                continue
            differs = name == "ben" and number < 2
            label = LABELS[(number + differs) % len(LABELS)]
            flags = ("unsure",) if number == 2 else ()
            submit(opened, Given(one.item, name, label=label, flags=flags, comment=f"by {name}"))
    yield opened
    opened.store.close()


def test_what_waits_is_what_the_command_lists(ctx: Context) -> None:
    queue = DecisionQueue(ctx)
    waiting = queue.waiting("cleo")
    assert [one.item for one in waiting] == [one["item"] for one in disputed(ctx)]
    assert [one.state for one in waiting] == ["disputed", "disputed", "unsure", "skipped"]
    assert queue.page("cleo", count=1)[0].text.startswith(("why was", "when does"))
    assert queue.waiting("anna") == [] and len(queue.waiting("anna", own=True)) == 4
    assert queue.counts("anna") == (4, 4)


def test_two_people_who_decide_never_have_one_item(ctx: Context) -> None:
    clock = Clock()
    queue = DecisionQueue(ctx, clock)
    first, second = queue.take("cleo"), queue.take("dora")
    assert first is not None and second is not None and first != second
    assert not queue.claim(first, "dora")
    assert queue.take("cleo", after=first) not in (first, second)
    assert queue.claim(first, "dora"), "who goes on gives the item free"
    clock.now = CLAIM_S + 1
    assert queue.claim(first, "cleo"), "a claim ends by itself"


def test_a_decision_leaves_the_list_and_the_later_one_is_refused(ctx: Context) -> None:
    clock = Clock()
    queue = DecisionQueue(ctx, clock)
    item = queue.take("cleo") or ""
    seen = case_of(ctx, item)
    assert seen.seen == 0 and {one.annotator for one in seen.answers} == {"anna", "ben"}
    assert [one.mark for one in seen.answers] == ["A", "B"]
    adjudicate(ctx, item, by="cleo", label="account", why="clear", seen=seen.seen)
    queue.done(item)
    with pytest.raises(Conflict, match="cleo decided this item meanwhile"):
        adjudicate(ctx, item, by="dora", label="billing", seen=seen.seen)
    again = case_of(ctx, item)
    assert again.decision == {"label": "account", "answer": None, "by": "cleo", "why": "clear"}
    adjudicate(ctx, item, by="dora", label="billing", seen=again.seen)
    clock.now = FRESH_S
    assert item not in [one.item for one in queue.waiting("cleo")]
    assert [one["label"] for one in decisions_of(ctx, "cleo")] == ["account"]
    with pytest.raises(DataError, match="there is no item"):
        case_of(ctx, "nowhere")


def test_an_answer_that_was_taken_back_no_longer_differs(ctx: Context) -> None:
    clock = Clock()
    queue = DecisionQueue(ctx, clock)
    before = len(queue.waiting("cleo"))
    taken = [take_back(ctx, "ben").item for _ in range(6)]
    clock.now = FRESH_S
    left = queue.waiting("cleo")
    assert before == 4 and len(set(taken)) == 6
    assert [one.state for one in left] == []


def test_figures_are_the_commands_and_follow_what_comes_in(ctx: Context) -> None:
    clock = Clock()
    desk = FiguresDesk(ctx, clock)
    found = desk.figures()
    assert found.agreement is not None and found.agreement.rated == 5
    assert {one.name: one.skipped for one in found.people} == {"anna": 1, "ben": 1}
    states = {"agreed": 2, "disputed": 2, "unsure": 1, "skipped": 1}
    assert found.progress["states"] == progress(ctx)["states"] == states
    assert desk.figures() is found
    adjudicate(ctx, load_votes(ctx)[0].item.id, by="cleo", label="billing")
    assert desk.figures() is found, "looked at a moment ago"
    clock.now = 60
    assert desk.figures().progress["states"]["decided"] == 1


def test_nothing_answered_says_what_to_do(tmp_path: Path) -> None:
    ctx = labelling_project(tmp_path, items=2, drafts=False)
    found = FiguresDesk(ctx).figures()
    assert found.agreement is None and found.why == "Nobody has labelled anything yet"
    assert found.progress["items"] == 2 and found.progress["states"] == {"open": 2}
    ctx.store.close()


def test_texts_that_differ_only_in_case_and_space_do_not_wait(tmp_path: Path) -> None:
    ctx = labelling_project(tmp_path, people=("anna", "ben"), items=2, overlap=2, free_text=True)
    for name in ("anna", "ben"):
        for number, one in enumerate(todo(ctx, name)):
            said = "It is sent on Monday." if number or name == "anna" else "Nobody knows yet."
            typed = said if name == "anna" else f"{said.lower()}  "
            submit(ctx, Given(one.item, name, answer=typed))
    waiting = DecisionQueue(ctx).waiting("cleo")
    assert [one.item for one in waiting] == [one["item"] for one in disputed(ctx)]
    case = case_of(ctx, waiting[0].item)
    assert not case.labelled and case.draft == "It is sent within two days."
    ctx.store.close()


def test_a_study_tells_nobody_who_leads_before_its_end(ctx: Context) -> None:
    add_evaluation(ctx)
    assert comparable(ctx)[0].candidates == ("tuned", "base")
    order = Order(people=("anna", "ben"), candidates=("tuned", "base"), shared=True)
    study = new_study(ctx, order)["study"]
    assert standings(ctx, "cleo")[0].mine is None
    assert standing(ctx, study, "anna").mine == (0, PAIRS)
    for number in range(PAIRS):
        with pytest.raises(Conflict, match="nobody sees who leads"):
            reveal(ctx, study)
        with pytest.raises(Conflict):
            judged_pairs(ctx, study)
        name = ("anna", "ben")[number % 2]
        shown = next_task(ctx, name, study)
        assert shown is not None
        side = "left" if "good" in shown.left else "right"
        judge(ctx, Judged(shown.assignment, name, side=side))
    done = standing(ctx, study, "anna")
    assert done.finished and dict(done.people) == {"anna": (5, 0), "ben": (5, 0)}
    assert reveal(ctx, study)["win_rates"][0]["decision"] == "first"
    total, rows = judged_pairs(ctx, study, count=3)
    assert total == PAIRS and [one["said"][0]["chose"] for one in rows] == ["tuned"] * 3
