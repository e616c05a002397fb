"""Requests under pressure: hooks, a full queue, slow readers, a stop, engines that misbehave."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

import openai
import pytest
from tests.unit.serving.conftest import Running
from tests.unit.serving.test_serving_app import ASK, fetch

from tutelage.serving.backends.slots import Slots
from tutelage.serving.hooks import Ask, Hook, Outcome
from tutelage.serving.monitoring.telemetry import Telemetry
from tutelage.serving.wire.http_protocol import GuardedProtocol
from tutelage.serving.wire.upstream import Engine, Upstream
from tutelage.serving.wire.wire import HttpError
from tutelage.workflows.serving import serve
from tutelage.workflows.serving import serve as serve_module

Start = Callable[..., Running]
CHAT = "/v1/chat/completions"


def until(condition: Callable[[], Any]) -> None:
    """Return when the condition holds; fail after a generous while."""
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def asking(running: Running, **more: Any) -> socket.socket:
    """Return a connection over which one request was sent; it takes little at once."""
    where = urlsplit(running.url)
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.connect((where.hostname, where.port))
    body = json.dumps({"model": "colours", "messages": ASK, **more}).encode()
    top = f"POST {CHAT} HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: {len(body)}\r\n\r\n"
    client.sendall(top.encode() + body)
    return client


class Watcher(Hook):
    """Keeps what it sees; refuses users it is told to."""

    def __init__(self) -> None:
        self.asks: list[Ask] = []
        self.ends: list[tuple[str, Outcome]] = []
        self.life: list[str] = []

    async def start(self) -> None:
        self.life.append("start")

    async def admit(self, ask: Ask) -> None:
        self.asks.append(ask)
        ask.reply_headers["x-seen"] = "yes"
        if ask.user == "mallory":
            raise HttpError(402, "No more for you.", code="insufficient_quota")

    def finished(self, ask: Ask, outcome: Outcome) -> None:
        self.ends.append((ask.record, outcome))

    async def close(self) -> None:
        self.life.append("close")


class Clumsy(Hook):
    """Fails at the end of every request."""

    def finished(self, ask: Ask, outcome: Outcome) -> None:
        raise RuntimeError("clumsy")


def test_hooks_see_each_request_once_and_may_refuse_it(
    gateway: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    watcher, late = Watcher(), Watcher()
    monkeypatch.setattr(serve, "hooks", lambda ctx, state: (Clumsy(), watcher, late))
    running = gateway()
    url = f"{running.url}{CHAT}"
    body = {"model": "colours", "messages": ASK, "user": "anna", "max_tokens": 5}
    status, answer, headers = fetch(url, body, authorization="Bearer placeholder", **{"x-a": "b"})
    assert (status, headers["x-seen"]) == (200, "yes")
    (ask,) = watcher.asks
    assert (ask.record, ask.user, ask.max_tokens) == (answer["id"], "anna", 5)
    assert (ask.arm, ask.key, ask.role, ask.stream) == ("stable", None, "admin", False)
    assert ask.headers["x-a"] == "b" and "authorization" not in ask.headers
    assert ask.body()["messages"] == running.script.seen[0]["messages"]
    (end,) = watcher.ends
    assert end[0] == answer["id"]
    assert (end[1].status, end[1].text) == (200, '{"family": "warm"}')
    assert (end[1].prompt_tokens, end[1].completion_tokens) == (11, 4)
    status, answer, _ = fetch(url, {**body, "user": "mallory"})
    assert (status, answer["error"]["type"]) == (402, "insufficient_quota")
    assert len(running.script.seen) == 1
    assert len(late.asks) == 1 and [o.status for _, o in late.ends] == [200, 402]
    assert [r.status for r in running.records()] == [200, 402]
    assert watcher.life == ["start", "close"]


def test_a_full_gateway_refuses_before_it_reads_the_body(gateway: Start) -> None:
    running = gateway(concurrency=1, queue=0)
    running.script.by_model["*"] = {"latency_ms": 60_000}
    url = f"{running.url}{CHAT}"
    busy = asking(running)
    until(lambda: running.script.seen)
    status, answer, headers = fetch(url, raw=b"this is not even JSON")
    assert (status, answer["error"]["code"]) == (429, "queue_full")
    assert int(headers["retry-after"]) >= 1
    assert 'tutelage_refused_total{status="429"} 1.0' in fetch(f"{running.url}/metrics")[1]
    assert fetch(f"{running.url}/healthz")[0] == 200
    busy.close()
    until(lambda: running.script.cancelled)


def test_slots_serve_in_order_refuse_beyond_the_queue_and_give_back() -> None:
    async def run() -> list[Any]:
        slots = Slots(1, 2, Telemetry(), wait_s=30)
        order: list[Any] = []

        async def work(name: str) -> None:
            try:
                async with slots:
                    order.append(name)
                    await asyncio.sleep(0)
            except HttpError as error:
                order.append((name, error.status))

        tasks = [asyncio.create_task(work(name)) for name in "abcd"]
        await asyncio.sleep(0)
        tasks[1].cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert slots.free == 1
        return order

    assert asyncio.run(run()) == ["a", ("d", 429), "c"]


def test_who_waits_too_long_is_refused_and_the_queue_goes_on() -> None:
    async def run() -> None:
        slots = Slots(1, 4, Telemetry(), wait_s=0.01)
        async with slots:
            with pytest.raises(HttpError) as caught:
                await slots.__aenter__()
            assert caught.value.status == 429
        assert slots.free == 1

    asyncio.run(run())


def test_a_client_that_leaves_as_it_is_refused_gives_no_slot_back_that_it_never_had() -> None:
    async def run() -> None:
        slots = Slots(1, 4, Telemetry(), wait_s=0)
        async with slots:
            waiting = asyncio.create_task(slots.__aenter__())
            while not slots.retry_after > 0.5:  # it waits
                await asyncio.sleep(0)
            while slots.retry_after > 0.5:  # it is refused, and has not heard of it
                await asyncio.sleep(0)
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)
            assert slots.free == 0
        assert slots.free == 1

    asyncio.run(run())


def test_a_reader_that_stops_reading_is_given_up_and_its_engine_freed(
    gateway: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(GuardedProtocol, "stall_s", 0.3)
    running = gateway()
    running.script.by_model["*"] = {"text": ("x" * 100_000 + " ") * 200}
    client = asking(running, stream=True)
    ended = 'status="499"'
    until(lambda: ended in fetch(f"{running.url}/metrics")[1])
    (record,) = running.records()
    assert record.status == 499
    assert 0 < len(record.response) < 8_000_000
    client.close()


def test_a_stream_under_way_ends_as_it_should_when_the_gateway_is_stopped(gateway: Start) -> None:
    running = gateway()
    running.script.by_model["*"] = {"text": "word " * 40, "stream_gap_ms": 10}
    stream = running.client().chat.completions.create(model="colours", messages=ASK, stream=True)
    first = next(iter(stream))
    stopping = threading.Thread(target=running.serving.close)
    stopping.start()
    text = (first.choices[0].delta.content or "") + "".join(
        chunk.choices[0].delta.content or "" for chunk in stream
    )
    stopping.join(30)
    assert text == "word " * 40
    with pytest.raises(openai.APIConnectionError):
        running.client().models.list()
    assert [r.status for r in running.records()] == [200]


class Hasty(serve_module._Server):
    """A gateway that is stopped by two signals at once."""

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.force_exit = True


@pytest.mark.parametrize("how", ["too late", "two signals"])
def test_requests_that_are_broken_off_by_a_stop_are_told_so_and_kept(
    gateway: Start, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    if how == "too late":
        monkeypatch.setattr(serve_module, "_DRAIN_S", 0)
    else:
        monkeypatch.setattr(serve_module, "_Server", Hasty)
    running = gateway()
    slow = {"text": "word " * 4000, "stream_gap_ms": 20}
    running.script.by_model["*"] = {**slow, "when": {"whole": {"latency_ms": 60_000}}}
    create: Any = running.client().chat.completions.create
    stream = create(model="colours", messages=ASK, stream=True)
    next(iter(stream))
    refused: list[openai.InternalServerError] = []

    def ask() -> None:
        with pytest.raises(openai.InternalServerError) as caught:
            create(model="colours", messages=[{"role": "user", "content": "a whole answer"}])
        refused.append(caught.value)

    asking = threading.Thread(target=ask)
    asking.start()
    until(lambda: len(running.script.seen) == 2)
    running.serving.close()
    with pytest.raises(openai.APIError, match="stopping"):
        list(stream)
    asking.join(30)
    assert (refused[0].code, "retry-after" in refused[0].response.headers) == ("stopping", True)
    assert [(r.status, r.error) for r in running.records()] == [
        (503, "the gateway was stopped")
    ] * 2


class Raw:
    """An engine that says prepared bytes, one answer a connection, or hangs up."""

    def __init__(self, *answers: bytes | None) -> None:
        self.answers = list(answers)
        self.asked = 0
        self.head = b""
        self.forever = asyncio.Event()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        self.head = head.lower()
        await reader.readexactly(int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0]))
        self.asked += 1
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if answer is not None:
            writer.write(answer)
            await writer.drain()
            if answer.endswith(b"..."):
                await self.forever.wait()
        writer.close()


@asynccontextmanager
async def upstream_of(raw: Raw, **waits: float) -> AsyncIterator[Upstream]:
    server = await asyncio.start_server(raw.serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    upstream = Upstream(lambda: f"http://127.0.0.1:{port}", **waits)
    await upstream.start()
    try:
        yield upstream
    finally:
        raw.forever.set()
        await upstream.close()
        server.close()
        await server.wait_closed()


OK = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n"
SSE = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n"
PIECE = b'data: {"choices": [{"index": 0, "delta": {"content": "a"}}]}\n\n'
BODY: dict[str, Any] = {"model": "r", "messages": []}


def outcome(raw: Raw, *, stream: bool = False, **waits: float) -> tuple[int, str | None]:
    """Return (status, code) of what one request to the engine comes to."""

    async def run() -> tuple[int, str | None]:
        async with upstream_of(raw, **waits) as upstream:
            try:
                if stream:
                    async for _ in upstream.stream(BODY):
                        pass
                else:
                    await upstream.complete(BODY)
            except HttpError as error:
                return error.status, error.code
            return 200, None

    return asyncio.run(run())


def test_a_connection_that_ends_without_an_answer_is_tried_once_more() -> None:
    whole = b'{"choices": [{"message": {"content": "x"}, "finish_reason": "stop"}]}'
    good = OK + b"content-length: %d\r\n\r\n" % len(whole) + whole
    raw = Raw(None, good)
    assert outcome(raw) == (200, None)
    assert raw.asked == 2
    assert b"accept-encoding" not in raw.head  # answers are not unpacked
    raw = Raw(None, None, good)
    assert outcome(raw) == (503, "engine_unavailable")
    assert raw.asked == 2


@pytest.mark.parametrize(
    ("answer", "stream"),
    [
        (OK + b"content-length: 500\r\n\r\n{", False),
        (OK + b"\r\n{}", False),
        (OK + b"\r\n" + b'{"choices": [{"message": null}]}', False),
        (b"HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:1/\r\n\r\n", False),
        (b"SSH-2.0-OpenSSH_9.9\r\n\r\n", False),
        (SSE + PIECE, True),
        (SSE + b"data: " + b"x" * (5 * 2**20), True),
        (SSE + PIECE + b"data: [1]\n\n", True),
    ],
    ids=["cut", "empty", "null", "redirect", "ssh", "no end", "huge event", "list"],
)
def test_garbage_of_an_engine_is_a_502_and_not_asked_for_again(answer: bytes, stream: bool) -> None:
    raw = Raw(answer)
    assert outcome(raw, stream=stream) == (502, "engine_error")
    assert raw.asked == 1


@pytest.mark.parametrize(
    ("answer", "stream", "waits"),
    [
        (OK + b"content-length: 9\r\n\r\n...", False, {"timeout_s": 0.1}),
        (SSE + b": ...", True, {"first_token_s": 0.1}),
        (SSE + PIECE + b": ...", True, {"idle_s": 0.1}),
        (SSE + PIECE + b": ...", True, {"timeout_s": 0.1}),
    ],
    ids=["total", "first token", "idle", "total of a stream"],
)
def test_an_engine_that_falls_silent_is_a_504(
    answer: bytes, stream: bool, waits: dict[str, float]
) -> None:
    assert outcome(Raw(answer), stream=stream, **waits) == (504, "timeout")


def test_each_try_asks_anew_which_engine_and_tells_whether_it_was_reached() -> None:
    class Two:
        def __init__(self, good: str) -> None:
            self.bases = ["http://127.0.0.1:9", good]
            self.heard: list[tuple[str, int | None]] = []

        def take(self, release: str) -> Engine:
            return Engine(self.bases[0], f"name-of-{release}", "secret")

        def give(self, engine: Engine, *, reached: bool, status: int | None = None) -> None:
            self.heard.append((engine.base_url, status))
            if not reached:
                self.bases.pop(0)

        def pass_on(self, engine: Engine, status: int) -> bool:
            return False

    async def run() -> None:
        whole = b'{"choices": [{"message": {"content": "x"}, "finish_reason": "stop"}]}'
        raw = Raw(OK + b"content-length: %d\r\n\r\n" % len(whole) + whole)
        server = await asyncio.start_server(raw.serve, "127.0.0.1", 0)
        good = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        engines = Two(good)
        upstream = Upstream(engines)
        await upstream.start()
        assert (await upstream.complete(BODY)).text == "x"
        assert engines.heard == [("http://127.0.0.1:9", None), (good, 200)]
        await upstream.close()
        server.close()

    asyncio.run(run())
