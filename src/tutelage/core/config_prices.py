"""The section `prices` of tutelage.yaml: what tokens and machine time cost."""

from __future__ import annotations

from pydantic import Field

from tutelage.core.config_base import Section


class TokenPrice(Section):
    """Prices of a million tokens at a service."""

    prompt: float = Field(ge=0)  # of what is asked
    cached: float | None = Field(default=None, ge=0)  # of what it had cached; unset: as the prompt
    completion: float = Field(ge=0)  # of what is answered


class Prices(Section):
    """What an answer costs: by tokens where a price is known, else by the machine's time."""

    currency: str = Field(default="USD", min_length=1, max_length=8)  # shown beside every figure
    # what an hour of the machine that answers costs; unset: train.hour_price
    hour: float | None = Field(default=None, ge=0)
    # by a candidate's name (base, tuned, ...) or the model's
    tokens: dict[str, TokenPrice] = {}
