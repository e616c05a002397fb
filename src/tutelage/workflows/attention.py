"""What needs a person now, from everywhere in the project, counted by index.

It only looks: pages and commands do what is needed.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from sqlalchemy import func, select

from tutelage.release.rollout import ACTIVE
from tutelage.release.routes import rollouts
from tutelage.serving.monitoring.alert_store import list_alerts
from tutelage.store.artifacts import StageRow
from tutelage.store.human import HumanAssignmentRow, HumanStudyRow
from tutelage.store.releases import PromptRow, ReleaseRow
from tutelage.workflows import jobs
from tutelage.workflows.context import Context
from tutelage.workflows.data.experts_decide import queue_of as decisions_of
from tutelage.workflows.data.experts_queue import queue_of
from tutelage.workflows.evaluation import evaluations
from tutelage.workflows.improve.improve_turns import current

Level = Literal["bad", "warn", "info", "good", "idle"]
_MOST = 5  # alerts, jobs or rollouts that are listed one by one

TEACHERS = frozenset({"expert", "engineer", "admin"})
ENGINEERS = frozenset({"engineer", "admin"})
OPERATORS = frozenset({"operator", "admin"})


@dataclass(frozen=True)
class Need:
    """One thing that waits: a sentence, where it is done, and since when."""

    kind: str  # label, decide, compare, job, verdict, prompt, alert, rollout, turn
    text: str
    path: str
    level: Level = "info"
    since: datetime | None = None
    progress: float | None = None  # 0..1 of a job at work


@dataclass(frozen=True)
class NextStep:
    """What a project that is not finished needs: a sentence and the command to type."""

    text: str
    command: str


def attention(ctx: Context, person: str, roles: Collection[str]) -> list[Need]:
    """Return what a person with these roles should look at, the most urgent kinds first."""
    parts: list[tuple[frozenset[str], Callable[[], Iterable[Need]]]] = [
        (OPERATORS, lambda: _alerts(ctx)),
        (OPERATORS, lambda: _rollouts(ctx)),
        (OPERATORS | ENGINEERS, lambda: _turn(ctx)),
        (TEACHERS, lambda: _items(ctx, person)),
        (TEACHERS, lambda: _decisions(ctx, person)),
        (TEACHERS, lambda: _comparisons(ctx, person)),
        (ENGINEERS, lambda: _prompts(ctx)),
        (ENGINEERS, lambda: _jobs(ctx)),
        (ENGINEERS, lambda: _verdict(ctx)),
    ]
    held = set(roles)
    return [need for wanted, look in parts if wanted & held for need in look()]


def next_step(ctx: Context) -> NextStep | None:
    """Return what to do in a project whose loop has not run once, or None."""
    with ctx.store.session() as session:
        finished = set(session.scalars(select(StageRow.stage)))
    if "curate" not in finished:
        return NextStep(
            "There is no dataset yet. Put examples into data/ and curate them.",
            "tutelage run",
        )
    if not {"train", "evaluate"} <= finished:
        return NextStep("The data is ready. Train and evaluate a model on it.", "tutelage run")
    if "release" not in finished:
        return NextStep(
            "No release was made, because the verdict is not a pass. Look at the evaluation.",
            "tutelage evaluate",
        )
    return None


def _alerts(ctx: Context) -> Iterable[Need]:
    found = list_alerts(ctx.store, limit=_MOST)
    for row in found:
        level: Level = "bad" if row.level == "error" else "warn"
        yield Need("alert", row.message, "/alerts", level, row.since)


def _rollouts(ctx: Context) -> Iterable[Need]:
    for row in rollouts(ctx.store, limit=_MOST):
        if row.state in ACTIVE:
            text = f"The rollout of {_name(ctx, row.candidate)} to {row.deployment} is {row.state}"
            level: Level = "warn" if row.state in ("paused", "frozen") else "info"
            yield Need("rollout", text, f"/rollout/{row.deployment}", level, row.created_at)


def _name(ctx: Context, release: str) -> str:
    with ctx.store.session() as session:
        row = session.get(ReleaseRow, release)
    return row.name if row is not None else release[:12]


def _turn(ctx: Context) -> Iterable[Need]:
    turn = current(ctx.store, ctx.config.name)
    if turn is None or turn.ended:
        return
    if turn.problem:
        yield Need("turn", f"The turn of the loop: {turn.problem}", "/improve", "bad", turn.since)
    elif turn.waits:
        yield Need("turn", f"The loop waits: {turn.waits}", "/improve", "warn", turn.since)


def _items(ctx: Context, person: str) -> Iterable[Need]:
    queue = queue_of(ctx, person)
    if queue.left:
        yield Need("label", f"{_many(queue.left, 'item')} of yours to label", "/label")
    if queue.anyone:
        yield Need("label", f"{_many(queue.anyone, 'item')} to label for whoever is free", "/label")


def _decisions(ctx: Context, person: str) -> Iterable[Need]:
    waiting, own = decisions_of(ctx).counts(person)
    if waiting > own:
        text = f"{_many(waiting - own, 'item')} on which experts disagree"
        yield Need("decide", text, "/review")


def _comparisons(ctx: Context, person: str) -> Iterable[Need]:
    with ctx.store.session() as session:
        theirs = [row.id for row in session.scalars(select(HumanStudyRow)) if person in row.people]
        left = session.scalar(
            select(func.count(func.distinct(HumanAssignmentRow.task))).where(
                HumanAssignmentRow.study.in_(theirs),
                HumanAssignmentRow.state.in_(("open", "leased")),
                HumanAssignmentRow.rater.is_(None) | (HumanAssignmentRow.rater == person),
            )
        )
    if left:
        yield Need("compare", f"{_many(left, 'answer')} to compare blind", "/compare-blind")


def _prompts(ctx: Context) -> Iterable[Need]:
    with ctx.store.session() as session:
        numbers = session.scalars(select(PromptRow.number).where(PromptRow.state == "review")).all()
    for number in numbers[:_MOST]:
        yield Need("prompt", f"Version {number} of the prompt waits for review", "/prompts", "warn")


def _jobs(ctx: Context) -> Iterable[Need]:
    for job in jobs.running(ctx)[:_MOST]:
        stage = f": {job.stage}" if job.stage else ""
        yield Need(
            "job", f"{job.kind} is {job.state}{stage}", f"/runs/{job.id}", "info",
            job.started_at, job.progress,
        )  # fmt: skip


def _verdict(ctx: Context) -> Iterable[Need]:
    _, found = evaluations.listing(ctx, count=1)
    for one in found:
        levels: dict[str, Level] = {"pass": "good", "fail": "bad"}
        yield Need(
            "verdict", f"Last verdict, of {one['candidate']}: {one['sentence']}",
            f"/evaluations/{one['id'][:12]}", levels.get(one["verdict"], "warn"), one["made_at"],
        )  # fmt: skip


def _many(count: int, name: str) -> str:
    return f"{count:,} {name}{'' if count == 1 else 's'}"
