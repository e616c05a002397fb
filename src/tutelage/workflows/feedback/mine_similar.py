"""Apply one correction to the requests that say the same: preview first, whole, and undone whole.

The correction becomes an edit on each similar record of the train side that nobody has corrected.
A held-out record gets none: its label must come from a person who looked at it.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from typing import Any

from sqlalchemy import delete, select

from tutelage.core.artifact import utc_now
from tutelage.core.errors import ConfigError, DataError
from tutelage.feedback.mining.scan import Window, asked_text, count_records, sample_texts, text_key
from tutelage.feedback.mining.similar import THRESHOLD, Similar, similar_records
from tutelage.feedback.outcome import same_answer
from tutelage.feedback.signals import declare, read_feedback
from tutelage.store.base import insert_into
from tutelage.store.mining import SpreadRow
from tutelage.store.records import RecordRow, SignalRow
from tutelage.workflows.context import Context
from tutelage.workflows.feedback.mine_known import left_out_keys, make_space

_AT_ONCE = 500


@dataclass(frozen=True)
class Spread:
    """A correction and the requests like it. `batch` is set once it was applied.

    Those whose `status` is empty get the correction; of the others it says why not.
    `nearest_below` is the highest cosine under the threshold.
    """

    record: str
    text: str
    correction: str
    threshold: float
    rows: tuple[Similar, ...]
    nearest_below: float = 0.0
    batch: str | None = None

    @property
    def applies(self) -> tuple[Similar, ...]:
        """The requests that get the correction."""
        return tuple(row for row in self.rows if row.applies)

    def as_dict(self) -> dict[str, Any]:
        """Return plain data, as `--json` prints it."""
        return {**asdict(self), "applies": len(self.applies)}


def similar(
    ctx: Context,
    record: str,
    *,
    correction: str | None = None,
    threshold: float = THRESHOLD,
    since: datetime | None = None,
    now: datetime | None = None,
) -> Spread:
    """Return the requests that say what a record says, and what its correction would do to them.

    `correction` is a label or a whole answer; unset, the newest edit of the record. Raises
    DataError for an unknown record, one without texts, or one that nobody has corrected.
    """
    if not 0.5 <= threshold <= 1:
        raise ConfigError(f"a threshold of {threshold:g}", fix="Name a cosine from 0.5 to 1")
    row = _record(ctx, record)
    text = asked_text(row.messages)
    if text is None:
        raise DataError(
            "the log keeps no texts of this record, so nothing can be compared with it",
            where=record,
            fix="Name another record, or let the log keep texts (deploy.log)",
        )
    answer = _correction(ctx, row.id, correction)
    window = Window(since, now or utc_now())
    total = count_records(ctx.store, window)
    project = make_space(ctx, [text], sample_texts(ctx.store, window), total, 7)
    found, below = similar_records(ctx.store, window, text, project, threshold)
    rows = _judged(ctx, [one for one in found if one.record != record], answer)
    return Spread(record, text, answer, threshold, tuple(rows), round(below, 4))


def apply(ctx: Context, spread: Spread, author: str) -> Spread:
    """Apply a correction to the similar requests, all in one transaction; return it with its batch.

    Raises DataError if there is none that it applies to, or nobody is named.
    """
    if not author.strip():
        raise DataError("nobody is named who corrects", fix="Say who: --author NAME")
    if not spread.applies:
        raise DataError(
            f"there is no request that the correction applies to at {spread.threshold:g}",
            where=spread.record,
            fix="Lower --threshold and look at the preview again",
        )
    batch = secrets.token_hex(6)
    at = utc_now()
    rows = [
        {**signal, "value": {**signal["value"], "like": spread.record, "cosine": one.cosine}}
        for one in spread.applies
        for signal in _edit(ctx, one.record, spread.correction, author)
    ]
    with ctx.store.begin() as session:
        known = _known_keys(session, [row["key"] for row in rows])
        fresh = [{**row, "at": at} for row in rows if row["key"] not in known]
        if fresh:
            insert = insert_into(ctx.store.engine, SignalRow)
            session.execute(insert.on_conflict_do_nothing(index_elements=["key"]), fresh)
        session.add(
            SpreadRow(
                id=batch, at=at, record=spread.record, author=author.strip()[:80],
                threshold=spread.threshold, signals=[row["key"] for row in fresh], undone_at=None,
            )
        )  # fmt: skip
    return replace(spread, batch=batch)


def undo(ctx: Context, batch: str) -> int:
    """Take an applied correction back; return how many edits were removed (0 the second time).

    What its author said again of a record since stays, and rows that a dataset version has taken
    up stay there. Raises DataError for an unknown batch.
    """
    with ctx.store.begin() as session:
        row = session.get(SpreadRow, batch)
        if row is None:
            raise DataError(
                f"there is no applied correction {batch!r}",
                fix="`tutelage mine applied` lists them",
            )
        if row.undone_at is not None:
            return 0
        removed = 0
        for start in range(0, len(row.signals), _AT_ONCE):
            part = row.signals[start : start + _AT_ONCE]
            query = delete(SignalRow).where(SignalRow.key.in_(part), SignalRow.at <= row.at)
            removed += session.execute(query).rowcount  # type: ignore[attr-defined]
        row.undone_at = utc_now()
        return removed


def applied(ctx: Context) -> list[dict[str, Any]]:
    """Return every applied correction, newest first: batch, at, record, author, rows, undone."""
    with ctx.store.session() as session:
        rows = session.scalars(select(SpreadRow).order_by(SpreadRow.at.desc(), SpreadRow.id))
        return [
            {
                "batch": row.id,
                "at": row.at.isoformat(timespec="seconds"),
                "record": row.record,
                "author": row.author,
                "threshold": row.threshold,
                "rows": len(row.signals),
                "undone": row.undone_at is not None,
            }
            for row in rows
        ]


def _record(ctx: Context, record: str) -> Any:
    with ctx.store.session() as session:
        row = session.get(RecordRow, record)
    if row is None:
        raise DataError(
            f"there is no record {record!r}",
            fix="`tutelage mine show` lists records with their ids",
        )
    return row


def _correction(ctx: Context, record: str, given: str | None) -> str:
    """Return the corrected answer in the project's form; raise DataError if there is none."""
    if given is not None:
        return str(_edit(ctx, record, given, "")[0]["value"]["value"])
    with ctx.store.session() as session:
        edit = session.scalars(
            select(SignalRow)
            .where(SignalRow.record == record, SignalRow.kind == "edit")
            .order_by(SignalRow.at.desc(), SignalRow.key.desc())
        ).first()
    if edit is None:
        raise DataError(
            "nobody has corrected this record",
            where=record,
            fix="Say what the answer should be: --label LABEL, or --answer TEXT",
        )
    return str(edit.value["value"])


def _edit(ctx: Context, record: str, value: str, author: str) -> Sequence[dict[str, Any]]:
    body = {"record_id": record, "edit": value, **({"author": author} if author else {})}
    declared = declare(ctx.config.feedback)
    return read_feedback(body, ctx.config.output.format(), None, declared).rows


def _judged(ctx: Context, rows: Sequence[Similar], correction: str) -> list[Similar]:
    """Return the requests with the reason for those that the correction does not apply to."""
    keys = left_out_keys(ctx, any_edit=True)
    found = []
    held = {text_key(row.text) for row in rows if row.split != "train"}
    for row in rows:
        key = text_key(row.text)
        why = next((reason for reason, own in keys.items() if key in own), "")
        if key in held:
            why = "held out: only a person who looks at it may label it"
        elif not why and same_answer(row.answer, correction):
            why = "answered so already"
        found.append(replace(row, status=why))
    return found


def _known_keys(session: Any, keys: Sequence[str]) -> set[str]:
    found: set[str] = set()
    for start in range(0, len(keys), _AT_ONCE):
        query = select(SignalRow.key).where(SignalRow.key.in_(keys[start : start + _AT_ONCE]))
        found |= set(session.scalars(query))
    return found
