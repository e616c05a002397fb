"""The section `feedback` of tutelage.yaml: which signals there are, and what they say of an answer.

Says what is allowed; feedback/signals.py holds the built-in signals and reads deliveries.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from tutelage.core.config_base import Section
from tutelage.core.durations import Duration, seconds

SignalName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,31}$")]
SignalKind = Literal["flag", "number", "seconds", "text"]
_TEXTS = ("rating", "edit", "comment")  # of a fixed form: only their weight is anybody's choice


class Signal(Section):
    """One signal. What is unset stays as built in; of a new name it is as said here."""

    # up: more is better; down: worse; none: kept, and says nothing of the answer; unset: up
    direction: Literal["up", "down", "none"] | None = None
    # in the score of an answer; unset: 1 if explicit, else 0.5
    weight: float | None = Field(default=None, ge=0, le=100)
    explicit: bool | None = None  # true: somebody said it; false: it was seen; unset: false
    # flag: it happened or not; seconds: a length of time; text says nothing by itself; unset: flag
    kind: SignalKind | None = None
    # the values that count 0 and 1 before the direction; unset: 0 and 1, seconds: 0 and 60
    between: tuple[float, float] | None = None

    @model_validator(mode="after")
    def _makes_sense(self) -> Signal:
        if self.between is not None and not self.between[0] < self.between[1]:
            raise ValueError("between must be two rising numbers, such as [0, 10]")
        if self.kind == "text" and self.direction in ("up", "down"):
            raise ValueError("text has no direction: set direction to none, or another kind")
        return self


class Feedback(Section):
    """What users' signals mean, and what is read from the order of their requests."""

    signals: dict[SignalName, Signal] = {}  # your own, and other weights for the built-in ones
    # time_to_next, retried and abandoned, from requests that name a user
    from_traffic: bool = True
    retry_within: Duration = "2m"  # asked again within this is retried
    session: Duration = "30m"  # a user who is silent for longer has left
    alike: float = Field(default=80.0, ge=50, le=100)  # percent of letters of the same question
    every: Duration = "5m"  # between two looks at the traffic

    @field_validator("signals")
    @classmethod
    def _fixed_forms_stay(cls, value: dict[str, Signal]) -> dict[str, Signal]:
        for name in _TEXTS:
            if name in value and value[name].model_fields_set - {"weight"}:
                raise ValueError(f"of {name} only the weight can be set")
        return value

    @model_validator(mode="after")
    def _lengths_fit(self) -> Feedback:
        if seconds(self.retry_within) > seconds(self.session):
            raise ValueError("retry_within is longer than session")
        if not 1 <= seconds(self.every) <= 86_400:
            raise ValueError("every must be between 1s and 1d")
        return self
