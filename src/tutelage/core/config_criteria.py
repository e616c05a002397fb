"""The list `evaluate.criteria` of tutelage.yaml: one readable requirement a line."""

from __future__ import annotations

from pydantic import Field, model_validator

from tutelage.core.config_base import Section

PRIMARY = "primary"  # stands for evaluate.primary


class Better(Section):
    """The whole interval of the candidate's gain lies above `by`."""

    metric: str = PRIMARY  # a scorer's name, refusals, latency_p95, tokens, cost
    than: str = "base"  # base, few_shot, stable, tfidf, or a name in evaluate.against
    by: float = Field(default=0.0, ge=0)  # in the metric's unit


class NotWorse(Section):
    """The whole interval of the candidate's loss lies within `by`, or its ratio within `times`."""

    metric: str = PRIMARY  # a scorer's name, refusals, latency_p95, tokens, cost
    than: str = "base"  # base, few_shot, stable, tfidf, or a name in evaluate.against
    by: float | None = Field(default=None, gt=0)  # in the metric's unit
    times: float | None = Field(default=None, ge=1)  # for latency, tokens and cost

    @model_validator(mode="after")
    def _has_one_limit(self) -> NotWorse:
        if (self.by is None) == (self.times is None):
            raise ValueError("not_worse takes a limit: either by, in the metric's unit, or times")
        return self


class Bound(Section):
    """The whole interval lies on the right side of `value`."""

    metric: str = PRIMARY  # a scorer's name, refusals, latency_p95, tokens, cost
    value: float  # in the metric's unit: a ratio 0..1, milliseconds, tokens


class Requirement(Section):
    """One line of `evaluate.criteria`: exactly one of these."""

    better: Better | None = None  # superiority over another candidate
    not_worse: NotWorse | None = None  # non-inferiority to another candidate
    at_least: Bound | None = None  # the interval's lower end must reach the value
    at_most: Bound | None = None  # the interval's upper end must stay below the value
    golden: str | None = None  # file of rows with answers, relative to the project; all must pass
    must_pass: list[str] | None = None  # ids of test rows; all must pass

    @model_validator(mode="after")
    def _is_one(self) -> Requirement:
        given = [name for name in type(self).model_fields if getattr(self, name) is not None]
        if len(given) != 1:
            names = ", ".join(type(self).model_fields)
            raise ValueError(f"a criterion is exactly one of {names}, not {len(given)} of them")
        return self

    @property
    def than(self) -> str | None:
        """The other candidate, if there is one."""
        comparison = self.better or self.not_worse
        return comparison.than if comparison else None

    @property
    def metric(self) -> str | None:
        """The metric as it is written, if there is one."""
        part = self.better or self.not_worse or self.at_least or self.at_most
        return part.metric if part else None
