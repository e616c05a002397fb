"""Torch's CUDA flash kernel for rows of many lengths, written out for a CPU: the same contract.

Stands in for a GPU. It is as strict as the real one about formats and shapes: int32 cuts, tokens
first, the log-sum-exp as heads by tokens in fp32, contiguous upstream gradients.
"""

from __future__ import annotations

from typing import Any

import torch


def forward(
    query: torch.Tensor,  # THD
    key: torch.Tensor,  # PGD
    value: torch.Tensor,  # PGD
    cuts: torch.Tensor,
    key_cuts: torch.Tensor,
    longest: int,
    longest_key: int,
    dropout: float,
    causal: bool,
    debug: bool,
    *,
    scale: float,
) -> tuple[Any, ...]:
    """Return output (THD), log-sum-exp (HT, fp32) and three tensors nobody reads."""
    _check(query, key, cuts, key_cuts, longest, longest_key)
    out, lse = torch.empty_like(query), query.new_empty(query.shape[1::-1], dtype=torch.float32)
    for rows, keys in _segments(cuts, key_cuts):
        scores = _scores(query[rows], key[keys], causal, scale)
        lse[:, rows] = scores.logsumexp(-1)
        weights = (scores - lse[:, rows, None]).exp()
        found = weights @ _wide(value[keys], query.shape[1])
        out[rows] = found.transpose(0, 1).to(out.dtype)
    unread = torch.zeros(2)
    return out, lse, unread, unread, unread


def backward(
    grad: torch.Tensor,  # THD
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    out: torch.Tensor,
    lse: torch.Tensor,  # HT
    cuts: torch.Tensor,
    key_cuts: torch.Tensor,
    longest: int,
    longest_key: int,
    dropout: float,
    causal: bool,
    seed: torch.Tensor,
    unused: torch.Tensor,
    *,
    scale: float,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return dq, dk, dv in the layout of the inputs."""
    _check(query, key, cuts, key_cuts, longest, longest_key)
    if lse.shape != query.shape[1::-1] or lse.dtype != torch.float32:
        raise RuntimeError("the log-sum-exp must be heads by tokens in fp32")
    if not (grad.is_contiguous() and out.is_contiguous() and lse.is_contiguous()):
        raise RuntimeError("grad, out and log-sum-exp must be contiguous")
    heads, shared = query.shape[1], key.shape[1]
    slopes = tuple(torch.empty_like(t) for t in (query, key, value))
    for rows, keys in _segments(cuts, key_cuts):
        upstream, made = (t[rows].transpose(0, 1).float() for t in (grad, out))
        scores = _scores(query[rows], key[keys], causal, scale)
        weights = (scores - lse[:, rows, None]).exp()
        slope = upstream @ _wide(value[keys], heads).transpose(-1, -2)
        slope = weights * (slope - (upstream * made).sum(-1, keepdim=True)) * scale
        asked = query[rows].transpose(0, 1).float()
        found = (
            slope @ _wide(key[keys], heads),
            (slope.transpose(-1, -2) @ asked).unflatten(0, (shared, -1)).sum(1),
            (weights.transpose(-1, -2) @ upstream).unflatten(0, (shared, -1)).sum(1),
        )
        for into, part, where in zip(slopes, found, (rows, keys, keys), strict=True):
            into[where] = part.transpose(0, 1).to(into.dtype)
    return slopes


def _check(
    query: torch.Tensor, key: torch.Tensor, cuts: torch.Tensor, key_cuts: torch.Tensor,
    longest: int, longest_key: int,
) -> None:  # fmt: skip
    for tensor, places, most in ((query, cuts, longest), (key, key_cuts, longest_key)):
        if places.dtype != torch.int32 or int(places[0]) or int(places[-1]) != len(tensor):
            raise RuntimeError("cuts must be int32 and tile the tokens")
        if int(places.diff().max()) > most or tensor.stride(-1) != 1:
            raise RuntimeError("a longer row than was said, or head sizes that are not contiguous")


def _segments(cuts: torch.Tensor, key_cuts: torch.Tensor) -> list[tuple[slice, slice]]:
    ends = zip(cuts.tolist(), cuts.tolist()[1:], strict=False)
    key_ends = zip(key_cuts.tolist(), key_cuts.tolist()[1:], strict=False)
    return [(slice(*a), slice(*b)) for a, b in zip(ends, key_ends, strict=True)]


def _wide(tensor: torch.Tensor, heads: int) -> torch.Tensor:
    """Return PGD as HPD in fp32."""
    tensor = tensor.transpose(0, 1).float()
    return tensor.repeat_interleave(heads // len(tensor), dim=0)


def _scores(query: torch.Tensor, key: torch.Tensor, causal: bool, scale: float) -> torch.Tensor:
    """Return scores as heads by queries by keys."""
    asked = query.transpose(0, 1).float()
    scores = asked @ _wide(key, len(asked)).transpose(-1, -2) * scale
    if causal:
        ahead = torch.ones(scores.shape[-2:], dtype=torch.bool).triu(1)
        scores = scores.masked_fill(ahead, float("-inf"))
    return scores
