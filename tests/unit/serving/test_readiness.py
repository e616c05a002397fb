"""What a load balancer is told: ready while some deployment can be answered, from what is known."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from tests.fakes.controller import NOWHERE, FakeHost, bare_controller
from tests.fakes.gateway import gateway_project, make_release

from tutelage.serving.access.key_store import create_key, load_keys
from tutelage.serving.access.keys import KeyRing
from tutelage.serving.app import create_app
from tutelage.serving.backends.residency import Host
from tutelage.serving.state import GatewayState
from tutelage.workflows.context import Context
from tutelage.workflows.release import gateway_state as module
from tutelage.workflows.release.deploy import create


@dataclass
class Engines(FakeHost):
    """A host that knows for which releases no engine answers now."""

    silent: set[str] = field(default_factory=set)

    def answers(self, release_id: str) -> bool:
        return release_id not in self.silent


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Context]:
    ctx = gateway_project(tmp_path / "project", NOWHERE)
    create(ctx, "second", make_release(ctx, "Second: name the colour family.").name)
    yield ctx
    ctx.store.close()


def ready(state: GatewayState, **headers: str) -> tuple[int, dict[str, Any]]:
    """Ask /readyz without a network."""
    sent: list[Any] = []

    async def receive() -> Any:
        return {"type": "http.request", "body": b""}

    async def send(message: Any) -> None:
        sent.append(message)

    told = [(b"host", b"localhost"), *((k.encode(), v.encode()) for k, v in headers.items())]
    scope = {
        "type": "http", "method": "GET", "path": "/readyz", "raw_path": b"/readyz",
        "headers": told, "query_string": b"", "client": ("127.0.0.1", 1),
    }  # fmt: skip
    asyncio.run(create_app(state)(scope, receive, send))
    return sent[0]["status"], json.loads(sent[1]["body"])


def following(ctx: Context, host: Host) -> GatewayState:
    """Return the state of a gateway that has read its routes."""
    controller, state = bare_controller(ctx, host)  # type: ignore[arg-type]
    state.host, state.ready = host, True
    asyncio.run(controller.sync(first=True))
    return state


def test_a_gateway_is_ready_while_one_deployment_can_be_answered(project: Context) -> None:
    host = Engines()
    state = following(project, host)
    both = {"deployments": ["colours", "second"]}
    assert ready(state) == (200, {"status": "ready", **both})
    first, second = (state.router.entries[name].stable.id for name in both["deployments"])
    host.silent = {second}
    assert ready(state) == (200, {"status": "ready", **both, "unanswered": ["second"]})
    host.silent = {first, second}
    assert ready(state) == (503, {"status": "down", **both, "unanswered": both["deployments"]})
    host.silent = set()
    assert ready(state)[0] == 200
    state.draining = True
    assert ready(state) == (503, {"status": "stopping"})


def test_where_keys_are_needed_names_are_an_operator_s(project: Context) -> None:
    host = Engines()
    state = following(project, host)
    host.silent = {state.router.entries["second"].stable.id}
    state.keys = KeyRing(required=True)
    secrets = {role: create_key(project.store, role, role) for role in ("client", "operator")}
    state.keys.replace(load_keys(project.store))
    assert ready(state) == (200, {"status": "ready"})
    assert ready(state, authorization="Bearer wrong") == (200, {"status": "ready"})
    assert ready(state, authorization=f"Bearer {secrets['client']}") == (200, {"status": "ready"})
    told = ready(state, authorization=f"Bearer {secrets['operator']}")[1]
    assert told["unanswered"] == ["second"]


def test_a_host_that_does_not_know_is_believed(project: Context) -> None:
    assert ready(following(project, FakeHost()))[0] == 200


def test_the_command_line_says_which_deployments_nobody_answers(
    project: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    note = project.workspace.home / "serving.json"
    note.write_text('{"url": "http://127.0.0.1:1"}')
    for body, says in (
        ({"status": "ready", "unanswered": ["second"]}, "127.0.0.1:1 but those to second"),
        ({"status": "down", "unanswered": ["second"]}, "no engine answers for any deployment"),
    ):
        monkeypatch.setattr(module, "_ready", lambda url, body=body: body)
        found = module.gateway_state(project)
        assert (found["state"], says in found["says"]) == (body["status"], True)
