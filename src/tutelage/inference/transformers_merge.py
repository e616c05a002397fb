"""An adapter folded into the base's matrices while it is in use: one product a layer, not three.

Merged and separate differ by rounding alone. The base's own matrices are kept and put back bit for
bit, which takes their memory a second time, so only small models are merged.
"""

from __future__ import annotations

from typing import Any

import torch

_MOST_MB = 1024  # of matrices that are held twice


class MergedAdapter:
    """The adapter `name` of a PEFT model, merged: `use` and `undo` swap matrices, in no time."""

    def __init__(self, model: Any, name: str) -> None:
        self._name = name
        self._own = [(layer, layer.get_base_layer().weight.data) for layer in lora_layers(model)]
        model.merge_adapter(adapter_names=[name], safe_merge=True)  # into copies
        self._merged = [(layer, layer.get_base_layer().weight.data) for layer, _ in self._own]

    def use(self) -> None:
        """Put the merged matrices in place."""
        for layer, weight in self._merged:
            layer.get_base_layer().weight.data = weight
            layer.merged_adapters[:] = [self._name]

    def undo(self) -> None:
        """Put the base's own matrices back."""
        for layer, weight in self._own:
            layer.get_base_layer().weight.data = weight
            layer.merged_adapters.clear()


def can_merge(model: Any) -> bool:
    """Return whether all the adapter's layers are plain LoRA in fp32 and small enough to copy."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    layers = lora_layers(model)
    if len(layers) != sum(isinstance(module, BaseTunerLayer) for module in model.modules()):
        return False
    weights = [layer.get_base_layer().weight for layer in layers]
    size = sum(weight.numel() * weight.element_size() for weight in weights)
    return size <= _MOST_MB * 2**20 and all(weight.dtype == torch.float32 for weight in weights)


def lora_layers(model: Any) -> list[Any]:
    """Return the linear layers of `model` that have a LoRA beside them."""
    from peft.tuners.lora.layer import Linear

    return [module for module in model.modules() if type(module) is Linear]
