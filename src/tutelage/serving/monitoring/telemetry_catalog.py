"""Every metric of /metrics as data: for the CLI, docs and dashboards."""

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
