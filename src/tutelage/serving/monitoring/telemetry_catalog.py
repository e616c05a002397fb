"""Every metric of /metrics and every kind of event, as data: for the CLI, docs and dashboards."""

from __future__ import annotations

from dataclasses import dataclass

from prometheus_client import CollectorRegistry

from tutelage.serving.access.spend_meters import SpendMeters
from tutelage.serving.backends.backends import BackendMetrics
from tutelage.serving.guards.monitor import DriftMeters
from tutelage.serving.monitoring.live_meters import LiveMeters
from tutelage.serving.monitoring.log_meters import LogMeters
from tutelage.serving.monitoring.telemetry import Telemetry
from tutelage.serving.monitoring.telemetry_gauges import Meters

# The kinds of events there are, and what each says.
EVENTS: dict[str, str] = {
    "rollout.running": "a rollout began, or took a step",
    "rollout.frozen": "a rollout was frozen",
    "rollout.paused": "a rollout was paused by hand",
    "rollout.completed": "a trial has ended, and stable stays",
    "rollout.promoted": "its candidate became the stable release",
    "rollout.rolled_back": "its candidate did harm and was taken out of traffic",
    "rollout.aborted": "somebody ended it, and the stable release stayed",
    "engine.crashed": "the engine stopped answering",
    "engine.restarted": "the engine answers again",
    "release.missing": "a stable release can't be loaded, so the one before it answers, or none",
    "release.loaded": "every stable release is loaded again",
    "backend.down": "one of several servers stopped answering and gets no requests",
    "backend.up": "it answers again and gets requests",
    "budget.spent": "a budget is used up for its period",
    "drift.found": "live traffic is no longer like the evaluated rows, or like what it was",
    "drift.ended": "it is again, or that release does not serve any more",
    "quality.dropped": "the scores of live answers prove that a release is worse than it may be",
    "quality.ended": "that release does not serve any more",
    "judge.silent": "the judge leaves live answers out: its budget is spent, or it does not answer",
    "improve.turn": "the schedule begins a turn of the loop, or goes on with one",
    "improve.failed": "a turn of the loop went wrong",
    "keep_alive.failed": "a hosted model did not answer the call that keeps it",
    "keep_alive.ok": "it answered again",
    "gateway.started": "the gateway takes requests",
    "gateway.stopped": "the gateway has drained and stopped",
    "alert.firing": "a rule began to fire",
    "alert.resolved": "it no longer does",
}


@dataclass(frozen=True)
class Metric:
    """One metric: its name as it is shown, its type, what it says, what its series are by."""

    name: str
    kind: str
    help: str
    labels: tuple[str, ...]


def registry_of_all() -> CollectorRegistry:
    """Return a registry with every metric and no value."""
    telemetry = Telemetry()
    LogMeters(telemetry)
    Meters(telemetry.registry)
    DriftMeters(telemetry.registry)
    LiveMeters(telemetry.registry)
    SpendMeters(telemetry.registry)
    BackendMetrics((), telemetry.registry)
    return telemetry.registry


def catalog() -> list[Metric]:
    """Return the metrics, by name; those of the process itself are left out."""
    registry = registry_of_all()
    labels = {
        getattr(collector, "_name", ""): tuple(getattr(collector, "_labelnames", ()))
        for collector in registry._collector_to_names
    }
    found = []
    for family in registry.collect():
        if family.name.startswith("process_"):
            continue
        backend = family.name.startswith("tutelage_backend_")
        name = f"{family.name}_total" if family.type == "counter" else family.name
        of = ("backend",) if backend else labels.get(family.name, ())
        found.append(Metric(name, family.type, family.documentation, of))
    return sorted(found, key=lambda metric: metric.name)
