"""A log that is imported again brings no forgotten user back, and keeps what they ask later."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select
from tests.unit.workflows.test_forget_common import CONFIG
from typer.testing import CliRunner

import tutelage
from tutelage.cli.main import app
from tutelage.core.artifact import utc_now
from tutelage.data.split import load_split_key, private_name
from tutelage.store.records import RecordRow, SignalRow
from tutelage.workflows.feedback.forget import forget

USER = "zoe.forgettable@example.org"
YEAR = timedelta(days=365)
Make = Callable[..., Path]


def call(number: int, user: str | None, at: datetime | None, **more: Any) -> dict[str, Any]:
    who = {} if user is None else {"user": user}
    when = {} if at is None else {"at": at.isoformat()}
    asked = {"id": f"chatcmpl-{number:024x}", "prompt": f"what of card {number * 977}"}
    return {**asked, "completion": '{"intent": "lost_card"}', "rating": "up", **who, **when, **more}


@pytest.fixture
def project(make_project: Make) -> Iterator[Any]:
    opened = tutelage.open(make_project({}, CONFIG))
    yield opened
    opened.close()


@pytest.fixture
def log(tmp_path: Path) -> Callable[..., Path]:
    def write(*calls: dict[str, Any]) -> Path:
        path = tmp_path / "log.jsonl"
        path.write_text("".join(json.dumps(one) + "\n" for one in calls))
        return path

    return write


def kept(project: Any) -> set[str]:
    with project.context.store.session() as session:
        signals = set(session.scalars(select(SignalRow.record)))
        records = set(session.scalars(select(RecordRow.id)))
    assert signals == records
    return {name[-1] for name in records}


def test_feedback_on_an_erased_answer_does_not_stay_without_a_gateway_either(
    project: Any, log: Callable[..., Path], tmp_path: Path
) -> None:
    first = call(1, USER, utc_now() - YEAR)
    project.logs.add(log(first, call(2, "ben", utc_now() - YEAR)))
    forget(project.context, USER)
    project.feedback.add(first["id"], comment=f"{USER} rang again")
    said = tmp_path / "said.jsonl"
    said.write_text(json.dumps({"record_id": first["id"], "rating": 0}))
    project.feedback.import_file(said)
    assert kept(project) == {"2"}


def test_what_was_asked_before_the_erasure_stays_out_whatever_its_date(
    project: Any, log: Callable[..., Path]
) -> None:
    now = utc_now()
    old = [call(1, USER, now - 3 * YEAR), call(2, "ben", now - YEAR)]
    project.logs.add(log(*old))
    forget(project.context, USER)
    hashed = private_name(load_split_key(project.context.workspace), USER)
    more = [
        call(3, USER, now - 2 * YEAR),  # of another file, that was not here before
        call(4, hashed, now - 2 * YEAR),  # as an export has them where no text is kept
        call(5, None, now - YEAR, session_id=USER),
        call(6, USER, None),  # nobody knows when
        call(1, None, now - 3 * YEAR),  # known by its record
        call(7, "ben", None),
        call(8, USER, now + timedelta(minutes=5)),  # came back
    ]
    done = project.logs.add(log(*old, *more))
    assert (done.records, done.known, done.forgotten) == (2, 1, 6)
    assert kept(project) == {"2", "7", "8"}


def test_the_command_says_how_many_were_left_out(project: Any, log: Callable[..., Path]) -> None:
    path = log(call(1, USER, utc_now() - YEAR), call(2, "ben", utc_now()))
    project.logs.add(path)
    forget(project.context, USER)
    root = str(project.context.workspace.root)
    ran = CliRunner().invoke(app, ["logs", "import", str(path), "-p", root])
    assert "1 calls left out: of users who were forgotten since" in ran.output, ran.output
