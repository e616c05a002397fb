"""LoRA (Hu et al. 2021) and its close kin: other scales, starts and rates of the same two matrices.

rslora scales by alpha / sqrt(rank) (Kalajdzievski 2023, arXiv 2312.03732). dora trains a magnitude
for each output besides (Liu et al. 2024, arXiv 2402.09353). pissa starts from the weight's largest
singular vectors (Meng et al. 2024, arXiv 2404.02948). lora_plus gives B a higher rate than A
(Hayou et al. 2024, arXiv 2402.12354); the rates are optim.py's.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tutelage.training.recipe import Recipe

_FORCED: dict[str, dict[str, Any]] = {
    "rslora": {"use_rslora": True},
    "dora": {"use_dora": True},
    "pissa": {"init_lora_weights": "pissa_niter_16"},  # the paper's fast singular vectors
}
MOVING = ("pissa", "olora")  # starts that take the adapter's part out of the base


class LoraTuning:
    """The base stays as it is, 1–6 % as many weights are trained beside it."""

    def __init__(self, name: str = "lora") -> None:
        self.name = name
        self._start: dict[str, Any] = {}  # the adapter's first weights, where the base was moved

    def attach(self, model: Any, recipe: Recipe) -> Any:
        """Return `model` with a fresh adapter of `recipe.rank`."""
        from tutelage.training.adapter_config import make_config
        from tutelage.training.adapters import adapter_state, attach_adapter

        config = make_config("lora", recipe, **_FORCED.get(self.name, {}))
        made = attach_adapter(model, config, recipe)
        if str(config.init_lora_weights).startswith(MOVING):
            state = adapter_state(made)
            self._start = {name: t.detach().cpu().clone() for name, t in state.items()}
        return made

    def save(self, model: Any, directory: Path, base_name: str) -> None:
        """Write adapter_model.safetensors and adapter_config.json, for the base as it was given."""
        from tutelage.training.adapters import save_adapter, save_difference

        if self._start:
            save_difference(model, self._start, directory, base_name)
        else:
            save_adapter(model, directory, base_name)
