"""QLoRA: LoRA on a frozen base in 4-bit NormalFloat, double quantised (Dettmers et al. 2023).

The linear layers but the head are quantised by bitsandbytes, on a GPU or a CPU, as the model is
loaded; one that came unquantised is quantised in place. The adapter is saved as any LoRA and loads
on the base as it was published (arXiv 2305.14314, section 3).
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import torch

from tutelage.core.errors import ConfigError, EnvironmentProblem
from tutelage.training.recipe import Recipe
from tutelage.training.tunings.lora import MOVING, LoraTuning


class QloraTuning:
    """The adapter of lora.py over packed weights."""

    def __init__(self) -> None:
        self._lora = LoraTuning("qlora")

    def load_options(self) -> dict[str, Any]:
        """Return how the base is loaded: quantised, so that it never lies in memory whole."""
        require_bitsandbytes()
        from transformers import BitsAndBytesConfig

        return {
            "quantization": BitsAndBytesConfig(
                load_in_4bit=True,
                bnb_4bit_quant_type="nf4",
                bnb_4bit_use_double_quant=True,
                bnb_4bit_compute_dtype=torch.float32,  # precision.py narrows it after the check
            )
        }

    def attach(self, model: Any, recipe: Recipe) -> Any:
        """Return the quantised `model` with a fresh LoRA; norms, embeddings and head are fp32."""
        require_bitsandbytes()
        if str(recipe.peft.get("init_lora_weights", "")).startswith(MOVING):
            raise ConfigError(
                "an adapter's start can't be taken out of a base that is held in 4 bits",
                where="train.peft.init_lora_weights",
                fix="Remove it, or set train.method: lora",
            )
        if not getattr(model, "is_loaded_in_4bit", False):
            quantise(model)
        keep_packing(model)
        for parameter in model.parameters():
            if parameter.is_floating_point():
                parameter.data = parameter.data.float()
        return self._lora.attach(model, recipe)

    def save(self, model: Any, directory: Path, base_name: str) -> None:
        """Write the adapter; nothing in it says that the base was quantised in training."""
        self._lora.save(model, directory, base_name)


def quantise(model: Any) -> None:
    """Turn the linear layers of `model`, but its output head, to 4-bit NF4 in place."""
    from bitsandbytes.nn import Linear4bit, Params4bit

    head = model.get_output_embeddings() if hasattr(model, "get_output_embeddings") else None
    head = head if head is not None else getattr(model, "score", None)  # of a classifier
    for name, module in list(model.named_modules()):
        if type(module) is not torch.nn.Linear or module is head:
            continue
        made = Linear4bit(
            module.in_features, module.out_features, bias=module.bias is not None,
            compute_dtype=torch.float32, compress_statistics=True, quant_type="nf4",
        )  # fmt: skip
        made.weight = Params4bit(
            module.weight.data, requires_grad=False, compress_statistics=True, quant_type="nf4"
        )
        made.bias = module.bias
        model.set_submodule(name, made.to(module.weight.device))
    model.is_loaded_in_4bit = True


def keep_packing(model: Any) -> None:
    """Let the 4-bit layers of `model` stay as they are packed.

    On processors with AVX512-BF16 a pass without gradients packs them anew in place, which rounds
    their scales to 16 bits and fails where a row is no whole number of blocks (bitsandbytes 0.50).
    """
    from bitsandbytes.nn import Linear4bit

    for module in model.modules():
        if isinstance(module, Linear4bit):
            module.support_avx512bf16_for_cpu = False


def require_bitsandbytes() -> None:
    """Raise EnvironmentProblem if the package that quantises is not installed."""
    if importlib.util.find_spec("bitsandbytes") is None:
        raise EnvironmentProblem(
            "qlora needs the package bitsandbytes, which is not installed",
            fix="Run `pip install 'tutelage[gpu]'`, or set train.method: lora",
        )
