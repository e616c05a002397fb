"""A running gateway is watched: metrics, events, alerts, webhooks; over HTTP; after a restart."""

from __future__ import annotations

import asyncio
import re
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import openai
import pytest
import yaml
from sqlalchemy import event
from sqlalchemy.exc import OperationalError
from tests.fakes.controller import NOWHERE, FakeHost, bare_controller
from tests.fakes.gateway import begin_rollout, gateway_project
from tests.fakes.openai_backend import FakeBackend
from tests.fakes.webhook import Receiver
from tests.unit.serving.conftest import Running
from tests.unit.serving.test_serving_app import ASK, fetch

from tutelage.core.config_alerts import Alerts, Webhook
from tutelage.core.workspace import atomic_write
from tutelage.release.deployments import abort
from tutelage.serving.access.key_store import create_key, revoke_key
from tutelage.serving.access.spend_meters import Spend, SpendMeters
from tutelage.serving.monitoring.events import EventLog, read_events
from tutelage.serving.monitoring.monitor import Monitor
from tutelage.serving.monitoring.telemetry_gauges import EngineWatch, Gauges, Meters
from tutelage.workflows.context import Context, open_context
from tutelage.workflows.release import deploy
from tutelage.workflows.serving.serve import Serving

ERRORS = {"name": "errors", "metric": "error_rate", "above": 0.5, "least": 3, "window": "1s"}


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as running:
        yield running


def with_alerts(root: Path, backend: FakeBackend, **alerts: Any) -> Context:
    """Return an opened project whose alerts are looked at ten times a second."""
    gateway_project(root, backend.url).store.close()
    path = root / "tutelage.yaml"
    settings = yaml.safe_load(path.read_text()) | {"alerts": {"every": 0.1, **alerts}}
    atomic_write(path, yaml.safe_dump(settings).encode())
    return open_context(root)


def ask(url: str, **headers: str) -> Any:
    body = {"model": "colours", "messages": ASK}
    return fetch(f"{url}/v1/chat/completions", body, **headers)


def test_an_error_rate_reaches_the_webhook_and_so_does_its_end(
    tmp_path: Path, backend: FakeBackend, receiver: Receiver
) -> None:
    hook = {"name": "ops", "url": receiver.url, "level": "warning"}
    ctx = with_alerts(tmp_path / "p", backend, webhooks=[hook], rules=[ERRORS])
    backend.script.by_model["*"] = {"status": 500}
    with Serving(ctx) as serving:
        while not receiver.got:  # three of them must come within a second
            assert ask(serving.base_url)[0] == 502
        firing = receiver.wait(1)[0].body
        assert (firing["status"], firing["alert"]) == ("firing", "errors")
        assert firing["text"] == "[firing] colours, errors: colours: error_rate is 1, above 0.5"
        _, listed, _ = fetch(f"{serving.base_url}/admin/alerts")
        assert [row["alert"] for row in listed["data"]] == ["errors"]
        ended = receiver.wait(2)[1].body
    assert (ended["status"], ended["alert"]) == ("resolved", "errors")
    ctx.store.close()


def test_a_rollout_s_end_is_an_event_and_a_notice(
    tmp_path: Path, backend: FakeBackend, receiver: Receiver
) -> None:
    rule = {"name": "ended", "event": "rollout.aborted"}
    hook = {"name": "chat", "url": receiver.url, "format": "slack"}
    ctx = with_alerts(tmp_path / "p", backend, webhooks=[hook], rules=[rule])
    rollout = begin_rollout(ctx)
    with Serving(ctx) as serving:
        abort(ctx.store, "colours", reason="the answers are odd")
        (notice,) = receiver.wait(1)
        _, events, _ = fetch(f"{serving.base_url}/admin/events?kind=rollout&deployment=colours")
    assert notice.body == {
        "text": "[warning] colours, ended: colours: aborted at 0 %: the answers are odd"
    }
    last = events["data"][-1]
    assert (last["kind"], last["level"], last["subject"]) == ("rollout.aborted", "warning", rollout)
    kinds = [row.kind for row in read_events(ctx.store)]
    assert kinds[0] == "gateway.started" and kinds[-1] == "gateway.stopped"
    ctx.store.close()


def test_metrics_tell_keys_engine_and_disk_and_no_text(
    gateway: Callable[..., Running],
) -> None:
    running = gateway()
    client = running.client()
    client.chat.completions.create(model="colours", messages=ASK, user="anna-4711")
    stream = client.chat.completions.create(model="colours", messages=ASK, stream=True)
    assert list(stream)
    with pytest.raises(openai.NotFoundError):
        client.chat.completions.create(model="other", messages=ASK)
    _, text, _ = fetch(f"{running.url}/metrics")
    assert (
        'tutelage_key_requests_total{deployment="colours",key="(local)",status="200"} 2.0' in text
    )
    assert 'gen_ai_client_token_usage_sum{arm="stable",deployment="colours"' in text
    assert "gen_ai_server_time_per_output_token_seconds_count" in text
    assert 'tutelage_refused_total{status="404"} 1.0' in text
    assert 'tutelage_build_info{version="' in text
    assert "process_resident_memory_bytes" in text
    for secret in ("sun at noon", "anna", "warm"):
        assert secret not in text


def test_metrics_and_events_are_an_operator_s_and_cost_and_budgets_are_in_them(
    tmp_path: Path, backend: FakeBackend
) -> None:
    ctx = gateway_project(tmp_path / "p", backend.url)
    path = ctx.workspace.config_path
    settings = yaml.safe_load(path.read_text()) | {
        "alerts": {"every": 0.1},
        "prices": {"tokens": {"base": {"prompt": 1000, "completion": 2000}}},
        "budgets": [{"tokens": 3000, "per": "day"}],
    }
    atomic_write(path, yaml.safe_dump(settings).encode())
    keys = {role: create_key(ctx.store, role, role) for role in ("client", "operator")}
    ctx.store.close()
    ctx = open_context(tmp_path / "p")
    with Serving(ctx) as serving:
        bearer = {role: {"authorization": f"Bearer {key}"} for role, key in keys.items()}
        assert ask(serving.base_url, **bearer["client"])[0] == 200
        for page in ("metrics", "admin/events", "admin/alerts"):
            assert fetch(f"{serving.base_url}/{page}", **bearer["client"])[0] == 403
        text = ""
        used = 'tutelage_budget_used_ratio{deployment="*",key="*",per="day",unit="tokens"} 0.005'
        deadline = time.monotonic() + 60
        while used not in text and time.monotonic() < deadline:
            _, text, _ = fetch(f"{serving.base_url}/metrics", **bearer["operator"])
    # 11 tokens asked and 4 answered, of a budget of 3,000
    assert re.search(
        r'tutelage_cost_total{currency="USD",deployment="colours",key="client",release="\w{12}"}'
        r" 0\.019\b", text,
    )  # fmt: skip
    assert used in text
    ctx.store.close()


def test_checks_that_do_not_hold_are_counted_by_deployment_release_and_arm(
    gateway: Callable[..., Running],
) -> None:
    running = gateway()
    running.script.by_model["*"] = {"text": "neither of both"}
    running.client().chat.completions.create(model="colours", messages=ASK)
    _, text, _ = fetch(f"{running.url}/metrics")
    assert re.search(
        r'tutelage_guard_flags_total\{action="flag",arm="stable",deployment="colours",'
        r'guard="schema[^"]*",release="\w{12}"\} 1\.0', text,
    )  # fmt: skip


def test_silences_over_http(gateway: Callable[..., Running]) -> None:
    base = gateway().url
    url = f"{base}/admin/alerts"
    status, made, _ = fetch(f"{url}/silences", {"rule": "error-rate", "for": "2h", "reason": "x"})
    assert (status, made["author"], made["reason"]) == (200, "the local user", "x")
    assert [row["rule"] for row in fetch(f"{url}/silences")[1]["data"]] == ["error-rate"]
    assert fetch(f"{url}/silences/error-rate", method="DELETE")[1]["ended"] == 1
    status, answer, _ = fetch(f"{url}/silences/error-rate", method="DELETE")
    assert (status, answer["error"]["code"]) == (404, "not_found")
    assert fetch(f"{url}/silences", {"rule": "eror-rate"})[0] == 400
    status, answer, _ = fetch(f"{url}/silences", {"rule": "error-*", "for": "soon"})
    assert (status, answer["error"]["param"]) == (400, "for")
    assert fetch(f"{url}/silences", {"for": "1h"})[0] == 400
    for body, says in (
        ({"rule": "drift", "deployments": "colours"}, "Did you mean 'deployment'?"),
        ({"rule": "drift", "deployment": "colour"}, "there is no deployment 'colour'"),
    ):
        assert says in fetch(f"{url}/silences", body)[1]["error"]["message"]
    assert fetch(f"{url}/silences")[1]["data"] == []
    rules = fetch(f"{url}/rules")[1]["data"]
    assert "error_rate > 0.05 over 5m, for 1m" in {rule["when"] for rule in rules}
    assert fetch(f"{url}/notices")[1]["data"] == []
    status, answer, _ = fetch(f"{base}/admin/events?limit=many")
    assert (status, answer["error"]["param"]) == (400, "limit")
    status, answer, _ = fetch(f"{base}/admin/events?kind=rollback")
    assert (status, answer["error"]["param"]) == (400, "kind")


def test_a_store_that_refuses_an_operator_says_so(gateway: Callable[..., Running]) -> None:
    running = gateway()

    def refuse(connection: Any, cursor: Any, statement: str, *rest: Any) -> None:
        if statement.startswith("INSERT INTO api_keys"):
            full = sqlite3.OperationalError("database or disk is full")
            raise OperationalError(statement, {}, full)

    event.listen(running.ctx.store.engine, "before_cursor_execute", refuse)
    status, answer, headers = fetch(f"{running.url}/admin/keys", {"name": "shop"})
    assert (status, answer["error"]["code"]) == (503, "store_error")
    assert "the store can't be used now (database or disk is full)" in answer["error"]["message"]
    assert headers["retry-after"] == "5"


def test_a_rule_that_can_t_be_evaluated_keeps_the_gateway_from_starting(
    tmp_path: Path, backend: FakeBackend
) -> None:
    from tutelage.core.errors import ConfigError

    rule = {"name": "x", "metric": "tutelage_reqests_total", "above": 1}
    ctx = with_alerts(tmp_path / "p", backend, rules=[rule])
    with pytest.raises(ConfigError, match="Did you mean 'tutelage_requests"), Serving(ctx):
        pass
    ctx.store.close()


def test_a_store_that_takes_no_rows_is_told_of_without_it(
    tmp_path: Path, backend: FakeBackend, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sqlalchemy.exc import OperationalError

    from tutelage.serving.monitoring import monitor

    broken = threading.Event()

    def copy(*_: Any) -> int:
        if broken.is_set():
            raise OperationalError("INSERT", {}, Exception("database is locked"))
        return 0

    monkeypatch.setattr(monitor, "copy_moves", copy)
    hook = {"name": "ops", "url": receiver.url}
    ctx = with_alerts(tmp_path / "p", backend, webhooks=[hook])
    with Serving(ctx):
        broken.set()
        assert receiver.wait(1)[0].body["alert"] == "store"
        broken.clear()
        assert receiver.wait(2)[1].body["status"] == "resolved"
    ctx.store.close()


def kinds(*looks: tuple[bool | None, int]) -> list[str]:
    found: list[str] = []
    watch = EngineWatch(EventLog(told=lambda happening: found.append(happening.kind)))
    for up, restarts in looks:
        watch.look(up, restarts)
    return found


def test_an_engine_that_falls_and_returns_is_told_of_once_each_way() -> None:
    assert kinds((True, 0), (True, 0)) == []
    assert kinds((True, 0), (False, 0), (False, 0), (True, 1)) == [
        "engine.crashed", "engine.restarted",
    ]  # fmt: skip
    assert kinds((True, 0), (True, 2)) == ["engine.crashed", "engine.restarted"]
    assert kinds((None, 0), (None, 0)) == []
    assert kinds((False, 0), (True, 0)) == ["engine.restarted"]


def test_a_budget_that_is_gone_is_no_longer_near_its_end(tmp_path: Path) -> None:
    ctx = gateway_project(tmp_path / "p", NOWHERE)
    budget = {"unit": "tokens", "per": "day", "limit": 0}
    create_key(ctx.store, "shop", budgets=[budget])
    controller, state = bare_controller(ctx, FakeHost())
    meters = SpendMeters(state.telemetry.registry)
    spend = Spend(state, meters)

    def shown() -> list[float]:
        asyncio.run(controller.sync(first=True))
        spend.sample()
        return [sample.value for metric in meters.used.collect() for sample in metric.samples]

    assert shown() == [1.0]
    revoke_key(ctx.store, "shop")
    assert shown() == []
    ctx.store.close()


def test_memory_is_shown_during_a_rollout_and_only_while_it_is_told(tmp_path: Path) -> None:
    class Host(FakeHost):
        servers = ()
        askers: ClassVar[list[str]] = []

        async def health(self) -> bool:
            return True

        async def stats(self, asker: str = "") -> dict[str, object]:
            self.askers.append(asker)
            return await super().stats()

    ctx = gateway_project(tmp_path / "p", NOWHERE)
    begin_rollout(ctx)
    host = Host(memory={"KV cache": 0.99})
    controller, state = bare_controller(ctx, host)
    state.host = host
    meters = Meters(state.telemetry.registry)

    async def shown() -> list[float]:
        await controller.sync(first=True)
        await Gauges(state, tmp_path, meters).sample()
        return [sample.value for metric in meters.ratio.collect() for sample in metric.samples]

    assert asyncio.run(shown()) == [0.99]
    assert host.askers[-1] == "watch"
    host.memory = {}  # there is room again
    assert asyncio.run(shown()) == []
    ctx.store.close()


def test_gauges_of_a_deployment_leave_with_it(tmp_path: Path) -> None:
    ctx = gateway_project(tmp_path / "p", NOWHERE)
    deploy.create(ctx, "trial")
    controller, state = bare_controller(ctx, FakeHost())
    gauges = Gauges(state, tmp_path, Meters(state.telemetry.registry))

    async def shown() -> set[str]:
        await controller.sync()
        await gauges.sample()
        lines = state.telemetry.text().decode().splitlines()
        return {line.split("{")[0] for line in lines if 'deployment="trial"' in line}

    async def go() -> None:
        await controller.sync(first=True)
        assert await shown() == {"tutelage_rollout_weight_percent", "tutelage_rollout_step"}
        deploy.remove(ctx, "trial")
        assert await shown() == set()
        deploy.create(ctx, "trial")
        await controller.residency.close()

    asyncio.run(go())
    ctx.store.close()


def test_a_webhook_that_lacks_its_secret_is_named_when_the_gateway_starts(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PAGER_SECRET", raising=False)
    ctx = gateway_project(tmp_path / "p", NOWHERE)
    _, state = bare_controller(ctx, FakeHost())
    pager = Webhook(name="pager", url=NOWHERE, secret_env="PAGER_SECRET")
    state.project = ctx.config.model_copy(update={"alerts": Alerts(webhooks=[pager], every=300)})

    async def go() -> None:
        monitor = Monitor(state, tmp_path)
        await monitor.start()
        await monitor.close()

    asyncio.run(go())
    says = "the webhook pager hears nothing: the environment variable PAGER_SECRET is not set"
    assert says in caplog.text
    ctx.store.close()
