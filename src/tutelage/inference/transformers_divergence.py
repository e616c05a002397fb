"""How far tuning moved the next-token distribution: KL divergence from the base to the tuned model.

Both sides come from one engine whose adapter is switched on and off, so the base weights lie in
memory once. Nothing is sampled: the sum runs over the whole vocabulary at every position.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from tutelage.inference.transformers import TransformersGenerator

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
        while count < len(windows) and len(windows[count][1]) * (count + 1) <= _POSITIONS:
            count += 1
        group, windows = windows[:count], windows[count:]
        sums = _group(engine, [ids for _, ids in group], tuned)
        for (index, ids), nats in zip(group, sums, strict=True):
            total, positions = totals[index]
            totals[index] = (total + nats, positions + len(ids))
    return totals


def _group(engine: TransformersGenerator, rows: list[list[int]], tuned: Path) -> list[float]:
    """Return the summed KL divergence of each row; the padding on the right is not seen by it."""
    width = max(len(row) for row in rows)
    ids = torch.zeros((len(rows), width), dtype=torch.long)
    for i, row in enumerate(rows):
        ids[i, : len(row)] = torch.tensor(row)
    after = _log_chances(engine, ids, tuned)  # (rows, width, vocabulary)
    before = _log_chances(engine, ids, None)
    sums = []
    for i, row in enumerate(rows):
        p, q = before[i, : len(row)], after[i, : len(row)]
        each = (p.exp() * (p - q)).sum(dim=-1)  # (positions,), at least 0 up to rounding
        sums.append(max(0.0, float(each.double().sum())))
    return sums


def _log_chances(
    engine: TransformersGenerator, ids: torch.Tensor, adapter: Path | None
) -> torch.Tensor:
    engine.set_adapter(adapter)
    with engine._still():
        logits = engine._model(input_ids=ids.to(engine._model.device)).logits
        return torch.log_softmax(logits.float(), dim=-1)
