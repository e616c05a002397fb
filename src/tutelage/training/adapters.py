"""Adapters and the trained weights of any model: put one on, read them, write safetensors.

Nothing here trains. An adapter folder holds adapter_model.safetensors and adapter_config.json
alone, both equal byte for byte for equal weights, and names the base model without any path.
"""

from __future__ import annotations

import hashlib
import json
import warnings
from pathlib import Path
from typing import Any

import torch

from tutelage.core.errors import ModelError
from tutelage.core.workspace import atomic_write
from tutelage.training.adapter_config import make_config
from tutelage.training.recipe import Recipe

WEIGHTS = "adapter_model.safetensors"
CONFIG = "adapter_config.json"
_MODEL = "model*.safetensors"
_ALL = "all-linear"
_REMEDIES = {  # what to set where an adapter's default does not fit the model's layers
    "vblora": "Set train.peft.vector_length to a number that divides the width of every layer",
    "waveft": "Set train.peft.n_frequency to fewer than the smallest layer has weights",
}


def attach_lora(model: Any, recipe: Recipe) -> Any:
    """Return `model` with a fresh LoRA on `recipe.target_modules`; all else is frozen."""
    return attach_adapter(model, make_config("lora", recipe), recipe)


def attach_adapter(model: Any, config: Any, recipe: Recipe) -> Any:
    """Return `model` with a fresh adapter of PEFT's `config`, drawn from the recipe's seed.

    A model with a classification head trains that head whole beside the adapter.
    Raises ModelError if the model has no module that the adapter could sit on.
    """
    from peft import get_peft_model

    config.task_type = "CAUSAL_LM" if model.get_output_embeddings() is not None else "SEQ_CLS"
    torch.manual_seed(recipe.seed)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return get_peft_model(model, config)
    except (ValueError, RuntimeError, ImportError) as error:
        text = str(error).strip().splitlines()
        kind = str(getattr(config.peft_type, "value", config.peft_type)).lower()
        raise ModelError(
            f"the model can't carry the adapter {kind} on {_layers(recipe)} "
            f"({text[0][:160] if text else type(error).__name__})",
            fix=_remedy(kind, recipe),
        ) from error


def _layers(recipe: Recipe) -> str:
    chosen = recipe.target_modules
    return "its linear layers" if chosen == _ALL else f"{chosen!r}"


def _remedy(kind: str, recipe: Recipe) -> str:
    """Return what to change where PEFT can't put its adapter on the model."""
    if recipe.target_modules != _ALL:
        return "Leave train.target_modules unset, which means all linear layers"
    return _REMEDIES.get(kind, "Correct the field of train.peft that it names, or take lora")


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


def digests(weights: dict[str, torch.Tensor]) -> dict[str, str]:
    """Return a hash of each trained weight of a snapshot: what a run must change in the end."""
    return {
        name: hashlib.sha256(tensor.view(torch.uint8).numpy()).hexdigest()
        for name, tensor in weights.items()
        if tensor.numel()
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

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        state: dict[str, torch.Tensor] = get_peft_model_state_dict(model)
    return state


def save_adapter(model: Any, directory: Path, base_name: str) -> None:
    """Write the adapter in PEFT's format into `directory`."""
    _write(_cpu(adapter_state(model)), _config(model, base_name), directory)


def save_difference(
    model: Any, start: dict[str, torch.Tensor], directory: Path, base_name: str
) -> None:
    """Write a LoRA whose start was taken out of the base as one of twice the rank on the base.

    The base is W - s B0 A0 in training and W afterwards, so the update is s (B A - B0 A0), which
    is s [B, -B0] [A; A0] (Meng et al. 2024, section 3 and appendix C).
    """
    state: dict[str, torch.Tensor] = {}
    for name, tensor in _cpu(adapter_state(model)).items():
        if "lora_A" in name and tensor.ndim > 1:
            tensor = torch.cat([tensor, start[name]], dim=0)
        elif "lora_B" in name and tensor.ndim > 1:
            tensor = torch.cat([tensor, -start[name]], dim=1)
        state[name] = tensor.contiguous()
    config = _config(model, base_name)
    grown = 2**0.5 if config["use_rslora"] else 2  # keeps the scale
    config |= {
        "r": 2 * config["r"],
        "lora_alpha": grown * config["lora_alpha"],
        "rank_pattern": {name: 2 * rank for name, rank in config["rank_pattern"].items()},
        "alpha_pattern": {name: grown * alpha for name, alpha in config["alpha_pattern"].items()},
        "init_lora_weights": True,
    }
    _write(state, config, directory)


def _cpu(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return the tensors on the CPU, each in memory of its own, as a safetensors file wants it."""
    return {name: t.detach().to("cpu", copy=True).contiguous() for name, t in state.items()}


def _config(model: Any, base_name: str) -> dict[str, Any]:
    config: dict[str, Any] = model.peft_config["default"].to_dict()
    return config | {
        "base_model_name_or_path": base_name,
        "inference_mode": True,
        "revision": None,
    }


def _write(state: dict[str, torch.Tensor], config: dict[str, Any], directory: Path) -> None:
    from safetensors.torch import save

    atomic_write(directory / WEIGHTS, save(state, metadata={"format": "pt"}))
    text = json.dumps(config, indent=2, sort_keys=True, default=_plain)
    atomic_write(directory / CONFIG, (text + "\n").encode())


def _plain(value: Any) -> Any:
    """Return sets in order and enums as their text, so equal settings give equal bytes."""
    if isinstance(value, (set, frozenset)):
        return sorted(value)
    return str(getattr(value, "value", value))
