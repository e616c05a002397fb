"""What answers cost in money: by their tokens, or by the machine's time while they were made.

The figure is the price of 1,000 answers, from measured tokens or measured time and the project's
prices. By time, a row's share is its batch's time divided by the batch's rows: the machine works
for all of them at once, and costs more a row if fewer come together.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from tutelage.core.config_prices import Prices, TokenPrice
from tutelage.evaluation.candidates import BASE, CONSTRAINED, FEW_SHOT
from tutelage.evaluation.measures import COST
from tutelage.evaluation.rows import RowResult
from tutelage.evaluation.scorers.base import Score
from tutelage.evaluation.scoring import Scored

PER = 1000  # answers that the figure is the price of
_MILLION = 1_000_000
_HOUR_MS = 3_600_000


@dataclass(frozen=True)
class Rate:
    """How one candidate's answers are priced. `hour` is used where there are no token prices."""

    currency: str
    tokens: TokenPrice | None = None
    hour: float | None = None

    @property
    def basis(self) -> Literal["tokens", "time"]:
        """What is multiplied with the prices."""
        return "tokens" if self.tokens is not None else "time"


def rate_of(
    prices: Prices, candidate: str, models: Iterable[str] = (), hour: float | None = None
) -> Rate | None:
    """Return how a candidate is priced; None if no price is known.

    Looked up is its name (few_shot also as base), then those of `models`, then the hour: the
    section's own, or `hour`.
    """
    name = candidate.removesuffix(CONSTRAINED)
    names = [candidate, name, *([BASE] if name == FEW_SHOT else []), *models]
    found = next((prices.tokens[known] for known in names if known in prices.tokens), None)
    if found is not None:
        return Rate(prices.currency, tokens=found)
    price = prices.hour if prices.hour is not None else hour
    return Rate(prices.currency, hour=price) if price is not None else None


def cost_scores(rows: Iterable[RowResult], rate: Rate) -> dict[str, Score]:
    """Return the price of 1,000 answers like each row's, by example id.

    A row without measured tokens or time is left out.
    """
    answered = [row for row in rows if not row.failed]
    shares = _shares_ms(answered)
    found: dict[str, Score] = {}
    for row in answered:
        price = (
            token_price(row, rate.tokens) if rate.tokens else _time_price(shares[row.item], rate)
        )
        if price is not None:
            evidence = {"currency": rate.currency, "basis": rate.basis, "answers": PER}
            found[row.item] = Score(price * PER, evidence)
    return found


def token_price(row: RowResult, price: TokenPrice) -> float | None:
    """Return what one answer's tokens cost; None if none were counted."""
    if row.prompt_tokens + row.completion_tokens == 0:
        return None
    cached = min(row.cached_tokens, row.prompt_tokens)
    for_cached = price.prompt if price.cached is None else price.cached
    total = (row.prompt_tokens - cached) * price.prompt + cached * for_cached
    return (total + row.completion_tokens * price.completion) / _MILLION


def document(scored: Mapping[str, Scored]) -> dict[str, Any] | None:
    """Return the report's part on cost, read from the scores; None where nothing has a price."""
    entries, bases = [], set()
    for one in scored.values():
        first = next((s for s in one.scores.get(COST, {}).values() if s.value is not None), None)
        mean = one.means.get(COST)
        if first is None or mean is None or math.isnan(mean.estimate):
            continue
        currency, basis = first.evidence.get("currency", ""), first.evidence.get("basis", "")
        bases.add(basis)
        entries.append(
            {
                "name": one.name,
                "title": one.title,
                f"{currency}_for_{PER}_answers": mean.estimate,
                "low": mean.low,
                "high": mean.high,
                "by": basis,
            }
        )
    if not entries:
        return None
    notes = {
        "tokens": "By tokens: what was counted, times the prices of tutelage.yaml.",
        "time": "By time: the price of an hour, for as long as the answers took in batches of "
        "this evaluation on this machine.",
    }
    return {"candidates": entries, "note": " ".join(notes[b] for b in sorted(bases) if b in notes)}


def _time_price(share_ms: float, rate: Rate) -> float | None:
    if rate.hour is None or share_ms <= 0:
        return None
    return share_ms / _HOUR_MS * rate.hour


def _shares_ms(rows: Iterable[RowResult]) -> dict[str, float]:
    """Return each row's share of its batch's time; what was chosen from a list has its own."""
    together: dict[int, list[RowResult]] = defaultdict(list)
    shares: dict[str, float] = {}
    for row in rows:
        if row.finish == "chosen":
            shares[row.item] = row.latency_ms
        else:
            together[row.batch].append(row)
    for batch in together.values():
        each = max(row.latency_ms for row in batch) / len(batch)
        shares.update({row.item: each for row in batch})
    return shares
