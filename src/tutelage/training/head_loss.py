"""Cross-entropy at the labelled positions only, in chunks, so full logits never exist.

With a frozen output head the gradient of the hidden states is computed in the same pass and the
logits of a chunk are dropped at once; with a trainable head each chunk is recomputed instead.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

CHUNK = 128  # positions: 25 MB of fp32 logits at a vocabulary of 49,152
GPU_CHUNK = 512  # 263 MB at 128,256; fewer leave a GPU waiting for launches


def head_loss(
    head: torch.nn.Module,
    hidden: torch.Tensor,  # NE, states that predict
    targets: torch.Tensor,  # N
    weights: torch.Tensor,  # N, fp32
) -> torch.Tensor:
    """Return sum(weights · cross-entropy) in nats, a scalar with gradient."""
    if any(p.requires_grad for p in head.parameters()) and torch.is_grad_enabled():
        total = hidden.new_zeros((), dtype=torch.float32)
        for part in _chunks(hidden):
            args = (head, hidden[part], targets[part], weights[part])
            total = total + checkpoint(_chunk_loss, *args, use_reentrant=False)
        return total
    return _FrozenHeadLoss.apply(hidden, head, targets, weights)


def head_logprobs(
    head: torch.nn.Module,
    hidden: torch.Tensor,  # NE, states that predict
    targets: torch.Tensor,  # N
) -> torch.Tensor:
    """Return log p of each target, natural log, fp32, (N,), without gradient."""
    found = hidden.new_zeros(len(targets), dtype=torch.float32)
    with torch.no_grad():
        for part in _chunks(hidden):
            logits = head(hidden[part]).float()  # NV
            found[part] = logits.gather(1, targets[part, None])[:, 0] - logits.logsumexp(-1)
    return found


def _chunks(states: torch.Tensor) -> list[slice]:
    size = CHUNK if states.device.type == "cpu" else GPU_CHUNK
    return [slice(start, start + size) for start in range(0, len(states), size)]


def _chunk_loss(
    head: torch.nn.Module, hidden: torch.Tensor, targets: torch.Tensor, weights: torch.Tensor
) -> torch.Tensor:
    logits = head(hidden).float()
    return (functional.cross_entropy(logits, targets, reduction="none") * weights).sum()


class _FrozenHeadLoss(torch.autograd.Function):  # type: ignore[misc]
    @staticmethod
    def forward(
        ctx: Any,
        hidden: torch.Tensor,  # NE
        head: torch.nn.Module,
        targets: torch.Tensor,
        weights: torch.Tensor,
    ) -> torch.Tensor:
        total = hidden.new_zeros((), dtype=torch.float32)
        slope = torch.empty_like(hidden) if hidden.requires_grad else None
        for part in _chunks(hidden):
            logits = head(hidden[part]).float()  # NV
            wanted = logits.gather(1, targets[part, None])[:, 0]
            lse = logits.logsumexp(-1)
            total += ((lse - wanted) * weights[part]).sum()
            if slope is None:
                continue
            probabilities = logits.sub_(lse[:, None]).exp_()
            rows = torch.arange(len(probabilities), device=hidden.device)
            probabilities[rows, targets[part]] -= 1
            probabilities *= weights[part, None]
            matrix = head.weight
            slope[part] = (probabilities.to(matrix.dtype) @ matrix).to(hidden.dtype)
        ctx.slope = slope
        return total

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[Any, ...]:
        return (ctx.slope * grad, None, None, None)
