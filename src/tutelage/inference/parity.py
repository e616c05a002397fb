"""Decides whether another form of a model still says what the reference said; runs no model.

A reference is a greedy answer with, for each token, its log-probability and its margin (how far
the first choice was ahead of the second). The other form is led along that answer, token by token,
and says what it would have written at each place. Two things break it:

- a *flip*: it prefers another token where the reference's margin was above `tie` nats. Below that
  the two choices are a near-tie, which rounding may decide either way: it is counted, not held
  against the form, because after it both are led on along the same answer;
- *drift*: the mean |change of log p| of the reference's tokens is above `drift` nats. It catches
  damage that answers with wide margins would hide.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

_WIDTH = 60  # characters of an answer that are shown side by side


@dataclass(frozen=True)
class Limits:
    """What rounding may do, in nats (natural logarithm)."""

    tie: float
    drift: float


# By the coarsest weights in play. Measured on the demo model by bench/export_parity.py, with room.
LIMITS = {
    "f32": Limits(tie=0.05, drift=0.01),
    "f16": Limits(tie=0.05, drift=0.01),
    "bf16": Limits(tie=0.3, drift=0.05),
    "q8_0": Limits(tie=1.5, drift=0.15),
    "quantised": Limits(tie=1.5, drift=0.15),
}


@dataclass(frozen=True)
class Reference:
    """A prompt and the greedy answer to it; `tokens` hold the end token if the answer ended.

    Without tokens it is a plain text, and how it is cut into tokens is all that is compared.
    """

    messages: tuple[dict[str, Any], ...]
    prompt_ids: tuple[int, ...]
    tokens: tuple[int, ...] = ()
    logps: tuple[float, ...] = ()  # log p of each token, natural log
    margins: tuple[float, ...] = ()  # log p(first) - log p(second)
    text: str = ""


@dataclass(frozen=True)
class Followed:
    """What another form says along a reference's answer: its first choices, log p of the given."""

    prompt_ids: tuple[int, ...]
    choices: tuple[int, ...]
    logps: tuple[float, ...]  # not a number where the form does not tell
    text: str  # the answer it writes by itself


@dataclass(frozen=True)
class Broken:
    """One prompt that is answered otherwise: where, why, and both answers."""

    prompt: str
    reason: str
    expected: str
    got: str

    def lines(self) -> list[str]:
        """Return the two answers, one under the other."""
        return [
            f"{_shown(self.prompt)}  ({self.reason})",
            f"  expected  {_shown(self.expected)}",
            f"  got       {_shown(self.got)}",
        ]


@dataclass(frozen=True)
class Parity:
    """The comparison of one form with the reference, over all prompts."""

    form: str  # what was compared, e.g. "model.gguf in llama.cpp"
    limits: Limits
    prompts: int  # plain texts, of which only the tokens are compared, included
    answers: int
    tokens: int
    same: int  # first choices that are the reference's token
    ties: int  # others, where the reference's margin was within `tie`
    drift: float  # mean |change of log p|, nats
    worst: float  # largest |change of log p|, nats
    broken: tuple[Broken, ...] = ()
    skipped: int = 0  # prompts that leave the model no room to answer: not compared

    @property
    def problem(self) -> str | None:
        """Return what is wrong in one clause, or None if the form is sound."""
        if self.broken:
            return f"{len(self.broken)} of {self.prompts} prompts are answered otherwise"
        if not self.drift <= self.limits.drift:
            return (
                f"its log-probabilities are {self.drift:.3g} nats off on average, "
                f"above the limit of {self.limits.drift:g}"
            )
        return None

    def sentence(self) -> str:
        """Return the result in one line for people."""
        flips = self.tokens - self.same - self.ties
        return (
            f"{self.form}: {self.same} of {self.tokens} tokens of {self.answers} answers are the "
            f"same, {self.ties} near-ties, {flips} flips; log p off by {self.drift:.2g} nats on "
            f"average, {self.worst:.2g} at most{self._left_out()}"
        )

    def _left_out(self) -> str:
        if not self.skipped:
            return ""
        many = "1 prompt is" if self.skipped == 1 else f"{self.skipped} prompts are"
        return f"; {many} too long for the model and not compared"

    def as_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        values = {k: v for k, v in vars(self).items() if k not in ("limits", "broken")}
        return {
            **values,
            "limits": dict(vars(self.limits)),
            "broken": [dict(vars(b)) for b in self.broken],
            "problem": self.problem,
        }


def compare(
    form: str, references: Sequence[Reference], followed: Sequence[Followed], limits: Limits
) -> Parity:
    """Return how `followed` stands to `references`, one each."""
    broken: list[Broken] = []
    changes: list[float] = []
    tokens = same = ties = 0
    for reference, other in zip(references, followed, strict=True):
        pairs = zip(reference.logps, other.logps, strict=True)
        changes += [abs(a - b) for a, b in pairs if not math.isnan(b)]
        equal = [a == b for a, b in zip(reference.tokens, other.choices, strict=True)]
        flips = [
            place
            for place, (ok, margin) in enumerate(zip(equal, reference.margins, strict=True))
            if not ok and margin > limits.tie
        ]
        tokens += len(equal)
        same += sum(equal)
        ties += len(equal) - sum(equal) - len(flips)
        reason = _reason(reference, other, flips)
        if reason:
            broken.append(Broken(_last_turn(reference), reason, reference.text, other.text))
    return Parity(
        form=form,
        limits=limits,
        prompts=len(references),
        answers=sum(bool(reference.tokens) for reference in references),
        tokens=tokens,
        same=same,
        ties=ties,
        drift=sum(changes) / len(changes) if changes else 0.0,
        worst=max(changes, default=0.0),
        broken=tuple(broken),
    )


def _reason(reference: Reference, other: Followed, flips: Sequence[int]) -> str | None:
    if other.prompt_ids != reference.prompt_ids:
        pairs = zip(reference.prompt_ids, other.prompt_ids, strict=False)
        first = next((i for i, (a, b) in enumerate(pairs) if a != b), len(other.prompt_ids))
        return f"the prompt is other tokens, from token {first + 1} on"
    if flips:
        margin = reference.margins[flips[0]]
        return f"token {flips[0] + 1} differs, where the first choice was {margin:.2g} nats ahead"
    return None


def _last_turn(reference: Reference) -> str:
    return str(reference.messages[-1].get("content", "")) if reference.messages else ""


def _shown(text: str) -> str:
    flat = " ".join(text.split())
    return repr(flat if len(flat) <= _WIDTH else flat[: _WIDTH - 1] + "…")
