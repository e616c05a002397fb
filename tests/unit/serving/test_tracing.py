"""Spans of requests: names, attributes and parents by the conventions, and never a text."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode
from tests.fakes.gateway import gateway_project
from tests.fakes.openai_backend import FakeBackend
from tests.fakes.webhook import Receiver
from tests.unit.serving.test_serving_app import ASK, fetch

from tutelage.core.config_alerts import Telemetry
from tutelage.core.errors import EnvironmentProblem
from tutelage.core.workspace import atomic_write
from tutelage.serving.monitoring import tracing
from tutelage.workflows.context import Context, open_context
from tutelage.workflows.serving import serve_monitor
from tutelage.workflows.serving.serve import Serving

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


@pytest.fixture
def spans(monkeypatch: pytest.MonkeyPatch) -> Iterator[InMemorySpanExporter]:
    """Make gateways hand their spans to a list."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(
        serve_monitor, "tracing", lambda settings, project: tracing.Tracing(provider)
    )
    yield exporter
    provider.shutdown()


def project(root: Path, backend: FakeBackend, **telemetry: Any) -> Context:
    gateway_project(root, backend.url).store.close()
    path = root / "tutelage.yaml"
    settings = yaml.safe_load(path.read_text()) | {"telemetry": telemetry}
    atomic_write(path, yaml.safe_dump(settings).encode())
    return open_context(root)


def by_name(exporter: InMemorySpanExporter) -> dict[str, Any]:
    return {span.name: span for span in exporter.get_finished_spans()}


def test_a_request_is_a_server_s_span_with_the_model_s_inside_and_continues_the_client_s_trace(
    tmp_path: Path, backend: FakeBackend, spans: InMemorySpanExporter
) -> None:
    ctx = project(tmp_path / "p", backend)
    with Serving(ctx) as serving:
        body = {"model": "colours", "messages": ASK, "stream": True, "max_tokens": 9}
        headers = {"traceparent": f"00-{TRACE}-{SPAN}-01"}
        assert fetch(f"{serving.base_url}/v1/chat/completions", body, **headers)[0] == 200
    server = by_name(spans)["POST /v1/chat/completions"]
    model = by_name(spans)["chat colours"]
    assert f"{server.context.trace_id:032x}" == TRACE == f"{model.context.trace_id:032x}"
    assert f"{server.parent.span_id:016x}" == SPAN
    assert model.parent.span_id == server.context.span_id
    assert (server.kind, model.kind) == (SpanKind.SERVER, SpanKind.CLIENT)
    assert server.start_time <= model.start_time <= model.end_time <= server.end_time
    found = dict(model.attributes)
    assert found.pop("gen_ai.response.id").startswith("rec_")
    assert 0 < found.pop("gen_ai.response.time_to_first_chunk") < 60
    assert len(found.pop("gen_ai.response.model")) == 12
    assert found == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "tutelage",
        "gen_ai.request.model": "colours",
        "gen_ai.request.max_tokens": 9,
        "gen_ai.request.stream": True,
        "gen_ai.usage.input_tokens": 11,
        "gen_ai.usage.output_tokens": 4,
        "gen_ai.response.finish_reasons": ("stop",),
        "tutelage.arm": "stable",
    }
    assert server.attributes["http.response.status_code"] == 200
    engine = backend.script.headers[-1]["traceparent"]
    assert engine == f"00-{TRACE}-{model.context.span_id:016x}-01"
    ctx.store.close()


def test_a_failure_is_an_error_and_no_span_holds_a_text(
    tmp_path: Path, backend: FakeBackend, spans: InMemorySpanExporter
) -> None:
    ctx = project(tmp_path / "p", backend)
    backend.script.by_model["*"] = {"status": 500, "message": "about the sun at noon"}
    with Serving(ctx) as serving:
        body = {"model": "colours", "messages": ASK, "user": "anna"}
        assert fetch(f"{serving.base_url}/v1/chat/completions", body)[0] == 502
        backend.script.by_model["*"] = {"text": "no family at all"}
        assert fetch(f"{serving.base_url}/v1/chat/completions", body)[0] == 200
    model = by_name(spans)["chat colours"]
    assert model.attributes["tutelage.checks.failed"] == ("schema",)
    failed = [s for s in spans.get_finished_spans() if s.status.status_code == StatusCode.ERROR]
    assert {s.name for s in failed} == {"POST /v1/chat/completions", "chat colours"}
    assert {s.attributes["error.type"] for s in failed} == {"502"}
    whole = json.dumps([json.loads(span.to_json()) for span in spans.get_finished_spans()])
    for text in ("sun", "noon", "anna", "warm", "family"):
        assert text not in whole
    ctx.store.close()


def test_a_span_of_a_broken_traceparent_begins_a_trace_of_its_own(
    tmp_path: Path, backend: FakeBackend, spans: InMemorySpanExporter
) -> None:
    ctx = project(tmp_path / "p", backend)
    with Serving(ctx) as serving:
        body = {"model": "colours", "messages": ASK}
        url = f"{serving.base_url}/v1/chat/completions"
        assert fetch(url, body, traceparent="00-zz-1-01")[0] == 200
    assert by_name(spans)["POST /v1/chat/completions"].parent is None
    ctx.store.close()


def test_spans_are_sent_by_otlp_where_the_standard_variables_say(
    tmp_path: Path, backend: FakeBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Receiver() as collector:
        base = collector.url.removesuffix("/hook")
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", base)
        monkeypatch.setenv("OTEL_SERVICE_NAME", "shop-gateway")
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "x-team=blue")
        ctx = project(tmp_path / "p", backend)
        with Serving(ctx) as serving:
            body = {"model": "colours", "messages": ASK}
            assert fetch(f"{serving.base_url}/v1/chat/completions", body)[0] == 200
        (sent,) = collector.wait(1)
        ctx.store.close()
    assert (sent.path, sent.headers["x-team"]) == ("/v1/traces", "blue")
    zipped = sent.headers.get("content-encoding") == "gzip"
    message = ExportTraceServiceRequest()
    message.ParseFromString(gzip.decompress(sent.raw) if zipped else sent.raw)
    (resource,) = message.resource_spans
    named = {a.key: a.value.string_value for a in resource.resource.attributes}
    assert (named["service.name"], named["tutelage.project"]) == ("shop-gateway", "colours")
    names = {span.name for scope in resource.scope_spans for span in scope.spans}
    assert names == {"POST /v1/chat/completions", "chat colours"}


@pytest.mark.parametrize(
    ("setting", "environment", "sent"),
    [
        ("auto", {}, False),
        ("auto", {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318"}, True),
        ("auto", {"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://c/v1/traces"}, True),
        ("auto", {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c", "OTEL_SDK_DISABLED": "true"}, False),
        (
            "auto",
            {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c", "OTEL_TRACES_EXPORTER": "none"},
            False,
        ),
        ("on", {}, True),
        ("off", {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318"}, False),
    ],
)
def test_when_spans_are_sent(setting: Any, environment: dict[str, str], sent: bool) -> None:
    assert tracing.wanted(Telemetry(traces=setting), environment) is sent


def missing(*_: Any) -> Any:
    raise ImportError("no", name="opentelemetry.sdk")


def test_spans_without_the_package_are_a_sentence(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(tracing, "_provider", missing)
    with pytest.raises(EnvironmentProblem, match=r"pip install 'tutelage\[otel\]'"):
        tracing.tracing(Telemetry(traces="on"), "p")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c")
    assert tracing.tracing(Telemetry(), "p") is None
    assert "opentelemetry.sdk is not installed" in caplog.text
