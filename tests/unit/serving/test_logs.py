"""JSON lines: one object a line, ids and times, never a text; a moved file is opened again."""

from __future__ import annotations

import json
import logging
import re
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.exc import OperationalError
from tests.fakes.openai_backend import FakeBackend
from tests.unit.serving.test_serving_app import ASK, fetch
from tests.unit.serving.test_tracing import TRACE, project

from tutelage.core.config_alerts import Telemetry
from tutelage.serving.monitoring.logs import FILE, gateway_log, request_id
from tutelage.workflows.serving.serve import Serving

log = logging.getLogger("tutelage.serving.example")


def lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / FILE).read_text().splitlines()]


def test_a_line_has_time_level_place_request_and_no_other_extras(tmp_path: Path) -> None:
    with gateway_log(Telemetry(), tmp_path):
        token = request_id.set("rec_1")
        log.warning("took %d s", 3, extra={"deployment": "d", "prompt": "the sun"})
        request_id.reset(token)
        log.debug("not shown")
        log.info("later")
    first, second = lines(tmp_path)
    assert first.pop("at").endswith("+00:00")
    assert first == {
        "level": "warning", "logger": "serving.example", "message": "took 3 s",
        "request": "rec_1", "deployment": "d",
    }  # fmt: skip
    assert "request" not in second


def test_an_error_is_told_by_its_type_and_frames_and_a_database_s_without_its_rows(
    tmp_path: Path,
) -> None:
    with gateway_log(Telemetry(), tmp_path):
        try:
            raise ValueError("the sun at noon")
        except ValueError:
            log.exception("it failed")
        engine = create_engine("sqlite://")
        with engine.connect() as connection:
            try:
                connection.execute(text("INSERT INTO x VALUES (:a)"), {"a": "the sun at noon"})
            except OperationalError as error:
                log.error("a row could not be written: %s", error)
        engine.dispose()
    failed, written = lines(tmp_path)
    assert failed["error"] == "ValueError"
    assert failed["frames"][0].startswith("test_logs.py:")
    assert "no such table" in written["message"]
    assert "sun" not in json.dumps([failed, written])


def test_a_file_that_is_moved_away_is_opened_again(tmp_path: Path) -> None:
    with gateway_log(Telemetry(), tmp_path):
        log.info("one")
    with gateway_log(Telemetry(), tmp_path):
        (tmp_path / FILE).rename(tmp_path / "old.jsonl")
        log.info("two")
    assert [line["message"] for line in lines(tmp_path)] == ["two"]


def test_lines_may_go_to_stderr_or_nowhere(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with gateway_log(Telemetry(log="stderr", level="debug"), tmp_path):
        log.debug("seen")
    assert json.loads(capsys.readouterr().err)["message"] == "seen"
    with gateway_log(Telemetry(log="off"), tmp_path):
        log.info("unseen")
    assert capsys.readouterr().err == ""
    assert not (tmp_path / FILE).exists()
    assert log.getEffectiveLevel() == logging.WARNING  # as it was before


def test_warnings_are_told_to_a_person_in_a_sentence(tmp_path: Path) -> None:
    told: list[str] = []
    with gateway_log(Telemetry(), tmp_path, told.append):
        log.info("quiet")
        log.warning("loud", extra={"deployment": "colours"})
        try:
            raise ValueError("the sun at noon")
        except ValueError:
            log.exception("it failed")
        log.warning("the store takes none: disk is full\n(Background on this error at: https://x)")
    assert [line.partition(" ")[2] for line in told] == [
        "colours: loud", "it failed", "the store takes none: disk is full",
    ]  # fmt: skip
    assert re.fullmatch(r"\d\d:\d\d:\d\d colours: loud", told[0])


def test_a_gateway_writes_a_line_a_request_and_names_it_in_others(
    tmp_path: Path, backend: FakeBackend
) -> None:
    ctx = project(tmp_path / "p", backend, requests=True)
    with Serving(ctx) as serving:
        url, body = f"{serving.base_url}/v1/chat/completions", {"model": "colours", "messages": ASK}
        headers = {"traceparent": f"00-{TRACE}-00f067aa0ba902b7-01", "x-request-id": "shop/7"}
        _, answer, _ = fetch(url, {**body, "user": "anna"}, **headers)
        backend.script.by_model["*"] = {"status": 500}
        assert fetch(url, body, **{"x-request-id": "new\tline {}"})[0] == 502
    found = lines(ctx.workspace.logs)
    ok, failed = [line for line in found if line.get("event") == "request"]
    assert ok["request"] == answer["id"]
    assert (ok["status"], ok["deployment"], ok["arm"], ok["stream"]) == (
        200, "colours", "stable", False,
    )  # fmt: skip
    assert (ok["prompt_tokens"], ok["completion_tokens"]) == (11, 4)
    assert (ok["trace"], ok["client_request"]) == (TRACE, "shop/7")
    assert (failed["status"], failed.get("client_request")) == (502, None)
    assert "client_request" not in failed
    warned = [line for line in found if line["logger"].startswith("serving.wire.upstream")]
    assert warned and {line["request"] for line in warned} == {failed["request"]}
    whole = (ctx.workspace.logs / FILE).read_text()
    for word in ("sun", "noon", "anna", "warm"):
        assert word not in whole
    ctx.store.close()
