"""OpenTelemetry spans of requests, by the conventions for generative AI. Never a text.

Two spans a request: the server's (HTTP) and, inside it, the call of the model (`chat NAME`). A
`traceparent` header of the client makes them part of its trace, and the engine gets one too. A
thread of the SDK sends spans by OTLP, so nothing waits for them. Where and how they are sent, and
how many, is set by OpenTelemetry's own environment variables.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

from tutelage.core.config_alerts import Telemetry
from tutelage.core.errors import EnvironmentProblem
from tutelage.serving.hooks import Ask, Hook, Outcome, engine_headers

_ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
VERSION = version("tutelage")
_PATH = "/v1/chat/completions"
_log = logging.getLogger(__name__)


def wanted(settings: Telemetry, environment: Mapping[str, str] = os.environ) -> bool:
    """Return whether spans are to be sent."""
    if settings.traces != "auto":
        return settings.traces == "on"
    off = environment.get("OTEL_SDK_DISABLED", "").lower() == "true"
    other = environment.get("OTEL_TRACES_EXPORTER", "otlp") != "otlp"
    return not off and not other and any(environment.get(name) for name in _ENDPOINTS)


def tracing(settings: Telemetry, project: str) -> Tracing | None:
    """Return the hook that sends spans, or None where none are asked for.

    Raises EnvironmentProblem if they are asked for (`traces: on`) and the package is missing.
    """
    if not wanted(settings):
        return None
    try:
        return Tracing(_provider(project))
    except ImportError as error:
        problem = EnvironmentProblem(
            f"spans can't be sent: {error.name or error} is not installed",
            fix="`pip install 'tutelage[otel]'`, or set telemetry.traces: off",
        )
        if settings.traces == "on":
            raise problem from error
        _log.warning("%s", problem.sentence())
        return None


def _provider(project: str, exporter: Any = None) -> Any:
    """Return a tracer provider that sends batches through `exporter`, by default OTLP."""
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    # OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES win: Resource.create reads them last.
    own = {"service.name": "tutelage", "service.version": VERSION, "tutelage.project": project}
    if os.environ.get("OTEL_SERVICE_NAME"):
        del own["service.name"]
    provider = TracerProvider(resource=Resource.create(own))
    provider.add_span_processor(BatchSpanProcessor(exporter or _exporter()))
    return provider


def _exporter() -> Any:
    protocol = os.environ.get(
        "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", os.environ.get("OTEL_EXPORTER_OTLP_PROTOCOL", "")
    )
    if protocol == "grpc":
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import (  # type: ignore[import-not-found]
            OTLPSpanExporter as GrpcExporter,
        )

        return GrpcExporter()
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

    return OTLPSpanExporter()


class Tracing(Hook):
    """Makes the spans of each request that ended."""

    def __init__(self, provider: Any) -> None:
        from opentelemetry.trace import SpanKind, Status, StatusCode, set_span_in_context
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        self._provider = provider
        self._tracer = provider.get_tracer("tutelage", VERSION)
        self._server, self._client = SpanKind.SERVER, SpanKind.CLIENT
        self._inside = set_span_in_context
        self._failed = Status(StatusCode.ERROR)
        self._propagator = TraceContextTextMapPropagator()
        self._open: dict[str, tuple[Any, Any]] = {}  # record -> the server's and the model's span

    async def admit(self, ask: Ask) -> None:
        """Begin both spans; the engine hears of the model's, to go on with the trace."""
        server = self._begin(ask, time.time_ns() - int((time.perf_counter() - ask.started) * 1e9))
        inside = self._inside(server)
        model = self._tracer.start_span(f"chat {ask.deployment}", context=inside, kind=self._client)
        self._open[ask.record] = (server, model)
        passed: dict[str, str] = {}
        self._propagator.inject(passed, self._inside(model))
        engine_headers.set(passed)

    def finished(self, ask: Ask, outcome: Outcome) -> None:
        """End the spans and hand them to the sender."""
        end = time.time_ns()
        server, model = self._open.pop(ask.record, (None, None))
        if server is None:  # refused before this hook was asked
            server = self._begin(ask, end - int(outcome.latency_ms * 1e6))
        if model is not None:
            if model.is_recording():
                model.set_attributes(model_attributes(ask, outcome))
            if outcome.status >= 400:
                model.set_status(self._failed)
            model.end(end)
        if server.is_recording():
            server.set_attributes(_http(outcome))
        if outcome.status >= 500:
            server.set_status(self._failed)
        server.end(end)

    def _begin(self, ask: Ask, start: int) -> Any:
        """Return the server's span, inside the client's if it told of one."""
        parent = self._propagator.extract(ask.headers) if "traceparent" in ask.headers else None
        return self._tracer.start_span(
            f"POST {_PATH}", context=parent, kind=self._server, start_time=start
        )

    async def close(self) -> None:
        """Send what is left."""
        await asyncio.to_thread(self._provider.shutdown)


def _http(outcome: Outcome) -> dict[str, Any]:
    found: dict[str, Any] = {
        "http.request.method": "POST",
        "http.route": _PATH,
        "url.path": _PATH,
        "http.response.status_code": outcome.status,
    }
    if outcome.status >= 500:
        found["error.type"] = str(outcome.status)
    return found


def model_attributes(ask: Ask, outcome: Outcome) -> dict[str, Any]:
    """Return the attributes of the model's span: who was asked, what it took, how it ended."""
    found: dict[str, Any] = {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "tutelage",
        "gen_ai.request.model": ask.deployment,
        "gen_ai.request.max_tokens": ask.max_tokens,
        "gen_ai.request.stream": ask.stream,
        "gen_ai.response.model": ask.release[:12],
        "gen_ai.response.id": ask.record,
        "gen_ai.usage.input_tokens": outcome.prompt_tokens,
        "gen_ai.usage.output_tokens": outcome.completion_tokens,
        "tutelage.arm": ask.arm,
    }
    if outcome.finish_reason:
        found["gen_ai.response.finish_reasons"] = [outcome.finish_reason]
    if outcome.first_token_ms is not None:
        found["gen_ai.response.time_to_first_chunk"] = outcome.first_token_ms / 1000
    if ask.rollout is not None:
        found["tutelage.rollout"] = ask.rollout
        found["tutelage.step"] = ask.step if ask.step is not None else -1
    if ask.key is not None:
        found["tutelage.key"] = ask.key
    failed = [name for name, check in outcome.checks.items() if not check.get("ok", True)]
    if failed:
        found["tutelage.checks.failed"] = failed
    if outcome.status >= 400:
        found["error.type"] = str(outcome.status)
    return found
