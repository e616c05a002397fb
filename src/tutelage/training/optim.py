"""The optimizer and the learning rate at each step; the rate is a function of the step alone.

A parameter's rate is the step's rate times a scale of its own: layer-wise decay for full tuning
(Howard and Ruder 2018, arXiv 1801.06146, section 3.1; Clark et al. 2020), LoRA+ for adapters
(Hayou et al. 2024, arXiv 2402.12354).
"""

from __future__ import annotations

import math
import re

import torch

from tutelage.training.adapters import trained_parameters
from tutelage.training.recipe import Recipe

LORA_PLUS = 16.0  # B's rate over A's where the method is named and no ratio: 2**4, section 5
_LORA_B = ("lora_B", "lora_embedding_B")
_EMBEDDINGS = re.compile(r"(^|\.)(embed_tokens|wte|wpe|word_embeddings|embed_in|embeddings)\.")
_BLOCK = re.compile(r"(?:^|\.)(?:layers|h|blocks|block|layer)\.(\d+)\.")


def make_optimizer(model: torch.nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """Return AdamW over what the model trains; one-dimensional ones (norms, biases) never decay.

    Each group's `scale` multiplies the learning rate of a step.
    """
    scales = rate_scales(model, recipe)
    groups: dict[tuple[float, bool], list[torch.nn.Parameter]] = {}
    for name, parameter in trained_parameters(model).items():
        groups.setdefault((scales[name], parameter.ndim > 1), []).append(parameter)
    ordered = sorted(groups.items(), key=lambda item: (-item[0][0], not item[0][1]))
    return torch.optim.AdamW(
        [
            {
                "params": parameters,
                "weight_decay": recipe.weight_decay if decays else 0.0,
                "scale": scale,
            }
            for (scale, decays), parameters in ordered
        ],
        lr=recipe.learning_rate,
    )


def rate_scales(model: torch.nn.Module, recipe: Recipe) -> dict[str, float]:
    """Return by what each trained parameter's learning rate is multiplied, by name."""
    names = list(trained_parameters(model))
    if recipe.layer_decay < 1:
        depths = layer_depths(model)
        return {name: recipe.layer_decay ** depths[name] for name in names}
    ratio = lora_plus_ratio(recipe)
    return {name: ratio if any(b in name for b in _LORA_B) else 1.0 for name in names}


def lora_plus_ratio(recipe: Recipe) -> float:
    """Return B's rate over A's: the recipe's, or the paper's where only the method is named."""
    names = {name.lower().replace("_", "") for name in (recipe.method, recipe.tune)}
    named = "loraplus" in names or "lora+" in names
    return LORA_PLUS if named and recipe.lora_plus == 1 else recipe.lora_plus


def layer_depths(model: torch.nn.Module) -> dict[str, int]:
    """Return how many layers each parameter lies below the head, by name.

    The head and the last norm are 0, the last block 1, the first block L, embeddings L + 1. A
    matrix that is both embedding and head counts as the embedding.
    """
    names = [name for name, _ in model.named_parameters()]
    places = {name: int(found[1]) for name in names if (found := _BLOCK.search(name))}
    blocks = max(places.values(), default=-1) + 1
    depths = {}
    for name in names:
        if name in places:
            depths[name] = blocks - places[name]
        else:
            depths[name] = blocks + 1 if _EMBEDDINGS.search(name) else 0
    return depths


def rate_at(step: int, total: int, recipe: Recipe) -> float:
    """Return the learning rate of 0-based `step` of `total`.

    It rises linearly over the warm-up (the first step is not wasted at 0), then falls to 0 just
    after the last step (linear or cosine) or stays.
    """
    warm = round(recipe.warmup * total)
    if step < warm:
        return recipe.learning_rate * (step + 1) / (warm + 1)
    if recipe.schedule == "constant":
        return recipe.learning_rate
    done = (step - warm) / max(1, total - warm)
    if recipe.schedule == "cosine":
        return recipe.learning_rate * 0.5 * (1 + math.cos(math.pi * done))
    return recipe.learning_rate * (1 - done)


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Give every parameter group the step's learning rate times its own scale."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group.get("scale", 1.0)
