"""How far a model wavered over its answer, from the log-probabilities a client asked for.

Nothing is asked of the engine for it: an answer without log-probabilities has no such figure.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any


def token_entropy(tokens: Sequence[Mapping[str, Any]]) -> float | None:
    """Return the mean entropy of the tokens in nats, or None if none can be read.

    `tokens` is `logprobs.content` of an answer. Of a token with `top_logprobs` it is the entropy
    of those, what is left of the probability counted as one more; of others -ln p of the token.
    """
    found = [value for token in tokens if (value := _entropy(token)) is not None]
    return round(math.fsum(found) / len(found), 4) if found else None


def _entropy(token: Mapping[str, Any]) -> float | None:
    try:
        listed = token.get("top_logprobs") or ()
        if len(listed) < 2:
            value = -float(token["logprob"])
            return max(value, 0.0) if math.isfinite(value) else None
        chances = [math.exp(min(float(one["logprob"]), 0.0)) for one in listed]
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError):
        return None
    rest = max(1.0 - math.fsum(chances), 0.0)
    entropy = -math.fsum(p * math.log(p) for p in (*chances, rest) if p > 0)
    return max(entropy, 0.0) if math.isfinite(entropy) else None
