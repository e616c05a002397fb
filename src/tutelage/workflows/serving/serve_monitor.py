"""The parts of `tutelage up` that watch it: event log, log lines, spans, alerts."""

from __future__ import annotations

from contextlib import AbstractContextManager

from tutelage.core.events import Event
from tutelage.serving.hooks import Hook
from tutelage.serving.monitoring.events import EventLog, Happening
from tutelage.serving.monitoring.logs import RequestLines, gateway_log
from tutelage.serving.monitoring.monitor import Monitor
from tutelage.serving.monitoring.telemetry import Telemetry
from tutelage.serving.monitoring.tracing import tracing
from tutelage.serving.state import GatewayState
from tutelage.workflows.context import Context


def log_lines(ctx: Context) -> AbstractContextManager[None]:
    """Return what writes JSON lines while it is entered, and tells the listener of warnings."""

    def show(text: str) -> None:
        ctx.emit(Event("", "warning", text))

    return gateway_log(ctx.config.telemetry, ctx.workspace.logs, show)


def open_events(ctx: Context, telemetry: Telemetry) -> EventLog:
    """Return a running event log that counts what it is told."""

    def count(happening: Happening) -> None:
        telemetry.events.labels(happening.kind, happening.level).inc()

    events = EventLog(ctx.store, told=count)
    events.start()
    return events


def monitor_hooks(ctx: Context, state: GatewayState) -> list[Hook]:
    """Return the hooks that watch: alerts always, spans and request lines where asked for."""
    found: list[Hook] = [Monitor(state, ctx.workspace.home)]
    spans = tracing(ctx.config.telemetry, ctx.config.name)
    if spans is not None:
        found.append(spans)
    if ctx.config.telemetry.requests:
        found.append(RequestLines())
    return found
