"""Forward passes over a batch that shares a prompt prefix: computed once, attended to by all.

One batch row is laid out as [shared prefix][padding][its own prompt][what follows]. Keys and
values live in buffers with room to grow, so a decoding step copies nothing. Every pass gets an
explicit additive mask (rows, 1, queries, keys). Models whose layers do not all attend to
everything (sliding windows, state spaces) take the plain path: no sharing, transformers' own
cache and masks. B rows, S tokens of the longest own prompt, P prefix, V vocabulary.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from transformers.cache_utils import Cache, DynamicCache, DynamicLayer

from tutelage.inference.transformers_load import unwrapped

_LEAST_PREFIX = 8  # tokens; a shorter one is not worth its own forward pass


class RoomyLayer(DynamicLayer):  # type: ignore[misc]
    """Keys and values of one layer in a buffer with room; `rewind` forgets the newest tokens."""

    def __init__(self, keys: torch.Tensor, values: torch.Tensor, rows: int, room: int) -> None:
        """Start from a prefix `keys`, `values` (1, heads, P, D), the same for all rows."""
        super().__init__()
        heads, start, width = keys.shape[1:]
        self.length: int = start
        shape = (rows, heads, start + room, width)
        self._keys, self._values = keys.new_empty(shape), values.new_empty(shape)
        self._keys[:, :, :start] = keys
        self._values[:, :, :start] = values
        self.dtype, self.device = keys.dtype, keys.device
        self.is_initialized = True
        self.rewind(start)

    def rewind(self, length: int) -> None:
        """Keep the first `length` tokens."""
        self.length = length
        self.keys, self.values = self._keys[:, :, :length], self._values[:, :, :length]

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        start, end = self.length, self.length + key_states.shape[-2]
        self._keys[:, :, start:end] = key_states
        self._values[:, :, start:end] = value_states
        self.rewind(end)
        return self.keys, self.values

    def get_seq_length(self) -> int:
        return self.length


@dataclass
class Batch:
    """Rows in the middle of being computed. `seen` marks real (not padding) keys, (B, keys)."""

    cache: Any
    seen: torch.Tensor
    position: torch.Tensor  # of the next token of each row, (B,)
    logits: torch.Tensor  # after the newest token, (B, V), float32
    lengths: list[int] = field(default_factory=list)


def common_prefix(prompts: Sequence[Sequence[int]]) -> int:
    """Return how many leading tokens all prompts share; each keeps at least one of its own."""
    if len(prompts) < 2:
        return 0
    low, high = min(map(list, prompts)), max(map(list, prompts))
    shared = 0
    for left, right in zip(low, high, strict=False):
        if left != right:
            break
        shared += 1
    shared = min(shared, min(len(p) for p in prompts) - 1)
    return shared if shared >= _LEAST_PREFIX else 0


def can_share(model: Any) -> str | None:
    """Return None if every layer attends to all earlier tokens, else why sharing is off."""
    config = model.config.get_text_config()
    kinds = set(getattr(config, "layer_types", None) or [])
    if kinds - {"full_attention"}:
        return f"its layers are {', '.join(sorted(kinds))}"
    if not kinds and getattr(config, "sliding_window", None):
        return "it attends to a sliding window"
    if "position_ids" not in inspect.signature(unwrapped(model).forward).parameters:
        return "it takes no positions"
    if getattr(config, "is_encoder_decoder", False):
        return "it is an encoder and a decoder"
    return None


class Runner:
    """Runs a model over batches. Nothing is kept between batches but the shared prefix."""

    def __init__(self, model: Any, pad: int, *, share: bool = True) -> None:
        self.model = model
        self.pad = pad
        self.why_plain = can_share(model) if share else "it was turned off"
        self._prefix: tuple[object, list[tuple[torch.Tensor, torch.Tensor]]] | None = None

    @property
    def shares(self) -> bool:
        """Whether prefixes are computed once."""
        return self.why_plain is None

    def forget(self) -> None:
        """Drop the kept prefix: the weights have changed."""
        self._prefix = None

    def start(self, prompts: Sequence[Sequence[int]], prefix: Sequence[int], room: int) -> Batch:
        """Compute the prompts, which all begin with `prefix`; `room` tokens may follow."""
        own = [list(p[len(prefix) :]) for p in prompts]
        width = max(len(p) for p in own)
        ids = torch.full((len(own), width), self.pad)
        real = torch.zeros((len(own), width), dtype=torch.bool)
        for row, tokens in enumerate(own):
            ids[row, width - len(tokens) :] = torch.tensor(tokens)
            real[row, width - len(tokens) :] = True
        count = torch.tensor([len(p) for p in own])
        position = (torch.arange(width) - (width - count)[:, None]).clamp(min=0) + len(prefix)
        seen = torch.cat([torch.ones((len(own), len(prefix)), dtype=torch.bool), real], dim=1)
        cache = self._cache(prefix, len(own), width + room)
        causal = torch.ones((width, width), dtype=torch.bool).tril()
        allowed = torch.cat([torch.ones((width, len(prefix)), dtype=torch.bool), causal], dim=1)
        mask = allowed[None] & seen[:, None]
        # Padding attends to itself, for a row of the softmax with nothing in it is not a number.
        mask[:, :, len(prefix) :] |= torch.eye(width, dtype=torch.bool)
        logits = self._forward(ids, position, cache, seen, mask, keep=1)
        return Batch(cache, seen, count + len(prefix), logits[:, -1], [len(p) for p in prompts])

    def step(self, batch: Batch, tokens: torch.Tensor) -> None:
        """Add one token to each row, (B,), and leave the logits that follow in the batch."""
        batch.seen = torch.cat([batch.seen, batch.seen.new_ones((len(tokens), 1))], dim=1)
        logits = self._forward(
            tokens[:, None], batch.position[:, None], batch.cache, batch.seen,
            batch.seen[:, None], keep=1,
        )  # fmt: skip
        batch.position = batch.position + 1
        batch.logits = logits[:, -1]

    def branch(
        self, batch: Batch, tokens: torch.Tensor, depth: torch.Tensor, ancestors: torch.Tensor
    ) -> torch.Tensor:
        """Return the logits after each node of a tree that follows every row, (B, N, V).

        `tokens` and `depth` (0 for a first token) are (N,); `ancestors` (N, N) says which nodes
        a node sees, itself included. The batch is left as it was.
        """
        rows, keys, nodes = len(batch.position), batch.seen.shape[1], len(tokens)
        seen = torch.cat([batch.seen, batch.seen.new_ones((rows, nodes))], dim=1)
        mask = seen[:, None].expand(rows, nodes, keys + nodes).clone()
        mask[:, :, keys:] = ancestors
        logits = self._forward(
            tokens[None].expand(rows, nodes), batch.position[:, None] + depth, batch.cache, seen,
            mask, keep=nodes,
        )  # fmt: skip
        for layer in batch.cache.layers:
            layer.rewind(keys)
        return logits

    def _forward(
        self,
        ids: torch.Tensor,
        position: torch.Tensor,
        cache: Any,
        seen: torch.Tensor,
        mask: torch.Tensor,
        keep: int,
    ) -> torch.Tensor:
        device, dtype = self.model.device, self.model.dtype
        if self.shares:
            barred = torch.zeros(mask.shape, dtype=dtype).masked_fill_(
                ~mask, torch.finfo(dtype).min
            )
            attention = barred[:, None].to(device)
        else:
            attention = seen.to(device=device, dtype=torch.long)
        out = self.model(
            input_ids=ids.to(device), attention_mask=attention, position_ids=position.to(device),
            past_key_values=cache, use_cache=True, logits_to_keep=keep,
        )  # fmt: skip
        return out.logits.float().cpu()

    def _cache(self, prefix: Sequence[int], rows: int, room: int) -> Any:
        if not self.shares:
            return DynamicCache(config=self.model.config.get_text_config())
        layers = self._prefix_states(prefix)
        return Cache(layers=[RoomyLayer(keys, values, rows, room) for keys, values in layers])

    def _prefix_states(self, prefix: Sequence[int]) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """Return each layer's keys and values (1, heads, P, D) of the prefix, kept for reuse."""
        key = tuple(prefix)
        if self._prefix is not None and self._prefix[0] == key:
            return self._prefix[1]
        cache = DynamicCache(config=self.model.config.get_text_config())
        ids = torch.tensor([list(prefix) or [self.pad]], device=self.model.device)
        self.model(input_ids=ids, past_key_values=cache, use_cache=True, logits_to_keep=1)
        states = [
            (layer.keys[:, :, : len(prefix)], layer.values[:, :, : len(prefix)])
            for layer in cache.layers
        ]
        self._prefix = (key, states)
        return states
