"""How far tuning moved the next-token distribution: KL divergence from the base to the tuned model.

Both sides come from one engine whose adapter is switched on and off, so the base weights lie in
memory once. Nothing is sampled: the sum runs over the whole vocabulary at every position.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from tutelage.inference.transformers import TransformersGenerator
from tutelage.inference.transformers_attention import Tokens
from tutelage.inference.transformers_cache import Batch

_WINDOW = 512  # tokens of one text that are seen together
_POSITIONS = 1024  # positions whose logits are held at once, two times over


def divergence(
    engine: TransformersGenerator, texts: Sequence[str], tuned: Path
) -> list[tuple[float, int]]:
    """Return (sum of KL(base ‖ tuned) in nats, positions) a text, without a chat template.

    `tuned` is the folder of an adapter or a whole model. The mean over positions is the forward
    KL divergence a token. The engine is left with the base model in use.
    """
    totals = [(0.0, 0)] * len(texts)
    windows: list[tuple[int, list[int]]] = []
    for index, text in enumerate(texts):
        ids = engine.tokenizer(text, verbose=False)["input_ids"]
        windows += [(index, ids[at : at + _WINDOW]) for at in range(0, len(ids), _WINDOW)]
    windows.sort(key=lambda window: len(window[1]))
    while windows:
        count = 1
        while count < len(windows) and _positions(windows[: count + 1], engine) <= _POSITIONS:
            count += 1
        group, windows = windows[:count], windows[count:]
        sums = _group(engine, [ids for _, ids in group], tuned)
        for (index, ids), nats in zip(group, sums, strict=True):
            total, positions = totals[index]
            totals[index] = (total + nats, positions + len(ids))
    return totals


def _positions(windows: Sequence[tuple[int, list[int]]], engine: TransformersGenerator) -> int:
    """Return how many positions a pass over the windows computes; the last is the longest."""
    if engine._runner.shares:
        return sum(len(ids) for _, ids in windows)
    return len(windows) * len(windows[-1][1])


def _group(engine: TransformersGenerator, rows: list[list[int]], tuned: Path) -> list[float]:
    """Return the summed KL divergence of each row."""
    after = _log_chances(engine, rows, tuned)  # (positions of all rows, vocabulary)
    before = _log_chances(engine, rows, None)
    each = (before.exp() * before.sub(after)).sum(dim=-1).double()
    lengths = [len(row) for row in rows]
    return [max(0.0, float(part.sum())) for part in each.split(lengths)]  # ≥ 0 up to rounding


def _log_chances(
    engine: TransformersGenerator, rows: list[list[int]], adapter: Path | None
) -> torch.Tensor:
    engine.set_adapter(adapter)
    runner, lengths = engine._runner, [len(row) for row in rows]
    with engine._still():
        if runner.shares:
            ids = torch.tensor([token for row in rows for token in row])
            owners = torch.repeat_interleave(torch.arange(len(rows)), torch.tensor(lengths))
            at = torch.cat([torch.arange(length) for length in lengths])
            batch = Batch(at, at, runner.slots((), len(rows), max(lengths)))
            logits = runner.stream(batch, Tokens(ids, owners, at, at))
            return torch.log_softmax(logits, dim=-1)
        padded = torch.zeros((len(rows), max(lengths)), dtype=torch.long)
        for row, tokens in enumerate(rows):
            padded[row, : len(tokens)] = torch.tensor(tokens)
        logits = engine._model(input_ids=padded.to(engine._model.device)).logits
        kept = [logits[row, :length].float() for row, length in enumerate(lengths)]
        return torch.log_softmax(torch.cat(kept), dim=-1)
