"""A user and an expert of one name are two: forgetting the one keeps what the other did."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select
from tests.unit.workflows.test_forget_common import CONFIG

import tutelage
from tutelage.core.artifact import describe
from tutelage.core.example import Example, Message, Origin
from tutelage.data.version import VersionDraft, load_version, write_version
from tutelage.store.accounts import AuditRow, UserRow
from tutelage.store.annotations import AnnotatorRow, BatchRow
from tutelage.store.preferences import ComparisonRow
from tutelage.store.records import RecordRow, SignalRow
from tutelage.workflows.context import register
from tutelage.workflows.feedback.forget import forget, look_up
from tutelage.workflows.people import audit

NAME, OTHER = "anna@clinic.example", f"chatcmpl-{2:024x}"
ANSWER = '{"intent": "lost_card"}'
Make = Callable[..., Path]


def chat(question: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": question}, {"role": "assistant", "content": ANSWER}]


def labelled(question: str) -> dict[str, Any]:
    return {
        "messages": chat(question),
        "origin": {"kind": "imported", "author": f"{NAME}, ben", "parents": []},
        "annotated": {"item": "a" * 24, "source": "file", "by": [NAME, "ben"], "how": "agreed"},
    }


@pytest.fixture
def project(make_project: Make, tmp_path: Path) -> Iterator[Any]:
    published = json.dumps(labelled("where did I leave my card")) + "\n"
    opened = tutelage.open(make_project({"annotated-1.jsonl": published}, CONFIG))
    log = tmp_path / "log.jsonl"
    asked = {NAME: "my own card is gone since monday", "ben": "what is a card"}
    calls = [
        {"id": f"chatcmpl-{n:024x}", "prompt": text, "completion": ANSWER, "user": user}
        for n, (user, text) in enumerate(asked.items(), start=1)
    ]
    log.write_text("".join(json.dumps(one) + "\n" for one in calls))
    opened.logs.add(log)
    with opened.context.store.begin() as session:
        session.add(AnnotatorRow(name=NAME))
        session.add(UserRow(name=NAME, roles=["expert"]))
        session.add(BatchRow(id="b1", people=[NAME, "ben"], overlap=2, source="file", seed=0))
        session.add(ComparisonRow(
            item="c" * 24, pair="p" * 24, example={"messages": chat("what is a loan")[:1]},
            first="a", second="b", choice="first", author=NAME, key="k", why="",
        ))  # fmt: skip
    audit.record(opened.context.store, "admin", "users.added", {"name": NAME})
    audit.record(opened.context.store, NAME, "sign-in", {"with": "password"})
    opened.feedback.add(OTHER, rating="down", author=NAME)
    yield opened
    opened.close()


def test_an_expert_of_the_same_name_keeps_what_they_did(project: Any) -> None:
    ctx = project.context
    assert look_up(ctx, NAME).store["signals"] == 0
    done = forget(ctx, NAME)
    assert (done.store["records"], done.files) == (1, {})
    assert "what an expert, account or API key of the same name did here" in done.remains[0]
    published = (ctx.workspace.root / "data" / "annotated-1.jsonl").read_text()
    assert json.loads(published) == labelled("where did I leave my card")
    with ctx.store.session() as session:
        assert list(session.scalars(select(RecordRow.id))) == [OTHER]
        assert session.scalars(select(SignalRow.author)).all() == [NAME]
        assert session.scalars(select(UserRow.name)).all() == [NAME]
        assert session.scalars(select(BatchRow.people)).all() == [[NAME, "ben"]]
        assert session.scalars(select(ComparisonRow.author)).all() == [NAME]
        assert session.scalars(select(AuditRow.user)).all() == ["admin", NAME]
    assert audit.first_broken(ctx.store) is None


def test_rows_an_expert_of_the_same_name_labelled_stay_in_their_version(project: Any) -> None:
    ctx = project.context
    rows = [
        Example(messages=turns, group=group, origin=Origin(author=NAME), meta={"annotated": {}})
        for group, text in ((None, "where did I leave it"), (NAME, "mine is gone"))
        for turns in [tuple(Message(**turn) for turn in chat(text))]
    ]
    sides: Any = {"train": rows, "validation": [], "test": []}
    draft = VersionDraft(sides, {row.id: row.id for row in rows})
    version = write_version(ctx.workspace.artifacts / "datasets", draft)
    path = ctx.workspace.relative(version.directory)
    register(ctx.store, describe("dataset", version.hash, path))
    (told,) = forget(ctx, NAME).versions
    (left,) = (ctx.workspace.artifacts / "datasets").glob(f"{told['replaced_by']}*")
    assert [row.input_text for row in load_version(left).all_rows()] == ["where did I leave it"]
