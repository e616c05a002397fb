"""Which engine a gateway gets, and what it says of settings that this engine leaves unread."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from tutelage.core.events import Event
from tutelage.workflows.context import open_context
from tutelage.workflows.serving.serve_engine import make_launcher

SERVER = {"base_url": "http://gpu:8000/v1", "model": "base"}


@pytest.mark.parametrize(
    ("deploy", "warned"),
    [({}, False), ({"endpoint": SERVER}, True), ({"engine": "remote", "endpoint": SERVER}, False)],
)
def test_servers_that_nobody_asks_are_told(tmp_path: Path, deploy: object, warned: bool) -> None:
    settings = {"name": "colours", "model": "demo", "deploy": deploy}
    (tmp_path / "tutelage.yaml").write_text(yaml.safe_dump(settings))
    heard: list[Event] = []
    ctx = open_context(tmp_path, heard.append)
    make_launcher(ctx)
    ctx.store.close()
    said = [event.message for event in heard if event.kind == "warning"]
    assert said == (
        ["deploy names servers that nobody asks: its engine is embedded, and not remote"]
        if warned
        else []
    )
