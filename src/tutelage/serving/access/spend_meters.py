"""What requests cost, and how far budgets are used, as metrics. The ledger decides, not this."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge

from tutelage.serving.access.budgets import all_accounts, levels
from tutelage.serving.access.pricing import Pricing
from tutelage.serving.hooks import Ask, Outcome
from tutelage.serving.monitoring.telemetry import LOCAL_KEY
from tutelage.serving.state import GatewayState

_ALL = "*"  # the label of a budget that is not one key's or one deployment's
_ACCOUNTS = 500  # budgets shown, at most


class SpendMeters:
    """The metrics of one registry; nothing here counts."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.cost = Counter(
            "tutelage_cost", "What answers cost, by the prices of tutelage.yaml.",
            ["deployment", "release", "key", "currency"], registry=registry,
        )  # fmt: skip
        self.used = Gauge(
            "tutelage_budget_used_ratio", "Used share of a budget in its period.",
            ["key", "deployment", "unit", "per"], registry=registry,
        )  # fmt: skip


class Spend:
    """Counts one gateway's cost, and samples the budgets of its store."""

    def __init__(self, state: GatewayState, meters: SpendMeters) -> None:
        self._state, self._meters = state, meters
        self._pricing = Pricing(state.project)
        self._shown: set[tuple[str, str, str, str]] = set()

    def finished(self, ask: Ask, outcome: Outcome) -> None:
        """Add what a request cost, where there is a price."""
        tokens = (outcome.prompt_tokens, outcome.completion_tokens)
        if not self._pricing.known or (outcome.status != 200 and not sum(tokens)):
            return
        seconds = outcome.latency_ms / 1000
        cost = self._pricing.cost(ask.release_name, ask.tuned, tokens, seconds)
        if cost:
            name = (ask.deployment, ask.release[:12], ask.key or LOCAL_KEY)
            self._meters.cost.labels(*name, self._pricing.currency).inc(cost)

    def sample(self) -> None:
        """Read how far each budget is used; a database call. One that is gone is not shown."""
        found = self._ratios()
        for labels in self._shown - set(found):
            self._meters.used.remove(*labels)
        for labels, ratio in found.items():
            self._meters.used.labels(*labels).set(ratio)
        self._shown = set(found)

    def _ratios(self) -> dict[tuple[str, str, str, str], float]:
        state = self._state
        if not (state.project.budgets or any(c.budgets for c in state.keys.callers())):
            return {}
        accounts = all_accounts(
            state.project.budgets, state.keys.callers(), list(state.router.entries)
        )
        return {
            (one["key"] or _ALL, one["deployment"] or _ALL, one["unit"], one["per"]): (
                one["spent"] / one["limit"] if one["limit"] else 1.0
            )
            for one in levels(state.store, accounts[:_ACCOUNTS])
        }
