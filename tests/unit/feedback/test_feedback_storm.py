"""A storm of calls, repeated, out of order and wrong: none is lost, none is counted twice.

bench/ingest.py sends ten thousand and kills the gateway in between.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from tests.fakes.feedback_storm import add_records, expected_scores, kept, make_storm, send
from tests.fakes.gateway import gateway_project
from tests.fakes.openai_backend import FakeBackend

from tutelage.feedback.outcome import outcomes
from tutelage.feedback.signals import DECLARED
from tutelage.workflows.serving.serve import Serving


def test_every_call_is_kept_once_or_refused(tmp_path: Path) -> None:
    storm = make_storm(2_000, seed=3)
    with FakeBackend() as backend:
        ctx = gateway_project(tmp_path / "project", backend.url)
        add_records(ctx.store)
        with Serving(ctx) as serving:
            statuses = asyncio.run(send(f"{serving.base_url}/v1/feedback", storm))
    assert [pair for pair in statuses if pair[0] != pair[1]] == []
    assert min(statuses[400, 400], statuses[200, 200]) > 80
    assert statuses[422, 422] == 1
    found = kept(ctx.store)
    assert len(found) == len(storm.said)
    assert all(found[key] == told for key, told in storm.said.items())
    assert outcomes(ctx.store, DECLARED) == pytest.approx(expected_scores(storm))
    ctx.store.close()
