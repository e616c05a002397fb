"""Keys, rates, budgets and use, seen from outside through OpenAI's SDK and /admin."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
from tests.fakes.controller import NOWHERE, FakeHost, bare_controller
from tests.fakes.gateway import PROMPT
from tests.fakes.limited_project import limited_project
from tests.fakes.openai_backend import FakeBackend
from tests.unit.serving.conftest import Running
from tests.unit.serving.test_serving_app import ASK, fetch

from tutelage.serving.access.budgets import Budgets
from tutelage.serving.access.spend_meters import Spend, SpendMeters
from tutelage.serving.hooks import Ask, Outcome
from tutelage.workflows.serving.keys import KeysDesk
from tutelage.workflows.serving.serve import Serving
from tutelage.workflows.serving.usage import UsageDesk

Start = Callable[..., Running]


@pytest.fixture
def limited(tmp_path: Path, backend: FakeBackend) -> Iterator[Start]:
    """Return a function that starts a gateway with these top-level and `deploy` settings."""
    started: list[Running] = []

    def start(settings: dict[str, Any] | None = None, **deploy: Any) -> Running:
        ctx = limited_project(tmp_path / "project", backend.url, settings, **deploy)
        running = Running(ctx, Serving(ctx), backend.script)
        running.serving.__enter__()
        started.append(running)
        return running

    yield start
    for running in started:
        running.serving.close()
        running.ctx.store.close()


def ask(running: Running, key: str = "local", **more: Any) -> Any:
    body = {"model": "colours", "messages": ASK, **more}
    return fetch(f"{running.url}/v1/chat/completions", body, authorization=f"Bearer {key}")


def crowd(running: Running, key: str, size: int) -> list[int]:
    """Return the statuses that `size` clients got who asked at the same time."""
    codes: list[int] = []
    threads = [
        threading.Thread(target=lambda: codes.append(ask(running, key)[0])) for _ in range(size)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return codes


def make_key(running: Running, name: str, **limits: Any) -> str:
    status, made, _ = fetch(f"{running.url}/admin/keys", {"name": name, **limits})
    assert status == 200, made
    return str(made["key"])


def test_a_budget_of_requests_lets_in_exactly_that_many_at_once(limited: Start) -> None:
    running = limited({"budgets": [{"key": "*", "requests": 5, "per": "total"}]})
    key = make_key(running, "shop")
    codes = crowd(running, key, 16)
    assert sorted(codes) == [200] * 5 + [429] * 11
    status, body, headers = ask(running, key)
    assert (status, body["error"]["code"]) == (429, "insufficient_quota")
    assert "the budget of the key 'shop' (5 requests in all) is used up" in body["error"][
        "message"
    ].replace("The", "the")
    assert headers["x-should-retry"] == "false"
    assert ask(running, make_key(running, "other"))[0] == 200


def test_a_budget_of_tokens_counts_what_the_engine_counted(limited: Start) -> None:
    running = limited({"budgets": [{"tokens": 40, "per": "month"}]})
    assert [ask(running)[0] for _ in range(4)] == [200, 200, 200, 429]  # 15 each: 45 > 40
    _, body, headers = ask(running, stream=True)
    assert body["error"]["code"] == "insufficient_quota"
    assert int(headers["retry-after"]) > 0
    _, levels, _ = fetch(f"{running.url}/admin/budgets")
    (level,) = levels["data"]
    assert (level["unit"], level["spent"], level["left"], level["held"]) == ("tokens", 45, 0, 0)
    assert fetch(f"{running.url}/admin/usage?by=key")[1]["by"] == ["key"]
    running.serving.close()
    use = UsageDesk(running.ctx).report(by=("key", "day"))
    assert (use["total"]["requests"], use["total"]["tokens"]) == (5, 45)
    assert use["rows"][0]["key"] == "(local)"


def test_a_budget_in_money_uses_the_prices(limited: Start) -> None:
    prices = {"tokens": {"base": {"prompt": 10.0, "completion": 100.0}}}  # 510 a million asked
    running = limited({"budgets": [{"cost": 0.001, "per": "day"}], "prices": prices})
    assert [ask(running)[0] for _ in range(3)] == [200, 200, 429]  # 0.00051 each
    (level,) = UsageDesk(running.ctx).budgets()
    assert level["spent"] == pytest.approx(0.00102)


def test_a_release_without_a_price_is_told_once_where_money_is_limited(
    limited: Start, caplog: pytest.LogCaptureFixture
) -> None:
    prices = {"tokens": {"tuned": {"prompt": 10.0, "completion": 100.0}}}
    running = limited({"budgets": [{"cost": 0.001, "per": "day"}], "prices": prices})
    assert [ask(running)[0] for _ in range(3)] == [200, 200, 200]
    (said,) = [text for text in caplog.messages if "has no price" in text]
    assert said.startswith("colours-base has no price, so its requests count nothing in ")


def test_what_the_engine_never_answered_costs_nothing(limited: Start) -> None:
    running = limited({"budgets": [{"requests": 1, "per": "total"}]})
    running.script.by_model["*"] = {"status": 500}
    assert {ask(running)[0] for _ in range(3)} == {502}
    running.script.by_model.clear()
    assert [ask(running)[0] for _ in range(2)] == [200, 429]


def test_a_rate_limit_answers_with_openai_s_headers_and_sdk_error(limited: Start) -> None:
    running = limited(requests_per_minute=2)
    client = running.client()
    raw = client.chat.completions.with_raw_response.create(model="colours", messages=ASK)
    assert raw.headers["x-ratelimit-limit-requests"] == "2"
    assert raw.headers["x-ratelimit-remaining-requests"] == "1"
    client.chat.completions.create(model="colours", messages=ASK)
    with pytest.raises(openai.RateLimitError) as caught:
        client.chat.completions.create(model="colours", messages=ASK)
    assert caught.value.code == "rate_limit_exceeded"
    assert 1 <= int(caught.value.response.headers["retry-after"]) <= 30
    assert caught.value.response.headers["x-ratelimit-remaining-requests"] == "0"
    assert ask(running, make_key(running, "fast", requests_per_minute=100))[0] == 200


def test_a_rate_limit_is_exact_in_a_crowd(limited: Start) -> None:
    running = limited()
    key = make_key(running, "shop", requests_per_minute=4)
    assert sorted(crowd(running, key, 12)) == [200] * 4 + [429] * 8


def test_tokens_a_minute_are_settled_by_what_was_used(limited: Start) -> None:
    running = limited()
    key = make_key(running, "shop", tokens_per_minute=1000)
    left = []
    for _ in range(2):
        _, _, headers = ask(running, key, max_tokens=200)
        left.append(int(headers["x-ratelimit-remaining-tokens"]))
    assert left[0] < 800 < left[0] + 200  # the likely size was taken
    assert left[1] > left[0] - 60  # and all but the 15 real ones came back


def test_a_key_sees_its_own_deployments_alone(limited: Start) -> None:
    running = limited()
    assert fetch(f"{running.url}/admin/keys", {"name": "x", "deployments": ["nix"]})[0] == 400
    key = make_key(running, "shop", deployments=["colours"])
    assert ask(running, key)[0] == 200
    desk = KeysDesk(running.ctx)
    with running.ctx.store.begin() as session:
        from tutelage.store.releases import KeyRow

        session.query(KeyRow).one().deployments = ["elsewhere"]
    assert desk.show("shop")["deployments"] == ["elsewhere"]
    fetch(f"{running.url}/admin/keys", {"name": "refresh"})  # the gateway reads the keys again
    status, body, _ = ask(running, key)
    assert (status, body["error"]["code"]) == (404, "model_not_found")
    assert "colours" not in body["error"]["message"].replace("'colours'", "")
    _, models, _ = fetch(f"{running.url}/v1/models", authorization=f"Bearer {key}")
    assert models["data"] == []


def test_keys_are_managed_over_http(limited: Start) -> None:
    running = limited()
    base = f"{running.url}/admin/keys"
    key = make_key(running, "shop", role="operator", expires="1h")
    bearer = {"authorization": f"Bearer {key}"}
    assert fetch(base, **bearer)[0] == 403  # an operator makes no keys
    assert fetch(f"{running.url}/admin/usage", **bearer)[0] == 200
    _, changed, _ = fetch(f"{base}/shop", {"requests_per_minute": 7}, method="PATCH")
    assert changed["requests_per_minute"] == 7
    assert fetch(f"{base}/shop/rotate", {"graec": "1h"})[0] == 400  # the old secret lives on
    assert ask(running, key)[0] == 200
    _, rotated, _ = fetch(f"{base}/shop/rotate", {"grace": "1h"})
    assert rotated["key"] != key and ask(running, key)[0] == ask(running, rotated["key"])[0] == 200
    assert fetch(f"{base}/nobody", {"role": "client"}, method="PATCH")[0] == 404
    assert fetch(f"{running.url}/admin/usage?by=colour")[0] == 400
    assert fetch(f"{base}/shop", method="DELETE")[1]["state"] == "revoked"
    assert ask(running, rotated["key"])[0] == 401
    for body, sentence in (
        ({"name": "y", "expires": "soon"}, "is no length of time"),
        ({"name": "y", "limit": 3}, "a key has no 'limit'"),
        (
            {"name": "y", "budgets": [{"unit": "cost", "per": "day", "limit": 1}]},
            "nothing has a price",
        ),
    ):
        status, answer, _ = fetch(base, body)
        assert status == 400 and sentence in answer["error"]["message"]


@pytest.mark.parametrize("log", ["all", "none"])
def test_texts_are_logged_by_policy_and_figures_always(limited: Start, log: str) -> None:
    running = limited(log=log)
    running.client().chat.completions.create(model="colours", messages=ASK, user="anna@x.org")
    (record,) = running.records()
    assert bool(record.messages) == bool(record.response) == (log == "all")
    assert (record.prompt_tokens, record.status) == (11, 200)
    assert (record.user == "anna@x.org") == (log == "all")


def test_an_answer_that_nobody_counted_is_charged_at_its_likely_size(limited: Start) -> None:
    running = limited()
    running.script.by_model["*"] = {"counts": False, "text": "warm " * 40}
    running.client().chat.completions.create(model="colours", messages=ASK)
    (record,) = running.records()
    assert record.completion_tokens == 50
    letters = sum(len(turn["content"]) for turn in ASK) + len(PROMPT)
    assert record.prompt_tokens == -(-letters // 4)


def test_a_request_is_charged_by_the_release_that_answered_it(tmp_path: Path) -> None:
    """Also one that was under way when all traffic moved to another release."""
    prices = {"tokens": {"shop-v1": {"prompt": 1000, "completion": 2000}}}
    settings = {"budgets": [{"cost": 1, "per": "day"}], "prices": prices}
    ctx = limited_project(tmp_path / "project", NOWHERE, settings)
    _, state = bare_controller(ctx, FakeHost())
    asked = Ask(
        record="rec_1", deployment="colours", release="r" * 64, arm="stable", rollout=None,
        step=None, key=None, role="admin", user=None, group="g", stream=False, messages=(),
        max_tokens=10, body=lambda: {"messages": []}, started=0.0, headers={},
        release_name="shop-v1", tuned=True,
    )  # fmt: skip
    ended = Outcome(200, None, "warm", "stop", 100, 50, 20.0, None, {})
    meters = SpendMeters(state.telemetry.registry)

    async def go() -> None:
        budgets = Budgets(state)
        await budgets.start()
        await budgets.admit(asked)
        budgets.finished(asked, ended)
        await budgets.close()
        Spend(state, meters).finished(asked, ended)

    asyncio.run(go())
    (level,) = UsageDesk(ctx).budgets()
    assert level["spent"] == pytest.approx(0.2)
    costs = [sample.value for metric in meters.cost.collect() for sample in metric.samples]
    assert costs[0] == pytest.approx(0.2)
    ctx.store.close()
