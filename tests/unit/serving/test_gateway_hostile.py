"""Clients that mean harm, over raw sockets: each gets a 4xx and keeps nobody else from theirs."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import pytest
from tests.unit.serving.conftest import Running
from tests.unit.serving.test_serving_app import ASK, fetch

from tutelage.serving.access.key_store import create_key
from tutelage.serving.wire.body import Room
from tutelage.serving.wire.http_protocol import GuardedProtocol
from tutelage.serving.wire.wire import HttpError
from tutelage.workflows.context import Context

Start = Callable[..., Running]
CHAT = "/v1/chat/completions"


def connect(running: Running) -> socket.socket:
    where = urlsplit(running.url)
    return socket.create_connection((where.hostname or "", where.port or 0), timeout=60)


def head(path: str = CHAT, *more: str, method: str = "POST") -> bytes:
    lines = (f"{method} {path} HTTP/1.1", "host: 127.0.0.1", *more, "", "")
    return "\r\n".join(lines).encode("latin-1")


def hear(client: socket.socket) -> tuple[int, Any]:
    """Return (status, body) of one answer; status 0 if the connection ends without one."""
    raw = b""
    while b"\r\n\r\n" not in raw:
        try:
            part = client.recv(65_536)
        except ConnectionResetError:
            return 0, None
        if not part:
            return 0, None
        raw += part
    top, _, rest = raw.partition(b"\r\n\r\n")
    status = int(top.split(b" ")[1])
    length = next(
        int(line.split(b":")[1])
        for line in top.lower().split(b"\r\n")
        if line.startswith(b"content-length")
    )
    while len(rest) < length:
        rest += client.recv(65_536)
    return status, json.loads(rest)


def ask(running: Running, data: bytes) -> tuple[int, Any]:
    with connect(running) as client:
        client.sendall(data)
        return hear(client)


def still_answers(running: Running) -> bool:
    return fetch(f"{running.url}{CHAT}", {"model": "colours", "messages": ASK})[0] == 200


def test_heads_are_bounded(shared: Running) -> None:
    many = [f"x-{i}: y" for i in range(200)]
    assert ask(shared, head(CHAT, *many))[0] == 431
    assert ask(shared, head(CHAT, f"x: {'y' * 40_000}"))[0] == 431
    assert ask(shared, head(f"/{'a' * 40_000}"))[0] == 431
    endless = b"GET / HTTP/1.1\r\nx: " + b"y" * 300_000  # a header that never ends
    status, answer = ask(shared, endless)
    assert status == 431 and answer["error"]["type"] == "invalid_request_error"
    assert still_answers(shared)


@pytest.mark.parametrize(
    "data",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",  # TLS
        b"GET / HTTP/9.9\r\n\r\n",
        head(CHAT, "content-length: 5", "content-length: 6"),
        head(CHAT, "content-length: -1"),
        head(CHAT, "content-length: 5", "transfer-encoding: chunked") + b"0\r\n\r\n",
        head(CHAT, "bad header"),
        head("\xff\xfe"),
        b"CONNECT 10.0.0.1:22 HTTP/1.1\r\nhost: x\r\n\r\n",
    ],
)
def test_what_is_not_http_is_a_400(shared: Running, data: bytes) -> None:
    status, answer = ask(shared, data)
    assert status == 400 and answer["error"]["message"]


def test_a_head_that_comes_drop_by_drop_is_given_up(
    gateway: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(GuardedProtocol, "head_s", 0.2)
    running = gateway()
    with connect(running) as silent, connect(running) as slow:
        slow.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1\r\n")
        assert hear(slow)[0] == 408
        assert hear(silent)[0] == 0
    with connect(running) as second:  # the head of a second request on a connection
        second.sendall(head("/healthz", method="GET"))
        assert hear(second)[0] == 200
        second.sendall(b"GET /healthz HTTP/1.1\r\n")
        assert hear(second)[0] == 408
    assert still_answers(running)


def test_a_body_that_never_comes_is_a_408(gateway: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(GuardedProtocol, "body_s", 0.2)
    running = gateway()
    status, answer = ask(running, head(CHAT, "content-length: 100") + b'{"model"')
    assert status == 408 and "body" in answer["error"]["message"]
    assert running.serving.base_url and still_answers(running)


@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_that_is_too_large_is_a_413(shared: Running, chunked: bool) -> None:
    block = b"x" * 65_536
    with connect(shared) as client:
        if chunked:
            client.sendall(head(CHAT, "transfer-encoding: chunked"))
        else:
            client.sendall(head(CHAT, f"content-length: {len(block) * 80}"))
        for _ in range(80):
            client.sendall(b"10000\r\n" + block + b"\r\n" if chunked else block)
        if chunked:
            client.sendall(b"0\r\n\r\n")
        status, answer = hear(client)
    assert (status, answer["error"]["code"]) == (413, "too_large")


def test_large_bodies_share_a_bounded_room() -> None:
    room = Room(1_000_000)
    first, second, small = room.share(), room.share(), room.share()
    first.grow(700_000)
    small.grow(60_000)
    with pytest.raises(HttpError) as caught:
        second.grow(400_000)
    assert caught.value.status == 503
    second.free()
    first.free()
    first.free()
    second.grow(900_000)
    second.free()
    assert room.used == 0


def test_a_room_is_empty_after_good_bad_and_broken_requests(gateway: Start) -> None:
    from tutelage.workflows.serving import serve

    states = []
    original = serve.create_app
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(serve, "create_app", lambda s, r: states.append(s) or original(s, r))
        running = gateway()
    long = [{"role": "user", "content": "x" * 200_000}]
    url = f"{running.url}{CHAT}"
    assert fetch(url, {"model": "colours", "messages": long})[0] == 200
    assert fetch(url, {"model": "nobody", "messages": long})[0] == 404
    assert fetch(url, raw=b"[" + b" " * 200_000)[0] == 400
    with connect(running) as client:
        client.sendall(head(CHAT, "content-length: 300000") + b" " * 200_000)
    running.serving.close()
    assert states[0].room.used == 0


@pytest.mark.parametrize(
    "body",
    [
        b'{"model": "colours", "messages": [{"role": "user", "content": "\xff\xfe"}]}',
        b'{"model": "\xc3(", "messages": []}',
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b'{"model": "colours", "max_tokens": NaN}',
        b"9" * 10_000,
        b"",
        b"null",
        b"\x00",
    ],
)
def test_what_is_not_a_json_object_is_a_400(shared: Running, body: bytes) -> None:
    status, answer, _ = fetch(f"{shared.url}{CHAT}", raw=body)
    assert (status, answer["error"]["code"]) == (400, "invalid_json")


def test_deep_and_endless_parts_are_a_400(shared: Running) -> None:
    deep: Any = {}
    for _ in range(200):
        deep = {"properties": deep}
    tool = {"type": "function", "function": {"name": "f", "parameters": deep}}
    form = {"type": "json_schema", "json_schema": {"name": "a", "schema": deep}}
    good = {"model": "colours", "messages": ASK}
    for change, param in (
        ({"tools": [tool]}, "tools"),
        ({"response_format": form}, "response_format"),
        ({"metadata": deep}, "metadata"),
        ({"messages": ASK * 5000}, "messages"),
        ({"tools": [{**tool, "function": {"name": "f"}}] * 200}, "tools"),
        ({"tools": [{**tool, "function": {"name": "f" * 300_000}}]}, "tools"),
    ):
        status, answer, _ = fetch(f"{shared.url}{CHAT}", {**good, **change})
        assert (status, answer["error"]["param"]) == (400, param)


@pytest.mark.parametrize(
    "path",
    [
        "/v1/../admin/keys", "/v1/%2e%2e/admin/keys", "//admin/keys", "/admin//keys",
        "/admin/keys/", "/v1/models/..%2f..%2fadmin", "/v1/models/%00", "/V1/CHAT/COMPLETIONS",
        "/v1/chat/completions/", "/.tutelage/store.db", "/v1/models/colours/../../../etc/passwd",
    ],
)  # fmt: skip
def test_path_tricks_lead_nowhere(shared: Running, path: str) -> None:
    status, answer = ask(shared, head(path, method="GET"))
    assert status == 404 and "error" in answer


def test_trailers_can_t_bring_a_key(gateway: Start) -> None:
    made: list[str] = []

    def prepare(ctx: Context) -> None:
        made.append(create_key(ctx.store, "boss", "admin"))

    running = gateway(prepare)
    data = head("/admin/keys", "transfer-encoding: chunked", "origin: https://evil.example")
    data += b'f\r\n{"name":"mine"}\r\n0\r\nauthorization: Bearer ' + made[0].encode()
    assert ask(running, data + b"\r\n\r\n")[0] == 403


def test_guessing_keys_is_slowed_down_and_right_keys_are_not(gateway: Start) -> None:
    made: list[str] = []
    running = gateway(lambda ctx: made.append(create_key(ctx.store, "web")))
    url = f"{running.url}/v1/models"
    found = [fetch(url, authorization=f"Bearer tut_{i}") for i in range(40)]
    assert found[0][0] == 401
    assert found[-1][0] == 429 and int(found[-1][2]["retry-after"]) >= 1
    assert fetch(url, authorization=f"Bearer {made[0]}")[0] == 200


def test_connections_beyond_the_limit_are_refused_at_once(
    gateway: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    running = gateway()
    opened = [connect(running) for _ in range(3)]
    for client in opened:
        client.sendall(head("/healthz", method="GET"))
        assert hear(client)[0] == 200
    for kind in GuardedProtocol.__subclasses__():
        monkeypatch.setattr(kind, "most_connections", 3)
    with connect(running) as late:
        status, answer = hear(late)
    assert status == 503 and answer["error"]["type"] == "server_error"
    for client in opened:
        client.close()
