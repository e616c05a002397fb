"""Number formats of a run: which operations are done in 16 bits, and which weights are stored so.

The trained weights, the norms, the embeddings and the residual stream stay in fp32. Only frozen
matrices are stored narrow, so autocast need not convert them again at every use.
"""

from __future__ import annotations

import contextlib
from typing import Any

import torch

NARROW = {"bf16": torch.bfloat16, "fp16": torch.float16}


def autocast(model: torch.nn.Module, precision: str) -> Any:
    """Return the context in which the model's forward and backward run."""
    if precision not in NARROW:
        return contextlib.nullcontext()
    device = next(model.parameters()).device.type
    return torch.autocast(device, dtype=NARROW[precision])


def halve_frozen(model: torch.nn.Module, precision: str) -> None:
    """Store the frozen matrices of linear layers in 16 bits, but for those tied to embeddings.

    Packed ones (QLoRA) stay packed and are multiplied in 16 bits.
    """
    if precision not in NARROW:
        return
    embedded = {id(m.weight) for m in model.modules() if isinstance(m, torch.nn.Embedding)}
    for module in model.modules():
        if isinstance(module, torch.nn.Linear):
            if hasattr(module, "compute_dtype"):  # bitsandbytes' Linear4bit
                module.compute_dtype = NARROW[precision]
            for parameter in module.parameters(recurse=False):
                frozen = parameter.is_floating_point() and not parameter.requires_grad
                if frozen and id(parameter) not in embedded:
                    parameter.data = parameter.data.to(NARROW[precision])
