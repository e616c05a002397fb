"""How likely the model finds the reference answer: perplexity, and the chance a token.

It needs a model that shows likelihoods; the answer that it writes does not matter.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from tutelage.core.example import Example
from tutelage.core.output import OutputFormat
from tutelage.evaluation.rows import RowResult
from tutelage.evaluation.scorers.base import NO_REFERENCE, PLAIN, Score

_NOT_WEIGHED = Score(None, {"why": "the model shows no likelihood of the reference"})


class Perplexity:
    """Mean chance (geometric) that the model gives to each token of the reference, 0..1.

    It is 1 / perplexity, so that higher is better; the perplexity stands in the evidence.
    """

    likelihood = True

    def __init__(
        self, output: OutputFormat = PLAIN, json_schema: Mapping[str, object] | None = None
    ) -> None:
        del output, json_schema

    def score_answer(self, row: Example, answer: RowResult) -> Score:
        """Read the reference's likelihood that was noted beside the answer."""
        if row.answer is None:
            return NO_REFERENCE
        nll, tokens = answer.detail.get("reference_nll"), answer.detail.get("reference_tokens")
        if nll is None or not tokens:
            return _NOT_WEIGHED
        per_token = nll / tokens
        evidence = {"perplexity": math.exp(min(per_token, 700.0)), "nll": nll, "tokens": tokens}
        return Score(math.exp(-per_token), evidence)

    def score(self, row: Example, text: str) -> Score:
        """Leave the row open: a text alone has no likelihood."""
        del row, text
        return _NOT_WEIGHED

    def summary(self, scores: Mapping[str, Score]) -> dict[str, float]:
        """Return the perplexity over all tokens of all references."""
        kept = [score.evidence for score in scores.values() if score.value is not None]
        tokens = sum(e["tokens"] for e in kept)
        if not tokens:
            return {}
        return {"over_all_tokens": math.exp(min(sum(e["nll"] for e in kept) / tokens, 700.0))}
