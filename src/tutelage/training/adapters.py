"""LoRA adapters: put one on a model, read its weights, write it as safetensors.

Nothing here trains. An adapter folder holds adapter_model.safetensors and adapter_config.json
alone, both equal byte for byte for equal weights, and names the base model without any path.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import torch

from tutelage.core.errors import ModelError
from tutelage.core.workspace import atomic_write
from tutelage.training.recipe import Recipe

WEIGHTS = "adapter_model.safetensors"
CONFIG = "adapter_config.json"
_MODEL = "model*.safetensors"


def attach_lora(model: Any, recipe: Recipe, *, rslora: bool = False, dora: bool = False) -> Any:
    """Return `model` with a fresh LoRA on `recipe.target_modules`; all else is frozen.

    `rslora` scales by alpha / sqrt(rank) (Kalajdzievski 2023), `dora` trains magnitudes besides
    (Liu et al. 2024). Raises ModelError if the model has no module of the asked names.
    """
    from peft import LoraConfig, get_peft_model

    targets = recipe.target_modules
    config = LoraConfig(
        r=recipe.rank,
        lora_alpha=recipe.alpha,
        lora_dropout=recipe.dropout,
        target_modules=targets if isinstance(targets, str) else list(targets),
        use_rslora=rslora,
        use_dora=dora,
        bias="none",
        task_type="CAUSAL_LM",
    )
    torch.manual_seed(recipe.seed)
    try:
        return get_peft_model(model, config)
    except ValueError as error:
        raise ModelError(
            f"the model can't carry a LoRA adapter on {targets!r}",
            fix="Leave train.target_modules unset, which means all linear layers",
        ) from error


def trained_parameters(model: torch.nn.Module) -> dict[str, torch.nn.Parameter]:
    """Return what training changes, by name, in a fixed order."""
    return {name: p for name, p in sorted(model.named_parameters()) if p.requires_grad}


def snapshot(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Return a copy of the trained weights, on the CPU."""
    return {
        name: p.detach().to("cpu", copy=True).contiguous()
        for name, p in trained_parameters(model).items()
    }


def restore(model: torch.nn.Module, weights: dict[str, torch.Tensor]) -> None:
    """Put a snapshot back. Raises ModelError if it is of another model or recipe."""
    parameters = trained_parameters(model)
    if set(parameters) != set(weights):
        raise ModelError(
            "the checkpoint belongs to another model or recipe",
            fix="Remove the run's folder and train again",
        )
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(weights[name])


def digests(model: torch.nn.Module) -> dict[str, str]:
    """Return a hash of each trained weight: what a run must have changed in the end."""
    return {
        name: hashlib.sha256(p.detach().cpu().contiguous().view(torch.uint8).numpy()).hexdigest()
        for name, p in trained_parameters(model).items()
    }


def continue_from(model: Any, folder: Path) -> None:
    """Put the trained weights that lie in `folder`, an earlier run's result, into `model`.

    Raises ModelError if they are of other layers or of another size.
    """
    from safetensors.torch import load_file

    own = adapter_state(model) if hasattr(model, "peft_config") else model.state_dict()
    files = [folder / WEIGHTS] if hasattr(model, "peft_config") else sorted(folder.glob(_MODEL))
    found: dict[str, torch.Tensor] = {}
    for file in files:
        if file.is_file():
            found |= load_file(file)
    other = [n for n, t in found.items() if n in own and own[n].shape != t.shape]
    strange = [n for n in found if n not in own]
    if not found or other or strange:
        raise ModelError(
            "the earlier stage trained other weights than this one does",
            where=str(folder),
            fix="Give all stages the same train.tune, rank and target_modules",
        )
    with torch.no_grad():
        for name, tensor in found.items():
            own[name].copy_(tensor)


def adapter_state(model: Any) -> dict[str, torch.Tensor]:
    """Return the adapter's tensors under their names in a file; they are the model's own."""
    from peft import get_peft_model_state_dict

    state: dict[str, torch.Tensor] = get_peft_model_state_dict(model)
    return state


def save_adapter(model: Any, directory: Path, base_name: str) -> None:
    """Write the adapter in PEFT's format into `directory`."""
    from safetensors.torch import save

    state = {
        name: tensor.detach().to("cpu").contiguous()
        for name, tensor in adapter_state(model).items()
    }
    config = model.peft_config["default"].to_dict()
    config |= {"base_model_name_or_path": base_name, "inference_mode": True, "revision": None}
    atomic_write(directory / WEIGHTS, save(state, metadata={"format": "pt"}))
    text = json.dumps(config, indent=2, sort_keys=True, default=_plain)
    atomic_write(directory / CONFIG, (text + "\n").encode())


def _plain(value: Any) -> Any:
    """Return sets in order and enums as their text, so equal settings give equal bytes."""
    if isinstance(value, (set, frozenset)):
        return sorted(value)
    return str(getattr(value, "value", value))
