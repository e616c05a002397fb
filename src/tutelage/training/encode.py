"""Rows to token ids and label weights, through the same `render` that inference uses.

Only answer tokens are labelled (and prompt tokens as far as `prompt_loss_weight` says). Truncation
cuts the context, never the answer, and nothing is lost silently: the Coverage counts and names it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from tutelage.core.errors import DataError
from tutelage.core.example import Example
from tutelage.inference.chat import conversation
from tutelage.training.packing import borders, text_ids
from tutelage.training.prefix_tree import Row
from tutelage.training.replay import is_replay

NAMED = 5  # ids an error message spells out


@dataclass(frozen=True)
class Coverage:
    """What became of the rows. `labelled` counts answer tokens that carry a loss.

    `shortened` rows lost context tokens to `max_tokens`; `rejected` maps a row's id to why it is
    not trained on, `places` to the file and line it is from, where that is known.
    """

    rows: int
    tokens: int
    labelled: int
    longest: int
    shortened: tuple[str, ...]
    rejected: dict[str, str]
    places: dict[str, str] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """Return the report for history.json."""
        return asdict(self)

    def sentence(self) -> str:
        """Return the report in one line."""
        text = f"{self.labelled} labelled of {self.tokens} tokens in {self.rows} rows"
        if self.shortened:
            text += f", {len(self.shortened)} with a shortened context"
        if self.rejected:
            text += f", {len(self.rejected)} rejected ({self.why_rejected()})"
        return text

    def why_rejected(self) -> str:
        """Return the first rejected rows, by their place or else their id, each with the reason."""
        told = [f"{self.places.get(name, name)}: {why}" for name, why in self.rejected.items()]
        return _names(told, "; ")


@dataclass(frozen=True)
class Encoded:
    """Rows ready to train on, and the report about all rows that came in."""

    rows: list[Row]
    coverage: Coverage


def encode(
    examples: Sequence[Example],
    tokenizer: Any,
    prompt: str,
    *,
    max_tokens: int,
    prompt_loss_weight: float = 0.0,
) -> Encoded:
    """Return the rows of `examples` under the project's `prompt`.

    Raises DataError, naming row ids, if no row is left with a labelled token.
    """
    from tutelage.inference.transformers import special_tokens

    specials = special_tokens(tokenizer)
    rows: list[Row] = []
    shortened: list[str] = []
    rejected: dict[str, str] = {}
    for example in examples:
        if not (example.answer or "").strip():
            rejected[example.id] = "no answer"
            continue
        context, answer = _ids(example, tokenizer, prompt, specials)
        if is_replay(example):  # general text: as much of it as there is room for
            answer = answer[: max(0, max_tokens - len(context))]
        room = max_tokens - len(answer)
        if room < 1 or not context:
            rejected[example.id] = f"the answer alone has {len(answer)} of {max_tokens} tokens"
            continue
        if len(context) > room:
            shortened.append(example.id)
            context = cut_middle(context, room)
        rows.append(make_row(example.id, context, answer, prompt_loss_weight))
    coverage = Coverage(
        rows=len(rows),
        tokens=sum(len(row.ids) for row in rows),
        labelled=sum(len(row.ids) - row.answer_start for row in rows),
        longest=max((len(row.ids) for row in rows), default=0),
        shortened=tuple(shortened),
        rejected=rejected,
        places=places_of(examples, rejected),
    )
    require_labels(coverage)
    return Encoded(rows, coverage)


def _ids(
    example: Example, tokenizer: Any, prompt: str, specials: Sequence[str]
) -> tuple[list[int], list[int]]:
    """Return the ids before the answer and the answer's.

    Raw text is no conversation, and replayed rows are none of the project's: neither is put under
    the project's prompt. What was cut off (meta "open") is not taught to end there.
    """
    from tutelage.inference.transformers import render

    text = str(example.answer)
    if example.is_text:
        edges = borders(tokenizer)
        context, answer = [edges.start], [*text_ids(tokenizer, text, specials), edges.end]
    else:
        turns = conversation(example, "" if is_replay(example) else prompt, specials)
        rendered = render(tokenizer, turns, answer=text)
        context, answer = list(rendered.prompt_ids), list(rendered.answer_ids)
    return context, answer[:-1] if example.meta.get("open") else answer


def require_labels(coverage: Coverage) -> None:
    """Raise DataError unless at least one token is labelled: training would teach nothing."""
    if coverage.labelled:
        return
    if not coverage.rejected:
        raise DataError("there are no rows to train on", fix="Add rows with an answer")
    reasons = sorted(set(coverage.rejected.values()))
    raise DataError(
        f"no row has a labelled token ({'; '.join(reasons[:3])})",
        where=f"rows {_names([coverage.places.get(name, name) for name in coverage.rejected])}",
        fix="Give the rows answers, or raise train.max_tokens",
    )


def places_of(examples: Sequence[Example], rejected: Iterable[str]) -> dict[str, str]:
    """Return the file and line of each rejected row by its id, where the row knows it."""
    wanted = set(rejected)
    found = ((row.id, row.origin.source) for row in examples if wanted and row.id in wanted)
    return {name: place for name, place in found if place}


def make_row(
    name: str, context: Sequence[int], answer: Sequence[int], prompt_loss_weight: float
) -> Row:
    """Return the row of `context` followed by `answer`, the answer with weight 1."""
    weights = [prompt_loss_weight] * len(context) + [1.0] * len(answer)
    weights[0] = 0.0  # nothing precedes the first token
    return Row(name, (*context, *answer), tuple(weights), len(context))


def cut_middle(context: Sequence[int], room: int) -> list[int]:
    """Return `room` tokens of `context`: its start (instructions) and its end (the question)."""
    head = room // 2
    return [*context[:head], *context[len(context) - (room - head) :]]


def _names(ids: Sequence[str], between: str = ", ") -> str:
    more = f" and {len(ids) - NAMED} more" if len(ids) > NAMED else ""
    return between.join(ids[:NAMED]) + more
