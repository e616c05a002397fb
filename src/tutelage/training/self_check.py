"""Whether shared prefixes may be used for this model: asked of its config, then measured.

The measurement runs a few shortened rows of the run both ways and compares loss and gradients.
Anything that does not agree, or that fails, means the plain path and a reason, never a guess.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from tutelage.training.adapters import trained_parameters
from tutelage.training.prefix_tree import Row
from tutelage.training.shared_step import SharedStep, StepResult, decoder_of, plain_step

LOSS_TOLERANCE = 1e-5  # relative to the loss where it is above 1
GRADIENT_TOLERANCE = 1e-4  # norm of the difference over the norm, of all gradients together
ROWS, HEAD, TAIL = 3, 24, 24  # rows, and tokens kept of each one's start and end
_NOISE = 0.02  # on trained weights, so that a LoRA's zero half does not hide a wrong gradient


def unsupported(model: Any) -> str | None:
    """Return why the model's architecture can't share prefixes, or None if it may."""
    config = decoder_of(model)[0].config
    if getattr(config, "is_encoder_decoder", False):
        return "the model is an encoder-decoder"
    kinds = set(getattr(config, "layer_types", None) or ["full_attention"])
    if any("sliding" in kind or "chunked" in kind for kind in kinds):
        return "the model has sliding-window attention"
    if getattr(config, "sliding_window", None) and getattr(config, "use_sliding_window", True):
        return "the model has sliding-window attention"
    if kinds != {"full_attention"}:
        return f"the model has {', '.join(sorted(kinds - {'full_attention'}))} layers"
    rope = getattr(config, "rope_parameters", None) or {}
    if rope.get("rope_type", "default") in ("dynamic", "longrope"):
        return "the model's positions depend on the row's length"
    if getattr(config, "attention_dropout", 0.0):
        return "the model has dropout inside attention"
    if not getattr(decoder_of(model)[0], "_supports_attention_backend", False):
        return "the model's attention can't be replaced"
    return None


def self_check(model: Any, rows: Sequence[Row]) -> str | None:
    """Return why the shared path must not be used, or None if it agrees with the plain one.

    Gradients, weights and random states are left as they were.
    """
    reason = unsupported(model)
    if reason is not None:
        return reason
    few = [shorten(row) for row in rows[:ROWS]]
    parameters = list(trained_parameters(model).values())
    before = [p.detach().clone() for p in parameters]
    training = model.training
    state = torch.get_rng_state()
    generator = torch.Generator().manual_seed(0)
    try:
        model.eval()  # dropout is drawn differently by construction
        with torch.no_grad():
            for parameter in parameters:
                noise = torch.randn(parameter.shape, generator=generator)
                parameter.add_(noise.to(parameter) * _NOISE)
        plain = _measure(plain_step, model, few, parameters)
        shared = SharedStep(model)
        # One stream for all rows, and a prefix apart from its rows: both are used in a run.
        tries = [
            _measure(lambda m, r, b: shared(r, b), model, few, parameters, micro_batch=size)
            for size in (len(few), 1)
        ]
    except (NotImplementedError, AttributeError, TypeError, ValueError, RuntimeError) as error:
        text = str(error).strip().splitlines()
        return f"the model does not run on shared prefixes ({text[0][:120] if text else error!r})"
    finally:
        model.train(training)
        with torch.no_grad():
            for parameter, value in zip(parameters, before, strict=True):
                parameter.copy_(value)
                parameter.grad = None
        torch.set_rng_state(state)
    return next(filter(None, (_difference(plain, other) for other in tries)), None)


def shorten(row: Row) -> Row:
    """Return the row with its middle cut out: a check of the maths, not of the text."""
    size = len(row.ids)
    if size <= HEAD + TAIL:
        return row
    tail = max(size - TAIL, min(HEAD, row.answer_start))
    start = min(row.answer_start, HEAD) if row.answer_start <= tail else None
    return replace(
        row,
        ids=row.ids[:HEAD] + row.ids[tail:],
        weights=row.weights[:HEAD] + row.weights[tail:],
        answer_start=start if start is not None else row.answer_start - (tail - HEAD),
    )


@dataclass(frozen=True)
class _Measured:
    loss: float
    gradients: list[torch.Tensor]


def _measure(
    step: Callable[[Any, Sequence[Row], int], StepResult],
    model: Any,
    rows: Sequence[Row],
    parameters: Sequence[torch.nn.Parameter],
    micro_batch: int = ROWS,
) -> _Measured:
    for parameter in parameters:
        parameter.grad = None
    loss = step(model, rows, micro_batch).loss
    return _Measured(
        loss,
        [torch.zeros_like(p) if p.grad is None else p.grad.detach().clone() for p in parameters],
    )


def _difference(plain: _Measured, shared: _Measured) -> str | None:
    """Return how far the two are apart if it is too far, else None."""
    gap = abs(plain.loss - shared.loss) / max(1.0, abs(plain.loss))
    pairs = zip(plain.gradients, shared.gradients, strict=True)
    off = float(torch.stack([(a - b).norm() for a, b in pairs]).norm())
    off /= max(float(torch.stack([g.norm() for g in plain.gradients]).norm()), 1e-12)
    if gap <= LOSS_TOLERANCE and off <= GRADIENT_TOLERANCE:
        return None
    return f"the shared path differs from the plain one (loss {gap:.1e}, gradients {off:.1e})"
