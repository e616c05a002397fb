"""A running gateway reads signals from its own traffic, beside the requests."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from tests.fakes.gateway import gateway_project
from tests.fakes.openai_backend import FakeBackend
from tests.unit.feedback.test_feedback_segment import post

from tutelage.feedback.traffic_signals import TRAFFIC
from tutelage.store.records import SignalRow
from tutelage.workflows.context import open_context
from tutelage.workflows.serving.serve import Serving


def test_a_repeated_question_is_a_signal_on_the_first_answer(tmp_path: Path) -> None:
    found: dict[str, Any] = {}
    with FakeBackend() as backend:
        root = tmp_path / "project"
        gateway_project(root, backend.url).store.close()
        with (root / "tutelage.yaml").open("a") as settings:
            settings.write("feedback: {every: 1s}\n")
        ctx = open_context(root)
        with Serving(ctx) as serving:
            ask = {
                "model": "colours", "user": "anna",
                "messages": [{"role": "user", "content": "what is ice"}],
            }  # fmt: skip
            url = f"{serving.base_url}/v1/chat/completions"
            first = post(url, ask)[1]["id"]
            post(url, ask)
            deadline = time.monotonic() + 60
            while "retried" not in found and time.monotonic() < deadline:
                with ctx.store.session() as session:
                    rows = session.query(SignalRow).filter_by(author=TRAFFIC, record=first)
                    found = {row.kind: row.value["value"] for row in rows}
                time.sleep(0.05)
        ctx.store.close()
    assert found["retried"] is True
    assert found["time_to_next"] >= 0
