"""How a loaded model computes: its attention kernel, and what it computes again to save memory.

Both act on the model that is about to be trained and change no weight. Attention over shared
prefixes is its own kernel (tree_attention.py); what is set here serves every other pass.
"""

from __future__ import annotations

import importlib.util
from typing import Any

import torch

from tutelage.core.errors import ConfigError, EnvironmentProblem, ModelError
from tutelage.inference.transformers_load import unwrapped
from tutelage.training.recipe import Recipe

_INSTEAD = "Set train.attention to sdpa, or leave it unset"


def prepare_compute(model: Any, recipe: Recipe) -> None:
    """Give `model`, which lies on its device, the recipe's attention and checkpointing.

    Raises what require_kernel raises, and ModelError if the model can't do it.
    """
    require_kernel(recipe)
    if recipe.attention != "auto":
        set_attention(model, recipe.attention)
    if recipe.checkpointing:
        set_checkpointing(model)


def require_kernel(recipe: Recipe) -> None:
    """Raise ConfigError if the recipe's attention does not fit its precision.

    Raises EnvironmentProblem if this machine lacks the kernel's package or GPU.
    """
    if recipe.attention == "flash_attention_2" and recipe.precision == "fp32":
        raise ConfigError(
            "flash_attention_2 computes in 16 bits only",
            where="train.attention",
            fix="Set train.precision to bf16 or fp16, or train.attention to sdpa",
        )
    require_attention(recipe.attention)


def require_attention(kind: str) -> None:
    """Raise EnvironmentProblem if this machine can't attend with `kind`."""
    if kind not in ("auto", "sdpa") and not torch.cuda.is_available():
        raise EnvironmentProblem(
            f"train.attention {kind!r} needs a CUDA GPU, and there is none", fix=_INSTEAD
        )
    if kind == "flash_attention_2" and importlib.util.find_spec("flash_attn") is None:
        raise EnvironmentProblem(
            "train.attention 'flash_attention_2' needs the package flash-attn",
            fix=f"Run `pip install flash-attn --no-build-isolation`. {_INSTEAD}",
        )


def set_attention(model: Any, kind: str) -> None:
    """Let `model` attend with `kind`: sdpa, flash_attention_2 or flex_attention."""
    require_attention(kind)
    inner = unwrapped(model)
    try:
        inner.set_attn_implementation(kind)
    except (ImportError, ValueError) as error:
        text = str(error).strip().splitlines()
        raise ModelError(
            f"the model can't attend with {kind!r} ({text[0][:160] if text else error!r})",
            fix=_INSTEAD,
        ) from error


def set_checkpointing(model: Any) -> None:
    """Keep only each block's input for the backward pass and compute the rest again there.

    Chen et al. 2016 (arXiv 1604.06174). Random states are replayed, so dropout and Mixout draw
    the same both times and gradients do not change.
    """
    inner = unwrapped(model)
    if not getattr(inner, "supports_gradient_checkpointing", False):
        raise ModelError(
            "the model has no gradient checkpointing", fix="Set train.checkpointing: false"
        )
    inner.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
