"""Per-row gradients of a trained adapter, sketched to a few thousand numbers a row.

A row's gradient is that of its own loss (mean over its labelled tokens) by the adapter's weights,
at the adapter as it was saved and without dropout. A count sketch (Charikar et al. 2002; feature
hashing: Weinberger et al. 2009, arXiv 0902.2206) keeps inner products in expectation, in the role
of TRAK's random projection (Park et al. 2023, arXiv 2303.14186). What the products mean is
data/valuation.py's business.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from tutelage.core.errors import ModelError
from tutelage.core.example import Example
from tutelage.inference.models import ModelSource
from tutelage.inference.transformers import load_model, load_tokenizer
from tutelage.training.adapters import trained_parameters
from tutelage.training.encode import encode
from tutelage.training.prefix_tree import Row
from tutelage.training.shared_step import plain_step

DIMENSIONS = 4096  # inner products of unit vectors are off by about 1/64
SEED = 0  # of the sketch: part of what gradients are kept under
_MARK = "lora_"  # in the name of every weight of an adapter


class Sketch:
    """A fixed random map of P numbers to D: each goes to one place with a random sign."""

    def __init__(self, size: int, dimensions: int = DIMENSIONS, seed: int = SEED) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.dimensions = dimensions
        self._place = torch.randint(dimensions, (size,), generator=generator)
        self._sign = torch.randint(2, (size,), generator=generator).float() * 2 - 1

    def __call__(self, values: torch.Tensor) -> torch.Tensor:
        """Return the sketch of `values`, shape (P,), as fp32 of shape (D,), on the CPU."""
        signed = values.to("cpu", torch.float32) * self._sign
        return torch.zeros(self.dimensions).index_add_(0, self._place, signed)


class RowGradients:
    """A model with a saved adapter, ready to give the gradient of any row."""

    def __init__(self, model: Any, dimensions: int = DIMENSIONS) -> None:
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(_MARK in name)
        model.eval()  # no dropout: the gradient of the model as it is served
        self._model = model
        self._parameters = list(trained_parameters(model).values())
        size = sum(parameter.numel() for parameter in self._parameters)
        if not size:
            raise ModelError(
                "the adapter has no LoRA weights", fix="Train one with train.method: lora"
            )
        self._sketch = Sketch(size, dimensions)

    def whole(self, row: Row) -> torch.Tensor:
        """Return the row's gradient by all weights of the adapter in name order, shape (P,)."""
        self._model.zero_grad(set_to_none=True)
        plain_step(self._model, [row], 1)
        parts = [
            torch.zeros(parameter.numel()) if parameter.grad is None else parameter.grad.flatten()
            for parameter in self._parameters
        ]
        self._model.zero_grad(set_to_none=True)
        return torch.cat([part.to("cpu", torch.float32) for part in parts])

    def __call__(self, rows: Sequence[Row]) -> NDArray[np.float32]:
        """Return the sketched gradients, shape (N, D)."""
        found = [self._sketch(self.whole(row)) for row in rows]
        if not found:
            return np.zeros((0, self._sketch.dimensions), dtype=np.float32)
        stacked: NDArray[np.float32] = torch.stack(found).numpy()
        return stacked


def open_gradients(source: ModelSource, adapter: Path) -> RowGradients:
    """Return the base model with the adapter in `adapter`. Raises ModelError if they don't fit."""
    return RowGradients(load_model(source, dtype="float32", adapter=adapter))


def encode_rows(
    source: ModelSource, rows: Sequence[Example], prompt: str, max_tokens: int
) -> list[Row]:
    """Return the rows as they were trained on, without those that have no labelled token."""
    return encode(rows, load_tokenizer(source), prompt, max_tokens=max_tokens).rows
