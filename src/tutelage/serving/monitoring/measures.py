"""What alert rules compare with their limits: figures over a window, from the gateway's metrics.

A `Window` keeps samples of the counters a while and gives increases between two moments, as
Prometheus does; a measure is one figure a group of series, or nothing where too little was seen.
It reads metrics only: no database and no texts.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import isnan

from prometheus_client import CollectorRegistry

from tutelage.core.config_alerts import AlertRule
from tutelage.core.durations import seconds
from tutelage.core.errors import ConfigError, did_you_mean

REQUESTS = "tutelage_requests"
REFUSED = "tutelage_refused"
_HISTOGRAMS = {
    "latency": ("gen_ai_client_operation_duration_seconds", "from arrival to the last byte"),
    "first_token": ("gen_ai_server_time_to_first_token_seconds", "from arrival to the first token"),
    "token": ("gen_ai_server_time_per_output_token_seconds", "of each token after the first"),
}
_PERCENTS = (50, 90, 95, 99)
_QUANTILES = {
    f"{name}_p{percent}": (metric, percent / 100)
    for name, (metric, _) in _HISTOGRAMS.items()
    for percent in _PERCENTS
}
MEASURES: dict[str, str] = {
    "error_rate": "share of requests that ended with a 5xx",
    "refused_rate": "share of requests that were told to come back later (429)",
    "requests_per_second": "requests that reached a release",
    "tokens_per_second": "tokens in and out",
    **{
        f"{name}_p{percent}": f"seconds {what}; {percent} % of requests take less"
        for name, (_, what) in _HISTOGRAMS.items()
        for percent in _PERCENTS
    },
}

Labels = tuple[tuple[str, str], ...]
Series = dict[tuple[str, Labels], float]  # (sample's name, its labels) -> value


@dataclass(frozen=True)
class Family:
    """One metric at one moment."""

    kind: str  # counter, gauge, histogram
    series: Series


@dataclass
class Window:
    """Moments of the registry, oldest first; those older than `longest_s` are dropped."""

    registry: CollectorRegistry
    longest_s: float
    moments: deque[tuple[float, dict[str, Family]]] = field(default_factory=deque)

    def look(self, now: float, names: Iterable[str]) -> None:
        """Keep the metrics `names` as they are; `now` is monotonic, in seconds."""
        wanted = set(names)
        found = {
            metric.name: Family(
                metric.type,
                {
                    (s.name, tuple(sorted(s.labels.items()))): s.value
                    for s in metric.samples
                    if not s.name.endswith("_created")
                },
            )
            for metric in self.registry.collect()
            if metric.name in wanted
        }
        self.moments.append((now, found))
        while len(self.moments) > 2 and now - self.moments[1][0] >= self.longest_s:
            self.moments.popleft()

    def now(self, name: str) -> Family | None:
        """Return the metric as it was at the last look."""
        return self.moments[-1][1].get(name) if self.moments else None

    def increase(self, name: str, window_s: float) -> tuple[Series, float]:
        """Return what each series grew by in the last `window_s`, and the seconds that covers.

        A series that was not there before counts from zero; one that fell was started again.
        """
        if len(self.moments) < 2:
            return {}, 0.0
        now, last = self.moments[-1]
        then, first = self.moments[0]
        for moment, families in self.moments:
            if moment > now - window_s and moment != self.moments[0][0]:
                break
            then, first = moment, families
        new, old = last.get(name), first.get(name)
        if new is None:
            return {}, now - then
        before = old.series if old else {}
        grown = {key: _grown(before.get(key, 0.0), value) for key, value in new.series.items()}
        return grown, now - then


def _grown(before: float, now: float) -> float:
    return now - before if now >= before else now


@dataclass(frozen=True)
class Figure:
    """One measure of one group: its labels, and its value or None where too little was seen."""

    labels: Labels
    value: float | None


def needed(rule: AlertRule) -> tuple[str, ...]:
    """Return the metrics that a rule reads."""
    name = _family_name(rule.metric or "")
    if name == "error_rate":
        return (REQUESTS,)
    if name == "refused_rate":
        return (REQUESTS, REFUSED)
    if name == "requests_per_second":
        return (REQUESTS,)
    if name == "tokens_per_second":
        return ("gen_ai_client_token_usage",)
    if name in _QUANTILES:
        return (_QUANTILES[name][0],)
    return (name,)


def check(rule: AlertRule, registry: CollectorRegistry) -> None:
    """Raise ConfigError where a rule reads what there is not, or reads it wrongly."""
    if rule.metric is None or rule.metric in MEASURES:
        return
    known = {metric.name: metric.type for metric in registry.collect()}
    name = _family_name(rule.metric)
    where = f"alerts.rules, {rule.name}"
    if name not in known:
        hint = did_you_mean(rule.metric, [*MEASURES, *known])
        raise ConfigError(
            f"there is no metric {rule.metric!r}",
            where=where,
            fix=f"{hint}`tutelage alerts measures` lists them, and GET /metrics shows all",
        )
    if (known[name] == "histogram") != (rule.quantile is not None):
        needs = known[name] == "histogram"
        raise ConfigError(
            f"{rule.metric!r} is a {known[name]} and {'needs' if needs else 'takes no'} quantile",
            where=where,
            fix="Write quantile: 0.99, for one" if needs else "Leave quantile out",
        )


def evaluate(rule: AlertRule, window: Window) -> list[Figure]:
    """Return the figures of a rule on a metric, one a group."""
    name, span = _family_name(rule.metric or ""), seconds(rule.window)
    if name == "error_rate":
        return _share(rule, window.increase(REQUESTS, span)[0], "5")
    if name == "refused_rate":
        return [Figure((), _refused(rule, window, span))]
    if name in ("requests_per_second", "tokens_per_second"):
        return _rate(rule, window, span)
    if name in _QUANTILES:
        metric, quantile = _QUANTILES[name]
        return _quantiles(rule, window.increase(metric, span)[0], quantile)
    family = window.now(name)
    if family is None:
        return []
    if family.kind == "histogram":
        return _quantiles(rule, window.increase(name, span)[0], rule.quantile or 0.5)
    if family.kind == "counter":
        return _sums(rule, window.increase(name, span)[0])
    pick = max if rule.below is None else min
    known = {key: value for key, value in family.series.items() if not isnan(value)}
    groups = _grouped(rule, known)
    return [Figure(labels, pick(v for _, _, v in rows)) for labels, rows in groups.items()]


def _family_name(name: str) -> str:
    return name.removesuffix("_total")


Row = tuple[str, Mapping[str, str], float]


def _grouped(rule: AlertRule, series: Series) -> dict[Labels, list[Row]]:
    """Return the series that a rule asks for, by the labels that it tells apart."""
    found: dict[Labels, list[Row]] = defaultdict(list)
    for (sample, labels), value in series.items():
        plain = dict(labels)
        if any(plain.get(key) != wanted for key, wanted in rule.labels.items()):
            continue
        if _is_copy(rule, plain):
            continue
        by = ("deployment",) if rule.by is None else rule.by
        group = {**rule.labels, **{key: plain[key] for key in by if key in plain}}
        found[tuple(sorted(group.items()))].append((sample, plain, value))
    return found


def _is_copy(rule: AlertRule, labels: Mapping[str, str]) -> bool:
    """Return whether a series is of copies of requests, and the rule's measure of what clients got.

    A rule that speaks of arms says itself which it means.
    """
    speaks = "arm" in rule.labels or "arm" in (rule.by or ())
    return rule.metric in MEASURES and labels.get("arm") == "shadow" and not speaks


def _share(rule: AlertRule, grown: Series, status: str) -> list[Figure]:
    figures = []
    for labels, rows in _grouped(rule, grown).items():
        whole = sum(value for _, _, value in rows)
        part = sum(value for _, plain, value in rows if plain["status"].startswith(status))
        figures.append(Figure(labels, part / whole if whole >= rule.least else None))
    return figures


def _refused(rule: AlertRule, window: Window, span: float) -> float | None:
    """Return the share of 429s among what reached a release and what reached none."""
    whole = part = 0.0
    for name in (REQUESTS, REFUSED):
        for (_, labels), value in window.increase(name, span)[0].items():
            plain = dict(labels)
            if not _is_copy(rule, plain):
                whole += value
                part += value if plain["status"] == "429" else 0.0
    return part / whole if whole >= rule.least else None


def _rate(rule: AlertRule, window: Window, span: float) -> list[Figure]:
    name = needed(rule)[0]
    grown, covered = window.increase(name, span)
    sums = _sums(rule, {k: v for k, v in grown.items() if not k[0].endswith(("_bucket", "_count"))})
    if covered <= 0:
        return [Figure(figure.labels, None) for figure in sums]
    return [Figure(f.labels, (f.value or 0.0) / covered) for f in sums]


def _sums(rule: AlertRule, grown: Series) -> list[Figure]:
    return [
        Figure(labels, sum(value for _, _, value in rows))
        for labels, rows in _grouped(rule, grown).items()
    ]


def _quantiles(rule: AlertRule, grown: Series, quantile: float) -> list[Figure]:
    figures = []
    for labels, rows in _grouped(rule, grown).items():
        buckets: dict[float, float] = defaultdict(float)
        for sample, plain, value in rows:
            if sample.endswith("_bucket"):
                buckets[float(plain["le"])] += value
        ordered = sorted(buckets.items())
        enough = bool(ordered) and ordered[-1][1] >= rule.least
        figures.append(Figure(labels, bucket_quantile(quantile, ordered) if enough else None))
    return figures


def bucket_quantile(quantile: float, buckets: Sequence[tuple[float, float]]) -> float | None:
    """Return a quantile from cumulative buckets (upper bound, count), the last one +Inf.

    Linear inside a bucket, as Prometheus' histogram_quantile; beyond the last bound it is that
    bound. None without observations.
    """
    total = buckets[-1][1] if buckets else 0.0
    if total <= 0:
        return None
    rank, low, below = quantile * total, 0.0, 0.0
    for bound, count in buckets:
        if count >= rank:
            if bound == float("inf"):
                return low
            inside = count - below
            return low + (bound - low) * ((rank - below) / inside if inside > 0 else 1.0)
        low, below = bound, count
    return low
