"""What a scorer is: one value for one (row, text), with the evidence for it.

A scorer is any class of the plug-in group `tutelage.scorers`. Without settings it is built with
the answer's shape; a class with an attribute `Options` (a Section) is built with those options
and the Place it works in. A value of None means "could not be scored": counted, never averaged.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from pydantic import ValidationError

from tutelage.core.config_base import Section
from tutelage.core.errors import ConfigError, nearest
from tutelage.core.events import Emit, silent
from tutelage.core.example import Example
from tutelage.core.output import OutputFormat
from tutelage.core.plugins import load


@dataclass(frozen=True)
class Score:
    """One value, higher is better, usually 0..1; None if the row could not be scored."""

    value: float | None
    evidence: dict[str, Any] = field(default_factory=dict)


class Scorer(Protocol):
    """Judges one text against one row. `score` never raises for what a model wrote.

    A scorer may also have `prepare(pairs)`, called with all (row, answer) of a candidate before
    any is scored; `score_answer(row, answer)`, which sees the whole RowResult in place of its
    text; and `summary(scores)`, figures of a whole candidate by name. `rule = True` files its
    scores as those of a rule.
    """

    def score(self, row: Example, text: str) -> Score: ...


PLAIN = OutputFormat()  # free text, no labels
NO_REFERENCE = Score(None, {"why": "the row has no reference answer"})


@dataclass(frozen=True)
class Place:
    """Where a scorer works: the shape of answers, the project's folder, and how tokens count."""

    output: OutputFormat = PLAIN
    json_schema: Mapping[str, Any] | None = None
    root: Path | None = None  # files are looked for in here only
    samples: int = 0  # answers drawn for a row besides the greedy one
    count_tokens: Callable[[str], int] | None = None
    where: str = ""  # the setting that asked for the scorer, for messages
    emit: Emit = silent  # hears how far a scorer is whose work takes long

    def wrong(self, what: str, fix: str | None = None) -> ConfigError:
        """Return the error of a setting that can't be used."""
        return ConfigError(what, where=self.where or None, fix=fix)


HERE = Place()


def make_scorer(
    name: str,
    output: OutputFormat = PLAIN,
    json_schema: Mapping[str, Any] | None = None,
    *,
    options: Mapping[str, Any] | None = None,
    place: Place | None = None,
) -> Scorer:
    """Return the scorer plug-in `name`, built for this shape of answer.

    Raises ConfigError that lists the known scorers if there is none of that name, or names the
    option that is missing, unknown or out of bounds.
    """
    place = place or Place(output, json_schema)
    try:
        kind = load("scorers", name)
    except ConfigError as error:
        raise place.wrong(error.what, error.fix) from error
    known: type[Section] | None = getattr(kind, "Options", None)
    if known is None:
        if options:
            raise place.wrong(
                f"{name!r} takes no options, and {next(iter(options))!r} was given",
                "Leave it out",
            )
        plain: Scorer = kind(place.output, place.json_schema)
        return plain
    try:
        settings = known.model_validate(dict(options or {}))
    except ValidationError as error:
        problems = [_problem(item, known) for item in error.errors()]
        raise place.wrong(
            f"{name}: {'; '.join(problems)}", "Correct the scorer's options"
        ) from error
    scorer: Scorer = kind(settings, place)
    return scorer


def _problem(item: Any, known: type[Section]) -> str:
    key = ".".join(str(part) for part in item["loc"])
    names = [found.alias or name for name, found in known.model_fields.items()]
    if item["type"] == "extra_forbidden":
        near = nearest(key, names, cutoff=0.4)
        hint = f", did you mean {near!r}" if near else f", its options are {', '.join(names)}"
        return f"unknown option {key!r}{hint}"
    if item["type"] == "missing":
        return f"the option {key!r} is missing"
    message = str(item["msg"]).removeprefix("Value error, ")
    return f"{key + ': ' if key else ''}{message[0].lower()}{message[1:]}"
