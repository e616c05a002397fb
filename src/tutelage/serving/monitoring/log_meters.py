"""The request log's own metrics, beside Telemetry's counters of what was written and lost."""

from __future__ import annotations

from prometheus_client import Counter, Gauge

from tutelage.serving.monitoring.telemetry import Telemetry


class LogMeters:
    """What a person who watches the log wants to know beside Telemetry's own counters."""

    def __init__(self, telemetry: Telemetry) -> None:
        registry = telemetry.registry
        self.recovered = Counter(
            "tutelage_records_recovered", "Records taken over from a killed process.",
            registry=registry,
        )  # fmt: skip
        self.unguarded = Counter(
            "tutelage_records_unguarded", "Records that could not be written ahead.",
            registry=registry,
        )  # fmt: skip
        self.left_out = Counter(
            "tutelage_feedback_left_out",
            "Signals on answers of deployments that their key may not touch.",
            registry=registry,
        )
        self.ahead = Gauge("tutelage_log_ahead_bytes", "Write-ahead files.", registry=registry)
        self.trouble = Gauge(
            "tutelage_store_trouble", "1 while the store takes no rows.", registry=registry
        )
