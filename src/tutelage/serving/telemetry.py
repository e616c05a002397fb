"""Prometheus metrics of the gateway, on a registry of their own.

Names follow OpenTelemetry's GenAI conventions where there is one. Labels name deployments,
releases and arms; prompts and users never appear.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)
_ARM = ("deployment", "release", "arm")


class Telemetry:
    """The gateway's counters. Label children are looked up once, then kept."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        common: dict[str, Any] = {"registry": self.registry}
        self._requests = Counter(
            "tutelage_requests", "Requests by outcome.", (*_ARM, "status"), **common
        )
        self._duration = Histogram(
            "gen_ai_client_operation_duration_seconds", "Arrival to last byte.", _ARM,
            buckets=_SECONDS, **common,
        )  # fmt: skip
        self._first = Histogram(
            "gen_ai_server_time_to_first_token_seconds", "Arrival to first token.", _ARM,
            buckets=_SECONDS, **common,
        )  # fmt: skip
        self._tokens = Counter(
            "gen_ai_client_token_usage", "Tokens by kind.", (*_ARM, "kind"), **common
        )
        self._flags = Counter(
            "tutelage_guard_flags", "Checks that did not hold.", ("guard", "action"), **common
        )
        self.refused = Counter(
            "tutelage_refused", "Requests that reached no release, by status.", ("status",),
            **common,
        )  # fmt: skip
        self.feedback = Counter(
            "tutelage_feedback", "Signals acknowledged as durable.", ("kind",), **common
        )
        self.running = Gauge("tutelage_requests_running", "Requests at the engine.", **common)
        self.waiting = Gauge("tutelage_requests_waiting", "Requests in the queue.", **common)
        self.written = Counter("tutelage_records_written", "Records made durable.", **common)
        self.lost = Counter(
            "tutelage_records_lost", "Records shed or refused by the store.", ("reason",), **common
        )
        self.backlog = Gauge("tutelage_log_backlog", "Rows waiting for the writer.", **common)
        self.commit = Histogram(
            "tutelage_log_commit_seconds", "One group commit.",
            buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1, 5), **common,
        )  # fmt: skip
        self.weight = Gauge(
            "tutelage_rollout_weight_percent", "Traffic of the canary.", ("deployment",), **common
        )
        self.transitions = Counter(
            "tutelage_rollout_transitions", "Moves of rollouts.", ("deployment", "to"), **common
        )
        self._child = lru_cache(maxsize=4096)(_child)

    def finished(
        self,
        arm: tuple[str, str, str],
        status: int,
        latency_ms: float,
        first_token_ms: float | None,
        tokens: tuple[int, int],
    ) -> None:
        """Count one routed request: `arm` is (deployment, release, arm), `tokens` (in, out)."""
        deployment, release, name = arm
        short = (deployment, release[:12], name)
        self._child(self._requests, (*short, str(status))).inc()
        self._child(self._duration, short).observe(latency_ms / 1000)
        if first_token_ms is not None:
            self._child(self._first, short).observe(first_token_ms / 1000)
        self._child(self._tokens, (*short, "input")).inc(tokens[0])
        self._child(self._tokens, (*short, "output")).inc(tokens[1])

    def flagged(self, guard: str, action: str) -> None:
        """Count a check that did not hold, and what was done (flag or block)."""
        self._child(self._flags, (guard, action)).inc()

    def text(self) -> bytes:
        """Return the exposition in Prometheus' text format."""
        return generate_latest(self.registry)


def _child(metric: Any, labels: tuple[str, ...]) -> Any:
    return metric.labels(*labels)
