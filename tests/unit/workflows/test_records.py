"""Production records for people: pages, filters, one whole record, and the way to the experts."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.fakes.gateway import gateway_project, make_release
from tests.unit.feedback.live_rows import log_answers

from tutelage.core.errors import DataError
from tutelage.workflows.context import Context
from tutelage.workflows.data.experts_people import add_annotators
from tutelage.workflows.feedback import feedback, records
from tutelage.workflows.feedback.records import Wanted, recent_records, record, send_to_label
from tutelage.workflows.release.gateway_state import gateway_state


@pytest.fixture
def ctx(tmp_path: Path) -> Context:
    return gateway_project(tmp_path / "p", "http://127.0.0.1:9")


def _ids(found: dict[str, object]) -> list[str]:
    return [row["id"] for row in found["records"]]  # type: ignore[attr-defined]


def test_pages_hold_every_record_once_newest_first(ctx: Context) -> None:
    logged = log_answers(ctx, [f"answer {n}" for n in range(7)])
    seen: list[str] = []
    place: str | None = None
    while True:
        found = recent_records(ctx, before=place, limit=3)
        seen += _ids(found)
        place = found["next"]
        if place is None:
            break
    assert seen == logged[::-1]


def test_kinds_find_what_they_name_across_windows(
    ctx: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(records, "WINDOW", 4)
    bad = log_answers(ctx, ["x"], status=502, ago_s=90)[0]
    flagged = log_answers(ctx, ["y"], checks={"schema": {"ok": False, "why": "no JSON"}}, ago_s=80)
    plain = log_answers(ctx, [f"answer {n}" for n in range(6)])
    feedback.add(ctx, {"record_id": plain[1], "rating": "up", "edit": "cold"})

    def found(kind: str) -> list[str]:
        place, ids = None, []
        while True:
            part = recent_records(ctx, Wanted(kind=kind), before=place, limit=2)
            assert part["looked_at"] <= 4
            ids += _ids(part)
            place = part["next"]
            if place is None:
                return ids

    assert found("failed") == [bad]
    assert found("flagged") == flagged
    assert found("feedback") == found("corrected") == [plain[1]]
    assert found("canary") == []


def test_a_release_and_a_deployment_narrow(ctx: Context) -> None:
    other = make_release(ctx, "Another prompt.")
    log_answers(ctx, ["a"])
    mine = log_answers(ctx, ["b"], release=other.id)
    assert _ids(recent_records(ctx, Wanted(release=other.name))) == mine
    assert recent_records(ctx, Wanted(deployment="none such"))["records"] == []
    with pytest.raises(DataError, match="Did you mean 'failed'"):
        recent_records(ctx, Wanted(kind="faild"))


def test_one_record_is_whole(ctx: Context) -> None:
    name = log_answers(ctx, ["warm " * 200])[0]
    feedback.add(ctx, {"record_id": name, "rating": "down", "comment": "no"}, author="mia")
    found = record(ctx, name)
    assert found["answer"] == "warm " * 200
    assert {one["signal"] for one in found["signals"]} == {"rating", "comment"}
    assert found["said"] == {"rating": 1, "comment": 1}
    with pytest.raises(DataError, match="neither a record nor feedback"):
        record(ctx, "rec_none")


def test_a_question_goes_to_the_experts_once(ctx: Context) -> None:
    names = log_answers(ctx, ["a", "b"])
    with pytest.raises(DataError, match="nobody labels yet"):
        send_to_label(ctx, names[:1], ())
    add_annotators(ctx, ["ana", "bo"])
    batch = send_to_label(ctx, names[:1], ())
    assert batch["items"] == 1
    with pytest.raises(DataError, match="nothing new to label"):
        send_to_label(ctx, names[:1], ())


def test_no_gateway_is_told_as_such(ctx: Context) -> None:
    assert gateway_state(ctx)["state"] == "off"
    (ctx.workspace.home / "serving.json").write_text('{"pid": 1, "url": "http://127.0.0.1:9"}')
    assert gateway_state(ctx)["state"] == "silent"
