"""Exact attention of tokens that stand on one shared prefix: the prefix is kept once for all rows.

A pass is one stream of tokens without padding, of any rows. Each token attends to the prefix and
to those tokens of its own row that it may see. Both are softmaxes of their own, joined by their
log-sum-exp as in ring attention (Liu et al. 2023, arXiv 2310.01889), so the result is that of one
softmax over all keys. Keys and values of a row's own tokens are kept in slots, written as the
pass goes; no key of the prefix is ever copied.

Shapes: H query heads, G key heads (H a multiple of G), D head size, N tokens of the stream,
P tokens of the prefix, B rows, S slots a row, R rows and Q tokens a row that take part in a pass.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

NAME = "tutelage_rows"

_FLASH = getattr(torch.ops.aten, "_scaled_dot_product_flash_attention_for_cpu", None)
_FLASH_FROM = 16  # queries of a row and key head; for fewer, plain products are faster
_BARRED = torch.finfo(torch.float32).min
_CHUNK = 1024  # queries whose scores plain products hold at once

Pair = tuple[torch.Tensor, torch.Tensor]


class Slots:
    """Keys and values of every layer: a prefix for all (GPD), and B rows with S slots (BSGD)."""

    def __init__(self, prefix: list[Pair], rows: int, room: int) -> None:
        self.prefix = prefix
        self.own: list[Pair] = [
            (k.new_zeros((rows, room, k.shape[0], k.shape[2])),
             v.new_zeros((rows, room, v.shape[0], v.shape[2])))
            for k, v in prefix
        ]  # fmt: skip

    @property
    def room(self) -> int:
        """Slots a row."""
        return int(self.own[0][0].shape[1])

    def grow(self, room: int) -> None:
        """Give every row `room` slots; what is in them stays."""
        for layer, pair in enumerate(self.own):
            wider = []
            for old in pair:
                new = old.new_zeros((old.shape[0], room, *old.shape[2:]))
                new[:, : old.shape[1]] = old
                wider.append(new)
            self.own[layer] = (wider[0], wider[1])


@dataclass
class Tokens:
    """A stream: token n is of row `rows[n]` and is kept in slot `at[n]`. All (N,), on the CPU.

    Tokens of a row lie together. `sees` (N, keys) says which of the first slots of its row a
    token attends to, by default all up to its own; `chain` (N, A) names further ones, -1 for
    none. Its own must be among them.
    """

    ids: torch.Tensor
    rows: torch.Tensor
    at: torch.Tensor
    positions: torch.Tensor
    sees: torch.Tensor | None = None
    chain: torch.Tensor | None = None


@dataclass
class Pass:
    """Who a stream's tokens are. Made by `plan_pass`, handed through the model as a keyword."""

    slots: Slots
    write: torch.Tensor  # (N,) where each token's key goes, row x S + slot
    rows: torch.Tensor | None  # (R,) the rows that take part; None for all, in order
    place: torch.Tensor | None  # (N,) where a token's query lies among R x Q; None if in order
    barred: torch.Tensor  # (R, 1, Q, keys) 0 for what is seen, else the lowest number
    chain: torch.Tensor | None = None  # (N, A) more slots a token sees, row x S + slot
    chain_barred: torch.Tensor | None = None  # (N, 1, 1, A) the same for those


def plan_pass(slots: Slots, tokens: Tokens) -> Pass:
    """Return what the attention needs to know of a stream."""
    rows, sees, chain = tokens.rows, tokens.sees, tokens.chain
    if sees is None:
        sees = torch.arange(int(tokens.at.max()) + 1) <= tokens.at[:, None]
    device = slots.own[0][0].device
    active, inverse, counts = torch.unique_consecutive(
        rows, return_inverse=True, return_counts=True
    )
    first = counts.cumsum(0) - counts
    width, (count, keys) = int(counts.max()), sees.shape
    place = inverse * width + torch.arange(count) - first[inverse]
    barred = torch.full((len(active) * width, keys), _BARRED)
    barred[place] = torch.zeros(sees.shape).masked_fill_(~sees, _BARRED)
    everyone = torch.equal(active, torch.arange(slots.own[0][0].shape[0]))
    made = Pass(
        slots,
        (rows * slots.room + tokens.at).to(device),
        None if everyone else active.to(device),
        None if len(active) * width == count else place.to(device),
        barred.view(len(active), 1, width, keys).to(device),
    )
    if chain is not None:
        there = chain >= 0
        made.chain = ((rows * slots.room)[:, None] + chain.clamp(min=0)).to(device)
        hidden = torch.zeros(chain.shape).masked_fill_(~there, _BARRED)
        made.chain_barred = hidden[:, None, None].to(device)
    return made


def register() -> None:
    """Make the attention known to transformers under NAME; safe to call again."""
    from transformers import AttentionInterface

    AttentionInterface.register(NAME, rows_attention)


def rows_attention(
    module: torch.nn.Module,
    query: torch.Tensor,  # 1HND
    key: torch.Tensor,  # 1GND
    value: torch.Tensor,  # 1GND
    attention_mask: torch.Tensor | None,
    *,
    scaling: float | None = None,
    rows_pass: Pass | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """Return the attention, 1NHD. Raises NotImplementedError for what it can't do exactly."""
    extra = [k for k in ("softcap", "s_aux", "position_bias") if kwargs.get(k) is not None]
    if rows_pass is None or attention_mask is not None or extra or kwargs.get("sliding_window"):
        raise NotImplementedError(f"attention with {', '.join(extra) or 'a mask or window'}")
    scale = scaling if scaling is not None else query.shape[-1] ** -0.5
    layer = int(module.layer_idx)
    own_keys, own_values = rows_pass.slots.own[layer]
    own_keys.flatten(0, 1).index_copy_(0, rows_pass.write, key[0].transpose(0, 1))
    own_values.flatten(0, 1).index_copy_(0, rows_pass.write, value[0].transpose(0, 1))
    parts = [_own(query[0], own_keys, own_values, rows_pass, scale)]
    if rows_pass.chain is not None:
        parts.append(_chain(query[0], own_keys, own_values, rows_pass, scale))
    prefix_keys, prefix_values = rows_pass.slots.prefix[layer]
    if prefix_keys.shape[1]:
        parts.append(_prefix(query[0], prefix_keys, prefix_values, scale))
    return _joined(parts).to(value.dtype)[None], None


def _joined(parts: list[Pair]) -> torch.Tensor:
    """Return the attention (NHD) of a softmax over all keys that the parts looked at."""
    out, lse = parts[0]
    for other, other_lse in parts[1:]:
        out = torch.lerp(out, other, torch.sigmoid(other_lse - lse)[..., None])
        lse = torch.logaddexp(lse, other_lse)
    return out


def _own(
    query: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, plan: Pass, scale: float
) -> Pair:
    """Return attention to slots that a row's tokens share, fp32 NHD, and its log-sum-exp, NH."""
    heads, _, size = query.shape
    rows, _, width, seen = plan.barred.shape
    groups = keys.shape[2]
    keys, values = keys[:, :seen], values[:, :seen]
    if plan.rows is not None:
        keys, values = keys[plan.rows], values[plan.rows]
    padded = query.transpose(0, 1)  # NHD
    if plan.place is not None:
        padded = query.new_zeros((rows * width, heads, size))
        padded[plan.place] = query.transpose(0, 1)
    folded = padded.reshape(rows, width, groups, heads // groups, size).permute(0, 2, 3, 1, 4)
    folded = folded.reshape(rows, groups, -1, size)  # RG(H/G x Q)D
    barred = plan.barred.expand(rows, heads // groups, width, seen).reshape(rows, 1, -1, seen)
    out, lse = _masked(folded, keys.transpose(1, 2), values.transpose(1, 2), barred, scale)
    out, lse = _unfold(out, rows, width, heads, size), _unfold(lse, rows, width, heads, 1)
    if plan.place is not None:
        out, lse = out[plan.place], lse[plan.place]
    return out.float(), lse[..., 0]


def _masked(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, barred: torch.Tensor, scale: float
) -> Pair:
    """Return attention of RGQD queries to RGKD keys, and its log-sum-exp, RGQ."""
    plain = query.dtype == torch.float32 and query.device.type == "cpu"
    if _FLASH is not None and plain and query.shape[2] >= _FLASH_FROM:
        out, lse = _FLASH(query, key, value, attn_mask=barred, scale=scale)
        return out, lse
    scores = (query @ key.transpose(2, 3)).float().mul_(scale).add_(barred)
    lse = scores.logsumexp(dim=-1)
    return scores.sub_(lse[..., None]).exp_().to(value.dtype) @ value, lse


def _chain(
    query: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, plan: Pass, scale: float
) -> Pair:
    """Return attention to the slots that each token names, fp32 NHD, and its log-sum-exp, NH."""
    heads, count, size = query.shape
    key = keys.flatten(0, 1)[plan.chain]  # NAGD
    value = values.flatten(0, 1)[plan.chain]
    folded = query.transpose(0, 1).reshape(count, key.shape[2], -1, size)  # NG(H/G)D
    scores = (folded @ key.permute(0, 2, 3, 1)).float().mul_(scale).add_(plan.chain_barred)
    lse = scores.logsumexp(dim=-1)
    out = scores.sub_(lse[..., None]).exp_().to(value.dtype) @ value.transpose(1, 2)
    return out.reshape(count, heads, size).float(), lse.reshape(count, heads)


def _unfold(part: torch.Tensor, rows: int, width: int, heads: int, size: int) -> torch.Tensor:
    """Return RG(H/G x Q)D as (R x Q)HD."""
    return part.reshape(rows, heads, width, size).transpose(1, 2).reshape(-1, heads, size)


def _prefix(query: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, scale: float) -> Pair:
    """Return attention of all tokens to the prefix (GPD), fp32 NHD, and its log-sum-exp, NH."""
    heads, count, size = query.shape
    folded = query.reshape(keys.shape[0], -1, size)  # G(H/G x N)D
    if _FLASH is not None and query.device.type == "cpu":
        out, lse = _FLASH(folded[None], keys[None], values[None], scale=scale)
        out, lse = out[0], lse[0]
    else:
        out, lse = torch.empty_like(folded), folded.new_empty(folded.shape[:2]).float()
        for start in range(0, folded.shape[1], _CHUNK):
            part = slice(start, start + _CHUNK)
            scores = (folded[:, part] @ keys.transpose(1, 2)).float().mul_(scale)
            lse[:, part] = scores.logsumexp(dim=-1)
            out[:, part] = scores.sub_(lse[:, part, None]).exp_().to(values.dtype) @ values
    out = out.reshape(heads, count, size).transpose(0, 1)
    return out.float(), lse.reshape(heads, count).transpose(0, 1).float()
