"""What Prometheus is shown of live evaluation."""

from __future__ import annotations

from collections.abc import Sequence

from prometheus_client import CollectorRegistry, Counter, Gauge


class LiveMeters:
    """Scores by deployment, release and metric, and what the judge took."""

    def __init__(self, registry: CollectorRegistry) -> None:
        labels = ("deployment", "release", "metric")
        self._scores = Counter(
            "tutelage_live_scores", "Scores given to served answers.", labels, registry=registry
        )
        self._sum = Counter(
            "tutelage_live_score_sum",
            "Sum of those scores, each 0 to 1: over their number it is the mean.",
            labels,
            registry=registry,
        )
        self._judged = Counter(
            "tutelage_live_judged", "Served answers that the judge marked.", registry=registry
        )
        self._tokens = Counter(
            "tutelage_live_judge_tokens", "Tokens of the judge's verdicts on them.",
            registry=registry,
        )  # fmt: skip
        self._waiting = Gauge(
            "tutelage_live_waiting", "Drawn answers that are not scored yet.", registry=registry
        )

    def scored(self, deployment: str, release: str, metric: str, values: Sequence[float]) -> None:
        """Count scores of one metric."""
        names = (deployment, release[:12], metric)
        self._scores.labels(*names).inc(len(values))
        self._sum.labels(*names).inc(max(0.0, sum(values)))

    def judged(self, answers: int, tokens: int) -> None:
        """Count what the judge did."""
        self._judged.inc(answers)
        self._tokens.inc(tokens)

    def waiting(self, answers: int) -> None:
        """Show how many answers wait."""
        self._waiting.set(answers)
