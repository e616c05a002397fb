"""Blocks of attention with their log-sum-exp, forward and backward, by the kernel at hand.

A kernel runs the causal blocks of all nodes of a stream (`own`) and one unmasked block of queries
against keys (`block`). The backward pass takes the output and log-sum-exp of the whole softmax,
of which the block may be a part: the probabilities are then exp(scores - lse), and the gradient
is exact. Which tokens form which block is tree_attention.py's business.

* `PerNode`: one call a node. On a CPU torch's own flash kernel; elsewhere plain matrix products in
  fp32, some hundred queries at a time.
* `Varlen`: torch's flash kernel for rows of many lengths (Dao 2023, arXiv 2307.08691), bf16 and
  fp16 on CUDA, all nodes in one call. It is tried on noise against plain products before use.

Shapes: H query heads, G key heads (H a multiple of G), T queries, P keys, D head size.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache, lru_cache
from typing import Any, Protocol

import torch

from tutelage.training.prefix_tree import Span

_FLASH = getattr(torch.ops.aten, "_scaled_dot_product_flash_attention_for_cpu", None)
_FLASH_BACKWARD = getattr(
    torch.ops.aten, "_scaled_dot_product_flash_attention_for_cpu_backward", None
)
_VARLEN: Any = getattr(torch.ops.aten, "_flash_attention_forward", None)
_VARLEN_BACKWARD: Any = getattr(torch.ops.aten, "_flash_attention_backward", None)
_SPLIT = 128  # queries: shorter pieces of a block cost more than an idle thread
_CHUNK = 512  # queries whose scores plain products hold at once
_CLOSE = 0.03  # relative difference between 16-bit and fp32 attention on noise

Pair = tuple[torch.Tensor, torch.Tensor]  # output 1HTD, log-sum-exp 1HT (natural, fp32)
Triple = tuple[torch.Tensor, torch.Tensor, torch.Tensor]  # dq 1HTD, dk 1GPD, dv 1GPD


class Kernel(Protocol):
    """What attention over a tree is made of. Queries are 1HTD, keys and values 1GPD."""

    def own(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        spans: Sequence[Span],
        scale: float,
    ) -> Pair:
        """Return causal attention of every node to itself; the nodes tile the stream."""
        ...  # fmt: skip

    def own_backward(
        self, parts: list[torch.Tensor], spans: Sequence[Span], scale: float
    ) -> Triple:
        """Return its gradients; `parts` are grad, query, key, value, out, lse of the stream."""
        ...

    def block(
        self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scale: float
    ) -> Pair:
        """Return unmasked attention of all queries to all keys."""
        ...

    def block_backward(self, parts: list[torch.Tensor], scale: float) -> Triple:
        """Return its gradients; `parts` are grad, query, key, value, out, lse."""
        ...


def kernel_of(query: torch.Tensor) -> Kernel:
    """Return the fastest kernel that is right for tensors like `query`."""
    narrow = query.dtype in (torch.bfloat16, torch.float16)
    fits = query.device.type == "cuda" and narrow and query.shape[-1] % 8 == 0
    if fits and varlen_works(query.device, query.dtype, query.shape[-1]):
        return Varlen()
    return PerNode()


class PerNode:
    """One call a node; key heads are repeated for causal blocks and shared otherwise."""

    def own(
        self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor,
        spans: Sequence[Span], scale: float,
    ) -> Pair:  # fmt: skip
        """Return causal attention of every node to itself."""
        groups = query.shape[1] // key.shape[1]
        out = query.new_empty(query.transpose(1, 2).shape).transpose(1, 2)
        lse = query.new_empty(query.shape[:3], dtype=torch.float32)
        for span in spans:
            own = slice(span.start, span.end)
            one, other = (_repeat(t[:, :, own], groups) for t in (key, value))
            out[:, :, own], lse[:, :, own] = _forward(query[:, :, own], one, other, True, scale)
        return out, lse

    def own_backward(
        self, parts: list[torch.Tensor], spans: Sequence[Span], scale: float
    ) -> Triple:
        """Return its gradients."""
        _, query, key, value, *_ = parts
        groups = query.shape[1] // key.shape[1]
        d_query, d_key, d_value = (torch.empty_like(t) for t in (query, key, value))
        for span in spans:
            own = slice(span.start, span.end)
            few = [t[:, :, own] for t in parts]
            few[2], few[3] = _repeat(few[2], groups), _repeat(few[3], groups)
            d_query[:, :, own], dk, dv = _backward(few, True, scale)
            d_key[:, :, own] = _sum_groups(dk, groups)
            d_value[:, :, own] = _sum_groups(dv, groups)
        return d_query, d_key, d_value

    def block(
        self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scale: float
    ) -> Pair:
        """Return unmasked attention of all queries to all keys."""
        out, lse = _forward(_fold(query, key.shape[1]), key, value, False, scale)
        return out.reshape(query.shape), lse.reshape(query.shape[:3])

    def block_backward(self, parts: list[torch.Tensor], scale: float) -> Triple:
        """Return its gradients.

        A CPU kernel gives each of its threads whole heads, so where heads do not divide evenly
        the queries are split into a batch that does; keys are shared by stride, not copied.
        """
        grad, query, key, value, out, lse = parts
        heads = key.shape[1]
        folded = [_fold(t, heads) for t in (grad, query, out, lse[..., None])]
        tokens, count = folded[1].shape[2], 1
        if key.device.type == "cpu":
            threads = torch.get_num_threads()
            count = threads // math.gcd(heads, threads)
        if tokens % count or tokens // count < _SPLIT:
            count = 1
        split = [t.reshape(heads, count, tokens // count, -1).transpose(0, 1) for t in folded]
        one, other = (t.expand(count, -1, -1, -1) for t in (key, value))
        few = [split[0], split[1], one, other, split[2], split[3][..., 0]]
        dq, dk, dv = _backward(few, False, scale)
        return dq.transpose(0, 1).reshape(query.shape), dk.sum(0, True), dv.sum(0, True)


def _repeat(tensor: torch.Tensor, groups: int) -> torch.Tensor:
    """Return 1GTD as 1HTD: every key head serves `groups` query heads."""
    return tensor if groups == 1 else tensor.repeat_interleave(groups, dim=1)


def _sum_groups(tensor: torch.Tensor, groups: int) -> torch.Tensor:
    """Return 1HTD summed to 1GTD: the transpose of `_repeat`."""
    return tensor if groups == 1 else tensor.unflatten(1, (-1, groups)).sum(2)


def _fold(tensor: torch.Tensor, heads: int) -> torch.Tensor:
    """Return 1HTD as 1G(groups·T)D: without a mask, heads of one group are just more queries."""
    return tensor.reshape(1, heads, -1, tensor.shape[-1])


def _forward(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, causal: bool, scale: float
) -> Pair:
    """Return one block's output and log-sum-exp; as many heads of keys as of queries."""
    if _FLASH is not None and query.device.type == "cpu":
        out, lse = _FLASH(query, key, value, 0.0, causal, scale=scale)
        return out, lse
    out = torch.empty_like(query)
    lse = query.new_empty(query.shape[:-1], dtype=torch.float32)
    for rows in _chunks(query.shape[-2]):
        scores = _scores(query[..., rows, :], key, rows.start if causal else None, scale)
        lse[..., rows] = scores.logsumexp(-1)
        out[..., rows, :] = (scores - lse[..., rows, None]).exp() @ value.float()
    return out, lse


def _backward(parts: list[torch.Tensor], causal: bool, scale: float) -> Triple:
    """Return dq, dk, dv of one block; `parts` are grad, q, k, v, merged out, merged lse."""
    grad, query, key, value, out, lse = parts
    if _FLASH_BACKWARD is not None and query.device.type == "cpu":
        dq, dk, dv = _FLASH_BACKWARD(
            grad.to(query.dtype), query, key, value, out, lse, 0.0, causal, scale=scale
        )
        return dq, dk, dv
    dq = torch.empty_like(query)
    dk, dv = (torch.zeros_like(t, dtype=torch.float32) for t in (key, value))
    for rows in _chunks(query.shape[-2]):
        asked, upstream = query[..., rows, :], grad[..., rows, :].float()
        scores = _scores(asked, key, rows.start if causal else None, scale)
        weights = (scores - lse[..., rows, None]).exp()
        slope = upstream @ value.float().transpose(-1, -2)
        slope -= (upstream * out[..., rows, :].float()).sum(-1, keepdim=True)
        slope *= weights * scale
        dq[..., rows, :] = slope @ key.float()
        dk += slope.transpose(-1, -2) @ asked.float()
        dv += weights.transpose(-1, -2) @ upstream
    return dq, dk.to(key.dtype), dv.to(value.dtype)


def _chunks(count: int) -> list[slice]:
    return [slice(start, min(start + _CHUNK, count)) for start in range(0, count, _CHUNK)]


def _scores(
    query: torch.Tensor, key: torch.Tensor, first: int | None, scale: float
) -> torch.Tensor:
    """Return scaled scores in fp32; causal if `first`, the place of the first query, is given."""
    scores = query.float() @ key.float().transpose(-1, -2) * scale
    if first is not None:
        ahead = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device)
        scores = scores.masked_fill(ahead.triu(first + 1), float("-inf"))
    return scores


class Varlen:
    """All causal blocks in one call, by the places where nodes start; key heads are shared."""

    def own(
        self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor,
        spans: Sequence[Span], scale: float,
    ) -> Pair:  # fmt: skip
        """Return causal attention of every node to itself."""
        return self._run(query, key, value, _cuts(spans, query), _cuts(spans, query), True, scale)

    def own_backward(
        self, parts: list[torch.Tensor], spans: Sequence[Span], scale: float
    ) -> Triple:
        """Return its gradients."""
        cuts = _cuts(spans, parts[1])
        return self._run_backward(parts, cuts, cuts, True, scale)

    def block(
        self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scale: float
    ) -> Pair:
        """Return unmasked attention of all queries to all keys."""
        return self._run(query, key, value, _whole(query), _whole(key), False, scale)

    def block_backward(self, parts: list[torch.Tensor], scale: float) -> Triple:
        """Return its gradients."""
        return self._run_backward(parts, _whole(parts[1]), _whole(parts[2]), False, scale)

    def _run(
        self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor,
        cuts: tuple[torch.Tensor, int], key_cuts: tuple[torch.Tensor, int], causal: bool,
        scale: float,
    ) -> Pair:  # fmt: skip
        flat = [t[0].transpose(0, 1) for t in (query, key, value)]  # T heads D
        out, lse, *_ = _VARLEN(
            *flat, cuts[0], key_cuts[0], cuts[1], key_cuts[1], 0.0, causal, False, scale=scale
        )
        return out.transpose(0, 1)[None], lse[None]

    def _run_backward(
        self, parts: list[torch.Tensor], cuts: tuple[torch.Tensor, int],
        key_cuts: tuple[torch.Tensor, int], causal: bool, scale: float,
    ) -> Triple:  # fmt: skip
        grad, query, key, value, out = (t[0].transpose(0, 1) for t in parts[:5])
        unread = _on_device((0, 0), torch.int64, query.device)  # dropout's random state
        slopes = _VARLEN_BACKWARD(
            grad.to(query.dtype).contiguous(), query, key, value, out.contiguous(),
            parts[5][0].contiguous(), cuts[0], key_cuts[0], cuts[1], key_cuts[1], 0.0, causal,
            unread, unread, scale=scale,
        )  # fmt: skip
        dq, dk, dv = (t.transpose(0, 1)[None] for t in slopes)
        return dq, dk, dv


def _cuts(spans: Sequence[Span], like: torch.Tensor) -> tuple[torch.Tensor, int]:
    """Return where nodes start and the last ends (int32), and the longest node."""
    places = (*(span.start for span in spans), spans[-1].end)
    longest = max(span.end - span.start for span in spans)
    return _on_device(places, torch.int32, like.device), longest


def _whole(tensor: torch.Tensor) -> tuple[torch.Tensor, int]:
    count = tensor.shape[2]
    return _on_device((0, count), torch.int32, tensor.device), count


@lru_cache(maxsize=64)
def _on_device(
    values: tuple[int, ...], kind: torch.dtype, device: torch.device
) -> torch.Tensor:  # fmt: skip
    """Return the values as a tensor, copied once: each copy would make the GPU wait."""
    return torch.tensor(values, dtype=kind, device=device)


@cache
def varlen_works(device: torch.device, dtype: torch.dtype, size: int) -> bool:
    """Compare both kernels on noise: two nodes of uneven length, two heads of queries a key."""
    if _VARLEN is None or _VARLEN_BACKWARD is None:
        return False
    generator = torch.Generator().manual_seed(0)

    def noise(heads: int) -> Any:
        return torch.randn(1, heads, 40, size, generator=generator).to(device, dtype)

    query, key, value, grad = noise(4), noise(2), noise(2), noise(4)
    spans = [Span(0, 24, 24), Span(24, 40, 40)]
    try:
        found, wanted = (_all(k, query, key, value, grad, spans) for k in (Varlen(), PerNode()))
    except (RuntimeError, TypeError, NotImplementedError):
        return False
    gaps = [
        (a.float() - b.float()).norm() / b.float().norm()
        for a, b in zip(found, wanted, strict=True)
    ]
    return all(bool(gap <= _CLOSE) for gap in gaps)


def _all(
    kernel: Kernel, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor,
    grad: torch.Tensor, spans: list[Span],
) -> list[torch.Tensor]:  # fmt: skip
    """Return every output and gradient of both kinds of block."""
    scale = query.shape[-1] ** -0.5
    out, lse = kernel.own(query, key, value, spans, scale)
    slopes = kernel.own_backward([grad, query, key, value, out, lse], spans, scale)
    other, other_lse = kernel.block(query, key, value, scale)
    others = kernel.block_backward([grad, query, key, value, other, other_lse], scale)
    return [out, lse, *slopes, other, other_lse, *others]
