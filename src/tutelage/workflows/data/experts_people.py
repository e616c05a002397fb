"""Who labels, and by which guideline. Names are added, retired and never deleted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from tutelage.core.errors import DataError, did_you_mean
from tutelage.store.annotations import (
    AnnotationRow,
    AnnotatorRow,
    AssignmentRow,
    GuidelineRow,
)
from tutelage.workflows.context import Context

_LONGEST = 80  # characters of a name


def add_annotators(ctx: Context, names: Sequence[str]) -> list[str]:
    """Add people, or make retired ones active again; return who is new or back."""
    wanted = [known_name(name) for name in names]
    changed = []
    with ctx.store.begin() as session:
        for name in dict.fromkeys(wanted):
            row = session.get(AnnotatorRow, name)
            if row is None:
                session.add(AnnotatorRow(name=name))
                changed.append(name)
            elif not row.active:
                row.active = True
                changed.append(name)
    return changed


def retire_annotator(ctx: Context, name: str) -> int:
    """Take a person off; what they have not answered goes back to the others of their batches.

    Returns how many items that is. Their answers stay.
    """
    with ctx.store.begin() as session:
        row = require(session, name)
        row.active = False
        open_ones = session.scalars(
            select(AssignmentRow).where(
                AssignmentRow.annotator == row.name, AssignmentRow.state.in_(("open", "leased"))
            )
        ).all()
        for one in open_ones:
            one.annotator, one.shared, one.state, one.lease_until = None, True, "open", None
    return len(open_ones)


def annotators(ctx: Context) -> list[dict[str, Any]]:
    """Return everybody by name: name, active, added, answers."""
    with ctx.store.session() as session:
        counted = (
            select(AnnotationRow.annotator, func.count())
            .where(AnnotationRow.undone_at.is_(None))
            .group_by(AnnotationRow.annotator)
        )
        counts = {name: int(count) for name, count in session.execute(counted).all()}
        rows = session.scalars(select(AnnotatorRow).order_by(AnnotatorRow.name))
        return [
            {
                "name": row.name,
                "active": row.active,
                "added": row.added_at.isoformat(timespec="seconds"),
                "answers": counts.get(row.name, 0),
            }
            for row in rows
        ]


def require(session: Session, name: str, *, active: bool = True) -> AnnotatorRow:
    """Return a person's row; raise DataError, with the nearest name, if there is none."""
    row = session.get(AnnotatorRow, name.strip())
    if row is None:
        known = list(session.scalars(select(AnnotatorRow.name).order_by(AnnotatorRow.name)))
        hint = did_you_mean(name, known)
        raise DataError(
            f"there is no annotator {name!r}",
            fix=f"{hint}Add them: `tutelage data label people --add {name.strip() or 'NAME'}`",
        )
    if active and not row.active:
        raise DataError(
            f"{row.name!r} no longer labels",
            fix=f"Bring them back: `tutelage data label people --add {row.name}`",
        )
    return row


def known_name(name: str) -> str:
    """Return a name as it is kept; raise DataError if it can't be one."""
    plain = " ".join(name.split())
    if not plain or len(plain) > _LONGEST or "," in plain or not plain.isprintable():
        raise DataError(
            f"{name!r} can't be an annotator's name",
            fix=f"Use up to {_LONGEST} characters without a comma",
        )
    return plain


def set_guideline(ctx: Context, text: str, *, note: str = "", author: str | None = None) -> int:
    """Keep a new version of the guideline; return its number. The same text again is no version."""
    plain = text.strip()
    if not plain:
        raise DataError("the guideline is empty", fix="Write what annotators need to know")
    with ctx.store.begin() as session:
        newest = _newest(session)
        if newest is not None and newest.text == plain:
            return newest.version
        row = GuidelineRow(text=plain, note=note.strip(), author=author)
        session.add(row)
        session.flush()
        return row.version


def guideline(ctx: Context, version: int | None = None) -> dict[str, Any] | None:
    """Return a version (the newest by default): version, text, note, author, at; None if none."""
    with ctx.store.session() as session:
        row = _newest(session) if version is None else session.get(GuidelineRow, version)
        if row is None and version is not None:
            raise DataError(
                f"there is no version {version} of the guideline",
                fix="`tutelage data label guideline --history` lists them",
            )
        return _plain(row) if row is not None else None


def guidelines(ctx: Context) -> list[dict[str, Any]]:
    """Return every version, newest first."""
    with ctx.store.session() as session:
        rows = session.scalars(select(GuidelineRow).order_by(GuidelineRow.version.desc()))
        return [_plain(row) for row in rows]


def current_version(session: Session) -> int | None:
    """Return the number of the guideline in force."""
    row = _newest(session)
    return row.version if row else None


def _newest(session: Session) -> GuidelineRow | None:
    return session.scalars(
        select(GuidelineRow).order_by(GuidelineRow.version.desc()).limit(1)
    ).first()


def _plain(row: GuidelineRow) -> dict[str, Any]:
    return {
        "version": row.version,
        "text": row.text,
        "note": row.note,
        "author": row.author,
        "at": row.at.isoformat(timespec="seconds"),
    }
