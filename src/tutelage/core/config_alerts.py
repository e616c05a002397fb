"""The sections `alerts` and `telemetry` of tutelage.yaml: what is told to whom, what is traced.

Says what is allowed; serving/monitoring evaluates the rules (alerts.py) and tells (webhooks.py).
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from tutelage.core.config_base import Ratio, Section, yaml_word
from tutelage.core.durations import Duration, Interval, seconds

Level = Literal["info", "warning", "error"]
Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]*$", max_length=63)]
_LONGEST_WINDOW_S = 3600.0


class Webhook(Section):
    """An address that notices are posted to. Secrets stay in the environment."""

    name: Name  # how it is called in lists and errors
    # http or https; an address that is a secret belongs into url_env
    url: str | None = Field(default=None, pattern=r"^https?://[^\s/]+")
    url_env: str | None = None  # name of the environment variable that holds the address
    secret_env: str | None = None  # name of the one that holds the secret bodies are signed with
    format: Literal["json", "slack"] = "json"  # slack: {"text": ...} alone
    level: Level = "info"  # notices below this level are not sent there

    @model_validator(mode="after")
    def _has_one_address(self) -> Webhook:
        if (self.url is None) == (self.url_env is None):
            raise ValueError("a webhook needs either url or url_env")
        return self


class AlertRule(Section):
    """When somebody is told: a metric beyond a limit for a time, or an event of a kind."""

    name: Name  # what the alert is called
    # a measure (error_rate, latency_p99, ...) or a name from /metrics
    metric: str | None = Field(default=None, pattern=r"^[a-z][a-zA-Z0-9_]*$")
    event: str | None = Field(default=None, pattern=r"^[a-z_*]+(\.[a-z_*]+)?$")  # such as engine.*
    above: float | None = None  # it fires while the metric is above this
    below: float | None = None  # or below this
    quantile: Ratio | None = None  # of a histogram from /metrics
    labels: dict[str, str] = {}  # only series with these labels
    by: list[str] | None = None  # one alert for each value of these; unset: by deployment
    window: Duration = "5m"  # counters and histograms are looked at over this, at most 1h
    hold: Duration = "0s"  # how long it must be so before it fires
    least: int = Field(default=20, ge=1)  # requests in the window below which a measure is unknown
    level: Level = "warning"  # how bad it is; webhooks choose by it

    @field_validator("window")
    @classmethod
    def _window_is_kept(cls, value: str) -> str:
        if not 0 < seconds(value) <= _LONGEST_WINDOW_S:
            raise ValueError("window must be between 1s and 1h")
        return value

    @model_validator(mode="after")
    def _is_one_thing(self) -> AlertRule:
        if (self.metric is None) == (self.event is None):
            raise ValueError("a rule needs either metric or event")
        if self.metric is not None and (self.above is None) == (self.below is None):
            raise ValueError("a rule on a metric needs either above or below")
        if self.event is not None and (self.above, self.below) != (None, None):
            raise ValueError("a rule on an event takes neither above nor below")
        return self


class Alerts(Section):
    """What operators are told of, and where. Built-in rules apply unless they are named in off."""

    webhooks: list[Webhook] = []
    rules: list[AlertRule] = []  # one with a built-in's name takes its place
    off: list[str] = []  # built-in rules that are not wanted
    every: float = Field(default=10, ge=0.1, le=300)  # seconds between two looks
    repeat: Interval = "4h"  # an alert that still fires is told again after this
    keep: Duration = "90d"  # how long events and ended alerts are kept

    @model_validator(mode="after")
    def _names_differ(self) -> Alerts:
        for what, names in (
            ("webhooks", [hook.name for hook in self.webhooks]),
            ("rules", [rule.name for rule in self.rules]),
        ):
            twice = sorted({name for name in names if names.count(name) > 1})
            if twice:
                raise ValueError(f"two {what} are named {twice[0]!r}")
        return self


class Telemetry(Section):
    """Traces and log lines of the gateway. Texts of requests and answers are in neither."""

    # OpenTelemetry spans; auto: when an OTEL_EXPORTER_OTLP_* variable names an endpoint
    traces: Literal["auto", "on", "off"] = "auto"
    # where JSON lines go; file: .tutelage/logs/gateway.jsonl
    log: Literal["file", "stderr", "off"] = "file"
    level: Literal["debug", "info", "warning", "error"] = "info"  # least level of a line
    requests: bool = False  # one line a request too: ids, times and counts

    _words = field_validator("traces", "log", mode="before")(yaml_word)
