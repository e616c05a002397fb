"""Forward passes over rows that share a prompt prefix: computed once, attended to by all.

What follows the prefix is one stream of tokens without padding (transformers_attention.py): the
prompts of many rows, a token for each of them, or the nodes of a tree of answers. Models that
attend in other ways (sliding windows, state spaces, softcaps) take the plain path: no sharing,
padded rows, transformers' own cache and masks; a short probe decides, with the reason kept.
B rows, N tokens of a stream, P prefix, V vocabulary.
"""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers.cache_utils import DynamicCache

from tutelage.inference.transformers_attention import NAME, Pair, Slots, Tokens, plan_pass, register
from tutelage.inference.transformers_load import unwrapped
from tutelage.inference.transformers_prepare import short

_LEAST_PREFIX = 8  # tokens; a shorter one is not worth its own forward pass
_STREAM = 2048  # tokens of prompts that one pass computes
_CLOSE = 1e-3  # difference of log-probabilities that the probe allows in fp32
_CLOSE_NARROW = 0.5  # the same with 16 bits
_NONE = torch.zeros(0)


@dataclass
class Batch:
    """Rows in the middle of being computed."""

    position: torch.Tensor  # of the next token of each row, (B,)
    logits: torch.Tensor  # after the newest token, (B, V), float32
    slots: Any = None  # Slots, unless the path is the plain one
    filled: torch.Tensor = _NONE  # slots in use, (B,)
    cache: Any = None  # of the plain path
    seen: torch.Tensor = _NONE  # of the plain path: real (not padding) keys, (B, keys)


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
    """Runs a model over batches. Kept between them: the shared prefix, and the newest prompts."""

    def __init__(self, model: Any, pad: int, *, share: bool = True) -> None:
        self.model = model
        self.pad = pad
        self.why_plain = can_share(model) if share else "it was turned off"
        self._probed = False
        self._prefix: tuple[object, list[Pair]] | None = None
        self._newest: tuple[object, Batch] | None = None

    @property
    def shares(self) -> bool:
        """Whether prefixes are computed once. The first call tries it on a few tokens."""
        if self.why_plain is None and not self._probed:
            self._probed = True
            self.why_plain = self._probe()
        return self.why_plain is None

    @property
    def slot_bytes(self) -> int:
        """What the keys and values of one token take, in all layers."""
        _, states = self._prefix or ((), self._prefix_states(()))
        return sum(
            (k.shape[0] * k.shape[2] + v.shape[0] * v.shape[2]) * k.element_size()
            for k, v in states
        )

    def forget(self) -> None:
        """Drop what is kept: the weights have changed."""
        self._prefix = self._newest = None

    def start(
        self,
        prompts: Sequence[Sequence[int]],
        prefix: Sequence[int],
        room: int,
        *,
        again: bool = False,
    ) -> Batch:
        """Compute the prompts, which all begin with `prefix`; `room` tokens may follow.

        With `again`, the prompts of the call before are not computed a second time. What followed
        them is overwritten then, so that batch must be done with.
        """
        if not self.shares:
            return self._start_plain(prompts, prefix)
        key = (len(prefix), tuple(map(tuple, prompts)))
        own = [list(p[len(prefix) :]) for p in prompts]
        counts = torch.tensor([len(p) for p in own])
        width = int(counts.max()) + room
        if not again or self._newest is None or self._newest[0] != key:
            self._newest = None
            slots = self.slots(prefix, len(own), width)
            batch = Batch(counts + len(prefix), _NONE, slots, counts)
            batch.logits = self._read(batch, own, len(prefix))
            self._newest = (key, batch)
        kept = self._newest[1]
        if kept.slots.room < width:
            kept.slots.grow(width)
        return Batch(counts + len(prefix), kept.logits.clone(), kept.slots, counts)

    def slots(self, prefix: Sequence[int], rows: int, room: int) -> Slots:
        """Return empty slots for `rows` rows that stand on `prefix`, which may be none."""
        return Slots(self._prefix_states(prefix), rows, room)

    def _read(self, batch: Batch, own: list[list[int]], first_position: int) -> torch.Tensor:
        """Compute each row's own tokens into the batch; return the logits after them, (B, V)."""
        parts = []
        counts = batch.filled
        for first, last in _portions([len(p) for p in own], _STREAM):
            ids = torch.tensor([token for p in own[first:last] for token in p])
            rows = torch.repeat_interleave(torch.arange(first, last), counts[first:last])
            at = torch.cat([torch.arange(len(p)) for p in own[first:last]])
            ends = counts[first:last].cumsum(0) - 1
            tokens = Tokens(ids, rows, at, at + first_position)
            parts.append(self.stream(batch, tokens, keep=ends).cpu())
        return torch.cat(parts)

    def step(self, batch: Batch, tokens: torch.Tensor, rows: torch.Tensor | None = None) -> None:
        """Add one token to each row and leave the logits that follow in the batch.

        `tokens` is (B,), or one a row of `rows`, which are in order; the others stay as they are.
        """
        if batch.slots is None:
            self._step_plain(batch, tokens, rows)
            return
        rows = torch.arange(len(batch.position)) if rows is None else rows
        made = self.stream(batch, Tokens(tokens, rows, batch.filled[rows], batch.position[rows]))
        batch.logits[rows] = made.cpu()
        batch.filled[rows] += 1
        batch.position[rows] += 1

    def stream(
        self, batch: Batch, tokens: Tokens, *, keep: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Return the logits after the tokens `keep` (default all) of one stream, (K, V), fp32.

        They are on the model's device.
        """
        plan = plan_pass(batch.slots, tokens)
        device = self.model.device
        with self._attention():
            out = self.model(
                input_ids=tokens.ids[None].to(device),
                position_ids=tokens.positions[None].to(device),
                use_cache=False, rows_pass=plan,
                logits_to_keep=0 if keep is None else keep.to(device),
            )  # fmt: skip
        logits: torch.Tensor = out.logits[0].float()
        return logits

    @contextlib.contextmanager
    def _attention(self) -> Iterator[None]:
        """Have the decoder attend through rows_attention, as long as the pass lasts."""
        register()
        config: Any = unwrapped(self.model).get_decoder().config
        usual = config._attn_implementation
        config._attn_implementation = NAME
        try:
            yield
        finally:
            config._attn_implementation = usual

    def _prefix_states(self, prefix: Sequence[int]) -> list[Pair]:
        """Return each layer's keys and values (GPD) of the prefix, kept for reuse."""
        key = tuple(prefix)
        if self._prefix is not None and self._prefix[0] == key:
            return self._prefix[1]
        cache = DynamicCache(config=self.model.config.get_text_config())
        ids = torch.tensor([list(prefix) or [self.pad]], device=self.model.device)
        self.model(input_ids=ids, past_key_values=cache, use_cache=True, logits_to_keep=1)
        states = [
            (layer.keys[0, :, : len(prefix)].contiguous(),
             layer.values[0, :, : len(prefix)].contiguous())
            for layer in cache.layers
        ]  # fmt: skip
        self._prefix = (key, states)
        return states

    def _probe(self) -> str | None:
        """Compare a few tokens with the model's own attention; return what is wrong, or None."""
        size = int(self.model.config.get_text_config().vocab_size)
        ids = [(7 * i + 5) % size for i in range(_LEAST_PREFIX + 5)]
        training = self.model.training
        self.model.train(False)
        try:
            with torch.inference_mode():
                whole = torch.tensor([ids], device=self.model.device)
                plain = self.model(input_ids=whole, use_cache=False, logits_to_keep=1).logits[0]
                own = [ids, [*ids[:_LEAST_PREFIX], ids[0]]]
                made = self.start(own, ids[:_LEAST_PREFIX], 0).logits[:1]
        except Exception as error:
            return f"its attention is of another kind ({type(error).__name__}: {short(error)})"
        finally:
            self.forget()
            self.model.train(training)
        gap = made.log_softmax(-1) - plain.float().cpu().log_softmax(-1)
        close = _CLOSE if self.model.dtype == torch.float32 else _CLOSE_NARROW
        return None if float(gap.abs().max()) <= close else "its attention gives other numbers"

    def _start_plain(self, prompts: Sequence[Sequence[int]], prefix: Sequence[int]) -> Batch:
        """Compute padded rows with transformers' own cache; `prefix` is computed a row."""
        del prefix
        width = max(len(p) for p in prompts)
        ids = torch.full((len(prompts), width), self.pad)
        seen = torch.zeros((len(prompts), width), dtype=torch.long)
        for row, tokens in enumerate(prompts):
            ids[row, width - len(tokens) :] = torch.tensor(tokens)
            seen[row, width - len(tokens) :] = 1
        count = seen.sum(dim=1)
        position = (torch.arange(width) - (width - count)[:, None]).clamp(min=0)
        cache = DynamicCache(config=self.model.config.get_text_config())
        batch = Batch(count, _NONE, cache=cache, seen=seen)
        batch.logits = self._plain(batch, ids, position)
        return batch

    def _step_plain(self, batch: Batch, tokens: torch.Tensor, rows: torch.Tensor | None) -> None:
        if rows is not None:  # rows that ended go on, and nobody looks
            every = torch.full((len(batch.position),), self.pad)
            every[rows] = tokens
            tokens = every
        batch.seen = torch.cat([batch.seen, batch.seen.new_ones((len(tokens), 1))], dim=1)
        batch.logits = self._plain(batch, tokens[:, None], batch.position[:, None])
        batch.position = batch.position + 1

    def _plain(self, batch: Batch, ids: torch.Tensor, position: torch.Tensor) -> torch.Tensor:
        device = self.model.device
        out = self.model(
            input_ids=ids.to(device), attention_mask=batch.seen.to(device),
            position_ids=position.to(device), past_key_values=batch.cache, use_cache=True,
            logits_to_keep=1,
        )  # fmt: skip
        logits: torch.Tensor = out.logits[:, -1].float().cpu()
        return logits


def _portions(lengths: Sequence[int], limit: int) -> Iterator[tuple[int, int]]:
    """Yield (first, last) of runs of rows with at most `limit` tokens, or one row."""
    first = total = 0
    for place, length in enumerate(lengths):
        if place > first and total + length > limit:
            yield first, place
            first, total = place, 0
        total += length
    yield first, len(lengths)
