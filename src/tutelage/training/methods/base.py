"""The protocol of a training method: what is trained on top of a model, and how it is kept."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

from tutelage.training.recipe import Recipe


class Method(Protocol):
    """A plug-in of `tutelage.methods`."""

    def attach(self, model: Any, recipe: Recipe) -> Any:
        """Return the model to train: its parameters with `requires_grad` are what changes."""
        ...

    def save(self, model: Any, directory: Path, base_name: str) -> None:
        """Write what was trained into `directory`, whole files only, without machine paths."""
        ...
