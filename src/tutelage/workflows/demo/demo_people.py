"""The demo's experts: guidelines, items given out, drafts, answers that differ, comparisons.

Written by the same functions that the pages call. The labels are right but for the mistakes that
each made-up person is said to make.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import timedelta

from sqlalchemy import select

from tutelage.core.artifact import content_hash
from tutelage.store.annotations import AssignmentRow, DraftRow, ItemRow
from tutelage.workflows.data import experts, experts_items, experts_people, experts_review
from tutelage.workflows.demo.demo_cast import LOCAL, PEOPLE, RIGHT, Cast
from tutelage.workflows.evaluation import human, human_answer

_TEACHER = "teacher-8b"
_GUIDELINES = (
    (
        "Name the one class that the description belongs to.\n\n"
        "Read the whole description first. The named condition decides, not where it is treated.",
        "first version",
    ),
    (
        "Name the one class that the description belongs to.\n\n"
        "1. Read the whole description first. The named condition decides, not where it is "
        "treated.\n"
        "2. A cause that is named outranks the organ: an injury of the eye is an injury.\n"
        "3. A sign without a diagnosis belongs to the signs.\n"
        "4. If two classes fit equally well, mark the item as unsure and say which two.",
        "injuries outrank organs; when to mark unsure",
    ),
)
_COMMENTS = (
    "The cause is named, so it outranks the organ.",
    "Both would fit; I took the more specific one.",
    "The guideline does not cover this case yet.",
)


def fill_experts(cast: Cast) -> None:
    """Make people, guidelines, two batches with answers, one open batch, two decisions."""
    ctx = cast.ctx
    experts_people.add_annotators(ctx, [*PEOPLE, LOCAL])
    for text, note in _GUIDELINES:
        experts_people.set_guideline(ctx, text, note=note, author="anna")
    experts_items.assign(
        ctx, experts_items.Order(people=PEOPLE, overlap=2, count=48, source="random")
    )
    _draft(cast)
    for number, name in enumerate(PEOPLE):
        _answer_all(cast, name, days=5 - number, leave=(0, 2, 5)[number])
    _adjudicate(cast, 2)
    everybody = (*PEOPLE, LOCAL)
    experts_items.assign(
        ctx, experts_items.Order(people=everybody, overlap=2, count=30, seed=11, shared=True)
    )
    _draft(cast)


def fill_comparisons(cast: Cast) -> None:
    """Make a blind comparison that is nearly done, and one that waits for the visitor."""
    ctx = cast.ctx
    done = human.new_study(ctx, human.Order(people=PEOPLE[:2], rows=16, overlap=2, seed=3))
    for name in PEOPLE[:2]:
        _judge_all(cast, name, done["study"], leave=0 if name == "anna" else 3)
    human.new_study(ctx, human.Order(people=(LOCAL, "chloe"), rows=12, overlap=1, seed=5))


def answer_first(cast: Cast, batch: str, people: Sequence[str]) -> None:
    """Let each of these people answer one of the first items of a batch."""
    query = select(AssignmentRow.item).where(AssignmentRow.batch == batch)
    with cast.ctx.store.session() as session:
        ordered = query.order_by(AssignmentRow.place).limit(len(people))
        items = list(session.scalars(ordered))
    for name, item in zip(people, items, strict=False):
        shown = experts.show_item(cast.ctx, item, name)
        experts.submit(cast.ctx, _given(cast, name, shown, 0))


def _draft(cast: Cast) -> None:
    """Write a teacher's draft for every item that has none; two in ten are wrong."""
    told = content_hash([cast.ctx.config.prompt, _GUIDELINES[-1][0]])
    with cast.ctx.store.begin() as session:
        had = set(session.scalars(select(DraftRow.item)))
        for row in session.scalars(select(ItemRow).order_by(ItemRow.id)):
            if row.id not in had:
                label = cast.said(_text(row), 0.8)
                session.add(
                    DraftRow(
                        item=row.id, text=cast.output.render(label), label=label, problem=None,
                        model=_TEACHER, prompt=told, tokens=180 + len(label), at=cast.ago(days=6),
                    )
                )  # fmt: skip


def _text(row: ItemRow) -> str:
    turns = [turn for turn in row.example.get("messages", []) if turn.get("role") == "user"]
    return str(turns[-1].get("content", "")) if turns else ""


def _answer_all(cast: Cast, name: str, *, days: float, leave: int) -> None:
    """Let a person answer what they were given, but for the last `leave` items."""
    at = cast.ago(days=days)
    left = len(experts.todo(cast.ctx, name)) - leave
    for number in range(max(0, left)):
        shown = experts.next_item(cast.ctx, name, now=at)
        if shown is None:
            return
        at += timedelta(seconds=cast.dice.uniform(6, 40))
        experts.submit(cast.ctx, _given(cast, name, shown, number), now=at)


def _given(cast: Cast, name: str, shown: experts.Shown, number: int) -> experts.Given:
    if number % 17 == 16:
        return experts.Given(shown.item, name, flags=("skip",), comment="Not a diagnosis.")
    label = cast.said(shown.text, RIGHT[name])
    unsure = cast.dice.random() < 0.08
    return experts.Given(
        shown.item,
        name,
        label=label,
        seconds=round(cast.dice.uniform(4, 30), 1),
        comment=cast.dice.choice(_COMMENTS) if unsure else "",
        flags=("unsure",) if unsure else (),
        draft=shown.draft["id"] if shown.draft else None,
    )


def _adjudicate(cast: Cast, count: int) -> None:
    for entry in experts_review.disputed(cast.ctx)[:count]:
        label = cast.truth.get(entry["text"])
        if label:
            experts_review.adjudicate(
                cast.ctx, entry["item"], by="anna", label=label,
                why="Rule 2 of the guideline: the named cause decides.",
            )  # fmt: skip


def _judge_all(cast: Cast, name: str, study: str, *, leave: int) -> None:
    """Let a rater judge the pairs, mostly for the right answer, but for the last `leave`."""
    while (shown := human_answer.next_task(cast.ctx, name, study)) is not None:
        if shown.total - shown.done <= leave:
            return
        text = str(shown.messages[-1].get("content", "")) if shown.messages else ""
        right = cast.output.render(cast.truth.get(text, ""))
        human_answer.submit(
            cast.ctx,
            human_answer.Given(
                shown.assignment, name, side=_side(cast.dice.random, shown, right),
                seconds=round(cast.dice.uniform(5, 25), 1),
            ),
        )  # fmt: skip


def _side(chance: Callable[[], float], shown: human_answer.Shown, right: str) -> human_answer.Side:
    good = (shown.left.strip() == right, (shown.right or "").strip() == right)
    if good[0] == good[1] or chance() < 0.1:
        return "tie"
    return "left" if good[0] else "right"
