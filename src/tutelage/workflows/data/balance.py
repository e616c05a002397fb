"""How the newest rows are spread, and how they compare with what production asked."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from sqlalchemy import select

from tutelage.core.artifact import utc_now
from tutelage.core.events import Event
from tutelage.core.example import Example, Message, Origin
from tutelage.core.output import OutputFormat
from tutelage.data.findings import Finding
from tutelage.data.quality.balance import Balance, classes, refusals, represent
from tutelage.data.version import load_version
from tutelage.store.records import RecordRow
from tutelage.workflows.context import Context, last_output
from tutelage.workflows.data.check import clean_step, read_and_check
from tutelage.workflows.data.privacy import redacted_rows

_STAGE = "balance"
RECENT = 5000  # newest requests that are compared, at most
_ROLES = ("system", "user", "assistant", "tool")


def balance(
    ctx: Context, *, days: float | None = None, limit: int = RECENT, seed: int = 7
) -> Balance:
    """Return the balance of the newest dataset version, or of the sources where there is none.

    Production is what the gateway answered within `days` (all of it if None), the newest `limit`
    requests; its texts are tidied as rows are.
    """
    rows, told = _rows(ctx)
    asked = production_rows(ctx, rows, days=days, limit=limit)
    if asked:
        ctx.emit(Event(_STAGE, "note", f"comparing {told} with {len(asked):,} requests"))
    return compare(ctx, rows, asked, told, seed)


def compare(
    ctx: Context,
    rows: Sequence[Example],
    asked: Sequence[Example],
    told: str = "",
    seed: int = 7,
) -> Balance:
    """Return the balance of `rows`, held against production's requests `asked`."""
    labels = ctx.config.output.labels or ()
    return Balance(
        rows=len(rows),
        refusals=refusals(rows, ctx.config.data.refusal_share),
        production=represent(rows, asked, seed),
        classes=classes(rows, labels) if ctx.config.task == "classification" else None,
        notes=(told,) if told else (),
    )


def findings(found: Balance) -> list[Finding]:
    """Return what curation reports of a comparison with production: one finding a sentence."""
    if found.production.verdict != "differs":
        return []
    return [Finding("D6-P01", sentence) for sentence in found.production.sentences]


def _rows(ctx: Context) -> tuple[list[Example], str]:
    artifact = last_output(ctx, "curate")
    if artifact is not None and ctx.path_of(artifact).exists():
        rows = load_version(ctx.path_of(artifact)).all_rows()
        return rows, f"the {len(rows):,} rows of dataset {artifact.short}"
    rows = read_and_check(ctx).result.kept
    return rows, f"the {len(rows):,} usable rows of the sources"


def production_rows(
    ctx: Context, rows: Sequence[Example], *, days: float | None = None, limit: int = RECENT
) -> list[Example]:
    """Return answered requests as examples, oldest first; the label is read from the answer.

    Requests that a shadow release got besides are left out, and so are failed ones. Identifiers
    are replaced where data.privacy.mode is redact.
    """
    query = select(RecordRow).where(RecordRow.status < 400, RecordRow.arm != "shadow")
    if days is not None:
        query = query.where(RecordRow.at >= utc_now() - timedelta(days=days))
    with ctx.store.session() as session:
        found = list(session.scalars(query.order_by(RecordRow.at.desc()).limit(limit)))
    known = {row.label for row in rows if row.label is not None}
    tidy = clean_step(ctx)
    output = ctx.config.output.format()
    examples = (_example(record, output, known) for record in reversed(found))
    return redacted_rows(ctx, [tidy.clean(one)[0] for one in examples if one is not None])


def _example(record: RecordRow, output: OutputFormat, known: set[str]) -> Example | None:
    """Return a request as an example, or None if it holds no text."""
    turns = tuple(_message(turn) for turn in record.messages if _is_turn(turn))
    if not any(turn.role == "user" for turn in turns):
        return None
    label = output.parse(record.response).label if known else None
    if label is not None and not output.labels and output.field is None and label not in known:
        label = None
    return Example(
        messages=(*turns, Message(role="assistant", content=record.response)),
        label=label,
        time=record.at.isoformat(),
        origin=Origin(kind="production", source=record.id),
    )


def _is_turn(turn: Any) -> bool:
    return (
        isinstance(turn, dict)
        and turn.get("role") in _ROLES
        and isinstance(turn.get("content"), str)
    )


def _message(turn: dict[str, Any]) -> Message:
    return Message(role=turn["role"], content=turn["content"])
