"""The section `live_evaluation` of tutelage.yaml: which served answers are scored, how, and when
a release counts as worse. Says what is allowed; scores nothing.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, field_validator

from tutelage.core.config_base import Ratio, Section

Check = Literal["format", "no_refusal", "no_toxicity", "no_leak"]
CHECKS: tuple[Check, ...] = ("format", "no_refusal", "no_toxicity", "no_leak")


class LiveEvaluation(Section):
    """Scores of answers while they are served. Without this section none is given."""

    share: Ratio = 0.1  # of the answered requests, drawn by record id
    rollout_share: Ratio = 1.0  # the same while a rollout moves traffic, of both releases
    # what every drawn answer is checked for; the check's name is the metric's
    checks: list[Check] = list(CHECKS)
    # metrics that need no reference answer, written as in evaluate.scorers
    scorers: list[str | dict[str, Any]] = []
    judge: bool = False  # the project's judge marks them too: texts leave the house
    judge_share: Ratio = 1.0  # of the drawn answers that the judge is asked about
    tokens: int = Field(default=200_000, ge=1)  # the judge's budget of a day (UTC)
    # risk that a release is ever called worse although it is not, over all its metrics
    alpha: float = Field(default=0.01, gt=0, lt=0.5)
    drop: Ratio = 0.02  # how far a mean score may lie under that of the release before
    least: dict[str, Ratio] = {}  # by metric: what a mean score may not lie under

    @field_validator("scorers")
    @classmethod
    def _are_named(cls, value: list[str | dict[str, Any]]) -> list[str | dict[str, Any]]:
        names = [entry if isinstance(entry, str) else entry.get("as", entry.get("name"))
                 for entry in value]  # fmt: skip
        if not all(isinstance(name, str) for name in names):
            raise ValueError("each scorer is a name, or a mapping with the key name")
        taken = [*CHECKS, "judge"]
        for place, name in enumerate(names):
            if name in taken or name in names[:place]:
                raise ValueError(f"{name!r} is taken; give the scorer another name with as")
        return value
