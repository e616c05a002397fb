"""A teacher drafts answers for items that wait for an expert, within a budget of tokens.

Each draft is durable when it arrives, so that a job that was cut off asks only for the rest.
Items on the test side get no draft: an expert who starts from the teacher's answer is no
independent judge of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from sqlalchemy import select

from tutelage.core.config import Endpoint
from tutelage.core.errors import ConfigError, DataError, ModelError
from tutelage.core.events import Event
from tutelage.data.annotation.drafts import (
    instructions,
    most_tokens,
    read_draft,
    request,
    told_hash,
)
from tutelage.data.annotation.items import Item
from tutelage.inference.base import Completion, Generator, Prompt
from tutelage.inference.openai import OpenAIGenerator
from tutelage.store.annotations import AnnotationRow, AssignmentRow, BatchRow, DraftRow, ItemRow
from tutelage.store.artifacts import SplitRow
from tutelage.workflows.context import Context
from tutelage.workflows.data.experts_answer import is_labelled
from tutelage.workflows.data.experts_people import guideline
from tutelage.workflows.data.experts_rows import item_of

STAGE = "draft"
_AT_ONCE = 16  # requests between two looks at the budget
_LABEL_TOKENS = 64
_TEXT_TOKENS = 1024


@dataclass
class Drafted:
    """What one run gave: drafts kept, unreadable ones among them, failures, tokens, what is left.

    `tokens` are as the server reports them; where it reports none, as estimated.
    """

    model: str
    prompt: str
    drafted: int = 0
    unreadable: int = 0
    failed: int = 0
    tokens: int = 0
    left: int = 0
    problem: str = ""
    budget_spent: bool = False

    def as_dict(self) -> dict[str, Any]:
        """Return plain data."""
        return asdict(self)


def draft(ctx: Context, count: int | None = None, *, generator: Generator | None = None) -> Drafted:
    """Have the teacher draft up to `count` items (all by default) that nobody answered yet.

    Run again, it goes on where it stopped; a changed prompt or guideline means new drafts.
    Raises ConfigError without a teacher, DataError if no item waits, ModelError if the teacher
    answers nothing.
    """
    teacher = _teacher(ctx)
    newest = guideline(ctx)
    output = ctx.config.output.format()
    told = instructions(ctx.config.prompt, output, newest["text"] if newest else "")
    done = Drafted(teacher.model, told_hash(told))
    items, waiting = _wanted(ctx, done)
    if not items:
        if waiting:
            return done
        raise DataError(
            "no item waits for a draft",
            where=str(ctx.workspace.root),
            fix="Give items out first: `tutelage data label assign`",
        )
    chosen = items[:count] if count is not None else items
    limit = _LABEL_TOKENS if is_labelled(ctx.config) else _TEXT_TOKENS
    prompts = [request(item.example, told, limit) for item in chosen]
    made = generator or OpenAIGenerator(teacher.base_url, teacher.model, teacher.api_key_env)
    ctx.emit(Event(STAGE, "start", f"{len(chosen):,} drafts by {teacher.model}"))
    try:
        _ask(ctx, made, list(zip(chosen, prompts, strict=True)), done)
    finally:
        if generator is None:
            made.close()
    done.left = len(items) - done.drafted
    if not done.drafted and done.failed:
        raise ModelError(
            f"the teacher answered none of {done.failed} requests ({done.problem})",
            where=teacher.base_url,
            fix="Check that the server runs and knows the model",
        )
    ctx.emit(Event(STAGE, "done", f"{done.drafted:,} drafts, {done.tokens:,} tokens"))
    return done


def _ask(
    ctx: Context, generator: Generator, work: Sequence[tuple[Item, Prompt]], done: Drafted
) -> None:
    """Ask in small groups while the budget holds the dearest that each request can be."""
    budget = ctx.config.augment.tokens
    place = 0
    while place < len(work):
        part = _affordable(work[place : place + _AT_ONCE], budget - done.tokens)
        if not part:
            done.budget_spent = True
            ctx.emit(
                Event(
                    STAGE,
                    "warning",
                    f"the budget of {budget:,} tokens (augment.tokens) is used up; run the same "
                    "command again to go on",
                )
            )
            return

        def keep(
            index: int, completion: Completion, part: Sequence[tuple[Item, Prompt]] = part
        ) -> None:
            _keep(ctx, part[index][0], part[index][1], completion, done)
            at = done.drafted + done.failed
            ctx.emit(Event(STAGE, "progress", "drafts", done=at, total=len(work)))

        generator.generate([prompt for _, prompt in part], keep)
        if not done.drafted and done.failed >= len(part):
            return  # nothing but failures: the server is not there
        place += len(part)


def _affordable(part: Sequence[tuple[Item, Prompt]], budget: int) -> Sequence[tuple[Item, Prompt]]:
    spent = 0
    for index, (_, prompt) in enumerate(part):
        spent += most_tokens(prompt)
        if spent > budget:
            return part[:index]
    return part


def _keep(ctx: Context, item: Item, prompt: Prompt, completion: Completion, done: Drafted) -> None:
    """Write one draft in a transaction of its own."""
    if completion.finish_reason == "error":
        done.failed += 1
        done.problem = str(completion.meta.get("problem", ""))
        return
    usage = completion.usage
    tokens = usage.prompt_tokens + usage.completion_tokens or most_tokens(prompt)
    found = read_draft(completion.text, ctx.config.output.format(), completion.finish_reason)
    with ctx.store.begin() as session:
        session.add(
            DraftRow(
                item=item.id,
                text=found.text,
                label=found.label,
                problem=found.problem,
                model=done.model[:160],
                prompt=done.prompt,
                tokens=tokens,
            )
        )
    done.drafted += 1
    done.tokens += tokens
    done.unreadable += found.problem is not None


def _wanted(ctx: Context, done: Drafted) -> tuple[list[Item], int]:
    """Return the items to draft, in the order they are given out, and how many wait at all."""
    with ctx.store.session() as session:
        waiting = list(
            session.scalars(
                select(AssignmentRow.item)
                .join(BatchRow, BatchRow.id == AssignmentRow.batch)
                .where(AssignmentRow.state.in_(("open", "leased")))
                .order_by(BatchRow.at, AssignmentRow.place, AssignmentRow.id)
            )
        )
        have = set(
            session.scalars(
                select(DraftRow.item).where(
                    DraftRow.model == done.model[:160], DraftRow.prompt == done.prompt
                )
            )
        )
        answers = select(AnnotationRow.item).where(AnnotationRow.undone_at.is_(None))
        answered = set(session.scalars(answers))
        held_out = set(session.scalars(select(SplitRow.example_id).where(SplitRow.split == "test")))
        found = []
        for name in dict.fromkeys(waiting):
            if name in have or name in answered:
                continue
            item = item_of(session.get_one(ItemRow, name))
            if item.split != "test" and item.example_id not in held_out:
                found.append(item)
    return found, len(set(waiting))


def _teacher(ctx: Context) -> Endpoint:
    teacher = ctx.config.teacher
    if teacher is None:
        raise ConfigError(
            "the settings name no teacher",
            where=str(ctx.workspace.config_path),
            fix="Add `teacher: {base_url: ..., model: ...}`, any OpenAI-compatible server",
        )
    return teacher
