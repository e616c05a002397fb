"""Raters at work: the next thing to judge, the judgement, the skip, the undo.

These are what a page calls. A judgement is durable when `submit` returns, and delivering it again
(the same `key`) changes nothing. What somebody has before them is leased to them for a while, so
two people never judge the same thing by accident.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta
from typing import Any, Literal

from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from tutelage.core.artifact import utc_now
from tutelage.core.errors import Conflict, DataError, did_you_mean
from tutelage.evaluation.human.sample import left_is_first
from tutelage.store.human import (
    HumanAssignmentRow,
    HumanJudgementRow,
    HumanStudyRow,
    HumanTaskRow,
)
from tutelage.workflows.context import Context
from tutelage.workflows.evaluation.human_rows import criteria_of, find_study
from tutelage.workflows.evaluation.human_scores import refresh_scores

LEASE_S = 30 * 60.0  # what somebody opened is theirs for so long
_LONGEST_S = 24 * 3600.0  # longer than this nobody thought about one row

Side = Literal["left", "right", "tie"]
SIDES: tuple[Side, ...] = ("left", "right", "tie")


@dataclass(frozen=True)
class Shown:
    """One thing to judge, blind: `left` and `right` answers, or `left` alone by a rubric.

    `assignment` names it. `done` of `total` says how far the person is.
    """

    assignment: str
    messages: list[dict[str, Any]]
    left: str
    right: str | None
    criteria: list[dict[str, Any]]
    reference: str | None
    done: int
    total: int

    def as_dict(self) -> dict[str, Any]:
        """Return plain data."""
        return asdict(self)


@dataclass(frozen=True)
class Given:
    """One judgement: the better `side`, or a level (0 the worst) a criterion, or a skip."""

    assignment: str
    rater: str
    side: Side | None = None
    levels: Mapping[str, int] = field(default_factory=dict)
    comment: str = ""
    seconds: float | None = None
    skip: bool = False
    key: str | None = None
    source: str = "tutelage"


@dataclass(frozen=True)
class Kept:
    """What was written: the judgement's number and the one it supersedes."""

    number: int
    assignment: str
    supersedes: int | None
    repeated: bool = False  # it was kept before


def next_task(
    ctx: Context,
    rater: str,
    study: str | None = None,
    *,
    now: datetime | None = None,
    lease_s: float = LEASE_S,
) -> Shown | None:
    """Return what a rater judges next and lease it to them; None if nothing is left."""
    at = now or utc_now()
    with ctx.store.begin() as session:
        found = find_study(session, study)
        name = known_rater(found, rater)
        taken = claim(session, found, name, at, lease_s, count=1)
        return show(session, found, taken[0]) if taken else None


def claim(
    session: Session,
    study: HumanStudyRow,
    rater: str,
    at: datetime,
    lease_s: float,
    count: int | None = None,
) -> list[HumanAssignmentRow]:
    """Lease up to `count` assignments to a rater, those they hold first, and return them."""
    _give_back(session, study, at)
    own = list(
        session.scalars(
            _ordered(
                select(HumanAssignmentRow).where(
                    HumanAssignmentRow.study == study.id,
                    HumanAssignmentRow.rater == rater,
                    HumanAssignmentRow.state.in_(("leased", "open")),
                )
            )
        )
    )
    own.sort(key=lambda row: row.state != "leased")  # what was begun comes first
    if study.shared and (count is None or len(own) < count):
        own += _free(session, study, rater, None if count is None else count - len(own))
    own = own[:count]
    for row in own:
        row.rater, row.state = rater, "leased"
        row.leased_at, row.lease_until = at, at + timedelta(seconds=lease_s)
    session.flush()
    return own


def submit(ctx: Context, given: Given, *, now: datetime | None = None) -> Kept:
    """Keep a judgement; a later one of the same assignment supersedes it.

    Raises DataError or Conflict, with nothing kept, if it can't be one or is another's.
    """
    with ctx.store.begin() as session:
        return keep(session, given, now or utc_now())


def keep(session: Session, given: Given, at: datetime, *, refresh: bool = True) -> Kept:
    """Keep a judgement inside a transaction that is open; without `refresh` scores wait."""
    if given.key is not None:
        known = HumanJudgementRow.key == given.key
        before = session.scalars(select(HumanJudgementRow).where(known)).first()
        if before is not None:
            return Kept(before.number, before.assignment, before.supersedes, repeated=True)
    slot = _slot(session, given)
    study = session.get_one(HumanStudyRow, slot.study)
    task = session.get_one(HumanTaskRow, slot.task)
    newest = newest_of(session, slot.id)
    row = HumanJudgementRow(
        assignment=slot.id,
        study=study.id,
        task=task.id,
        rater=slot.rater or "",
        kind="skip" if given.skip else "answer",
        choice=None,
        left=_left(study, task, slot),
        levels={},
        comment=given.comment.strip(),
        seconds=_seconds(given.seconds),
        supersedes=newest.number if newest else None,
        source=given.source[:160],
        key=given.key or secrets.token_hex(16),
        at=at,
    )
    if not given.skip:
        row.choice = _choice(study, task, slot, given)
        row.levels = _levels(study, given)
    session.add(row)
    slot.state = "skipped" if given.skip else "done"
    slot.done_at, slot.lease_until = at, None
    session.flush()
    if refresh:
        refresh_scores(session, study.evaluation, [task.item])
    return Kept(row.number, slot.id, row.supersedes)


def undo(
    ctx: Context, rater: str, study: str | None = None, *, now: datetime | None = None
) -> str | None:
    """Take back a rater's newest judgement; return its assignment, or None if there is none.

    What was taken back is kept, with a row that says so, and comes next again.
    """
    at = now or utc_now()
    with ctx.store.begin() as session:
        found = find_study(session, study)
        name = known_rater(found, rater)
        last = _last(session, found, name)
        if last is None:
            return None
        session.add(
            HumanJudgementRow(
                assignment=last.assignment, study=found.id, task=last.task, rater=name,
                kind="undo", choice=None, left=last.left, levels={}, seconds=None,
                supersedes=last.number, key=secrets.token_hex(16), at=at,
            )
        )  # fmt: skip
        slot = session.get_one(HumanAssignmentRow, last.assignment)
        slot.state, slot.done_at = "leased", None
        slot.leased_at, slot.lease_until = at, at + timedelta(seconds=LEASE_S)
        session.flush()
        task = session.get_one(HumanTaskRow, last.task)
        refresh_scores(session, found.evaluation, [task.item])
        return last.assignment


def newest_of(session: Session, assignment: str) -> HumanJudgementRow | None:
    """Return the newest judgement of an assignment, a skip or an undo too."""
    return session.scalars(
        select(HumanJudgementRow)
        .where(HumanJudgementRow.assignment == assignment)
        .order_by(HumanJudgementRow.number.desc())
        .limit(1)
    ).first()


def known_rater(study: HumanStudyRow, name: str) -> str:
    """Return a rater's name; raise DataError, with the nearest, if the study does not ask them."""
    plain = " ".join(name.split())
    if plain not in study.people:
        hint = did_you_mean(plain, [str(person) for person in study.people])
        raise DataError(
            f"{plain!r} is no rater of the study",
            where=study.id,
            fix=f"{hint}It asks {', '.join(study.people)}",
        )
    return plain


def show(session: Session, study: HumanStudyRow, slot: HumanAssignmentRow) -> Shown:
    """Return an assignment as its rater sees it: nothing tells which candidate wrote what."""
    task = session.get_one(HumanTaskRow, slot.task)
    left, right = task.first_text, task.second_text
    if right is not None and not left_is_first(study.secret, slot.id):
        left, right = right, left
    counted = dict(
        session.execute(
            select(HumanAssignmentRow.state, func.count())
            .where(HumanAssignmentRow.study == study.id, HumanAssignmentRow.rater == slot.rater)
            .group_by(HumanAssignmentRow.state)
        )
        .tuples()
        .all()
    )
    return Shown(
        assignment=slot.id,
        messages=list(task.messages),
        left=left,
        right=right,
        criteria=[criterion.as_dict() for criterion in criteria_of(study)],
        reference=task.reference,
        done=counted.get("done", 0) + counted.get("skipped", 0),
        total=sum(counted.values()),
    )


def _give_back(session: Session, study: HumanStudyRow, at: datetime) -> None:
    """End the leases that have run out; in a shared study they are anyone's again."""
    back: dict[str, Any] = {"state": "open", "lease_until": None}
    if study.shared:
        back["rater"] = None
    session.execute(
        update(HumanAssignmentRow)
        .where(
            HumanAssignmentRow.study == study.id,
            HumanAssignmentRow.state == "leased",
            HumanAssignmentRow.lease_until < at,
        )
        .values(**back)
    )


def _ordered(query: Any) -> Any:
    return query.order_by(HumanAssignmentRow.place, HumanAssignmentRow.id).with_for_update(
        skip_locked=True, of=HumanAssignmentRow
    )


def _free(
    session: Session, study: HumanStudyRow, rater: str, count: int | None
) -> list[HumanAssignmentRow]:
    """Return slots of nobody, each of a task that the rater has not had."""
    had = select(HumanAssignmentRow.task).where(
        HumanAssignmentRow.study == study.id, HumanAssignmentRow.rater == rater
    )
    rows = session.scalars(
        _ordered(
            select(HumanAssignmentRow).where(
                HumanAssignmentRow.study == study.id,
                HumanAssignmentRow.rater.is_(None),
                HumanAssignmentRow.state == "open",
                HumanAssignmentRow.task.not_in(had),
            )
        )
    )
    found: dict[int, HumanAssignmentRow] = {}
    for row in rows:
        if count is not None and len(found) >= count:
            break
        found.setdefault(row.task, row)
    return list(found.values())


def _slot(session: Session, given: Given) -> HumanAssignmentRow:
    """Return the assignment of a judgement, taken by its rater."""
    slot = session.get(HumanAssignmentRow, given.assignment)
    if slot is None:
        raise DataError(
            f"there is nothing to judge called {given.assignment!r}",
            fix="Take it from the sheet or page of the study as it is",
        )
    name = known_rater(session.get_one(HumanStudyRow, slot.study), given.rater)
    if slot.rater not in (None, name):
        raise Conflict(
            f"{given.assignment!r} is another rater's", fix="Ask for the next one instead"
        )
    if slot.rater is None:
        twice = select(HumanAssignmentRow.id).where(
            HumanAssignmentRow.task == slot.task, HumanAssignmentRow.rater == name
        )
        if session.scalars(twice).first() is not None:
            raise Conflict(f"{name!r} judged this already", fix="Ask for the next one instead")
        slot.rater = name
    return slot


def _left(study: HumanStudyRow, task: HumanTaskRow, slot: HumanAssignmentRow) -> str | None:
    if task.second is None:
        return None
    return task.first if left_is_first(study.secret, slot.id) else task.second


def _choice(
    study: HumanStudyRow, task: HumanTaskRow, slot: HumanAssignmentRow, given: Given
) -> str | None:
    """Return first, second or tie, whatever side they stood on."""
    if study.kind != "pairwise":
        return None
    if given.side not in SIDES:
        raise DataError(f"{given.side!r} is no side", fix=f"Use {', '.join(SIDES)}, or skip it")
    if given.side == "tie":
        return "tie"
    return "first" if (given.side == "left") == (_left(study, task, slot) == task.first) else (
        "second"
    )  # fmt: skip


def _levels(study: HumanStudyRow, given: Given) -> dict[str, int]:
    """Return a level for each criterion; raise DataError if one lacks or is none."""
    criteria = criteria_of(study)
    odd = next((name for name in given.levels if name not in {c.name for c in criteria}), None)
    if odd is not None:
        raise DataError(f"{odd!r} is no criterion of the study", where=study.id)
    for criterion in criteria:
        level = given.levels.get(criterion.name)
        if not isinstance(level, int) or not 0 <= level < len(criterion.levels):
            raise DataError(
                f"{criterion.name}: {level!r} is no level",
                where=study.id,
                fix=f"Give a place from 0 to {len(criterion.levels) - 1} for each criterion",
            )
    return {criterion.name: given.levels[criterion.name] for criterion in criteria}


def _seconds(value: float | None) -> float | None:
    if value is not None and not 0 <= value <= _LONGEST_S:
        raise DataError(
            f"{value!r} is not a time spent on a row", fix="Give seconds from 0 to a day"
        )
    return float(value) if value is not None else None


def _last(session: Session, study: HumanStudyRow, rater: str) -> HumanJudgementRow | None:
    """Return the rater's newest judgement that still counts or is a skip."""
    rows = session.scalars(
        select(HumanJudgementRow)
        .where(HumanJudgementRow.study == study.id, HumanJudgementRow.rater == rater)
        .order_by(HumanJudgementRow.number.desc())
    )
    seen: set[str] = set()
    for row in rows:
        if row.assignment not in seen and row.kind != "undo":
            return row
        seen.add(row.assignment)
    return None
