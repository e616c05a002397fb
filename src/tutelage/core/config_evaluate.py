"""The section `evaluate` of tutelage.yaml: how candidates are judged, and what they must hold."""

from __future__ import annotations

import re
from typing import Any, Literal

from pydantic import Field, field_validator

from tutelage.core.config_base import Section
from tutelage.core.config_criteria import Requirement
from tutelage.core.config_judge import JudgeSettings

_METRIC = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.@-]{0,47}")


class Guards(Section):
    """Limits a candidate must stay inside to be released."""

    forgetting: float = Field(default=0.02, ge=0)  # allowed loss on general probes, a ratio
    perplexity: float = Field(default=1.10, ge=1)  # general-text perplexity over the base's
    # KL divergence from the base on general texts, nats a token; unset: reported, not judged
    kl: float | None = Field(default=None, gt=0)
    latency_p95: float = Field(default=1.2, ge=1)  # over the base model's
    stable: float = Field(default=0.05, gt=0)  # allowed loss of the primary metric on stable


class Evaluate(Section):
    """How candidates are judged on the frozen test split."""

    primary: str = "auto"  # auto: accuracy for classification, else by task
    guards: Guards = Guards()
    confidence: float = Field(default=0.95, gt=0.5, lt=1)  # of every interval
    few_shot: int = Field(default=6, ge=0)  # examples in the few-shot baseline's prompt
    max_new_tokens: int | None = Field(default=None, ge=1)  # unset: the longest answer and 8 more
    # with a closed list of labels: text as production writes it, the likeliest label, or both
    answers: Literal["both", "free", "list"] = "both"
    batch_size: int = Field(default=512, ge=1)  # pinned: it can flip greedy ties
    # rows that are asked again one at a time, for what a single user waits; 0: none
    latency_rows: int = Field(default=20, ge=0)
    # more metrics: a scorer's name, or {name, as: its name in reports, and the scorer's options}
    scorers: list[str | dict[str, Any]] = []
    samples: int = Field(default=0, ge=0)  # answers drawn a row, for pass@k; none is greedy
    temperature: float = Field(default=0.8, gt=0, le=2)  # of those that are drawn
    must_pass: list[str] = []  # example ids that may not fail
    # JSONL files of own questions {question, choices, answer} and texts {text}; same limits
    probes: list[str] = []
    # what it must beat: base, few_shot, stable, a release, an adapter's id; empty: base, few_shot
    against: list[str] = []
    # what a candidate must hold, in place of those comparisons; the guards hold all the same
    criteria: list[Requirement] = []
    judge: JudgeSettings | None = None  # set: every evaluation asks the judge too

    @field_validator("scorers")
    @classmethod
    def _named_once(cls, value: list[str | dict[str, Any]]) -> list[str | dict[str, Any]]:
        seen: set[str] = set()
        for entry in value:
            given = {"name": entry} if isinstance(entry, str) else entry
            if not isinstance(given.get("name"), str):
                raise ValueError("each scorer is a name, or a mapping with the key name")
            shown = given.get("as", given["name"])
            if not isinstance(shown, str) or not _METRIC.fullmatch(shown):
                raise ValueError(f"{shown!r} can't stand in a report: letters, digits and _.@-")
            if shown in seen:
                raise ValueError(f"{shown!r} stands there twice; give one another name with as")
            seen.add(shown)
        return value
