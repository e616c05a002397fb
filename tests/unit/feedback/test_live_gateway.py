"""Live evaluation beside a running gateway, and a worker that is killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import openai
import pytest
from tests.fakes.judge_server import JudgeServer
from tests.fakes.limited_project import limited_project
from tests.fakes.openai_backend import FakeBackend
from tests.unit.feedback.live_rows import WARM, kept, live_project, log_answers

from tutelage.core.artifact import utc_now
from tutelage.feedback.live.draw import LEASE
from tutelage.feedback.live.judging import spent
from tutelage.feedback.live.scoring import Scoring
from tutelage.workflows.context import Context
from tutelage.workflows.feedback.live_evaluation import make_parts
from tutelage.workflows.serving.serve import Serving

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def server() -> Iterator[JudgeServer]:
    with JudgeServer() as running:
        yield running


def wait_for(ctx: Context, count: int) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if len(kept(ctx, "format")) >= count:
            return
        time.sleep(0.02)
    raise AssertionError("the answers were not scored")


def test_answers_are_scored_while_they_are_served(tmp_path: Path, server: JudgeServer) -> None:
    with FakeBackend() as backend:
        backend.script.by_model["*"] = {"when": {"odd": {"text": "no family"}}}
        settings = {
            "live_evaluation": {"share": 1.0, "judge": True, "tokens": 10_000_000},
            "judge": {"base_url": server.url, "model": "judge"},
        }
        ctx = limited_project(tmp_path / "project", backend.url, settings)
        with Serving(ctx) as serving:
            client = openai.OpenAI(base_url=f"{serving.base_url}/v1", api_key="unused")
            names = {}
            for text in ("plain", "odd"):
                messages: Any = [{"role": "user", "content": text}]
                reply = client.chat.completions.create(model="colours", messages=messages)
                names[text] = reply.id
            wait_for(ctx, 2)
            shape = kept(ctx, "format")
            values = {text: shape[name].value for text, name in names.items()}
            assert values == {"plain": 1.0, "odd": 0.0}
            assert set(kept(ctx, "judge")) == set(names.values())
            shown = look(serving.base_url)
            with urllib.request.urlopen(f"{serving.base_url}/metrics") as page:
                metrics = page.read().decode()
        assert shown["on"] is True
        assert {one["metric"] for one in shown["data"][0]["metrics"]} >= {"format", "judge"}
        assert "tutelage_live_judged_total 2.0" in metrics
        ctx.store.close()


def look(url: str) -> Any:
    """Return /admin/live once the worker has looked at the scores."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        with urllib.request.urlopen(f"{url}/admin/live") as page:
            found = json.load(page)
        if found["data"] and found["data"][0]["metrics"]:
            return found
        time.sleep(0.02)
    raise AssertionError("nothing is shown")


def test_a_killed_worker_loses_nothing_and_pays_nothing_twice(
    tmp_path: Path, server: JudgeServer
) -> None:
    ctx = live_project(
        tmp_path / "project", {"judge_share": 1.0, "tokens": 10_000_000}, judge=server.url
    )
    ids = log_answers(ctx, [WARM] * 6)
    server.judge.asked.clear()
    pid = ctx.workspace.root / "pid"

    def before(number: int) -> None:
        if number == 3:
            server.judge.before = None
            os.kill(int(pid.read_text()), signal.SIGKILL)

    server.judge.before = before
    command = [sys.executable, "-m", "tests.unit.feedback.killed_live", str(ctx.workspace.root)]
    done = subprocess.run(command, check=False, timeout=120, cwd=ROOT)
    assert done.returncode == -signal.SIGKILL
    assert kept(ctx, "format") == {}, "scores of a batch are kept together"
    worker = Scoring(ctx.store, make_parts(ctx))
    assert not worker.step(), "the dead one's claim holds for a while"
    later = utc_now() + LEASE + timedelta(seconds=1)
    while worker.step(later):
        pass
    assert set(kept(ctx, "format")) == set(kept(ctx, "judge")) == set(ids)
    answers = [json.dumps(asked["pieces"]) for asked in server.judge.asked]
    lost = len(answers) - len(set(answers))
    assert lost <= 8, "only what was under way when it was killed is asked again"
    assert spent(ctx.store, later) > 0
    ctx.store.close()
