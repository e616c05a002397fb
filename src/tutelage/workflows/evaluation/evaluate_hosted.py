"""Evaluate a model that a service tuned: it and its base are asked over the wire, as text alone.

A service shows no likelihoods of given texts, so there is no closed-list decoding and no measure
of forgetting; the report says so by leaving them out.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tutelage.core.artifact import Artifact
from tutelage.inference.base import Completion, OnDone, Prompt
from tutelage.workflows.context import Context

if TYPE_CHECKING:
    from tutelage.inference.openai import OpenAIGenerator

KIND = "hosted"
_BYTES_PER_TOKEN = 4  # of English prose, the rule that services document


class HostedEngine:
    """Answers with the tuned model, or with its base, whichever is set."""

    def __init__(self, base: OpenAIGenerator, tuned: OpenAIGenerator) -> None:
        self._base, self._tuned = base, tuned
        self._now = base

    def set_adapter(self, path: Path | None) -> None:
        """Ask the tuned model from now on, or, with None, its base."""
        self._now = self._base if path is None else self._tuned

    def generate(
        self, prompts: Sequence[Prompt], on_done: OnDone | None = None
    ) -> list[Completion]:
        """Return one completion a prompt, in order."""
        return self._now.generate(prompts, on_done)

    def close(self) -> None:
        """Nothing stays open between calls."""


def hosted_engine(ctx: Context, artifact: Artifact) -> HostedEngine:
    """Return the engine over the service's base and tuned models.

    Raises ConfigError if tutelage.yaml names no service.
    """
    from tutelage.workflows.training.hosted import hosted_generator
    from tutelage.workflows.training.hosted_settings import hosted_settings

    base = hosted_generator(ctx, artifact, model=hosted_settings(ctx).model)
    return HostedEngine(base, hosted_generator(ctx, artifact))


def count_tokens(text: str) -> int:
    """Return about how many tokens a service would count."""
    return -(-len(text.encode()) // _BYTES_PER_TOKEN)
