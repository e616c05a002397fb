"""What watching a request costs: processor time of metrics, log lines and spans, in microseconds.

Each watcher is told of the same finished requests, as the gateway tells it; processor time counts
every thread, so the writer of log lines and the sender of spans are in it (the spans go to an
exporter that drops them). `scrape` and `look` are what /metrics and one look at the alert rules
cost, in milliseconds, with the metrics of 4 deployments of 2 releases and 20 keys.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ALWAYS_ON

from tutelage.core.config_alerts import Telemetry as Settings
from tutelage.core.example import Message
from tutelage.serving.access.spend_meters import SpendMeters
from tutelage.serving.hooks import Ask, Hook, Outcome
from tutelage.serving.monitoring.alerts import BUILT_IN, Watch
from tutelage.serving.monitoring.logs import RequestLines, gateway_log
from tutelage.serving.monitoring.telemetry import Telemetry
from tutelage.serving.monitoring.telemetry_gauges import Meters
from tutelage.serving.monitoring.tracing import Tracing

sys.path.insert(0, str(Path(__file__).resolve().parent))
import common

TEXT = "Acute conjunctivitis, unspecified, right eye"


class Dropped(SpanExporter):
    """Takes spans and forgets them."""

    def export(self, spans: Any) -> SpanExportResult:
        return SpanExportResult.SUCCESS

    def shutdown(self) -> None:
        return None


def requests(count: int, *, traced: bool = False) -> list[tuple[Ask, Outcome]]:
    """Return finished requests: 4 deployments of 2 releases, 20 keys."""
    headers = {"traceparent": f"00-{'4b' * 16}-{'00f067aa0ba902b7'}-01"} if traced else {}
    outcome = Outcome(200, None, '{"chapter": "eye"}', "stop", 200, 8, 412.0, 95.0, {})
    return [
        (
            Ask(
                record=f"rec_{i:024x}", deployment=f"d{i % 4}", release=f"{i % 8:064x}",
                arm="canary" if i % 10 == 0 else "stable", rollout=None, step=None,
                key=f"key-{i % 20}", role="client", user=None, group="g", stream=True,
                messages=(Message(role="user", content=TEXT),), max_tokens=256,
                body=dict, started=time.perf_counter(), headers=headers,
            ),
            outcome,
        )
        for i in range(count)
    ]  # fmt: skip


def counted(telemetry: Telemetry) -> Callable[[Ask, Outcome], None]:
    """Return what the gateway counts of each request, for its release and for its key."""

    def finished(ask: Ask, outcome: Outcome) -> None:
        tokens = (outcome.prompt_tokens, outcome.completion_tokens)
        arm = (ask.deployment, ask.release, ask.arm)
        telemetry.finished(arm, outcome.status, outcome.latency_ms, outcome.first_token_ms, tokens)
        telemetry.by_key(ask.key, ask.deployment, outcome.status, tokens)

    return finished


@contextlib.contextmanager
def spans(sampler: Any) -> Iterator[Hook]:
    """Yield the hook that makes spans."""
    provider = TracerProvider(sampler=sampler)
    provider.add_span_processor(BatchSpanProcessor(Dropped()))
    hook = Tracing(provider)
    yield hook
    provider.shutdown()


@contextlib.contextmanager
def lines(folder: str) -> Iterator[Hook]:
    """Yield the hook that writes a line a request."""
    with gateway_log(Settings(requests=True), Path(folder)):
        yield RequestLines()


async def _admit(hook: Hook, asked: list[tuple[Ask, Outcome]]) -> None:
    for ask, _ in asked:
        await hook.admit(ask)


def cost_us(hook: Any, count: int, *, traced: bool = False) -> float:
    """Return the processor time of one request, in microseconds: admitted, ended, written."""
    import asyncio

    asked = requests(count, traced=traced)
    began = time.process_time()
    if isinstance(hook, Hook):
        asyncio.run(_admit(hook, asked))
    finished = hook.finished if isinstance(hook, Hook) else hook
    for ask, outcome in asked:
        finished(ask, outcome)
    flush(hook)
    return (time.process_time() - began) / count * 1e6


def flush(hook: Any) -> None:
    """Wait until what was handed to another thread is done."""
    if isinstance(hook, Tracing):
        hook._provider.force_flush()
    if isinstance(hook, RequestLines):
        for handler in logging.getLogger("tutelage").handlers:
            queue = getattr(handler, "queue", None)
            while queue is not None and not queue.empty():
                time.sleep(0.001)


def measured(count: int, rounds: int) -> list[dict[str, Any]]:
    """Return a row a watcher, with the median and the highest of the rounds."""
    telemetry = Telemetry()
    rows = []
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        watchers: list[tuple[str, Any, bool]] = [
            ("metrics", counted(telemetry), False),
            ("spans", stack.enter_context(spans(ALWAYS_ON)), False),
            ("spans of a client's trace", stack.enter_context(spans(ALWAYS_ON)), True),
            ("spans, none sampled", stack.enter_context(spans(ALWAYS_OFF)), False),
            ("a log line a request", stack.enter_context(lines(folder)), False),
        ]
        for name, hook, traced in watchers:
            found = [cost_us(hook, count, traced=traced) for _ in range(rounds + 1)][1:]
            rows.append(
                {"what": name, "unit": "us a request", "median": round(statistics.median(found), 1)}
                | {"highest": round(max(found), 1)}
            )
    return rows + periodic(telemetry, rounds)


def periodic(telemetry: Telemetry, rounds: int) -> list[dict[str, Any]]:
    """Return the rows of what is done now and then."""
    Meters(telemetry.registry)
    SpendMeters(telemetry.registry)
    watch = Watch(BUILT_IN, telemetry.registry)
    rows = []
    for name, work in (("scrape", telemetry.text), ("look", lambda: watch.look(time.monotonic()))):
        found = []
        for _ in range(rounds * 3):
            began = time.process_time()
            work()
            found.append((time.process_time() - began) * 1e3)
        rows.append(
            {"what": name, "unit": "ms", "median": round(statistics.median(found), 2)}
            | {"highest": round(max(found), 2)}
        )
    return rows


def main() -> None:
    """Print the table, or with --json one object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer requests and rounds")
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    options = parser.parse_args()
    count, rounds = (1000, 3) if options.quick else (2000, 9)  # the SDK's queue holds 2,048 spans
    rows = measured(count, rounds)
    by = {row["what"]: row["median"] for row in rows}
    headline = {
        "metrics_us": by["metrics"],
        "spans_us": by["spans"],
        "line_us": by["a log line a request"],
        "scrape_ms": by["scrape"],
        "look_ms": by["look"],
    }
    if options.json:
        found = {"name": "telemetry", "machine": common.machine(), "rows": rows}
        print(json.dumps(found | {"headline": headline}))
        return
    print(common.table(rows))


if __name__ == "__main__":
    main()
