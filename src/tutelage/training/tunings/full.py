"""Full fine-tuning: all weights, or those of the modules that train.target_modules names.

The result is a model folder that loads alone: config.json, model.safetensors and, from
session.py, the tokenizer. Weights are trained in fp32 and written in the run's precision: float32
for fp32, bfloat16 for bf16, float16 for fp16.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import torch

from tutelage.core.errors import ModelError
from tutelage.core.workspace import atomic_write, disk_errors, fsync_dir
from tutelage.training.recipe import Recipe

WEIGHTS = "model.safetensors"
_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
_MACHINE = (
    "_name_or_path", "name_or_path", "quantization_config", "_attn_implementation", "_commit_hash",
    "local_files_only", "is_local",
)  # fmt: skip


class FullTuning:
    """Trains the base itself; `precision` decides what is written."""

    def __init__(self, precision: str = "fp32") -> None:
        self._dtype = _DTYPES[precision]

    def attach(self, model: Any, recipe: Recipe) -> Any:
        """Return `model` with its weights free to change, under Mixout if the recipe says so."""
        count = free(model, recipe.target_modules)
        if count == 0:
            names = sorted({name.rsplit(".", 2)[-2] for name, _ in model.named_parameters()})
            raise ModelError(
                f"no module of the model is named {recipe.target_modules!r}",
                where="train.target_modules",
                fix=f"Take of {', '.join(names)}, or the start of a path such as model.layers.1",
            )
        if recipe.mixout > 0:
            from tutelage.training.mixout import add_mixout

            add_mixout(model, recipe.mixout)
        return model

    def save(self, model: Any, directory: Path, base_name: str) -> None:
        """Write model.safetensors, config.json and generation_config.json."""
        save_model(model, directory, self._dtype)


def free(model: torch.nn.Module, targets: str | tuple[str, ...]) -> int:
    """Let the weights of `targets` change and no others; return how many weights may.

    "all-linear", the setting's default, means every weight of the model, embeddings, norms and
    head too. Other names are parts of a module's path, such as "q_proj" or "layers.29".
    """
    wanted = None if targets == "all-linear" else [targets] if isinstance(targets, str) else targets
    for name, parameter in model.named_parameters():
        chosen = wanted is None or any(_within(name, target) for target in wanted)
        parameter.requires_grad_(chosen and parameter.is_floating_point())
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


def _within(name: str, target: str) -> bool:
    """Return whether the parts of `target` stand next to each other in a parameter's path."""
    return f".{target.strip('.')}." in f".{name}."


def save_model(model: Any, directory: Path, dtype: torch.dtype) -> None:
    """Write the model into `directory` as transformers reads it; tied weights are written once.

    Equal weights give equal bytes. Nothing names this machine or how the base was packed.
    """
    from safetensors.torch import save_file

    state = {}
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        if name in model.state_dict():
            state[name] = tensor.detach().to("cpu", _kind(tensor, dtype)).contiguous()
    directory.mkdir(parents=True, exist_ok=True)
    partial = directory / f".{WEIGHTS}.partial"
    with disk_errors(directory):
        save_file(state, str(partial), metadata={"format": "pt"})
        with partial.open("rb") as stream:
            os.fsync(stream.fileno())
        os.replace(partial, directory / WEIGHTS)
        fsync_dir(directory)
    config = model.config.to_diff_dict()
    config = {key: value for key, value in config.items() if key not in _MACHINE}
    config["dtype"] = str(dtype).removeprefix("torch.")
    config["architectures"] = [type(model).__name__]
    config["use_cache"] = True
    _write_json(directory / "config.json", config)
    generation = getattr(model, "generation_config", None)
    if generation is not None:
        settings = generation.to_diff_dict()
        _write_json(
            directory / "generation_config.json",
            {key: value for key, value in settings.items() if key not in _MACHINE},
        )


def save_tokenizer(tokenizer: Any, directory: Path) -> None:
    """Write the tokenizer and its chat template beside the weights, without machine paths."""
    tokenizer.save_pretrained(directory)
    path = directory / "tokenizer_config.json"
    settings = json.loads(path.read_text("utf-8"))
    _write_json(path, {key: value for key, value in settings.items() if key not in _MACHINE})


def _kind(tensor: torch.Tensor, dtype: torch.dtype) -> torch.dtype:
    return dtype if tensor.is_floating_point() else tensor.dtype


def _write_json(path: Path, content: dict[str, Any]) -> None:
    text = json.dumps(content, indent=2, sort_keys=True, default=str)
    atomic_write(path, (text + "\n").encode())
