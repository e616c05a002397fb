"""What a scorer is: one value for one (row, text), with the evidence for it.

A scorer is any class of the plug-in group `tutelage.scorers`. It is built with the answer's shape
and gives a Score; a value of None means "could not be scored", which is counted, never averaged.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from tutelage.core.example import Example
from tutelage.core.output import OutputFormat
from tutelage.core.plugins import load


@dataclass(frozen=True)
class Score:
    """One value, higher is better, usually 0..1; None if the row could not be scored."""

    value: float | None
    evidence: dict[str, Any] = field(default_factory=dict)


class Scorer(Protocol):
    """Judges one text against one row. `score` never raises for what a model wrote."""

    def score(self, row: Example, text: str) -> Score: ...


PLAIN = OutputFormat()  # free text, no labels
NO_REFERENCE = Score(None, {"why": "the row has no reference answer"})


def make_scorer(
    name: str, output: OutputFormat, json_schema: Mapping[str, Any] | None = None
) -> Scorer:
    """Return the scorer plug-in `name`, built for this shape of answer.

    Raises ConfigError that lists the known scorers if there is none of that name.
    """
    scorer: Scorer = load("scorers", name)(output, json_schema)
    return scorer
