"""Any adapter of PEFT by its own name (loha, lokr, ia3, vera, oft, boft, hra, miss, …)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tutelage.training.recipe import Recipe


class PeftTuning:
    """One of PEFT's adapters with PEFT's own defaults beside the recipe's."""

    def __init__(self, name: str) -> None:
        self.name = name

    def attach(self, model: Any, recipe: Recipe) -> Any:
        """Return `model` with a fresh adapter; all else is frozen."""
        from tutelage.training.adapter_config import make_config
        from tutelage.training.adapters import attach_adapter

        return attach_adapter(model, make_config(self.name, recipe), recipe)

    def save(self, model: Any, directory: Path, base_name: str) -> None:
        """Write adapter_model.safetensors and adapter_config.json."""
        from tutelage.training.adapters import save_adapter

        save_adapter(model, directory, base_name)
