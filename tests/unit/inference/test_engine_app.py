"""The engine's HTTP face over a backend without a model: what clients see, and who waits."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import uvicorn
from tests.fakes.engine_backend import EchoBackend

from tutelage.inference.engine_app import create_app
from tutelage.inference.engine_desk import Desk
from tutelage.inference.engine_problem import RequestProblem
from tutelage.inference.engine_request import parse_request
from tutelage.inference.engine_schema import answer_problem, schema_problem

BODY: dict[str, Any] = {"model": "r1", "messages": [{"role": "user", "content": "one two"}]}


class Client:
    """Speaks to an engine that runs in this test."""

    def __init__(self, session: aiohttp.ClientSession, base: str) -> None:
        self.session, self.base = session, base

    async def post(self, path: str, body: Any) -> tuple[int, Any]:
        async with self.session.post(self.base + path, json=body) as response:
            return response.status, await response.json(content_type=None)

    async def chat(self, **fields: Any) -> tuple[int, Any]:
        return await self.post("/v1/chat/completions", {**BODY, **fields})

    async def load(self, release: str, adapter: str | None = None) -> tuple[int, Any]:
        return await self.post("/admin/load", {"release": release, "adapter": adapter})

    async def stats(self) -> Any:
        async with self.session.get(f"{self.base}/admin/stats") as response:
            return await response.json()

    async def until(self, queue: int) -> None:
        while (await self.stats())["queue"] != queue:
            await asyncio.sleep(0.01)


@asynccontextmanager
async def serving(backend: EchoBackend) -> AsyncIterator[Client]:
    config = uvicorn.Config(create_app(Desk(backend)), port=0, log_level="warning", lifespan="on")
    server = uvicorn.Server(config)
    running = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0.005)
    port = server.servers[0].sockets[0].getsockname()[1]
    async with aiohttp.ClientSession() as session:
        yield Client(session, f"http://127.0.0.1:{port}")
    backend.go.set()
    server.should_exit = True
    await running


def test_a_loaded_release_answers_and_an_unknown_one_is_a_404() -> None:
    async def run() -> None:
        async with serving(EchoBackend()) as client:
            assert await client.load("r1", "/a/tuned") == (200, {"releases": ["r1"]})
            status, answer = await client.chat()
            assert status == 200
            assert answer["model"] == "r1"
            assert answer["object"] == "chat.completion"
            assert answer["choices"][0]["message"]["content"] == "tuned: one two"
            assert answer["choices"][0]["finish_reason"] == "stop"
            assert answer["usage"]["prompt_tokens"] == 3
            assert answer["usage"]["prompt_tokens_details"] == {"cached_tokens": 1}
            status, answer = await client.chat(model="r2")
            assert status == 404
            assert answer["error"]["code"] == "model_not_found"
            assert "'r2' is not loaded here; loaded: r1" in answer["error"]["message"]

    asyncio.run(run())


def test_a_stream_ends_with_the_reason_the_usage_and_done() -> None:
    async def run() -> None:
        async with serving(EchoBackend()) as client:
            await client.load("r1")
            body = {**BODY, "stream": True, "stream_options": {"include_usage": True}}
            url = f"{client.base}/v1/chat/completions"
            async with client.session.post(url, json=body) as response:
                assert response.headers["content-type"].startswith("text/event-stream")
                lines = [line async for line in response.content if line.strip()]
            assert lines[-1] == b"data: [DONE]\n"
            assert b'"finish_reason": "stop"' in lines[-3]
            assert b'"completion_tokens": 3' in lines[-2]
            assert b'{"content": " two"}' in lines[-4]
            async with client.session.post(url, json={**body, "model": "zz"}) as response:
                assert response.status == 404

    asyncio.run(run())


def test_a_removed_release_finishes_what_it_began() -> None:
    async def run() -> None:
        backend = EchoBackend()
        async with serving(backend) as client:
            await client.load("r1")
            backend.go.clear()
            waiting = asyncio.create_task(client.chat())
            await client.until(queue=1)
            leaving = asyncio.create_task(client.post("/admin/unload", {"release": "r1"}))
            while (await client.stats())["releases"]:
                await asyncio.sleep(0.01)
            assert (await client.chat())[0] == 404  # new requests are told at once
            assert backend.closed == []
            backend.go.set()
            assert (await waiting)[0] == 200
            assert (await leaving)[0] == 200
            assert backend.closed == [None]
            assert (await client.post("/admin/unload", {"release": "r1"}))[0] == 404

    asyncio.run(run())


def test_an_engine_that_ends_lets_all_go_at_once() -> None:
    async def run() -> None:
        backend = EchoBackend()
        async with serving(backend) as client:
            for release in ("r1", "r2"):
                await client.load(release)
            assert not backend.ended
        assert backend.ended
        assert backend.closed == []  # one by one, others would be made anew without them

    asyncio.run(run())


def test_more_requests_than_slots_wait_their_turn() -> None:
    async def run() -> None:
        backend = EchoBackend(slots=2)
        async with serving(backend) as client:
            await client.load("r1")
            backend.go.clear()
            asked = [asyncio.create_task(client.chat()) for _ in range(12)]
            await client.until(queue=12)
            backend.go.set()
            answers = await asyncio.gather(*asked)
            assert [status for status, _ in answers] == [200] * 12
            assert backend.most == 2

    asyncio.run(run())


@pytest.mark.parametrize("stream", [False, True])
def test_when_the_client_leaves_the_work_stops(stream: bool) -> None:
    async def run() -> None:
        backend = EchoBackend(slots=1)
        async with serving(backend) as client:
            await client.load("r1")
            backend.go.clear()
            gone = asyncio.create_task(client.chat(stream=stream))
            waiting = asyncio.create_task(client.chat())
            await client.until(queue=2)
            gone.cancel()
            await client.until(queue=1)  # its slot is free for the one that stayed
            backend.go.set()
            assert (await waiting)[0] == 200

    asyncio.run(run())


def test_loading_twice_is_one_load_and_another_adapter_is_a_conflict() -> None:
    async def run() -> None:
        backend = EchoBackend()
        async with serving(backend) as client:
            await asyncio.gather(*(client.load("r1", "/a/tuned") for _ in range(3)))
            assert backend.opened == [Path("/a/tuned")]
            status, answer = await client.load("r1", "/a/other")
            assert (status, answer["error"]["code"]) == (409, "release_exists")
            status, answer = await client.load("r2", "/a/broken")
            assert status == 422
            assert answer["tutelage"]["what"] == "the adapter is broken"
            assert (await client.stats())["releases"] == ["r1"]

    asyncio.run(run())


def _schema(inner: Any) -> dict[str, Any]:
    return {"response_format": {"type": "json_schema", "json_schema": {"schema": inner}}}


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"temprature": 1}, "does not know the field 'temprature'; did you mean 'temperature'?"),
        ({"messages": []}, "messages must be a list with at least one message"),
        ({"messages": [{"role": "robot", "content": "x"}]}, "messages[0].role must be one of"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "only hold text"),
        ({"max_tokens": 0}, "max_tokens must be a whole number of at least 1"),
        ({"temperature": 3}, "temperature must be a number from 0 to 2"),
        ({"n": 2}, "n must be 1"),
        ({"logit_bias": {}}, "does not know the field 'logit_bias'"),
        ({"response_format": {"type": "xml"}}, "response_format.type must be text"),
        (_schema({"type": "strnig"}), "the JSON schema is wrong at $.type"),
        (
            _schema({"type": "object", "properties": {"a": {"type": "nmber"}}}),
            "the JSON schema is wrong at $.properties.a.type",
        ),
        (
            _schema({"type": "array", "items": {"type": "object", "minProperties": 2}}),
            "can't enforce $.items.minProperties of the JSON schema",
        ),
        (
            _schema({"$ref": "http://127.0.0.1/x"}),
            "refers to 'http://127.0.0.1/x', which is not in",
        ),
        (_schema({"properties": {"a": {"$ref": "#/$defs/b"}}}), "refers to '#/$defs/b', which"),
    ],
)
def test_what_cannot_be_honoured_is_refused(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(RequestProblem) as caught:
        parse_request({**BODY, **fields})
    assert caught.value.status == 400
    assert said in str(caught.value)


def test_what_is_left_out_is_greedy_and_harmless_fields_pass() -> None:
    request = parse_request({**BODY, "user": "u1", "max_completion_tokens": 5, "stop": "\n"})
    assert request.decoding.temperature == 0
    assert request.decoding.max_tokens == 5
    assert request.decoding.stop == ("\n",)
    developer = [{"role": "developer", "content": [{"type": "text", "text": "hi"}]}]
    assert parse_request({**BODY, "messages": developer}).messages == (
        {"role": "system", "content": "hi"},
    )


def test_a_schema_of_a_client_fetches_nothing_and_runs_no_pattern(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fetched: list[str] = []
    monkeypatch.setattr("urllib.request.urlopen", fetched.append)
    assert "not in it" in str(answer_problem({"$ref": "http://127.0.0.1/x"}, "{}"))
    assert "without end" in str(answer_problem({"$ref": "#"}, "{}"))
    assert fetched == []
    ages = json.dumps("a" * 60 + "c")
    forms = [{"type": "string", "pattern": "^(a+)+$"}, {"const": "x"}]
    assert answer_problem({"anyOf": forms}, ages) is None
    named = {"patternProperties": {"^(a+)+$": {}}, "additionalProperties": False}
    assert answer_problem(named, f"{{{ages}: 1}}") is None
    known = {"$defs": {"n": {"type": "integer"}}, "$ref": "#/$defs/n", "examples": [{"$ref": "x"}]}
    assert schema_problem(known) is None
    assert answer_problem(known, "1") is None
    assert answer_problem(known, '"x"') == "$: 'x' is not of type 'integer'"
    assert "unexpected" in str(answer_problem({"additionalProperties": False}, '{"a": 1}'))
