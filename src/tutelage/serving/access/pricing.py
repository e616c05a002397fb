"""What requests cost in money, from the prices of tutelage.yaml: by tokens, else by their time.

A release is priced by its name, as base or tuned, by its model's names, else by the hour.
"""

from __future__ import annotations

from functools import cache

from tutelage.core.config import Project
from tutelage.evaluation.cost import Rate, rate_of

_MILLION = 1_000_000
_HOUR_S = 3600.0


class Pricing:
    """The rates of a project. `currency` is what all figures are in."""

    def __init__(self, project: Project) -> None:
        self._project = project
        self.currency = project.prices.currency
        self.rate = cache(self._rate)

    @property
    def known(self) -> bool:
        """Whether anything has a price."""
        prices = self._project.prices
        hour = prices.hour if prices.hour is not None else self._project.train.hour_price
        return bool(prices.tokens) or hour is not None

    def cost(
        self, release: str, tuned: bool, tokens: tuple[int, int], seconds: float
    ) -> float | None:
        """Return what `tokens` (asked, answered) or `seconds` of a release's name cost.

        None if it has no price.
        """
        rate = self.rate(release, tuned)
        if rate is None:
            return None
        if rate.tokens is not None:
            asked, answered = tokens
            total = asked * rate.tokens.prompt + answered * rate.tokens.completion
            return total / _MILLION
        return seconds * (rate.hour or 0.0) / _HOUR_S

    def _rate(self, release: str, tuned: bool) -> Rate | None:
        project = self._project
        kind = "tuned" if tuned else "base"
        names = [kind, *(backend.model for backend in project.deploy.backends)]
        return rate_of(project.prices, release, [*names, project.model], project.train.hour_price)
