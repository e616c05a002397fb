"""The protocols of inference: Generator writes text, LabelScorer weighs given answers, Embedder.

Engines are plug-ins of `tutelage.generators`. Nothing here loads a model.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from tutelage.core.example import Message


class Decoding(BaseModel):
    """How text is drawn. Part of a release: the defaults are greedy and repeatable."""

    model_config = ConfigDict(frozen=True)

    temperature: float = 0.0
    max_tokens: int = 256
    stop: tuple[str, ...] = ()
    seed: int | None = 0
    json_schema: dict[str, Any] | None = None


@dataclass(frozen=True)
class Usage:
    """Tokens of one request. `cached_tokens` of the prompt were not computed again."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0


@dataclass(frozen=True)
class Completion:
    """What one request got: the text, why it ended ("stop", "length", "error"), and its cost."""

    text: str
    finish_reason: str
    usage: Usage = Usage()
    latency_ms: float = 0.0
    first_token_ms: float | None = None
    meta: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Prompt:
    """One request: the whole conversation up to the answer, system message included."""

    messages: tuple[Message, ...]
    decoding: Decoding = Decoding()


OnDone = Callable[[int, Completion], None]


class Generator(Protocol):
    """Writes answers. `on_done(index, completion)` fires as each row ends, in any order."""

    def generate(
        self, prompts: Sequence[Prompt], on_done: OnDone | None = None
    ) -> list[Completion]: ...

    def close(self) -> None: ...


class LabelScorer(Protocol):
    """Weighs given answers instead of writing one."""

    def score_labels(
        self, prompts: Sequence[Prompt], answers: Sequence[str]
    ) -> NDArray[np.float64]:
        """Return log p(answer | prompt), natural log, summed over tokens; shape (N, L)."""
        ...


OnBatch = Callable[[int, int], None]  # texts done, texts in all


class Embedder(Protocol):
    """Turns texts into unit vectors."""

    @property
    def fingerprint(self) -> str | None:
        """The model and its version; None if a text's vector depends on the call's other texts.

        Vectors of two calls compare, and may be kept, only where there is one.
        """
        ...

    def embed(self, texts: Sequence[str], on_batch: OnBatch | None = None) -> NDArray[np.float32]:
        """Return one L2-normalised row a text, shape (N, D); a text without content gets zeros."""
        ...
