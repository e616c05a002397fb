"""The client that asks engines, against real sockets, and the JSON it carries."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from tutelage.serving.wire.fast_json import decode, encode
from tutelage.serving.wire.http_client import HttpClient, NotConnected, target_of
from tutelage.serving.wire.http_connection import Garbled, HungUp, Reply

WAIT_S = 30.0
HEAD = b"HTTP/1.1 200 OK\r\n"
WHOLE = HEAD + b"content-length: 2\r\n\r\nok"
CHUNKED = HEAD + b"transfer-encoding: chunked\r\n\r\n1\r\no\r\n1\r\nk\r\n0\r\n\r\n"


class Engine:
    """Says one prepared answer after another, over as many connections as there are made."""

    def __init__(self, *answers: bytes) -> None:
        self.answers = list(answers)
        self.connections = 0
        self.heads: list[bytes] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while True:
                self.heads.append(await reader.readuntil(b"\r\n\r\n"))
                await reader.readexactly(2)
                answer = self.answers.pop(0)
                writer.write(answer)
                if answer.startswith(HEAD + b"\r\n") or not answer:  # its end is the connection's
                    break
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


def talk(engine: Engine, work: Callable[[HttpClient, str], Awaitable[Any]]) -> Any:
    """Return what `work` makes of a client and the engine's address."""

    async def run() -> Any:
        server = await asyncio.start_server(engine.serve, "127.0.0.1", 0)
        client = HttpClient()
        try:
            return await work(client, f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1")
        finally:
            await client.close()
            server.close()

    return asyncio.run(run())


def later() -> float:
    return asyncio.get_running_loop().time() + WAIT_S


async def ask(client: HttpClient, url: str, **headers: str) -> Reply:
    return await client.post(url, b"{}", headers, later())


async def body(reply: Reply) -> bytes:
    whole = b""
    while part := await reply.read(later()):
        whole += part
    reply.release()
    return whole


def test_one_connection_serves_one_request_after_another() -> None:
    early = b"HTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\n"
    engine = Engine(WHOLE, CHUNKED, early + WHOLE, HEAD + b"\r\nto the end", WHOLE)

    async def work(client: HttpClient, url: str) -> list[bytes]:
        return [await body(await ask(client, url, **{"x-a": "b"})) for _ in range(5)]

    assert talk(engine, work) == [b"ok", b"ok", b"ok", b"to the end", b"ok"]
    assert engine.connections == 2
    assert b"POST /v1 HTTP/1.1\r\n" in engine.heads[0] and b"x-a: b\r\n" in engine.heads[0]


def test_a_connection_that_says_more_than_it_was_asked_is_not_used_again() -> None:
    engine = Engine(WHOLE + WHOLE, WHOLE)

    async def work(client: HttpClient, url: str) -> list[bytes]:
        return [await body(await ask(client, url)) for _ in range(2)]

    assert talk(engine, work) == [b"ok", b"ok"]
    assert engine.connections == 2


def test_what_is_read_ahead_of_a_slow_reader_is_bounded() -> None:
    size = 8 * 2**20
    engine = Engine(HEAD + b"content-length: %d\r\n\r\n" % size + b"x" * size)

    async def work(client: HttpClient, url: str) -> int:
        reply = await ask(client, url)
        most = total = 0
        while part := await reply.read(later()):
            most, total = max(most, len(part)), total + len(part)
        assert total == size
        return most

    assert talk(engine, work) <= 32_768


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (b"", HungUp),
        (b"HTTP/1.1 200 OK\r\nx: " + b"y" * 200_000, Garbled),
        (b"SSH-2.0-OpenSSH_9.9\r\n\r\n", Garbled),
        (b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n", Garbled),
    ],
    ids=["nothing", "large head", "ssh", "upgrade"],
)
def test_what_is_no_answer_is_an_error(answer: bytes, error: type[Exception]) -> None:
    async def work(client: HttpClient, url: str) -> None:
        with pytest.raises(error):
            await ask(client, url)

    talk(Engine(answer), work)


def test_a_body_that_ends_early_is_an_error_after_what_came() -> None:
    async def work(client: HttpClient, url: str) -> None:
        reply = await ask(client, url)
        reply.close()
        with pytest.raises(Garbled, match="ended early"):
            while True:
                assert await reply.read(later())

    talk(Engine(HEAD + b"content-length: 9\r\n\r\nhalf"), work)


def test_a_wait_ends_in_time_and_headers_hold_one_line() -> None:
    async def work(client: HttpClient, url: str) -> None:
        with pytest.raises(TimeoutError):
            await client.post(url, b"{}", {}, asyncio.get_running_loop().time() + 0.05)
        with pytest.raises(Garbled):
            await ask(client, url, bad="a\r\nx-b: c")

    talk(Engine(HEAD), work)


@pytest.mark.parametrize("url", ["ftp://x/", "http:///v1", "http://[::1/", "http://a:b/"])
def test_an_address_that_names_no_server_is_an_error(url: str) -> None:
    with pytest.raises(NotConnected):
        target_of(url)


@pytest.mark.parametrize(
    "value",
    [{"a": [1, 2.5, None, True]}, "é", "\ud800", {"x": "\ud83d"}, 10**30, {"k": {"é": [[]]}}, ""],
)
def test_json_is_what_the_standard_library_makes_of_it(value: Any) -> None:
    assert encode(value) == json.dumps(value, separators=(",", ":")).encode()
    assert decode(encode(value)) == value
    assert decode(json.dumps(value, ensure_ascii=False).encode("utf-8", "surrogatepass")) == value


def test_bad_json_is_the_standard_librarys_error() -> None:
    for raw in (b"{", b"[1,]", b'"\xff"', b"\x00"):
        with pytest.raises(ValueError):
            decode(raw)
    with pytest.raises(RecursionError):
        decode(b"[" * 100_000)
