"""What signals do to a gateway."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Iterator

import pytest
import uvicorn

from tutelage.workflows.serving.serve import _Server, _signals

pytestmark = pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="no terminals here")


@pytest.fixture
def server() -> Iterator[_Server]:
    before = signal.signal(signal.SIGHUP, lambda *_: None)  # the test run shall outlive it
    yield _Server(uvicorn.Config(lambda *_: None))
    signal.signal(signal.SIGHUP, before)


def test_a_terminal_that_is_closed_lets_requests_end_as_ctrl_c_does(server: _Server) -> None:
    async def serve() -> None:
        stop = asyncio.Event()
        with _signals(stop, server):
            signal.raise_signal(signal.SIGHUP)
            await asyncio.wait_for(stop.wait(), 60)
        assert not server.force_exit

    asyncio.run(serve())


def test_a_gateway_under_nohup_stays(server: _Server) -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)

    async def serve() -> None:
        with _signals(asyncio.Event(), server):
            assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN

    asyncio.run(serve())
