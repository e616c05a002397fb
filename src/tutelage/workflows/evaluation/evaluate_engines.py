"""The models of an evaluation: one base in memory at a time, adapters switched on it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tutelage.core.artifact import Artifact
from tutelage.core.events import Event
from tutelage.evaluation.runner import STAGE
from tutelage.inference.models import ModelSource
from tutelage.workflows.context import Context
from tutelage.workflows.evaluation import evaluate_hosted


@dataclass(frozen=True)
class LoadedEngine:
    """A model ready to answer, how it counts tokens, and its control tokens.

    `divergence` takes texts and a tuned model's folder, and returns (sum of KL(base ‖ tuned) in
    nats, positions) a text; None where the engine can't tell.
    """

    engine: Any  # evaluation.runner.Engine; with `only_text` it can do no more than write
    count_tokens: Callable[[str], int]
    specials: tuple[str, ...] = ()
    only_text: bool = False
    divergence: Callable[[Sequence[str], Path], list[tuple[float, int]]] | None = None


OpenEngine = Callable[[ModelSource, int], LoadedEngine]


def open_transformers(source: ModelSource, batch_size: int) -> LoadedEngine:
    """Return the reference engine with the base model loaded."""
    from tutelage.inference.transformers import TransformersGenerator
    from tutelage.inference.transformers_divergence import divergence

    engine = TransformersGenerator(source, batch_size=batch_size, merge=True)
    return LoadedEngine(engine, lambda text: len(engine.tokenizer(text)["input_ids"]),
                        engine.specials, divergence=partial(divergence, engine))  # fmt: skip


class Engines:
    """Opens what is asked for and closes what was open before. `hosted` is a model at a service."""

    def __init__(self, ctx: Context, open_engine: OpenEngine, hosted: Artifact | None) -> None:
        self._ctx, self._open, self._hosted = ctx, open_engine, hosted
        self._now: tuple[str | None, LoadedEngine] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:  # fmt: skip
        self.close()

    def use(self, source: ModelSource | None) -> LoadedEngine:
        """Return the engine of a base model, loaded now or before; None is the service."""
        digest = source.digest if source else None
        if self._now is not None and self._now[0] == digest:
            return self._now[1]
        self.close()
        if source is None:
            loaded = self._service()
        else:
            self._ctx.emit(Event(STAGE, "start", f"loading {source.name}"))
            loaded = self._open(source, self._ctx.config.evaluate.batch_size)
        self._now = (digest, loaded)
        return loaded

    def _service(self) -> LoadedEngine:
        if self._hosted is None:
            raise ValueError("there is neither a model nor a service")
        self._ctx.emit(Event(STAGE, "start", "asking the service"))
        engine = evaluate_hosted.hosted_engine(self._ctx, self._hosted)
        return LoadedEngine(engine, evaluate_hosted.count_tokens, only_text=True)

    def close(self) -> None:
        """Close what is open."""
        if self._now is not None:
            self._now[1].engine.close()
            self._now = None
