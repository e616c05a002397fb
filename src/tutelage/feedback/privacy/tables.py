"""The store without one user: records and what hangs on them, by id; every other table by content.

A table that is new needs no change here: its rows are looked through, and those that name a record,
a row or the user go, or lose that part of their JSON.
"""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import islice
from typing import Any

from sqlalchemy import JSON, String, Table, cast, delete, inspect, select, text, update
from sqlalchemy.orm import Session

from tutelage.core.example import Example
from tutelage.feedback.privacy.traces import GONE, LONG_KEY, Traces, keyed
from tutelage.serving.records.retention import remove_records
from tutelage.store.accounts import UserRow
from tutelage.store.annotations import (
    AdjudicationRow,
    AnnotationRow,
    AnnotatorRow,
    AssignmentRow,
    DraftRow,
    ItemRow,
)
from tutelage.store.artifacts import SplitRow
from tutelage.store.base import Base, Store, insert_into
from tutelage.store.human import (
    HumanAssignmentRow,
    HumanJudgementRow,
    HumanTaskRow,
)
from tutelage.store.judgements import JudgeVerdictRow
from tutelage.store.kept import KeptTextRow
from tutelage.store.live import forget_live
from tutelage.store.privacy import ForgottenRow
from tutelage.store.records import HeldSignalRow, RecordRow, SignalRow
from tutelage.store.releases import KeyRow
from tutelage.store.repairs import RepairRow
from tutelage.store.scores import ScoreRow

_AT_ONCE = 400  # ids in one question
_BY_ID = {
    "records", "signals", "deliveries", "scores", "split_assignments", "label_items",
    "assignments", "drafts", "annotations", "adjudications", "human_tasks", "human_assignments",
    "human_judgements", "judge_verdicts", "repairs", "forgotten_records", "erasures",
    "store_shapes", "alembic_version",
}  # fmt: skip
_STAFF = {"users", "user_sessions", "user_links", "user_tries"}  # accounts: nobody's traffic
_KEPT = {  # rows that others hang on, or that are no user's: only their JSON is looked through
    "releases", "prompts", "prompt_events", "deployments", "rollouts", "rollout_transitions",
    "api_keys", "artifacts", "artifact_parents", "stages", "jobs", "annotators", "guidelines",
    "label_batches", "human_studies", "evaluations", "turns", "turn_events", "mine_runs",
    "budgets", "budget_holds", "usage_days", "audit",
}  # fmt: skip


def works_here(store: Store, name: str) -> bool:
    """Return whether somebody who works on the project has this name, or an API key."""
    asked = (
        select(AnnotatorRow.name).where(AnnotatorRow.name == name),
        select(AdjudicationRow.author).where(AdjudicationRow.author == name),
        select(RepairRow.author).where(RepairRow.author == name),
        select(HumanAssignmentRow.rater).where(HumanAssignmentRow.rater == name),
        select(UserRow.name).where(UserRow.name == name.lower()),
        select(KeyRow.name).where(KeyRow.name == name),
    )
    with store.session() as session:
        return any(session.scalars(query.limit(1)).first() is not None for query in asked)


def find_records(store: Store, traces: Traces) -> None:
    """Add the user's records, label items and texts to `traces`."""
    theirs = RecordRow.user.in_(traces.names) | RecordRow.group_key.in_(traces.names)
    with store.session() as session:
        query = select(RecordRow.id, RecordRow.messages, RecordRow.response).where(theirs)
        for name, messages, response in session.execute(query.execution_options(yield_per=1000)):
            traces.records.add(name)
            said = [str(turn.get("content", "")) for turn in messages if turn["role"] == "user"]
            traces.add_texts([*said, response])
            turns = (str(turn.get("content", "")) for turn in messages if turn["role"] != "system")
            traces.inputs.add("\n".join(turns))
        for part in parts(traces.records):
            signals = select(SignalRow.value).where(SignalRow.record.in_(part))
            values = [value["value"] for value in session.scalars(signals)]
            traces.add_texts(value for value in values if isinstance(value, str))
        _leave_common(session, traces)
        for name, example, of in session.execute(
            select(ItemRow.id, ItemRow.example, ItemRow.example_id).execution_options(yield_per=500)
        ):
            if traces.is_theirs(Example.model_validate(example)):
                traces.items.add(name)
                traces.examples.update([of] if of else [])


def _leave_common(session: Session, traces: Traces) -> None:
    """Recognise nobody by what others asked, or were answered, word for word."""
    query = select(RecordRow.id, RecordRow.messages, RecordRow.response)
    for name, messages, response in session.execute(query.execution_options(yield_per=1000)):
        if name not in traces.records:
            traces.leave([response, *(str(turn.get("content", "")) for turn in messages)])


def mentions(store: Store, traces: Traces) -> int:
    """Return how many records of others quote the user's key in their texts.

    Keys of fewer than 8 characters are not looked for: they are words.
    """
    if len(traces.user) < LONG_KEY:
        return 0
    quoted = cast(RecordRow.messages, String).contains(traces.user, autoescape=True)
    quoted |= RecordRow.response.contains(traces.user, autoescape=True)
    with store.session() as session:
        names = session.scalars(select(RecordRow.id).where(quoted))
        return sum(name not in traces.records for name in names)


def count(store: Store, traces: Traces) -> dict[str, int]:
    """Return how many rows of the store are the user's, by what they are."""
    found: Counter[str] = Counter(records=len(traces.records), label_items=len(traces.items))
    with store.session() as session:
        for part in parts(traces.records):
            asked = select(SignalRow.key).where(SignalRow.record.in_(part))
            found["signals"] += len(list(session.scalars(asked)))
        if not traces.namesake:
            authored = select(SignalRow.record).where(SignalRow.author.in_(traces.names))
            others = (name not in traces.records for name in session.scalars(authored))
            found["signals"] += sum(others)
        for part in parts(traces.records | traces.examples):
            asked_scores = select(ScoreRow.id).where(ScoreRow.item.in_(part))
            found["scores"] += len(list(session.scalars(asked_scores)))
    return dict(found)


def erase(store: Store, traces: Traces, erasure: str, key: bytes) -> dict[str, int]:
    """Delete what is the user's in one transaction; return the rows by what they were.

    Tombstones of the records stay, so that feedback which comes later is known.
    """
    done: Counter[str] = Counter()
    with store.begin() as session:
        overwrite(store, session)
        _tombstones(store, session, traces, erasure, key)
        if not traces.namesake:
            for table in (SignalRow, HeldSignalRow):
                authored = table.author.in_(traces.names)
                done["signals"] += _run(session, delete(table).where(authored))
        for part in parts(traces.records | traces.examples):
            done["scores"] += _run(session, delete(ScoreRow).where(ScoreRow.item.in_(part)))
            done["verdicts"] += _run(
                session, delete(JudgeVerdictRow).where(JudgeVerdictRow.item.in_(part))
            )
        for part in parts(traces.records):
            for table in (SignalRow, HeldSignalRow):
                done["signals"] += _run(session, delete(table).where(table.record.in_(part)))
            forget_live(session, part)
            done["records"] += remove_records(store, session, part)
        _erase_label_work(session, traces, done)
        _erase_rows(session, traces, done)
        _erase_by_content(session, traces, done)
    return {name: number for name, number in done.items() if number}


def overwrite(store: Store, session: Session) -> None:
    """Let SQLite overwrite what this connection deletes from now on."""
    if store.engine.dialect.name == "sqlite":
        session.execute(text("PRAGMA secure_delete=ON"))


def _tombstones(store: Store, session: Session, traces: Traces, erasure: str, key: bytes) -> None:
    insert = insert_into(store.engine, ForgottenRow.__table__)
    nothing = insert.on_conflict_do_nothing(index_elements=["record"])
    for part in parts(traces.records):
        session.execute(
            nothing, [{"record": keyed(key, "record", one), "erasure": erasure} for one in part]
        )


def _erase_label_work(session: Session, traces: Traces, done: Counter[str]) -> None:
    for part in parts(traces.items):
        newer = update(AnnotationRow).where(AnnotationRow.item.in_(part))
        session.execute(newer.values(supersedes=None, draft=None))
        for table, name in (
            (AnnotationRow, "labels"), (AdjudicationRow, "decisions"), (DraftRow, "drafts"),
            (AssignmentRow, "assignments"),
        ):  # fmt: skip
            found: Any = table
            done[name] += _run(session, delete(found).where(found.item.in_(part)))
        kept = [f"label:{item}:{field}" for item in part for field in ("answer", "comment")]
        done["kept_texts"] += _run(session, delete(KeptTextRow).where(KeptTextRow.item.in_(kept)))
        done["label_items"] += _run(session, delete(ItemRow).where(ItemRow.id.in_(part)))


def _erase_rows(session: Session, traces: Traces, done: Counter[str]) -> None:
    for part in parts(traces.examples):
        done["frozen_sides"] += _run(session, delete(SplitRow).where(SplitRow.example_id.in_(part)))
        done["repairs"] += _run(session, delete(RepairRow).where(RepairRow.example_id.in_(part)))
        tasks = list(session.scalars(select(HumanTaskRow.id).where(HumanTaskRow.item.in_(part))))
        for some in parts(tasks):
            newer = update(HumanJudgementRow).where(HumanJudgementRow.task.in_(some))
            session.execute(newer.values(supersedes=None))
            done["judgements"] += _run(
                session, delete(HumanJudgementRow).where(HumanJudgementRow.task.in_(some))
            )
            session.execute(delete(HumanAssignmentRow).where(HumanAssignmentRow.task.in_(some)))
            session.execute(delete(HumanTaskRow).where(HumanTaskRow.id.in_(some)))


def _erase_by_content(session: Session, traces: Traces, done: Counter[str]) -> None:
    """Look through every other table."""
    there = set(inspect(session.connection()).get_table_names())
    for table in reversed(Base.metadata.sorted_tables):
        if table.name in there and table.name not in _BY_ID | _STAFF:
            known = traces
            if table.name == "audit":  # of accounts, by their names
                known = replace(traces, workers=traces.workers | {"name"})
            done[f"in {table.name}"] += _erase_in(session, table, known)


def _erase_in(session: Session, table: Table, traces: Traces) -> int:
    """Delete or prune the rows of one table that hold something of the user's."""
    keys = list(table.primary_key.columns)
    looked = [c for c in table.columns if isinstance(c.type, (String, JSON)) and c not in keys]
    looked += [c for c in keys if isinstance(c.type, String)]
    kept = table.name in _KEPT
    changes: list[tuple[dict[str, Any], dict[str, Any] | None]] = []
    query = select(*dict.fromkeys([*keys, *looked])).execution_options(yield_per=2000)
    for row in session.execute(query).mappings():
        values = {c.name: row[c.name] for c in looked}
        texts = {n: v for n, v in values.items() if isinstance(v, str)}
        name = {c.name: row[c.name] for c in keys}
        if not kept and any(traces.in_value(n, v) for n, v in texts.items()):
            changes.append((name, None))
            continue
        parted = {n: traces.prune(v, n) for n, v in values.items() if isinstance(v, (dict, list))}
        changed = {n: v for n, v in parted.items() if v is not values[n]}
        if changed:
            empty = {n: type(values[n])() if v is GONE else v for n, v in changed.items()}
            changes.append((name, empty))
    for name, new in changes:
        mine = [table.c[column] == value for column, value in name.items()]
        if new is not None:
            session.execute(update(table).where(*mine).values(**new))
        else:
            session.execute(delete(table).where(*mine))
    return len(changes)


def shrink(store: Store) -> bool:
    """Give back SQLite's freed pages and its log; return whether that was possible now."""
    if store.engine.dialect.name != "sqlite":
        return True
    with store.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        raw: Any = connection.connection.dbapi_connection
        try:
            raw.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            raw.execute("VACUUM")
            busy = raw.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]
        except sqlite3.OperationalError:  # somebody reads or writes just now
            return False
    return not busy


def _run(session: Session, statement: Any) -> int:
    return int(session.execute(statement).rowcount)  # type: ignore[attr-defined]


def parts(names: Iterable[Any]) -> Iterator[Sequence[Any]]:
    """Yield the names, some hundred at a time, in order."""
    rest = iter(sorted(names))
    while part := list(islice(rest, _AT_ONCE)):
        yield part
