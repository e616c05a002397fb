"""The section `evaluate.judge` of tutelage.yaml: what a model is asked when it marks answers."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator

from tutelage.core.config_base import Ratio, Section


class JudgeCriterion(Section):
    """One question about an answer. The judge answers it by itself, not among others."""

    name: str = Field(pattern=r"^[a-z][a-z0-9_]*$", max_length=32)  # ends the metric's name
    question: str = Field(min_length=8)  # what is asked about the answer
    # what each level looks like, the worst first; the judge names one of them
    levels: list[str] = Field(min_length=2, max_length=10)

    @field_validator("levels")
    @classmethod
    def _differ(cls, levels: list[str]) -> list[str]:
        if len(set(levels)) < len(levels):
            raise ValueError("every level needs words of its own")
        return levels


class JudgeSettings(Section):
    """How the `judge` marks answers. Rows leave the house; without this section none is asked."""

    # pointwise: each answer on each criterion; pairwise: the tuned model's answer against another
    mode: Literal["pointwise", "pairwise"] = "pointwise"
    rubric: list[JudgeCriterion] = []  # empty: one that is built in for the task
    reference: bool = True  # the judge sees the row's reference answer, where there is one
    against: list[str] = ["base"]  # pairwise: whose answers the tuned model's are held against
    # whose answers are marked pointwise; a candidate that is not there is passed over
    candidates: list[str] = ["base", "few_shot", "stable", "tuned"]
    rows: int | None = Field(default=None, ge=1)  # test rows that are judged; unset: all
    panel: Literal["mean", "majority"] = "mean"  # how several judges' levels become one
    temperature: float = Field(default=0.0, ge=0, le=2)  # of the judge
    answer_tokens: int = Field(default=512, ge=32)  # tokens a verdict may take, reasons included
    tokens: int = Field(default=1_000_000, ge=1)  # budget of one evaluation's verdicts
    money: float | None = Field(default=None, gt=0)  # the same in money, by prices.tokens
    least_kappa: Ratio = 0.6  # agreement with experts below which a judge may not gate
    least_rows: int = Field(default=50, ge=10)  # answers that experts must have judged for that
    concurrency: int = Field(default=8, ge=1, le=256)  # requests at a judge at once

    @field_validator("rubric")
    @classmethod
    def _names_differ(cls, rubric: list[JudgeCriterion]) -> list[JudgeCriterion]:
        names = [criterion.name for criterion in rubric]
        if len(set(names)) < len(names):
            raise ValueError("two criteria have the same name")
        return rubric
