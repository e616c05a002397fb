"""Decided items flow back: rows of the dataset are repaired, new texts become a sources file.

The file is immutable and named by its content; what is in such a file is published, nothing else.
So a run that was cut off is simply run again. A row on the test side stays there.
"""

from __future__ import annotations

import glob
import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from tutelage.core.artifact import content_hash
from tutelage.core.errors import DataError
from tutelage.core.example import SPLITS, Example, SplitName
from tutelage.core.lines import lines_of
from tutelage.core.workspace import atomic_write
from tutelage.data.annotation.export import ANNOTATED, row_of
from tutelage.data.annotation.items import Item, item_id
from tutelage.data.annotation.votes import Accept, Decision, Vote, Voted, decide
from tutelage.data.repairs import Action, Repair
from tutelage.data.version import json_lines
from tutelage.store.annotations import DraftRow
from tutelage.store.artifacts import SplitRow
from tutelage.store.records import RecordRow
from tutelage.workflows.context import Context
from tutelage.workflows.data import repairs as kept_repairs
from tutelage.workflows.data.check import clean_step, columns_of, shaper_of
from tutelage.workflows.data.experts_review import load_votes
from tutelage.workflows.data.experts_rows import newest_version

FOLDER = "data"
PREFIX = "annotated-"


@dataclass(frozen=True)
class _Row:
    """A row that is there: in the newest version, or in a published file."""

    id: str
    label: str | None
    answer: str | None


def publish(ctx: Context, *, accept: Accept = "agreed") -> dict[str, Any]:
    """Bring what was decided into the sources; the next `tutelage data split` takes it up.

    Decided are adjudicated items and those whose answers all agree (with accept "majority" also
    those where more than half do). Returns {path, new, repaired, confirmed, batch, open,
    undecided, gone, in_sources}. Doing it twice changes nothing.
    """
    voted = load_votes(ctx)
    rows = _rows_by_item(ctx, voted)
    new: list[tuple[Voted, Decision]] = []
    changes: list[Repair] = []
    told = {"confirmed": 0, "open": 0, "undecided": 0, "gone": 0}
    for one in voted:
        decision = decide(one, accept)
        if decision is None:
            told["open" if one.state == "open" else "undecided"] += 1
        elif one.item.id in rows:
            found = _changes(rows[one.item.id], decision, one)
            changes += found
            told["confirmed"] += not found
        elif one.item.source == "dataset":
            told["gone"] += 1  # its row was dropped, or its file taken away
        else:
            new.append((one, decision))
    path = _write(ctx, new) if new else None
    batch = kept_repairs.record(ctx, changes) if changes else None
    return {
        "path": str(path) if path is not None else None,
        "new": len(new),
        "repaired": len(changes),
        "batch": batch,
        **told,
        "in_sources": path is None or _is_source(ctx, path),
    }


def not_a_source(ctx: Context, path: str) -> DataError:
    """Return the sentence for a published file that the settings do not read."""
    return DataError(
        f"the decided rows are in {Path(path).name}, which data.sources does not name",
        where=str(ctx.workspace.config_path),
        fix=f"Add {FOLDER}/{PREFIX}*.jsonl to data.sources, then run `tutelage data split`",
    )


def published_files(ctx: Context) -> list[Path]:
    """Return the files that were published, by name."""
    return sorted((ctx.workspace.root / FOLDER).glob(f"{PREFIX}*.jsonl"))


def _rows_by_item(ctx: Context, voted: Sequence[Voted]) -> dict[str, list[_Row]]:
    """Return the rows there are by what they ask, with the label that is in force for each."""
    asked = {one.item.example_id: one.item.id for one in voted if one.item.example_id is not None}
    version = newest_version(ctx)
    current = version.all_rows() if version is not None else []
    there = {row.id for row in current}
    replaced = {parent for row in current for parent in row.origin.parents} - there
    rows = [*current, *_published(ctx)]
    found: dict[str, list[_Row]] = defaultdict(list)
    seen: set[str] = set()
    repaired = _in_force(kept_repairs.active(ctx))
    for row in rows:
        if row.id in seen or row.id in replaced:
            continue
        seen.add(row.id)
        label, answer = row.label, row.answer
        for action, value in repaired.get(row.id, {}).items():
            label = value if action == "label" else label
            answer = value if action == "answer" else answer
        found[_asked(row, asked)].append(_Row(row.id, label, answer))
    return found


def _asked(row: Example, asked: Mapping[str, str]) -> str:
    """Return the item of a row: the one it was published from or repaired for, or what it asks."""
    told = row.meta.get(ANNOTATED)
    if isinstance(told, dict) and isinstance(told.get("item"), str):
        return str(told["item"])
    if row.origin.kind not in ("augmented", "drafted"):
        known = next((one for one in (row.id, *row.origin.parents) if one in asked), None)
        if known is not None:
            return asked[known]
    return item_id(row.context)


def _in_force(repairs: Iterable[Repair]) -> dict[str, dict[str, str]]:
    found: dict[str, dict[str, str]] = defaultdict(dict)
    for repair in repairs:
        if repair.action in ("label", "answer"):
            found[repair.example_id][repair.action] = repair.value
    return found


def _published(ctx: Context) -> list[Example]:
    """Return the rows of the published files, as curation will have them."""
    shaper = shaper_of(ctx)
    rows = []
    for path in published_files(ctx):
        for number, line in enumerate(lines_of(path.read_text(encoding="utf-8")), start=1):
            rows.append(shaper.example(json.loads(line), f"{path.name}:{number}")[0])
    return clean_step(ctx).run(rows).kept


def _changes(rows: Sequence[_Row], decision: Decision, one: Voted) -> list[Repair]:
    """Return the repairs that make every row say what was decided; none where it does."""
    who = ", ".join(decision.by)
    why = decision.why or {"adjudicated": "decided", "agreed": "experts agree"}.get(
        decision.kind, "most experts agree"
    )
    action: Action = "label" if decision.label is not None else "answer"
    value = (decision.label if decision.label is not None else decision.answer) or ""
    return [
        Repair(row.id, action, value, f"{why} (item {one.item.id})", who)
        for row in rows
        if value != ((row.label if action == "label" else row.answer) or "")
    ]


def _write(ctx: Context, new: Sequence[tuple[Voted, Decision]]) -> Path:
    """Freeze the sides that production gave, then write the file whole."""
    columns, output = columns_of(ctx), ctx.config.output.format()
    drafts = _drafts(ctx, new)
    rows = [
        row_of(one.item, decision, columns, output, drafts.get(one.item.id))
        for one, decision in sorted(new, key=lambda pair: pair[0].item.id)
    ]
    name = f"{PREFIX}{content_hash(rows)[:12]}.jsonl"
    shaper = shaper_of(ctx)
    examples = clean_step(ctx).run([shaper.example(row, name)[0] for row in rows]).kept
    _freeze(ctx, examples, {one.item.id: one for one, _ in new})
    path = ctx.workspace.root / FOLDER / name
    atomic_write(path, json_lines(rows).encode())
    return path


def _freeze(ctx: Context, rows: Sequence[Example], items: Mapping[str, Voted]) -> None:
    """Keep the side of requests from production, as their records have it now."""
    with ctx.store.begin() as session:
        for row in rows:
            side = _side(session, items[row.meta[ANNOTATED]["item"]].item)
            if side is not None and session.get(SplitRow, row.id) is None:
                session.add(
                    SplitRow(example_id=row.id, split=side, cluster=row.id, reason="production")
                )


def _side(session: Session, item: Item) -> SplitName | None:
    """Return the side that a request was given out on, or the more held-out one it has by now.

    It may have turned out to be a twin of a row that is held out while somebody labelled it.
    """
    if item.source != "production":
        return None
    record = session.get(RecordRow, item.example.origin.source or "")
    sides = (item.split, record.split if record is not None else None)
    return max((s for s in SPLITS if s in sides), key=SPLITS.index, default=None)


def _drafts(ctx: Context, new: Sequence[tuple[Voted, Decision]]) -> dict[str, dict[str, Any]]:
    """Return the draft that each decided answer began with, by item."""
    began: dict[str, Vote] = {}
    for one, decision in new:
        wanted = Vote("", decision.label, decision.answer).value
        vote = next((v for v in one.answers if v.draft is not None and v.value == wanted), None)
        if vote is not None:
            began[one.item.id] = vote
    with ctx.store.session() as session:
        ids = {vote.draft for vote in began.values()}
        rows = {row.id: row for row in session.scalars(select(DraftRow)) if row.id in ids}
    return {
        item: {
            "id": vote.draft,
            "model": rows[vote.draft].model,
            "prompt": rows[vote.draft].prompt,
            "edit_distance": vote.edit_distance,
        }
        for item, vote in began.items()
        if vote.draft in rows
    }


def _is_source(ctx: Context, path: Path) -> bool:
    root = ctx.workspace.root
    name = path.relative_to(root).as_posix()
    return any(
        name in glob.glob(pattern, root_dir=root, recursive=True)  # noqa: PTH207
        for pattern in ctx.config.data.sources
    )
