"""Supervised fine-tuning of a LoRA adapter on all linear layers (Hu et al. 2021)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tutelage.training.methods.base import Objective, Tuning
from tutelage.training.recipe import Recipe


class LoraTuning:
    """The base stays as it is, 1–6 % as many weights are trained beside it."""

    def attach(self, model: Any, recipe: Recipe) -> Any:
        """Return `model` with a fresh adapter of `recipe.rank`."""
        from tutelage.training.adapters import attach_lora

        return attach_lora(model, recipe)

    def save(self, model: Any, directory: Path, base_name: str) -> None:
        """Write adapter_model.safetensors and adapter_config.json."""
        from tutelage.training.adapters import save_adapter

        save_adapter(model, directory, base_name)


class LoraMethod:
    """The default method."""

    def objective(self, recipe: Recipe) -> Objective:
        """Return supervised fine-tuning."""
        from tutelage.training.methods.sft import Supervised

        return Supervised()

    def tuning(self, recipe: Recipe) -> Tuning:
        """Return a LoRA adapter."""
        return LoraTuning()
