"""Exact attention over a stream of tree-shaped rows: no mask, no padding, no copied keys.

Each token attends to its own node (causal), to the nodes above it in the same stream, and to the
keys and values of prefixes computed earlier. Every such block is one unmasked or causal call; the
partial results are merged by their log-sum-exp, as in ring attention (Liu et al. 2023,
arXiv 2310.01889). The backward pass calls each block's backward with the merged output and
log-sum-exp, which is the exact gradient of the softmax over the union.

Shapes: B 1, H query heads, G key heads (H a multiple of G), T tokens of the stream, P tokens of an
earlier prefix, D head size.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch

from tutelage.training import fused
from tutelage.training.attention_kernels import kernel_of
from tutelage.training.prefix_tree import Span

NAME = "tutelage_tree"

Past = list[tuple[torch.Tensor, torch.Tensor]]  # one (key, value), each 1GPD, a level


@dataclass
class TreePlan:
    """What the attention of one stream needs, passed through the model as a keyword.

    `past[layer]` holds the levels above; with `keep` the stream's own keys and values are left in
    `kept[layer]` for the levels below.
    """

    spans: list[Span]
    past: dict[int, Past] = field(default_factory=dict)
    keep: bool = False
    kept: dict[int, tuple[torch.Tensor, torch.Tensor]] = field(default_factory=dict)


def register() -> None:
    """Make the attention known to transformers under NAME; safe to call again."""
    from transformers import AttentionInterface

    AttentionInterface.register(NAME, tree_attention)


def tree_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    scaling: float | None = None,
    tree_plan: TreePlan | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """Return the attention output, 1THD. Raises NotImplementedError for what it can't do exactly.

    Without a plan (evaluation, generation, models that drop unknown keywords) it raises: the
    caller must have put the usual attention back.
    """
    extra = [k for k in ("softcap", "s_aux", "position_bias") if kwargs.get(k) is not None]
    if tree_plan is None or attention_mask is not None or extra or kwargs.get("sliding_window"):
        raise NotImplementedError(f"attention with {', '.join(extra) or 'a mask or window'}")
    if kwargs.get("dropout"):
        raise NotImplementedError("dropout inside attention")
    layer = int(module.layer_idx)
    # Autocast leaves rotary in fp32 and values in bf16; on a CPU fp32 attention is the faster one.
    narrow = value.dtype
    kind = torch.float32 if value.device.type == "cpu" else narrow
    query, key, value = query.to(kind), key.to(kind), value.to(kind)
    if tree_plan.keep:  # a block that is computed again in the backward pass keeps the first ones
        tree_plan.kept.setdefault(layer, (key, value))
    levels = [tensor for level in tree_plan.past.get(layer, []) for tensor in level]
    scale = scaling if scaling is not None else query.shape[-1] ** -0.5
    out = _TreeAttention.apply(query, key, value, tree_plan.spans, scale, *levels)
    return out.to(narrow).transpose(1, 2), None


def _blocks(spans: list[Span]) -> list[tuple[slice, slice]]:
    """Return (query rows, key rows) of each node and everything below it."""
    return [
        (slice(span.end, span.stop), slice(span.start, span.end))
        for span in spans
        if span.stop > span.end
    ]


class _TreeAttention(torch.autograd.Function):  # type: ignore[misc]
    @staticmethod
    def forward(
        ctx: Any,
        query: torch.Tensor,  # 1HTD
        key: torch.Tensor,  # 1GTD
        value: torch.Tensor,  # 1GTD
        spans: list[Span],
        scale: float,
        *past: torch.Tensor,  # key, value, key, value …, each 1GPD
    ) -> torch.Tensor:
        kernel = kernel_of(query)
        blocks = [(rows, key[:, :, keys], value[:, :, keys]) for rows, keys in _blocks(spans)]
        blocks += [(slice(None), past[i], past[i + 1]) for i in range(0, len(past), 2)]
        with torch.autocast(query.device.type, enabled=False):
            out, lse = kernel.own(query, key, value, spans, scale)
            for rows, block_key, block_value in blocks:
                part, part_lse = kernel.block(query[:, :, rows], block_key, block_value, scale)
                _merge(out[:, :, rows], lse[:, :, rows], part, part_lse)
        ctx.save_for_backward(query, key, value, out, lse, *past)
        ctx.spans, ctx.scale, ctx.kernel = spans, scale, kernel
        return out

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[Any, ...]:
        with torch.autocast(grad.device.type, enabled=False):
            return _TreeAttention._backward(ctx, grad)

    @staticmethod
    def _backward(ctx: Any, grad: torch.Tensor) -> tuple[Any, ...]:
        query, key, value, out, lse, *past = ctx.saved_tensors
        kernel, scale = ctx.kernel, ctx.scale
        whole = [grad, query, key, value, out, lse]
        d_query, d_key, d_value = kernel.own_backward(whole, ctx.spans, scale)
        for rows, keys in _blocks(ctx.spans):
            parts = [t[:, :, rows] for t in (grad, query, key, value, out, lse)]
            parts[2:4] = [key[:, :, keys], value[:, :, keys]]
            dq, dk, dv = kernel.block_backward(parts, scale)
            d_query[:, :, rows] += dq
            d_key[:, :, keys] += dk
            d_value[:, :, keys] += dv
        d_past = []
        for i in range(0, len(past), 2):
            parts = [grad, query, past[i], past[i + 1], out, lse]
            dq, dk, dv = kernel.block_backward(parts, scale)
            d_query += dq
            d_past += [dk, dv]
        return (d_query, d_key, d_value, None, None, *d_past)


def _merge(
    out: torch.Tensor, lse: torch.Tensor, part: torch.Tensor, part_lse: torch.Tensor
) -> None:
    """Fold a block's result into `out` and `lse` in place (log-sum-exp weights)."""
    part, part_lse = part.reshape(out.shape), part_lse.reshape(lse.shape)
    if out.is_cuda:
        merged, both = fused.merge(out, lse, part, part_lse)
        out.copy_(merged)
        lse.copy_(both)
        return
    both = torch.logaddexp(lse, part_lse)
    out.mul_((lse - both).exp()[..., None])
    out.add_((part * (part_lse - both).exp()[..., None]).to(out.dtype))
    lse.copy_(both)
