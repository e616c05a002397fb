"""Supervised fine-tuning of a LoRA adapter on all linear layers (Hu et al. 2021)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tutelage.training.recipe import Recipe


class LoraMethod:
    """The default method: the base stays as it is, 1–6 % as many weights are trained beside it."""

    def attach(self, model: Any, recipe: Recipe) -> Any:
        """Return `model` with a fresh adapter of `recipe.rank`."""
        from tutelage.training.adapters import attach_lora

        return attach_lora(model, recipe)

    def save(self, model: Any, directory: Path, base_name: str) -> None:
        """Write adapter_model.safetensors and adapter_config.json."""
        from tutelage.training.adapters import save_adapter

        save_adapter(model, directory, base_name)
