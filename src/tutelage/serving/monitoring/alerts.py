"""Which alerts hold now: the built-in rules and the project's own, over metrics and events.

It decides from figures handed to it and keeps only how long each has held; what fires, since when
and who was told lives in the store (alert_store.py), so that a restart forgets nothing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

from prometheus_client import CollectorRegistry

from tutelage.core.config_alerts import AlertRule, Alerts
from tutelage.core.durations import seconds
from tutelage.core.errors import ConfigError, DataError, did_you_mean
from tutelage.serving.monitoring import event_kinds
from tutelage.serving.monitoring.measures import Figure, Labels, Window, check, evaluate, needed
from tutelage.store.alerts import EventRow

_GROUPS = 100  # alerts of one rule at a time, at most
_UNHEARD_S = 86_400.0  # then an event whose end would be told has ended all the same
_LOOKS = 3  # an alert ends after this many looks at which it did not hold
# Kinds that are over as soon as they are told: no alert stays open for them.
NOTED_TOPICS = ("rollout", "gateway", "budget", "key")
# What ends an open alert, by the kind of event that says it is over.
ENDS = {
    "engine.restarted": ("engine.crashed",),
    "gateway.started": ("engine.crashed", "release.missing"),
    "release.loaded": ("release.missing",),
    "backend.up": ("backend.down",),
    "keep_alive.ok": ("keep_alive.failed",),
    "drift.ended": ("drift.found",),
    "quality.ended": ("quality.dropped",),
}
_ENDED = frozenset(kind for kinds in ENDS.values() for kind in kinds)


def _rule(name: str, level: str, **fields: object) -> AlertRule:
    return AlertRule.model_validate({"name": name, "level": level, **fields})


BUILT_IN: tuple[AlertRule, ...] = (
    _rule("rolled-back", "error", event="rollout.rolled_back"),
    _rule("rollout-frozen", "warning", event="rollout.frozen"),
    _rule("promoted", "info", event="rollout.promoted"),
    _rule("engine-crashed", "error", event="engine.crashed"),
    _rule("release-missing", "error", event="release.missing"),
    _rule("backend-down", "warning", event="backend.down"),
    _rule("budget-spent", "warning", event="budget.spent"),
    _rule("drift", "warning", event="drift.found"),
    _rule("quality", "warning", event="quality.dropped"),
    _rule("keep-alive", "warning", event="keep_alive.failed"),
    _rule("error-rate", "error", metric="error_rate", above=0.05, hold="1m"),
    _rule("overload", "warning", metric="refused_rate", above=0.05, hold="1m"),
    _rule("engine-down", "error", metric="tutelage_engine_up", below=1, hold="30s"),
    _rule("engine-memory", "error", metric="tutelage_engine_memory_ratio", above=0.95, hold="1m"),
    _rule("records-lost", "warning", metric="tutelage_records_lost_total", above=0),
    _rule(
        "budget-near",
        "warning",
        metric="tutelage_budget_used_ratio",
        above=0.8,
        by=["key", "deployment", "unit", "per"],
    ),
    _rule("disk", "warning", metric="tutelage_disk_free_ratio", below=0.05, hold="1m"),
)


def rules_of(alerts: Alerts) -> tuple[AlertRule, ...]:
    """Return the rules in force: the project's, then the built-in ones it did not turn off.

    Raises ConfigError if `alerts.off` names no built-in rule, or a rule no event there is.
    """
    known = [rule.name for rule in BUILT_IN]
    for name in alerts.off:
        if name not in known:
            hint = did_you_mean(name, known)
            raise ConfigError(
                f"alerts.off names {name!r}, which is no built-in rule",
                fix=f"{hint}Built in are {', '.join(known)}",
            )
    for rule in alerts.rules:
        if rule.event is not None and (fix := event_kinds.unknown(rule.event)):
            raise ConfigError(
                f"alerts.rules, {rule.name}: there is no event {rule.event!r}", fix=fix
            )
    own = {rule.name for rule in alerts.rules}
    kept = [rule for rule in BUILT_IN if rule.name not in own and rule.name not in alerts.off]
    return (*alerts.rules, *kept)


def require_rule(alerts: Alerts, pattern: str) -> None:
    """Raise DataError if a name, or a pattern with *, is that of no rule in force."""
    known = [rule.name for rule in rules_of(alerts)]
    if any(fnmatchcase(name, pattern) for name in known):
        return
    hint = did_you_mean(pattern, known)
    raise DataError(f"no rule is named {pattern!r}", fix=f"{hint}Known: {', '.join(known)}")


@dataclass(frozen=True)
class Finding:
    """A rule that holds for one group of labels. `noted` ones are told once and stay not open."""

    rule: AlertRule
    labels: Mapping[str, str]
    message: str
    value: float | None = None
    noted: bool = False

    @property
    def key(self) -> str:
        """What makes two findings the same alert."""
        return alert_key(self.rule.name, self.labels)

    @property
    def threshold(self) -> float | None:
        """The limit of a rule on a metric."""
        return self.rule.above if self.rule.above is not None else self.rule.below


def alert_key(rule: str, labels: Mapping[str, str]) -> str:
    """Return the hash, 32 hex digits, of a rule and the group it fired for."""
    text = "\x1f".join([rule, *(f"{k}={v}" for k, v in sorted(labels.items()))])
    return hashlib.sha256(text.encode()).hexdigest()[:32]


@dataclass
class Look:
    """What one look at the metrics gave: findings that hold, and keys known not to."""

    holds: list[Finding] = field(default_factory=list)
    fine: set[str] = field(default_factory=set)


class Watch:
    """The rules on metrics, and since when each group has held. Raises ConfigError for bad ones."""

    def __init__(self, rules: Sequence[AlertRule], registry: CollectorRegistry) -> None:
        self.rules = [rule for rule in rules if rule.metric is not None]
        for rule in self.rules:
            check(rule, registry)
        longest = max((seconds(rule.window) for rule in self.rules), default=0.0)
        self.window = Window(registry, longest)
        self._names = {name for rule in self.rules for name in needed(rule)}
        self._since: dict[str, float] = {}

    def look(self, now: float) -> Look:
        """Look at the metrics at `now` (monotonic, seconds)."""
        self.window.look(now, self._names)
        look = Look()
        for rule in self.rules:
            for figure in evaluate(rule, self.window)[:_GROUPS]:
                self._weigh(rule, figure, now, look)
        return look

    def _weigh(self, rule: AlertRule, figure: Figure, now: float, look: Look) -> None:
        labels = dict(figure.labels)
        key = alert_key(rule.name, labels)
        if figure.value is None:
            self._since.pop(key, None)
            return
        if not beyond(rule, figure.value):
            self._since.pop(key, None)
            look.fine.add(key)
            return
        since = self._since.setdefault(key, now)
        if now - since >= seconds(rule.hold):
            look.holds.append(Finding(rule, labels, _says(rule, figure), figure.value))


def beyond(rule: AlertRule, value: float) -> bool:
    """Return whether a value is on the wrong side of a rule's limit."""
    if rule.above is not None:
        return value > rule.above
    return rule.below is not None and value < rule.below


def _says(rule: AlertRule, figure: Figure) -> str:
    value, limit = figure.value or 0.0, rule.above if rule.above is not None else rule.below
    side = "above" if rule.above is not None else "below"
    return f"{_named(figure.labels)}{rule.metric} is {value:.3g}, {side} {limit:g}"


def _named(labels: Labels) -> str:
    """Return what a group is called at the start of a sentence."""
    named = [value if key == "deployment" else f"{key} {value}" for key, value in labels]
    return f"{', '.join(named)}: " if named else ""


def matching(rules: Iterable[AlertRule], event: EventRow) -> list[Finding]:
    """Return what the rules on events find in one event."""
    noted = event.kind.partition(".")[0] in NOTED_TOPICS
    labels = {"kind": event.kind}
    if event.deployment:
        labels["deployment"] = event.deployment
    if event.subject:
        labels["subject"] = event.subject
    return [
        Finding(rule, labels, event.message, noted=noted)
        for rule in rules
        if rule.event is not None
        and event_kinds.names(rule.event, event.kind)
        and (event.kind not in ENDS or event.kind == rule.event)
        and all(labels.get(key) == value for key, value in rule.labels.items())
    ]


def patience_s(
    rule: AlertRule | None, every_s: float, *, fine: bool = False, kind: str | None = None
) -> float:
    """Return how long an alert may go unseen before it has ended.

    A metric that is known to be fine ends it after three looks, which also outlasts the looks of
    other gateways on the same store. Where nothing is known, or for an event (`kind`) whose end
    nobody tells, its window counts.
    """
    if rule is None or fine:
        return _LOOKS * every_s
    if rule.metric is not None:
        return seconds(rule.window) + _LOOKS * every_s
    return _UNHEARD_S if kind in _ENDED else seconds(rule.window)
