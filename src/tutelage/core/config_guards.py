"""The section `deploy.guards` of tutelage.yaml: what checks of live traffic do.

A layer is off, flag or block, in one word or with options. Says what is allowed; checks nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Literal, cast

from pydantic import BeforeValidator, ConfigDict, Field, model_validator

from tutelage.core.config_base import Ratio, Section, yaml_word

Action = Literal["off", "flag", "block"]
ACTIONS: tuple[Action, ...] = ("off", "flag", "block")  # from the weakest to the strongest


Act = Annotated[Action, BeforeValidator(yaml_word)]


def _one_word(value: object) -> object:
    """Read `schema: block` as `schema: {action: block}`."""
    return {"action": yaml_word(value)} if isinstance(value, (str, bool)) else value


class Layer(Section):
    """What every layer has. `action` holds for its checks that are not named."""

    action: Act = "flag"


class SchemaLayer(Layer):
    """Shape: turns in a possible order, limits of a request, answers in the release's format."""

    action: Act = "flag"  # off, flag or block, for the whole layer
    max_messages: int = Field(default=200, ge=1)  # turns of a request
    max_characters: int = Field(default=200_000, ge=1)  # of all turns together
    input: str | None = None  # file of a JSON Schema that the last user turn must meet


class RequestChecks(Section):
    """Checks of what the client sent. Unset: the layer's action."""

    empty: Act | None = None  # the last turn says nothing
    control: Act | None = None  # a turn spells a control token; it is made inert all the same
    secrets: Act | None = None  # keys, tokens and passwords
    toxicity: Act | None = None  # words of the lists
    pii: Act | None = "off"  # personal identifiers of `kinds`


class AnswerChecks(Section):
    """Checks of what the model wrote. Unset: the layer's action."""

    empty: Act | None = None  # nothing but space
    control: Act | None = None  # a control token as text
    template: Act | None = None  # pieces of a prompt template
    refusal: Act | None = None  # "I can't help with that"
    cut: Act | None = None  # cut off at the token limit
    secrets: Act | None = None  # keys, tokens and passwords that the request did not hold
    toxicity: Act | None = None  # words of the lists
    pii: Act | None = None  # personal identifiers that neither request nor prompt held


class ContentLayer(Layer):
    """Content: what texts hold, whatever the task."""

    action: Act = "flag"  # of every check below that is not named
    request: RequestChecks = RequestChecks()
    answer: AnswerChecks = AnswerChecks()
    detector: str = "rules"  # a plug-in of tutelage.detectors
    kinds: list[str] = ["email", "phone", "fax", "ssn", "account"]  # of identifiers, for pii
    languages: list[str] = ["en"]  # whose word lists count; `all` for every one
    words: list[str] = []  # files with words of your own, one a line
    allow: list[str] = []  # words of the lists that are fine here
    max_characters: int = Field(default=50_000, ge=1000)  # longer texts can't be vouched for


class StatisticsLayer(Layer):
    """Statistics: live traffic against the rows that the release was evaluated on."""

    action: Act = "flag"  # of `length` and `language`, unless named
    length: Act | None = None  # far longer or shorter than any golden row
    language: Act | None = None  # a language that the golden rows do not hold
    drift: bool = True  # watch lengths, languages and labels over many requests
    rows: int = Field(default=50, ge=10)  # golden rows before anything is judged
    run_length: int = Field(default=10_000, ge=100)  # requests between false alarms, on average
    window: int = Field(default=200, ge=50)  # latest requests whose shares are told
    notable: Ratio = 0.1  # stability index under which a drift is too small to tell


class LiveGuards(Section):
    """Checks of requests and answers: off, flag or block. A key of its own for every plug-in."""

    model_config = ConfigDict(extra="allow", frozen=True, populate_by_name=True)

    schema_: Annotated[SchemaLayer, BeforeValidator(_one_word)] = Field(
        default=SchemaLayer(), alias="schema"
    )  # the shape of requests and answers
    content: Annotated[ContentLayer, BeforeValidator(_one_word)] = ContentLayer()  # what they hold
    statistics: Annotated[StatisticsLayer, BeforeValidator(_one_word)] = StatisticsLayer()

    @model_validator(mode="after")
    def _plug_ins_have_an_action(self) -> LiveGuards:
        for name, value in (self.model_extra or {}).items():
            action, _ = _of_plug_in(value)
            if action not in ACTIONS:
                raise ValueError(f"{name} must be off, flag or block, or a section with `action`")
        return self

    def layers(self) -> Iterator[tuple[str, Action, Any]]:
        """Yield name, action and options: the three layers, then plug-ins as they stand.

        A layer's options are its section, a plug-in's the other keys of its own.
        """
        yield "schema", self.schema_.action, self.schema_
        yield "content", self.content.action, self.content
        yield "statistics", self.statistics.action, self.statistics
        for name, value in (self.model_extra or {}).items():
            action, options = _of_plug_in(value)
            yield name, cast(Action, action), options


def _of_plug_in(value: Any) -> tuple[Any, dict[str, Any]]:
    """Return the action and the other keys of what stands under a plug-in's name."""
    if isinstance(value, dict):
        return yaml_word(value.get("action", "flag")), {
            k: v for k, v in value.items() if k != "action"
        }
    return yaml_word(value), {}
