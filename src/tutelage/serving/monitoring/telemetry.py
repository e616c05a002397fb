"""Prometheus metrics of the gateway, on a registry of their own.

Names follow OpenTelemetry's GenAI conventions where there is one. Labels name deployments,
releases, arms and keys; prompts and users never appear. Other parts of serving may add metrics
of their own to `registry`. telemetry_gauges.py fills what is sampled rather than counted.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
LOCAL_KEY = "(local)"  # the key label of requests without a key, from this machine
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)
_A_TOKEN = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1, 2.5)
_TOKENS = (1, 4, 16, 64, 256, 1024, 4096, 16384, 65536, 262144, 1048576)
_COMMIT = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1, 5)
_ARM = ("deployment", "release", "arm")


class Telemetry:
    """The gateway's counters. Label children are looked up once, then kept."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._child = lru_cache(maxsize=4096)(_child)
        self._add_requests()
        self._add_keys()
        self._add_queue()
        self._add_log()
        self._add_rollouts()

    def _add_requests(self) -> None:
        self._requests = self._counter("tutelage_requests", "Requests by outcome.", *_ARM, "status")
        self._duration = self._histogram(
            "gen_ai_client_operation_duration_seconds", "Arrival to last byte.", _SECONDS, *_ARM
        )
        self._first = self._histogram(
            "gen_ai_server_time_to_first_token_seconds", "Arrival to first token.", _SECONDS, *_ARM
        )
        self._each = self._histogram(
            "gen_ai_server_time_per_output_token_seconds",
            "Time of each token of a stream after the first.",
            _A_TOKEN,
            *_ARM,
        )
        self._tokens = self._histogram(
            "gen_ai_client_token_usage", "Tokens of a request.", _TOKENS, *_ARM, "gen_ai_token_type"
        )
        self._flags = self._counter(
            "tutelage_guard_flags", "Checks that did not hold.", *_ARM, "guard", "action"
        )
        self.refused = self._counter(
            "tutelage_refused", "Requests that reached no release, by status.", "status"
        )
        self.feedback = self._counter(
            "tutelage_feedback", "Signals acknowledged as durable.", "kind"
        )

    def _add_keys(self) -> None:
        self._key_requests = self._counter(
            "tutelage_key_requests", "Requests by API key.", "key", "deployment", "status"
        )
        self._key_tokens = self._counter(
            "tutelage_key_tokens", "Tokens by API key.", "key", "deployment", "gen_ai_token_type"
        )

    def _add_queue(self) -> None:
        self.running = self._gauge("tutelage_requests_running", "Requests at the engine.")
        self.waiting = self._gauge("tutelage_requests_waiting", "Requests in the queue.")

    def _add_log(self) -> None:
        self.written = self._counter("tutelage_records_written", "Records made durable.")
        self.lost = self._counter(
            "tutelage_records_lost", "Records shed or refused by the store.", "reason"
        )
        self.backlog = self._gauge("tutelage_log_backlog", "Rows waiting for the writer.")
        self.commit = self._histogram("tutelage_log_commit_seconds", "One group commit.", _COMMIT)
        self.events = self._counter("tutelage_events", "Events told.", "kind", "level")

    def _add_rollouts(self) -> None:
        self.weight = self._gauge(
            "tutelage_rollout_weight_percent", "Traffic of the canary.", "deployment"
        )
        self.transitions = self._counter(
            "tutelage_rollout_transitions", "Moves of rollouts.", "deployment", "to"
        )

    def _counter(self, name: str, help_: str, *labels: str) -> Counter:
        return Counter(name, help_, labels, registry=self.registry)

    def _gauge(self, name: str, help_: str, *labels: str) -> Gauge:
        return Gauge(name, help_, labels, registry=self.registry)

    def _histogram(
        self, name: str, help_: str, buckets: tuple[float, ...], *labels: str
    ) -> Histogram:
        return Histogram(name, help_, labels, buckets=buckets, registry=self.registry)

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
            if tokens[1] > 1:
                each = (latency_ms - first_token_ms) / (tokens[1] - 1)
                self._child(self._each, short).observe(each / 1000)
        if tokens[0] or tokens[1]:
            self._child(self._tokens, (*short, "input")).observe(tokens[0])
            self._child(self._tokens, (*short, "output")).observe(tokens[1])

    def by_key(
        self, key: str | None, deployment: str, status: int, tokens: tuple[int, int]
    ) -> None:
        """Count one request for its API key; `tokens` is (in, out)."""
        name = (key or LOCAL_KEY, deployment)
        self._child(self._key_requests, (*name, str(status))).inc()
        if tokens[0] or tokens[1]:
            self._child(self._key_tokens, (*name, "input")).inc(tokens[0])
            self._child(self._key_tokens, (*name, "output")).inc(tokens[1])

    def flags_of(self, deployment: str, release: str, arm: str) -> Callable[[str, str], None]:
        """Return what counts a check that did not hold: its name, and flag or block."""

        def count(guard: str, action: str) -> None:
            self._child(self._flags, (deployment, release[:12], arm, guard, action)).inc()

        return count

    def text(self) -> bytes:
        """Return the exposition in Prometheus' text format."""
        return generate_latest(self.registry)


def _child(metric: Any, labels: tuple[str, ...]) -> Any:
    return metric.labels(*labels)
