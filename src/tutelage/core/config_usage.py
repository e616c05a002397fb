"""The section `budgets` of tutelage.yaml: how much may be used in a period, and by whom.

Says what is allowed; serving/access/budgets.py holds requests to it.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from tutelage.core.config_base import Section

Period = Literal["minute", "hour", "day", "month", "total"]


class UsageBudget(Section):
    """What requests may use in a period (UTC): all of them, one key's, or each key's by itself."""

    key: str | None = None  # a key's name; "*": each key by itself; unset: everybody together
    deployment: str | None = None  # only requests to it; unset: to all of them
    requests: int | None = Field(default=None, ge=0)  # that reach the engine
    tokens: int | None = Field(default=None, ge=0)  # asked and answered
    cost: float | None = Field(default=None, ge=0)  # in prices.currency
    per: Period = "month"  # when it starts anew; total: never

    @model_validator(mode="after")
    def _limits_something(self) -> UsageBudget:
        if (self.requests, self.tokens, self.cost) == (None, None, None):
            raise ValueError("a budget needs requests, tokens or cost")
        return self
