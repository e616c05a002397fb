"""llama.cpp's own HTTP server behind the gateway: a real server that somebody else made."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
from tests.fakes.gateway import gateway_project

from tutelage.inference.models import locate_model
from tutelage.workflows.release import deploy
from tutelage.workflows.serving.serve import Serving

_SERVER = """
import sys, time, xllamacpp
params = xllamacpp.CommonParams()
params.model.path, params.hostnames, params.port = sys.argv[1], ["127.0.0.1"], int(sys.argv[2])
params.n_parallel, params.n_ctx = 2, 1024
params.endpoint_metrics = True
server = xllamacpp.Server(params)
time.sleep(600)
"""


@pytest.fixture
def url() -> Iterator[str]:
    model = locate_model("demo").path
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    child = subprocess.Popen(
        [sys.executable, "-c", _SERVER, str(model), str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    address = f"http://127.0.0.1:{port}"
    limit = time.monotonic() + 60
    while not _answers(f"{address}/health"):
        assert child.poll() is None
        assert time.monotonic() < limit
        time.sleep(0.05)
    yield address
    child.kill()
    child.wait()


def _answers(url: str) -> bool:
    try:
        return bool(urllib.request.urlopen(url, timeout=5).status == 200)
    except OSError:
        return False


def test_it_is_found_and_answers_through_the_gateway(tmp_path: Path, url: str) -> None:
    first = gateway_project(tmp_path / "look", url)
    found = deploy.backends(first)["backends"][0]
    first.store.close()
    assert found["up"]
    assert not found["adapters"]
    (name,) = found["models"]
    ctx = gateway_project(
        tmp_path / "serve", url, endpoint={"base_url": url, "model": name}, guards={}
    )
    with Serving(ctx) as serving:
        client = openai.OpenAI(base_url=f"{serving.base_url}/v1", api_key="unused")
        messages: list[Any] = [{"role": "user", "content": "Say hello."}]
        whole = client.chat.completions.create(model="colours", messages=messages, max_tokens=8)
        stream = client.chat.completions.create(
            model="colours", messages=messages, max_tokens=8, stream=True
        )
        pieces = [e.choices[0].delta.content or "" for e in stream if e.choices]
        assert whole.usage is not None
        assert whole.usage.completion_tokens <= 8
        assert "".join(pieces) == whole.choices[0].message.content
    ctx.store.close()
