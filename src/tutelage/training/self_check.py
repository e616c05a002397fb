"""Whether shared prefixes may be used for this model: asked of its config, then measured.

The measurement runs a few shortened rows of the run both ways and compares loss and gradients.
How far rounding alone may take them apart depends on the model, so it is measured too: the plain
path runs once with all rows in one batch and once row by row, which is the same maths in another
order. A difference within ten times that passes, within fixed bounds. Anything that does not
agree, or that fails, means the plain path and a reason, never a guess.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from tutelage.training.adapters import trained_parameters
from tutelage.training.prefix_tree import Row
from tutelage.training.shared_step import SharedStep, StepResult, decoder_of, plain_step

NOISE_TIMES = 10.0  # how often the plain path's own rounding the two may differ by
# Relative to the loss where it is above 1: always, and never, passes. 1.3e-5 was seen of an adapter
# that had been trained before.
LOSS_BOUNDS = (5e-5, 1e-4)
# Norm of the difference over the norm, of all gradients together: the same for gradients. An error
# of the method is far larger: a block left out of the attention changes them by some percent.
# Rows supervised at every token round more than their plain repeat shows: 5e-5 was seen.
GRADIENT_BOUNDS = (1e-4, 5e-4)
NARROW_TIMES = 100.0  # the upper bounds of a model that computes in 16 bits are this much wider
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
    before = [p.detach().to("cpu", copy=True) for p in parameters]
    training = model.training
    config: Any = decoder_of(model)[0].config
    attention = config._attn_implementation
    state = torch.get_rng_state()
    generator = torch.Generator().manual_seed(0)
    try:
        model.eval()  # dropout is drawn differently by construction
        if str(attention).startswith("flash"):  # it takes 16 bits only, the check runs in fp32
            config._attn_implementation = "sdpa"
        with torch.no_grad():
            for parameter in parameters:
                noise = torch.randn(parameter.shape, generator=generator)
                parameter.add_(noise.to(parameter) * _NOISE)
        plain = _measure(plain_step, model, few, parameters)
        noise = _gaps(plain, _measure(plain_step, model, few, parameters, micro_batch=1))
        shared = SharedStep(model)
        # One stream for all rows, and a prefix apart from its rows: both are used in a run.
        found = [
            _gaps(plain, _measure(lambda m, r, b: shared(r, b), model, few, parameters, size))
            for size in (len(few), 1)
        ]
    except (NotImplementedError, AttributeError, TypeError, ValueError, RuntimeError) as error:
        text = str(error).strip().splitlines()
        return f"the model does not run on shared prefixes ({text[0][:120] if text else error!r})"
    finally:
        model.train(training)
        config._attn_implementation = attention
        with torch.no_grad():
            for parameter, value in zip(parameters, before, strict=True):
                parameter.copy_(value)
                parameter.grad = None
        torch.set_rng_state(state)
    limits = _limits(noise, NARROW_TIMES if _is_narrow(model) else 1.0)
    return next(filter(None, (_difference(gaps, limits) for gaps in found)), None)


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
    """Return loss and gradients of one step; the gradients are taken off the model, not copied."""
    for parameter in parameters:
        parameter.grad = None
    loss = step(model, rows, micro_batch).loss
    taken = [torch.zeros_like(p) if p.grad is None else p.grad.detach() for p in parameters]
    for parameter in parameters:
        parameter.grad = None
    return _Measured(loss, taken)


@dataclass(frozen=True)
class _Gaps:
    """How far apart two runs are, or may be: relative, of the loss and of all gradients."""

    loss: float
    gradients: float


def _gaps(one: _Measured, other: _Measured) -> _Gaps:
    loss = abs(one.loss - other.loss) / max(1.0, abs(one.loss))
    pairs = zip(one.gradients, other.gradients, strict=True)
    off = float(torch.stack([(a - b).norm() for a, b in pairs]).norm())
    norm = float(torch.stack([g.norm() for g in one.gradients]).norm())
    return _Gaps(loss, off / max(norm, 1e-12))


def _limits(noise: _Gaps, wider: float) -> _Gaps:
    """Return the gaps that pass, from the rounding seen on the plain path."""

    def within(value: float, bounds: tuple[float, float]) -> float:
        low, high = bounds
        return min(max(NOISE_TIMES * value, low), high * wider)

    return _Gaps(within(noise.loss, LOSS_BOUNDS), within(noise.gradients, GRADIENT_BOUNDS))


def _is_narrow(model: torch.nn.Module) -> bool:
    return any(p.dtype in (torch.bfloat16, torch.float16) for p in model.parameters())


def _difference(gaps: _Gaps, limits: _Gaps) -> str | None:
    """Return how far two runs are apart if it is too far, else None; not-a-number is too far."""
    if gaps.loss <= limits.loss and gaps.gradients <= limits.gradients:
        return None
    return (
        f"the shared path differs from the plain one (loss {gaps.loss:.1e}, "
        f"gradients {gaps.gradients:.1e}, allowed {limits.loss:.1e} and {limits.gradients:.1e})"
    )
