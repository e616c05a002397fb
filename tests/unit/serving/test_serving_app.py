"""The gateway seen from outside, through OpenAI's own SDK."""

from __future__ import annotations

import json
import threading
import urllib.error
import urllib.request
from collections.abc import Callable
from typing import Any

import openai
import pytest
from tests.fakes.gateway import PROMPT
from tests.unit.serving.conftest import Running

from tutelage.data.privacy.detect import redact_text
from tutelage.serving.wire.wire_request import ChatRequest, parse_chat

Start = Callable[..., Running]
ASK: Any = [{"role": "user", "content": "the sun at noon"}]


def fetch(
    url: str, body: Any = None, *, raw: bytes | None = None, method: str | None = None,
    **headers: str,
) -> tuple[int, Any, Any]:  # fmt: skip
    """Return (status, parsed body, headers) of a plain HTTP request."""
    data = raw if raw is not None else json.dumps(body).encode() if body is not None else None
    request = urllib.request.Request(url, data, {"content-type": "application/json", **headers})
    if method:
        request.method = method
    try:
        with urllib.request.urlopen(request, timeout=60) as response:
            text = response.read().decode()
            kind = response.headers["content-type"]
            return response.status, json.loads(text) if "json" in kind else text, response.headers
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read()), error.headers


def test_a_chat_request_is_answered_and_recorded(gateway: Start) -> None:
    running = gateway()
    answer = running.client().chat.completions.create(model="colours", messages=ASK, user="anna")
    assert answer.choices[0].message.content == '{"family": "warm"}'
    assert answer.model == "colours"
    assert answer.id.startswith("rec_")
    assert answer.usage is not None and answer.usage.total_tokens == 15
    (record,) = running.records()
    assert record.id == answer.id
    assert (record.status, record.arm, record.user) == (200, "stable", "anna")
    assert record.response == '{"family": "warm"}'
    assert record.messages == ASK
    assert (record.prompt_tokens, record.completion_tokens) == (11, 4)
    assert record.split in ("train", "validation", "test")
    assert record.checks["schema"] == {"ok": True, "why": ""}


def test_a_stream_gives_the_pieces_and_the_usage(gateway: Start) -> None:
    running = gateway()
    chunks = list(
        running.client().chat.completions.create(
            model="colours", messages=ASK, stream=True, stream_options={"include_usage": True}
        )
    )
    text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert text == '{"family": "warm"}'
    assert chunks[-1].usage is not None and chunks[-1].usage.completion_tokens == 4
    assert {c.model for c in chunks} == {"colours"}
    assert [c.choices[0].finish_reason for c in chunks if c.choices][-1] == "stop"
    (record,) = running.records()
    assert record.id == chunks[0].id
    assert record.first_token_ms is not None and record.first_token_ms <= record.latency_ms
    assert record.response == text


def test_the_engine_gets_the_release_s_prompt_and_decoding_and_inert_control_tokens(
    gateway: Start,
) -> None:
    running = gateway()
    running.client().chat.completions.create(
        model="colours",
        messages=[{"role": "user", "content": "<|im_end|> and <secret_token>"}],
        temperature=0.9,
        max_tokens=5,
    )
    (seen,) = running.script.seen
    assert seen["model"] == "base"  # the name the server knows the base release by
    assert seen["messages"][0] == {"role": "system", "content": PROMPT}
    assert seen["temperature"] == 0.0
    assert seen["max_tokens"] == 5
    user = seen["messages"][1]["content"]
    assert "<|im_end|>" not in user and "<secret_token>" not in user
    assert user.replace("\u200b", "") == "<|im_end|> and <secret_token>"


def test_ignored_parameters_are_named_in_a_header(gateway: Start) -> None:
    running = gateway()
    body = {"model": "colours", "messages": ASK, "temperature": 1, "top_p": 0.5}
    _, _, headers = fetch(f"{running.url}/v1/chat/completions", body)
    assert headers["x-tutelage-ignored"] == "temperature,top_p"
    assert headers["x-tutelage-arm"] == "stable"


def test_an_unknown_model_is_a_404_that_names_the_nearest(gateway: Start) -> None:
    running = gateway()
    with pytest.raises(openai.NotFoundError) as caught:
        running.client().chat.completions.create(model="colour", messages=ASK)
    assert caught.value.code == "model_not_found"
    assert "Did you mean 'colours'?" in str(caught.value)
    assert [m.id for m in running.client().models.list()] == ["colours"]
    assert running.client().models.retrieve("colours").id == "colours"


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"n": 2}, "n"),
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "robot", "content": "x"}]}, "messages[0].role"),
        ({"messages": [{"role": "user", "content": None}]}, "messages[0].content"),
        ({"messages": [{"role": "system", "content": "only this"}]}, "messages"),
        ({"tools": [{"type": "function"}]}, "tools[0]"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"stop": [1]}, "stop"),
        ({"stream": "yes"}, "stream"),
        ({"model": 7}, "model"),
        ({"user": {"id": 1}}, "user"),
    ],
)
def test_a_bad_parameter_is_a_400_that_names_it(
    gateway: Start, change: dict[str, Any], param: str
) -> None:
    running = gateway()
    body = {"model": "colours", "messages": ASK, **change}
    status, answer, _ = fetch(f"{running.url}/v1/chat/completions", body)
    assert status == 400
    assert answer["error"]["type"] == "invalid_request_error"
    assert answer["error"]["param"] == param
    assert running.records() == []


def test_broken_json_large_bodies_and_unknown_paths_have_openai_s_error_shape(
    gateway: Start,
) -> None:
    running = gateway()
    url = f"{running.url}/v1/chat/completions"
    status, answer, _ = fetch(url, raw=b'{"model": ')
    assert (status, answer["error"]["code"]) == (400, "invalid_json")
    status, answer, _ = fetch(url, raw=b"[" * 200_000)
    assert (status, answer["error"]["code"]) == (400, "invalid_json")
    status, answer, _ = fetch(url, raw=b" " * (5 * 2**20))
    assert (status, answer["error"]["code"]) == (413, "too_large")
    assert fetch(f"{running.url}/nothing")[0:1] == (404,)
    status, answer, _ = fetch(url)
    assert (status, answer["error"]["code"]) == (405, "bad_method")
    assert answer["error"]["message"] == "'/v1/chat/completions' takes POST."
    status, answer, _ = fetch(f"{running.url}/chat/completions", {})
    assert (status, answer["error"]["code"]) == (404, "not_found")
    assert "at '/chat/completions'. A client's base URL ends with /v1" in answer["error"]["message"]


def test_a_lone_surrogate_is_no_trouble(gateway: Start) -> None:
    running = gateway()
    running.script.by_model["*"] = {"text": "\ud83d broken"}
    body = {"model": "colours", "messages": [{"role": "user", "content": "a\ud800\x00b"}]}
    status, answer, _ = fetch(f"{running.url}/v1/chat/completions", body)
    assert status == 200
    assert answer["choices"][0]["message"]["content"] == "\ud83d broken"
    (record,) = running.records()
    assert record.messages[0]["content"] == "a\ufffd\ufffdb"


@pytest.mark.parametrize(
    ("script", "status", "code"),
    [
        ({"status": 500}, 502, "engine_error"),
        ({"status": 503}, 503, "engine_busy"),
        ({"status": 404}, 503, "not_loaded"),
        ({"status": 400, "message": "the context is too long"}, 400, "engine_refused"),
        ({"status": 400, "code": "context_length_exceeded"}, 400, "context_length_exceeded"),
        ({"status": 400, "code": 400}, 400, "engine_refused"),
        ({"die": "before"}, 503, "engine_unavailable"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_engine_failures_become_clear_errors(
    gateway: Start, script: dict[str, Any], status: int, code: str, stream: bool
) -> None:
    running = gateway()
    running.script.by_model["*"] = script
    assert refused(running, stream) == (status, code)


@pytest.mark.parametrize("stream", [False, True])
def test_an_engine_that_takes_too_long_becomes_a_timeout(gateway: Start, stream: bool) -> None:
    running = gateway(timeout=0.5)
    running.script.by_model["*"] = {"latency_ms": 60_000}
    assert refused(running, stream) == (504, "timeout")


def refused(running: Running, stream: bool) -> tuple[int, str]:
    """Return what a client is told, which the record says as well."""
    body = {"model": "colours", "messages": ASK, "stream": stream}
    status, answer, _ = fetch(f"{running.url}/v1/chat/completions", body)
    (record,) = running.records()
    assert record.status == status and record.error
    return status, answer["error"]["code"]


def test_a_connection_that_fails_is_tried_again(gateway: Start) -> None:
    running = gateway()
    running.script.by_model["*"] = {"fail_times": 1}
    answer = running.client().chat.completions.create(model="colours", messages=ASK)
    assert answer.choices[0].message.content == '{"family": "warm"}'
    assert len(running.script.seen) == 2


def test_a_request_that_ends_the_engine_s_connections_is_not_sent_for_ever(gateway: Start) -> None:
    running = gateway()
    running.script.by_model["*"] = {"fail_times": 9}
    with pytest.raises(openai.InternalServerError, match="can't be reached"):
        running.client().chat.completions.create(model="colours", messages=ASK)
    assert len(running.script.seen) == 2


def test_a_stream_that_breaks_ends_with_an_error_event(gateway: Start) -> None:
    running = gateway()
    running.script.by_model["*"] = {"die": "during"}
    stream = running.client().chat.completions.create(model="colours", messages=ASK, stream=True)
    with pytest.raises(openai.APIError, match="broke off"):
        list(stream)
    (record,) = running.records()
    assert record.status == 502
    assert record.response == '{"family":'


def test_the_engine_stops_when_the_client_leaves(gateway: Start) -> None:
    running = gateway()
    running.script.by_model["*"] = {"text": "word " * 200, "stream_gap_ms": 20}
    stream = running.client().chat.completions.create(model="colours", messages=ASK, stream=True)
    next(iter(stream))
    stream.close()
    (record,) = running.records()
    assert record.status == 499
    assert running.script.cancelled == 1
    assert 0 < record.completion_tokens < 200


def test_a_full_queue_is_a_429_with_retry_after(gateway: Start) -> None:
    running = gateway(concurrency=1, queue=1)
    running.script.by_model["*"] = {"latency_ms": 400}
    url = f"{running.url}/v1/chat/completions"
    body = {"model": "colours", "messages": ASK}
    results: list[tuple[int, Any, Any]] = []
    threads = [threading.Thread(target=lambda: results.append(fetch(url, body))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(r[0] for r in results) == [200, 200, 429, 429]
    refused = next(r for r in results if r[0] == 429)
    assert refused[1]["error"]["type"] == "rate_limit_error"
    assert int(refused[2]["retry-after"]) >= 1


def test_a_flagging_guard_records_and_a_blocking_one_holds_back(gateway: Start) -> None:
    running = gateway(guards={"schema": "block", "content": "flag"})
    running.script.by_model["*"] = {
        "when": {"lukewarm": {"text": '{"family": "lukewarm"}'}, "leak": {"text": "{{ name }}"}}
    }
    url = f"{running.url}/v1/chat/completions"
    for stream in (False, True):
        body = {"model": "colours", "messages": [{"role": "user", "content": "lukewarm"}]}
        status, answer, _ = fetch(url, {**body, "stream": stream})
        assert (status, answer["error"]["code"]) == (422, "answer_blocked")
        assert "'lukewarm' is not one of the labels" in answer["error"]["message"]
    running.client().chat.completions.create(model="colours", messages=ASK, stream=True)
    records = running.records()
    assert [r.status for r in records[:2]] == [422, 422]
    assert records[0].checks["schema"]["ok"] is False
    assert records[0].checks["content"]["ok"] is True


def test_health_metrics_and_the_note_that_names_the_address(gateway: Start) -> None:
    running = gateway()
    note = running.ctx.workspace.home / "serving.json"
    assert json.loads(note.read_text())["url"] == running.url
    assert fetch(f"{running.url}/healthz")[0] == 200
    assert fetch(f"{running.url}/readyz")[1]["deployments"] == ["colours"]
    running.client().chat.completions.create(model="colours", messages=ASK)
    metrics = fetch(f"{running.url}/metrics")[1]
    assert 'tutelage_requests_total{arm="stable",deployment="colours"' in metrics
    assert "gen_ai_client_operation_duration_seconds_bucket" in metrics
    assert "the sun" not in metrics
    running.serving.close()
    assert not note.exists()


def test_keys_are_made_and_revoked_over_http(gateway: Start) -> None:
    running = gateway()
    made = fetch(f"{running.url}/admin/keys", {"name": "web"})[1]
    assert made["key"].startswith("tut_") and made["role"] == "client"
    listed = fetch(f"{running.url}/admin/keys")[1]["data"]
    assert [k["name"] for k in listed] == ["web"] and "key" not in listed[0]
    bearer = {"authorization": f"Bearer {made['key']}"}
    assert fetch(f"{running.url}/v1/models", **bearer)[0] == 200
    assert fetch(f"{running.url}/admin/releases", **bearer)[0] == 403
    body = {"model": "colours", "messages": ASK}
    assert fetch(f"{running.url}/v1/chat/completions", body, **bearer)[0] == 200
    assert fetch(f"{running.url}/admin/keys", {"name": "web"})[0] == 409
    assert fetch(f"{running.url}/admin/keys/web", method="DELETE")[0] == 200
    assert fetch(f"{running.url}/v1/models", **bearer)[0] == 401
    assert running.records()[0].key_name == "web"


def test_a_web_page_of_another_site_can_t_use_a_local_gateway(gateway: Start) -> None:
    running = gateway()
    status, answer, _ = fetch(f"{running.url}/admin/releases", origin="https://evil.example")
    assert (status, answer["error"]["code"]) == (403, "foreign_origin")
    assert fetch(f"{running.url}/v1/models", host="evil.example")[0] == 403


def test_redaction_reaches_the_log_and_not_the_engine(gateway: Start) -> None:
    running = gateway(redact=True)
    said = "write to jo@example.org or 123-45-6789"
    running.client().chat.completions.create(
        model="colours", messages=[{"role": "user", "content": said}], user="jo@example.org"
    )
    assert running.script.seen[0]["messages"][-1]["content"] == said
    (record,) = running.records()
    assert record.messages[0]["content"] == "write to [EMAIL] or [SSN]"
    assert record.user is not None and "@" not in record.user


def test_others_do_not_wait_for_a_long_text_or_a_schema(
    gateway: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[str, str]] = []

    def redacting(text: str, **named: Any) -> str:
        if len(text) > 2000:
            seen.append(("text", threading.current_thread().name))
        return redact_text(text, **named)

    def parsing(body: dict[str, Any]) -> ChatRequest:
        if "response_format" in body:
            seen.append(("schema", threading.current_thread().name))
        return parse_chat(body)

    monkeypatch.setattr("tutelage.data.privacy.detect.redact_text", redacting)
    monkeypatch.setattr("tutelage.serving.chat.parse_chat", parsing)
    running = gateway(redact=True)
    form: Any = {
        "type": "json_schema",
        "json_schema": {"name": "a", "schema": {"type": "object"}},
    }
    running.client().chat.completions.create(
        model="colours",
        messages=[{"role": "user", "content": "jo@example.org " * 200}],
        response_format=form,
    )
    running.script.by_model["*"] = {"status": 400}
    with pytest.raises(openai.BadRequestError):
        running.client().chat.completions.create(
            model="colours", messages=[{"role": "user", "content": "jo@example.org " * 200}]
        )
    assert [name for name, _ in seen] == ["schema", "text", "text"]
    assert "gateway" not in [thread for _, thread in seen]  # the thread of the loop
    assert [r.messages[0]["content"] for r in running.records()] == ["[EMAIL] " * 200] * 2
