"""The section `improve` of tutelage.yaml: when the loop turns by itself, and how far it may go.

Says what is allowed; nothing here runs.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Literal

from pydantic import Field, field_validator, model_validator

from tutelage.core.config_base import Ratio, Section
from tutelage.core.durations import Duration

_CLOCK = r"(?:[01]\d|2[0-3]):[0-5]\d"
_SPAN = re.compile(rf"^{_CLOCK}-{_CLOCK}$")
_DAY = 24 * 60  # minutes


def _minutes(span: str) -> Iterator[int]:
    """Yield the minutes of the day in a span; one that ends before it begins goes over midnight."""
    begin, end = (int(clock[:2]) * 60 + int(clock[3:]) for clock in span.split("-"))
    for minute in range(begin, end if end > begin else end + _DAY):
        yield minute % _DAY


class Budget(Section):
    """What one turn of `improve` may spend."""

    minutes: float = Field(default=60, gt=0)  # of work; waiting for people does not count
    tokens: int = Field(default=200_000, ge=0)  # of a teacher or judge


class Review(Section):
    """What experts are asked in a turn, and which edits of users count without them."""

    count: int = Field(default=40, ge=0)  # rows that are given out; 0: nobody is asked
    people: list[str] = []  # names of annotators; empty: everybody who is active
    wait: Duration = "14d"  # the turn then goes on with what was decided
    # agreed: an edit counts if a second person says the same, or its author is trusted;
    # all: every edit counts; review: only what experts decided counts
    edits: Literal["agreed", "all", "review"] = "agreed"
    # an author is trusted once their edits agree with the experts this often, for certain
    agreement: Ratio = 0.8


class Improve(Section):
    """When and how far the loop may run by itself."""

    every: str | None = Field(default=None, pattern=r"^[1-9]\d*[hdw]$")  # such as 12h, 30d or 4w
    cron: str | None = None  # minute hour day month weekday, such as "0 3 1 * *"; or `every`
    on_drift: bool = False  # a drift alarm starts a turn
    on_labels: int | None = Field(default=None, ge=1)  # this many new labels start a turn
    new_rows: int = Field(default=25, ge=1)  # reviewed rows that make a new turn worthwhile
    quiet: list[str] = []  # hours in which no work begins, local time, such as 08:00-18:00
    budget: Budget = Budget()
    review: Review = Review()
    # rows of one label, at most this many times the mean of all labels; more wait their turn
    balance: float = Field(default=3.0, ge=1)
    # what training starts from; auto: a short probe of both decides
    start: Literal["auto", "base", "adapter"] = "auto"
    # where the rows can't tell the candidate from the stable release: a person is asked, or live
    # traffic decides in the canary, or nothing is released
    unsure: Literal["ask", "canary", "stop"] = "ask"

    @field_validator("cron")
    @classmethod
    def _is_a_cron(cls, value: str | None) -> str | None:
        if value is not None and len(value.split()) != 5:
            raise ValueError('write five parts, minute hour day month weekday, as "0 3 1 * *"')
        return value

    @field_validator("quiet")
    @classmethod
    def _are_hours(cls, value: list[str]) -> list[str]:
        for span in value:
            if not _SPAN.match(span):
                raise ValueError(f"{span!r} is no span of hours: write 22:00-06:00")
        if len({minute for span in value for minute in _minutes(span)}) == _DAY:
            raise ValueError(f"{', '.join(value)} is the whole day: no turn would ever begin")
        return value

    @model_validator(mode="after")
    def _one_clock(self) -> Improve:
        if self.every is not None and self.cron is not None:
            raise ValueError("give every or cron, not both")
        return self

    @property
    def starts_by_itself(self) -> bool:
        """Whether anything but a person starts a turn."""
        return bool(self.every or self.cron or self.on_drift or self.on_labels)
