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

import math
from dataclasses import dataclass, field
from typing import Any

import torch

from tutelage.training.prefix_tree import Span

NAME = "tutelage_tree"
_SPLIT = 128  # queries: shorter pieces of a block cost more than an idle thread

_FLASH = getattr(torch.ops.aten, "_scaled_dot_product_flash_attention_for_cpu", None)
_FLASH_BACKWARD = getattr(
    torch.ops.aten, "_scaled_dot_product_flash_attention_for_cpu_backward", None
)
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
        groups = query.shape[1] // key.shape[1]
        out = query.new_empty(query.transpose(1, 2).shape).transpose(1, 2)
        lse = query.new_empty(query.shape[:3], dtype=torch.float32)
        for span in spans:
            own = slice(span.start, span.end)
            out[:, :, own], lse[:, :, own] = _forward(
                query[:, :, own],
                _repeat(key[:, :, own], groups),
                _repeat(value[:, :, own], groups),
                True,
                scale,
            )
        blocks = [(rows, key[:, :, keys], value[:, :, keys]) for rows, keys in _blocks(spans)]
        blocks += [(slice(None), past[i], past[i + 1]) for i in range(0, len(past), 2)]
        for rows, block_key, block_value in blocks:
            part, part_lse = _forward(
                _fold(query[:, :, rows], groups), block_key, block_value, False, scale
            )
            _merge(out[:, :, rows], lse[:, :, rows], part, part_lse)
        ctx.save_for_backward(query, key, value, out, lse, *past)
        ctx.spans, ctx.scale, ctx.groups = spans, scale, groups
        return out

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[Any, ...]:
        query, key, value, out, lse, *past = ctx.saved_tensors
        groups, scale = ctx.groups, ctx.scale
        d_query = torch.zeros_like(query)
        d_key, d_value = torch.zeros_like(key), torch.zeros_like(value)
        d_past = [torch.zeros_like(tensor) for tensor in past]
        for span in ctx.spans:
            own = slice(span.start, span.end)
            parts = [t[:, :, own] for t in (grad, query, key, value, out, lse)]
            parts[2], parts[3] = _repeat(parts[2], groups), _repeat(parts[3], groups)
            dq, dk, dv = _backward(parts, True, scale)
            d_query[:, :, own] += dq
            d_key[:, :, own] += _sum_groups(dk, groups)
            d_value[:, :, own] += _sum_groups(dv, groups)
        blocks = [
            (rows, key[:, :, keys], value[:, :, keys], d_key[:, :, keys], d_value[:, :, keys])
            for rows, keys in _blocks(ctx.spans)
        ]
        blocks += [
            (slice(None), past[i], past[i + 1], d_past[i], d_past[i + 1])
            for i in range(0, len(past), 2)
        ]
        for rows, block_key, block_value, into_key, into_value in blocks:
            folded = [_fold(t[:, :, rows], groups) for t in (grad, query, out, lse[..., None])]
            dq, dk, dv = _block_backward(folded, block_key, block_value, scale)
            d_query[:, :, rows] += dq.reshape(d_query[:, :, rows].shape)
            into_key += dk
            into_value += dv
        return (d_query, d_key, d_value, None, None, *d_past)


def _repeat(tensor: torch.Tensor, groups: int) -> torch.Tensor:
    """Return 1GTD as 1HTD: every key head serves `groups` query heads."""
    return tensor if groups == 1 else tensor.repeat_interleave(groups, dim=1)


def _sum_groups(tensor: torch.Tensor, groups: int) -> torch.Tensor:
    """Return 1HTD summed to 1GTD: the transpose of `_repeat`."""
    if groups == 1:
        return tensor
    return tensor.unflatten(1, (-1, groups)).sum(2)


def _fold(tensor: torch.Tensor, groups: int) -> torch.Tensor:
    """Return 1HTD as 1G(groups·T)D: without a mask, heads of one group are just more queries."""
    if groups == 1:
        return tensor
    heads, tokens, size = tensor.shape[1:]
    return tensor.reshape(1, heads // groups, groups * tokens, size)


def _merge(
    out: torch.Tensor, lse: torch.Tensor, part: torch.Tensor, part_lse: torch.Tensor
) -> None:
    """Fold a block's result into `out` and `lse` in place (log-sum-exp weights)."""
    part, part_lse = part.reshape(out.shape), part_lse.reshape(lse.shape)
    both = torch.logaddexp(lse, part_lse)
    out.mul_((lse - both).exp()[..., None])
    out.add_((part * (part_lse - both).exp()[..., None]).to(out.dtype))
    lse.copy_(both)


def _forward(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, causal: bool, scale: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return one block's output and its log-sum-exp (natural log, fp32)."""
    if _FLASH is not None and query.device.type == "cpu":
        out, lse = _FLASH(query, key, value, 0.0, causal, scale=scale)
        return out, lse
    scores = _scores(query, key, causal, scale)
    lse = scores.logsumexp(-1)
    return ((scores - lse[..., None]).exp() @ value.float()).to(query.dtype), lse


def _backward(
    parts: list[torch.Tensor], causal: bool, scale: float
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return dq, dk, dv of one block; `parts` are grad, q, k, v, merged out, merged lse."""
    grad, query, key, value, out, lse = parts
    if _FLASH_BACKWARD is not None and query.device.type == "cpu":
        dq, dk, dv = _FLASH_BACKWARD(
            grad.to(query.dtype), query, key, value, out, lse, 0.0, causal, scale=scale
        )
        return dq, dk, dv
    weights = (_scores(query, key, causal, scale) - lse[..., None]).exp()
    upstream = grad.float()
    slope = upstream @ value.float().transpose(-1, -2)
    slope = weights * (slope - (upstream * out.float()).sum(-1, keepdim=True)) * scale
    dq, dk = slope @ key.float(), slope.transpose(-1, -2) @ query.float()
    dv = weights.transpose(-1, -2) @ upstream
    return dq.to(query.dtype), dk.to(key.dtype), dv.to(value.dtype)


def _block_backward(
    folded: list[torch.Tensor], key: torch.Tensor, value: torch.Tensor, scale: float
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return dq, dk, dv of an unmasked block; `folded` are grad, q, out and lse, 1GT(D or 1).

    A CPU kernel gives each of its threads whole heads, so where heads do not divide evenly the
    queries are split into a batch that does; keys are shared by stride, not copied.
    """
    heads, tokens, size = folded[1].shape[1:]
    parts = 1
    if key.device.type == "cpu":
        threads = torch.get_num_threads()
        parts = threads // math.gcd(heads, threads)
    if tokens % parts or tokens // parts < _SPLIT:
        parts = 1
    split = [t.reshape(heads, parts, tokens // parts, -1).transpose(0, 1) for t in folded]
    shared = [t.expand(parts, -1, -1, -1) for t in (key, value)]
    dq, dk, dv = _backward([split[0], split[1], *shared, split[2], split[3][..., 0]], False, scale)
    return dq.transpose(0, 1).reshape(1, heads, tokens, size), dk.sum(0, True), dv.sum(0, True)


def _scores(query: torch.Tensor, key: torch.Tensor, causal: bool, scale: float) -> torch.Tensor:
    scores = query.float() @ key.float().transpose(-1, -2) * scale
    if causal:
        ahead = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).triu(1)
        scores = scores.masked_fill(ahead, float("-inf"))
    return scores
