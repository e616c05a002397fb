"""Drift beside a running gateway: figures over HTTP, looks in a child process."""

from __future__ import annotations

import asyncio
import json
import urllib.error
import urllib.request
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from tests.fakes.gateway import gateway_project
from tests.fakes.openai_backend import FakeBackend

from tutelage.core.artifact import utc_now
from tutelage.store.records import RecordRow
from tutelage.workflows.context import Context
from tutelage.workflows.feedback.drift_watch import standing
from tutelage.workflows.serving.looks import Looks, looks
from tutelage.workflows.serving.serve import Serving


def get(url: str) -> tuple[int, Any]:
    try:
        with urllib.request.urlopen(url, timeout=60) as response:
            return response.status, json.loads(response.read())
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read())


def log(ctx: Context, count: int) -> None:
    begun = utc_now() - timedelta(hours=2)
    with ctx.store.begin() as session:
        for place in range(count):
            session.add(
                RecordRow(
                    id=f"rec-{place}", deployment="colours", release="r", arm="stable",
                    split="train", group_key="g", response='{"family": "warm"}',
                    messages=[{"role": "user", "content": f"what is colour {place}"}],
                    finish_reason="stop", status=200, latency_ms=1, prompt_tokens=1,
                    completion_tokens=1, checks={}, at=begun + timedelta(seconds=place),
                )
            )  # fmt: skip


def test_a_child_looks_and_the_gateway_tells_where_the_watch_stands(tmp_path: Path) -> None:
    with FakeBackend() as backend:
        ctx = gateway_project(tmp_path / "p", backend.url)
        log(ctx, 60)
        asyncio.run(Looks(ctx, ("drift", "look"), 1.0).look())
        assert standing(ctx)["looked_at"] == 60
        with Serving(ctx) as serving:
            status, told = get(f"{serving.base_url}/admin/drift")
            missing, error = get(f"{serving.base_url}/admin/drift/dr_none")
        ctx.store.close()
    assert status == 200 and told["reports"] == []
    assert [one["looked_at"] for one in told["watches"]] == [60]
    assert missing == 404 and error["error"]["code"] == "report_not_found"


def test_no_look_is_started_where_none_is_wanted(tmp_path: Path) -> None:
    def wanted(name: str, **options: Any) -> list[str]:
        found = looks(gateway_project(tmp_path / name, "http://localhost:1", **options))
        return [" ".join(one._command) for one in found if isinstance(one, Looks)]

    assert wanted("a") == ["drift look", "feedback traffic"]
    assert wanted("b", log="none") == ["feedback traffic"]


def test_a_look_waits_for_requests_and_lingers_after_the_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ctx = gateway_project(tmp_path / "p", "http://localhost:1")
    clock = {"now": 100.0}
    monkeypatch.setattr("tutelage.workflows.serving.looks.time.monotonic", lambda: clock["now"])
    hook = Looks(ctx, ("feedback", "traffic"), 1.0, least=2, linger_s=10.0)
    assert hook.due()  # what came while no gateway ran
    hook._new = 0
    assert hook.due()  # a request may have ended just now
    clock["now"] += 11
    assert not hook.due()
    for _ in range(2):
        hook.finished(None, None)  # type: ignore[arg-type]
    clock["now"] += 11
    assert hook.due()
