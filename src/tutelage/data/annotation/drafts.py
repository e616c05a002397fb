"""A teacher's draft of an answer: how it is asked for, what is read from it, what an edit changed.

The item stands in the request as the conversation it is; the task, the labels and the guideline
go before it. Nothing is sent from here.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from rapidfuzz.distance import Levenshtein

from tutelage.core.artifact import content_hash
from tutelage.core.example import Example, Message
from tutelage.core.output import OutputFormat
from tutelage.inference.base import Decoding, Prompt
from tutelage.inference.chat import conversation

_FENCE = re.compile(r"^```[\w-]*\s*\n(.*?)\n?```\s*$", re.DOTALL)
_CHARS_PER_TOKEN = 3  # cautious: most text has more
_PER_TURN = 8  # tokens a chat template adds


@dataclass(frozen=True)
class Draft:
    """What a teacher proposed: the text, its label if there are labels, or why it can't be used."""

    text: str
    label: str | None = None
    problem: str | None = None


def instructions(prompt: str, output: OutputFormat, guideline: str = "") -> str:
    """Return what the teacher is told before every item."""
    parts = [prompt.strip()] if prompt.strip() else []
    if guideline.strip():
        parts.append(f"Guideline of the experts:\n{guideline.strip()}")
    if output.labels:
        parts.append("Answer with exactly one of these labels: " + "; ".join(output.labels))
    if output.field is not None:
        form = output.render(output.labels[0] if output.labels else "...")
        parts.append(f"Write nothing but JSON of this form: {form}")
    elif output.labels:
        parts.append("Write the label and nothing else.")
    return "\n\n".join(parts)


def request(item: Example, told: str, max_tokens: int) -> Prompt:
    """Return the request for one draft; a system message of the row's own comes after ours."""
    turns = conversation(item, "")
    own = next((turn.content for turn in turns if turn.role == "system"), "")
    system = "\n\n".join(part for part in (told, own) if part)
    rest = tuple(turn for turn in turns if turn.role != "system")
    first = (Message(role="system", content=system),) if system else ()
    return Prompt((*first, *rest), Decoding(temperature=0.0, max_tokens=max_tokens))


def most_tokens(prompt: Prompt) -> int:
    """Return an upper estimate of the tokens one request may cost, answer included."""
    letters = sum(len(turn.content) for turn in prompt.messages)
    return (
        letters // _CHARS_PER_TOKEN
        + _PER_TURN * len(prompt.messages)
        + (prompt.decoding.max_tokens)
    )


def told_hash(told: str) -> str:
    """Return the name of a version of the instructions: 16 hex digits."""
    return content_hash(told)[:16]


def read_draft(text: str, output: OutputFormat, finish_reason: str = "stop") -> Draft:
    """Return the draft in a teacher's text: fences and space around it gone, the label read."""
    plain = text.strip()
    fenced = _FENCE.match(plain)
    if fenced:
        plain = fenced[1].strip()
    if not plain:
        return Draft("", None, "the teacher wrote nothing")
    if finish_reason == "length":
        return Draft(plain, None, "the teacher's answer was cut off at its token limit")
    if output.field is None and not output.labels:
        return Draft(plain)
    parsed = output.parse(plain)
    if parsed.label is None:
        label = _loose(plain, output)
        if label is None:
            return Draft(plain, None, parsed.problem)
        return Draft(output.render(label), label)
    return Draft(output.render(parsed.label), parsed.label)


def _loose(text: str, output: OutputFormat) -> str | None:
    """Return the label that a text is, apart from case, quotes, a full stop and separators."""
    folded = {_fold(label): label for label in output.labels}
    if len(folded) < len(output.labels):
        return None
    bare = OutputFormat(output.field).parse(text).label if output.field else None
    return folded.get(_fold(bare if bare is not None else text))


def _fold(text: str) -> str:
    plain = text.strip().strip("\"'`.").replace("_", " ").replace("-", " ")
    return " ".join(plain.split()).casefold()


def edit_distance(draft: str, answer: str) -> int:
    """Return how many characters were put in, taken out or changed (Levenshtein)."""
    return int(Levenshtein.distance(draft, answer))
