"""The section `evaluate` of tutelage.yaml: how candidates are judged, and what they must hold."""

from __future__ import annotations

from pydantic import Field

from tutelage.core.config_base import Section


class Guards(Section):
    """Limits a candidate must stay inside to be released."""

    forgetting: float = Field(default=0.02, ge=0)  # allowed loss on general probes, a ratio
    perplexity: float = Field(default=1.10, ge=1)  # general-text perplexity over the base's
    latency_p95: float = Field(default=1.2, ge=1)  # over the base model's


class Evaluate(Section):
    """How candidates are judged on the frozen test split."""

    primary: str = "auto"  # auto: accuracy for classification, else by task
    guards: Guards = Guards()
    confidence: float = Field(default=0.95, gt=0.5, lt=1)  # of every interval
    few_shot: int = Field(default=6, ge=0)  # examples in the few-shot baseline's prompt
    max_new_tokens: int | None = Field(default=None, ge=1)  # unset: the longest answer and 8 more
    batch_size: int = Field(default=8, ge=1)  # pinned: it can flip greedy ties
    must_pass: list[str] = []  # example ids that may not fail
