"""The page beside a gateway: told where it is, started again when it falls over, ended with it."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

import psutil
import pytest
from tests.fakes.gateway import gateway_project
from tests.fakes.openai_backend import FakeBackend
from tests.fakes.web_projects import empty_project

from tutelage.core.events import Event
from tutelage.workflows.serving import page_child
from tutelage.workflows.serving.page_child import PageChild

pytest.importorskip("nicegui")
PATIENCE_S = 60


def _children() -> list[int]:
    return [child.pid for child in psutil.Process().children() if "web" in child.cmdline()]


def test_a_page_that_falls_over_is_started_again_and_ends_with_the_gateway(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(page_child, "_WAITS_S", (0.01,))
    ctx = empty_project(tmp_path)
    urls: asyncio.Queue[str] = asyncio.Queue()

    async def run() -> None:
        async with PageChild(ctx, port=0, ready=lambda url, notes: urls.put_nowait(url)) as page:
            assert await asyncio.wait_for(urls.get(), PATIENCE_S) == page.url
            os.kill(_children()[0], signal.SIGKILL)
            assert await asyncio.wait_for(urls.get(), PATIENCE_S) == page.url

    asyncio.run(run())
    assert _children() == []


def test_a_port_in_use_is_a_warning_and_the_gateway_goes_on(tmp_path: Path) -> None:
    heard: list[Event] = []
    ctx = replace(empty_project(tmp_path), emit=heard.append)

    async def run(port: int) -> None:
        async with PageChild(ctx, port=port) as page:
            assert page._task is not None
            await asyncio.wait_for(page._task, PATIENCE_S)

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        asyncio.run(run(taken.getsockname()[1]))
    assert [event.kind for event in heard] == ["warning"]
    assert "can't be used (address already in use)" in heard[0].message
    assert "`tutelage web --port 0` picks a free one" in heard[0].message


def test_up_brings_the_gateway_and_the_page_and_both_end_with_it(tmp_path: Path) -> None:
    with FakeBackend() as backend:
        gateway_project(tmp_path, backend.url)
        command = (sys.executable, "-m", "tutelage", "up", "--port", "0", "--web-port", "0",
                   "-p", str(tmp_path))  # fmt: skip
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as up:
            assert up.stdout is not None
            said = {}
            while len(said) < 2:
                line = " ".join(up.stdout.readline().split())
                assert line or up.poll() is None
                for name in ("The web page is at", "colours answers at"):
                    if name in line:
                        said[name] = line.rpartition(" ")[2]
            page = said["The web page is at"]
            with urlopen(page, timeout=PATIENCE_S) as answer:
                assert "<title>Home · Tutelage</title>" in answer.read().decode()
            up.send_signal(signal.SIGTERM)
            assert up.wait(PATIENCE_S) == 0
    with pytest.raises(URLError):
        urlopen(page, timeout=PATIENCE_S)
