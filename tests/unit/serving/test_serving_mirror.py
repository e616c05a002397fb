"""Shadow traffic: the candidate answers copies, nobody sees them, nobody pays or waits for them."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import pytest
from tests.fakes.gateway import begin_rollout
from tests.unit.serving.conftest import Running
from tests.unit.serving.test_serving_app import fetch
from tests.unit.serving.test_serving_controller import drive

from tutelage.core.config import Deploy
from tutelage.core.example import Message
from tutelage.data.privacy.detect import redact_text
from tutelage.release.bundle import BaseRef, ReleaseManifest
from tutelage.release.deployments import journal, route
from tutelage.release.routes import Route
from tutelage.serving.hooks import Ask, Outcome
from tutelage.serving.mirror import Mirror, is_control
from tutelage.serving.records.record_texts import cleaned, record_texts
from tutelage.serving.router import Entry, Router, build_profile
from tutelage.serving.state import GatewayState
from tutelage.serving.wire.upstream_answer import Answer
from tutelage.serving.wire.wire import HttpError
from tutelage.store.records import RecordRow

Start = Callable[..., Running]


def shadow(ctx: Any) -> str:
    return begin_rollout(ctx, (100,), shadow=1, end="complete", min_requests=5, min_total=20)


def test_a_shadow_sees_every_request_and_answers_nobody(gateway: Start) -> None:
    running = gateway(shadow)
    key = fetch(f"{running.url}/admin/keys", {"name": "web"})[1]["key"]
    running.script.by_model["*"] = {"when": {"Candidate": {"text": '{"family": "cold"}'}}}
    body = {"model": "colours", "messages": [{"role": "user", "content": "snow"}]}
    url = f"{running.url}/v1/chat/completions"
    drive(running, lambda row: row.state == "running")
    _, answer, headers = fetch(url, body, authorization=f"Bearer {key}")
    assert answer["choices"][0]["message"]["content"] == '{"family": "warm"}'
    assert headers["x-tutelage-arm"] == "stable"
    row = drive(running, lambda row: row.state == "completed")
    assert route(running.ctx.store, "colours").stable == row.baseline
    moves = journal(running.ctx.store, row.id)
    assert [(m.to_state, m.weight) for m in moves] == [("running", 0.0), ("completed", 0.0)]
    assert "mirrored requests at 100 % held every limit" in moves[-1].reason
    assert moves[-1].evidence["unseen"]
    records = running.records()
    copies = [r for r in records if (r.arm, r.release) == ("shadow", row.candidate)]
    assert len(copies) >= 20
    control = [r for r in records if (r.arm, r.release) == ("shadow", row.baseline)]
    assert control, "the other copies are stable's"
    assert {r.key_name for r in control} == {None}
    assert {r.release for r in copies} == {row.candidate}
    assert {r.rollout for r in copies} == {row.id}
    assert {(r.key_name, r.user) for r in copies} == {(None, None)}, "no budget pays for a copy"
    assert {r.response for r in copies} == {'{"family": "cold"}'}
    assert copies[0].checks["schema"]["ok"] is True
    with running.ctx.store.session() as session:
        for copy in copies:
            original = session.get(RecordRow, copy.id.removesuffix("-shadow"))
            assert original is not None and original.arm == "stable"
            assert (original.split, original.group_key) == (copy.split, copy.group_key)
            assert original.response == '{"family": "warm"}'


def test_a_shadow_that_fails_ends_and_no_client_noticed(gateway: Start) -> None:
    running = gateway(shadow)
    running.script.by_model["*"] = {"when": {"Candidate": {"status": 500}}}
    row = drive(running, lambda row: row.state == "rolled_back")
    assert "first 5 requests all failed" in journal(running.ctx.store, row.id)[-1].reason
    seen = {(r.arm, r.release == row.candidate, r.status) for r in running.records()}
    assert seen <= {("stable", False, 200), ("shadow", True, 502), ("shadow", False, 200)}
    assert ("shadow", True, 502) in seen


class SlowUpstream:
    """Answers when told to."""

    def __init__(self) -> None:
        self.go = asyncio.Event()
        self.bodies: list[dict[str, Any]] = []
        self.error: HttpError | None = None
        self.calls: list[dict[str, Any]] | None = None

    async def complete(self, body: dict[str, Any]) -> Answer:
        self.bodies.append(body)
        await self.go.wait()
        if self.error is not None:
            raise self.error
        usage = {"prompt_tokens": 3, "completion_tokens": 1}
        return Answer("cold", "stop", usage, tool_calls=self.calls)


def manifest(prompt: str, **changes: Any) -> ReleaseManifest:
    base = BaseRef(spec="demo", name="demo", digest="0" * 64)
    return ReleaseManifest(kind="base", base=base, prompt=prompt, **changes)


STABLE = build_profile(manifest("stable", decoding={"stop": ("#",), "max_tokens": 50}), Deploy())
CANDIDATE = build_profile(manifest("new", decoding={"stop": ("!",), "max_tokens": 20}), Deploy())


def mirror(concurrency: int, mirrored: float = 100.0) -> tuple[Mirror, SlowUpstream, list[Any]]:
    rows: list[Any] = []
    found = Route("d", STABLE.id, CANDIDATE.id, 0, "salt", "ro1", 0, "running", 1, mirrored)
    telemetry = SimpleNamespace(
        finished=lambda *told: None, flags_of=lambda *told: lambda *flag: None
    )
    state = SimpleNamespace(
        project=SimpleNamespace(deploy=Deploy(concurrency=concurrency)),
        router=Router({"d": Entry(found, STABLE, CANDIDATE)}),
        upstream=SlowUpstream(),
        telemetry=telemetry,
        log=SimpleNamespace(record=rows.append),
        redactor=str,
        side=lambda group: "train",
        split_key=bytes(32),
        inflight=Counter(),
    )
    return Mirror(cast(GatewayState, state)), state.upstream, rows


ROUTE = Route("d", STABLE.id, CANDIDATE.id, 0, "salt", "ro1", 0, "running", 1, 100.0)
FOR_CANDIDATE = [n for n in range(100) if not is_control(ROUTE, f"rec_{n:024x}")]


def ask(number: int) -> Ask:
    """Return a request; those of FOR_CANDIDATE are copied to the candidate."""
    body = {**STABLE.settings, "messages": [], "max_tokens": 30, "stop": ["#", "x"], "tools": []}
    return Ask(
        record=f"rec_{number:024x}", deployment="d", release=STABLE.id, arm="stable",
        rollout="ro1", step=0, key="web", role="client", user="u", group="g", stream=False,
        messages=(Message(role="user", content="snow"),), max_tokens=30,
        body=lambda: dict(body), started=0.0, headers={},
    )  # fmt: skip


def ended(status: int) -> Outcome:
    return Outcome(status, None, "", "stop", 1, 1, 1.0, None, {})


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


def test_a_copy_is_the_clients_wish_put_to_the_candidate() -> None:
    async def go() -> None:
        copier, upstream, rows = mirror(8)
        await copier.admit(ask(FOR_CANDIDATE[0]))
        await settle()
        (body,) = upstream.bodies
        assert body["model"] == CANDIDATE.id
        assert body["messages"][0] == {"role": "system", "content": "new"}
        assert (body["max_tokens"], body["stop"], body["tools"]) == (20, ["!", "x"], [])
        upstream.go.set()
        await settle()
        assert (rows[0]["arm"], rows[0]["status"], rows[0]["response"]) == ("shadow", 200, "cold")
        await copier.close()

    asyncio.run(go())


def test_a_copy_keeps_all_calls_of_tools_redacted_as_the_request_s_own_record() -> None:
    def called(arguments: str) -> list[dict[str, Any]]:
        function = {"name": "look", "arguments": arguments}
        return [{"id": "call_1", "type": "function", "function": function}]

    secret = called('{"who": "\\u006ao@example.org", "n": 2}')
    turn = Message.model_validate({"role": "assistant", "content": "", "tool_calls": secret})

    async def go() -> None:
        copier, upstream, rows = mirror(8)
        copier._state.redactor = redact_text
        upstream.calls = secret
        upstream.go.set()
        asked = ask(FOR_CANDIDATE[0])
        await copier.admit(replace(asked, messages=(*asked.messages, turn)))
        await asyncio.gather(*copier._copies.values())
        hidden = called('{"who": "[EMAIL]", "n": 2}')
        assert rows[0]["messages"][1]["tool_calls"] == hidden
        assert json.loads(rows[0]["response"]) == {"content": "cold", "tool_calls": hidden}
        assert record_texts([turn], "cold", secret, redact_text) == (
            rows[0]["messages"][1:], rows[0]["response"],
        )  # fmt: skip
        await copier.close()

    asyncio.run(go())


@pytest.mark.parametrize(
    ("arguments", "kept"),
    [
        ('{"to":  "ochre"}', '{"to":  "ochre"}'),  # not a letter changes where nothing is found
        ('{"to": "a\\njo@example.org"}', '{"to": "a\\n[EMAIL]"}'),
        ('{"ssn": ["123-45-6789"]}', '{"ssn": ["[SSN]"]}'),
        ('{"to": "jo@example.org', '{"to": "[EMAIL]'),  # no JSON: a text like any other
    ],
)
def test_arguments_are_redacted_and_stay_json(arguments: str, kept: str) -> None:
    assert cleaned({"arguments": arguments}, redact_text) == {"arguments": kept}


def test_copies_give_way_as_soon_as_requests_need_the_room() -> None:
    async def go() -> None:
        copier, upstream, rows = mirror(8)
        for number in range(4):
            await copier.admit(ask(number))
        await settle()
        assert (copier.made, copier.shed) == (2, 2), "a quarter of the room at once"
        for number in range(4, 8):
            await copier.admit(ask(number))
        await settle()
        assert (copier.made, copier.shed) == (2, 8), "both were dropped, no other was made"
        upstream.go.set()
        await settle()
        assert rows == []
        copier.finished(ask(0), ended(200))
        await copier.admit(ask(9))
        assert copier.made == 2, "still full"
        copier.finished(ask(1), ended(200))
        copier.finished(ask(2), ended(200))
        await copier.admit(ask(10))
        assert copier.made == 3
        await copier.close()

    asyncio.run(go())


def test_the_copy_of_a_refused_request_is_dropped_and_errors_are_kept() -> None:
    async def go() -> None:
        copier, upstream, rows = mirror(8)
        await copier.admit(ask(FOR_CANDIDATE[0]))
        await settle()
        copier.finished(ask(FOR_CANDIDATE[0]), ended(429))
        upstream.error = HttpError(504, "The engine took too long.", code="timeout")
        await copier.admit(ask(FOR_CANDIDATE[1]))
        await settle()
        upstream.go.set()
        await settle()
        assert [(r["arm"], r["status"]) for r in rows] == [("shadow", 504)]

    asyncio.run(go())


def test_half_of_the_copies_are_the_stable_release_s() -> None:
    assert 35 <= len(FOR_CANDIDATE) <= 65

    async def go() -> list[Any]:
        copier, upstream, rows = mirror(2000)
        upstream.go.set()
        for number in range(100):
            await copier.admit(ask(number))
        await settle()
        await copier.close()
        assert {body["model"] for body in upstream.bodies} == {STABLE.id, CANDIDATE.id}
        return rows

    rows = asyncio.run(go())
    assert {(r["arm"], r["release"]) for r in rows} == {
        ("shadow", CANDIDATE.id), ("shadow", STABLE.id),
    }  # fmt: skip


@pytest.mark.parametrize(("mirrored", "least", "most"), [(0, 0, 0), (30, 40, 80), (100, 200, 200)])
def test_only_a_share_of_the_requests_is_copied(mirrored: float, least: int, most: int) -> None:
    async def go() -> int:
        copier, upstream, _ = mirror(2000, mirrored)
        upstream.go.set()
        for number in range(200):
            await copier.admit(ask(number))
        await copier.close()
        return copier.made

    assert least <= asyncio.run(go()) <= most
