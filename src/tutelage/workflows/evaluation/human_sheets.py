"""Sheets out and in: one blind CSV a rater, and the filled ones read back.

All good rows of a sheet are kept in one transaction; the others go to a quarantine file with a
sentence each. Reading the same sheet again changes nothing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from sqlalchemy.orm import Session

from tutelage.core.artifact import content_hash, utc_now
from tutelage.core.errors import DataError, TutelageError
from tutelage.core.workspace import atomic_write
from tutelage.evaluation.human import sheet as sheets
from tutelage.evaluation.human.rubric import Criterion
from tutelage.evaluation.human.sample import left_is_first, row_name
from tutelage.store.human import (
    HumanAssignmentRow,
    HumanJudgementRow,
    HumanStudyRow,
    HumanTaskRow,
)
from tutelage.workflows.context import Context
from tutelage.workflows.evaluation.human_answer import (
    Given,
    claim,
    keep,
    known_rater,
    newest_of,
    show,
)
from tutelage.workflows.evaluation.human_rows import criteria_of, find_study
from tutelage.workflows.evaluation.human_scores import refresh_scores

SHEET_LEASE_S = 14 * 24 * 3600.0  # rows of a shared study that are out in a sheet
_ID = 16  # digits of an assignment's id
QUARANTINE = "human-quarantine"  # folder under .tutelage


def export(
    ctx: Context,
    path: Path,
    *,
    study: str | None = None,
    raters: Sequence[str] = (),
    rows: int | None = None,
    force: bool = False,
) -> dict[str, Any]:
    """Write what each rater has left to judge; return {study, files: [{rater, path, rows}]}.

    With one rater the file is `path`, else PATH-rater.csv each. `rows` limits a sheet. A file
    that exists is left alone, without `force`, since someone may have filled it.
    """
    if path.suffix.lower() != ".csv":
        path = path.with_name(path.name + ".csv")
    at = utc_now()
    files, made = [], []
    with ctx.store.begin() as session:
        found = find_study(session, study)
        names = [known_rater(found, name) for name in raters] or [str(n) for n in found.people]
        if found.shared and rows is None and len(names) > 1:
            rows = _share(session, found, len(names))
        for name in names:
            target = path if len(names) == 1 else path.with_name(_named(path, name))
            if target.exists() and not force:
                raise DataError(
                    "the file is there already, and someone may have filled it",
                    where=str(target),
                    fix="Import it first, or add --force to write it anew",
                )
            taken = claim(session, found, name, at, SHEET_LEASE_S, rows)
            if taken:
                made.append((target, _sheet(session, found, taken)))
                files.append({"rater": name, "path": str(target), "rows": len(taken)})
        chosen = found.id
    for target, data in made:
        atomic_write(target, data)
    if not files:
        raise DataError("everything is judged", where=chosen, fix="See `tutelage human results`")
    return {"study": chosen, "files": files}


def import_sheet(ctx: Context, path: Path, *, study: str | None = None) -> dict[str, Any]:
    """Keep the judgements of a filled sheet.

    Returns {study, kept, unchanged, corrected, skipped, empty, problems: [{line, why}],
    quarantine}. Raises DataError if the file can't be a sheet of the study at all.
    """
    with ctx.store.session() as session:
        found = find_study(session, study)
        criteria = criteria_of(found)
    read = sheets.read(path, criteria)
    counts = {"kept": 0, "unchanged": 0, "corrected": 0, "skipped": 0}
    problems = list(read.problems)
    at = utc_now()
    with ctx.store.begin() as session:
        changed = []
        for row in read.filled:
            try:
                counts[_keep(session, found, row, f"{path.name}:{row.line}", at)] += 1
            except TutelageError as error:
                problems.append(sheets.Problem(row.line, error.what, _cells(row)))
            else:
                changed.append(session.get_one(HumanAssignmentRow, row.row[:_ID]).task)
        refresh_scores(session, found.evaluation, _items(session, changed))
    problems.sort(key=lambda problem: int(problem.line) if problem.line.isdigit() else 0)
    return {
        "study": found.id,
        "file": str(path),
        **counts,
        "empty": read.empty,
        "problems": [{"line": p.line, "why": p.why} for p in problems],
        "quarantine": _quarantine(ctx, path, problems),
    }


def _keep(
    session: Session, study: HumanStudyRow, row: sheets.Filled, source: str, at: datetime
) -> str:
    """Keep one row; return under which count it falls. Each is whole or not at all."""
    slot = session.get(HumanAssignmentRow, row.row[:_ID])
    if slot is None or slot.study != study.id:
        where = "of another study" if slot is not None else "of no study"
        raise DataError(f"{row.row!r} is a row {where}")
    if slot.rater is None:
        raise DataError(f"{row.row!r} was given back: its lease ran out")
    if row.row != row_name(study.secret, slot.id, slot.rater):
        raise DataError(f"{row.row!r} is not a row of this sheet's rater any more")
    newest = newest_of(session, slot.id)
    said = {
        "side": row.side, "levels": dict(row.levels), "comment": row.comment.strip(),
        "seconds": row.seconds, "skip": row.skip,
    }  # fmt: skip
    if newest is not None and said == _said(session, study, newest):
        return "unchanged"
    before = newest is not None and newest.kind != "undo"
    number = newest.number if newest is not None else 0
    keep(
        session,
        Given(
            slot.id, slot.rater, row.side, row.levels, row.comment, row.seconds, row.skip,  # type: ignore[arg-type]
            key=content_hash({"sheet": slot.id, "after": number, **said}), source=source,
        ),
        at, refresh=False,
    )  # fmt: skip
    if row.skip:
        return "skipped"
    return "corrected" if before else "kept"


def _items(session: Session, tasks: Sequence[int]) -> list[str]:
    return [session.get_one(HumanTaskRow, task).item for task in tasks]


def _said(session: Session, study: HumanStudyRow, row: HumanJudgementRow) -> dict[str, Any] | None:
    """Return a judgement as a sheet would say it."""
    if row.kind == "undo":
        return None
    side = row.choice
    if row.choice in ("first", "second"):
        first_left = left_is_first(study.secret, row.assignment)
        side = "left" if (row.choice == "first") == first_left else "right"
    return {
        "side": side, "levels": dict(row.levels), "comment": row.comment,
        "seconds": row.seconds, "skip": row.kind == "skip",
    }  # fmt: skip


def _sheet(session: Session, study: HumanStudyRow, taken: Sequence[HumanAssignmentRow]) -> bytes:
    criteria = criteria_of(study)
    names = sheets.columns(criteria, reference=bool(study.sample.get("reference")))
    return sheets.write(names, [_cells_of(session, study, slot, criteria) for slot in taken])


def _cells_of(
    session: Session,
    study: HumanStudyRow,
    slot: HumanAssignmentRow,
    criteria: Sequence[Criterion],
) -> dict[str, str]:
    shown = show(session, study, slot)
    answers = {"answer": shown.left} if criteria else {"A": shown.left, "B": shown.right or ""}
    return {
        "row": row_name(study.secret, slot.id, slot.rater or ""),
        "input": _conversation(shown.messages),
        "reference": shown.reference or "",
        **answers,
    }


def _conversation(messages: Sequence[dict[str, Any]]) -> str:
    """Return the turns as one cell; a single turn stands without its role."""
    if len(messages) == 1:
        return str(messages[0]["content"])
    return "\n\n".join(f"{m['role']}: {m['content']}" for m in messages)


def _share(session: Session, study: HumanStudyRow, people: int) -> int:
    """Return how many rows each sheet of a shared study gets."""
    tasks = session.query(HumanTaskRow).filter_by(study=study.id, asked=True).count()
    return max(1, -(-tasks * study.overlap // people))


def _named(path: Path, rater: str) -> str:
    plain = "".join(c if c.isalnum() or c in "-_" else "_" for c in rater)
    if plain != rater:  # two names may look alike as files
        plain += "-" + hashlib.sha256(rater.encode()).hexdigest()[:4]
    return f"{path.stem}-{plain}{path.suffix}"


def _cells(row: sheets.Filled) -> dict[str, Any]:
    better = {"left": "A", "right": "B"}.get(row.side or "", row.side or "")
    return {
        "row": row.row, "better": better, **row.levels, "comment": row.comment,
        "seconds": row.seconds if row.seconds is not None else "",
    }  # fmt: skip


def _quarantine(ctx: Context, path: Path, problems: Sequence[sheets.Problem]) -> str | None:
    """Write the rows that can't be used; without any, what the file had there before goes."""
    target = ctx.workspace.home / QUARANTINE / f"{path.stem}.csv"
    if not problems:
        target.unlink(missing_ok=True)
        return None
    names: dict[str, None] = {"line": None, "why": None}
    for problem in problems:
        names |= dict.fromkeys(problem.cells)
    rows = [
        {"line": p.line, "why": p.why, **{k: str(v) for k, v in p.cells.items()}} for p in problems
    ]
    atomic_write(target, sheets.write(list(names), rows))
    return str(target)
