"""Elementwise formulas of a layer as one GPU kernel each, made by torch.compile.

On a GPU a step's norms and gates wait for memory, not for arithmetic: one pass over the tokens in
place of five. A formula that the compiler can't build is computed by plain torch, and so is
everything on a CPU, where fast_layers.py works in place instead.

Shapes: T tokens, E the width, F the MLP's inner size, H heads, D their size.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar

import torch
from torch.nn import functional

_F = TypeVar("_F", bound=Callable[..., Any])


def fused(function: _F) -> _F:
    """Return `function` compiled at its first call, any number of tokens served by one kernel."""
    compiled = torch.compile(function)
    works = True

    @wraps(function)
    def run(*args: Any) -> Any:
        nonlocal works
        if works:
            for tensor in args:
                if isinstance(tensor, torch.Tensor) and tensor.dim() > 1:
                    tokens = 0 if tensor.dim() == 2 else 2
                    torch._dynamo.maybe_mark_dynamic(tensor, tokens)
            try:
                return compiled(*args)
            except torch.OutOfMemoryError:
                raise
            except Exception as error:  # the compiler's own errors have no common base
                works = False
                warnings.warn(f"{function.__name__} is not compiled: {error}"[:300], stacklevel=2)
        return function(*args)

    return run  # type: ignore[return-value]


@fused
def rms_norm(
    x: torch.Tensor,  # TE
    weight: torch.Tensor,  # E
    eps: float,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return weight · x / sqrt(mean(x²) + eps) (TE) and the inverse root (T1, fp32)."""
    wide = x.float()
    inverse = (wide.square().mean(-1, keepdim=True) + eps).rsqrt()
    return (wide * inverse * weight).to(x.dtype), inverse


@fused
def rms_norm_slope(
    grad: torch.Tensor,  # TE
    x: torch.Tensor,  # TE
    inverse: torch.Tensor,  # T1
    weight: torch.Tensor,  # E
) -> torch.Tensor:
    """Return the gradient of x (TE)."""
    wide, slope = x.float(), grad.float() * weight
    along = (slope * wide).mean(-1, keepdim=True)
    return (slope * inverse - wide * along * inverse.pow(3)).to(x.dtype)


@fused
def gate(gated: torch.Tensor, up: torch.Tensor) -> torch.Tensor:
    """Return silu(gated) · up, all TF."""
    return (functional.silu(gated.float()) * up.float()).to(up.dtype)


@fused
def gate_slope(
    slope: torch.Tensor,  # TF, of the product
    gated: torch.Tensor,  # TF
    up: torch.Tensor,  # TF
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the gradients of gated and up, each TF."""
    wide, given = gated.float(), slope.float()
    odds = torch.sigmoid(wide)
    d_up = given * wide * odds
    d_gated = given * up.float() * odds * (1 + wide * (1 - odds))
    return d_gated.to(gated.dtype), d_up.to(up.dtype)


@fused
def merge(
    out: torch.Tensor,  # 1HTD
    lse: torch.Tensor,  # 1HT
    part: torch.Tensor,  # 1HTD
    part_lse: torch.Tensor,  # 1HT
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the output and log-sum-exp of the softmax over both parts' keys."""
    share = torch.sigmoid(part_lse - lse)[..., None]
    mixed = out.float() * (1 - share) + part.float() * share
    return mixed.to(out.dtype), torch.logaddexp(lse, part_lse)
