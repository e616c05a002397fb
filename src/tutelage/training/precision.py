"""Number formats of a run: which operations are done in bf16, and which weights are stored so.

The trained weights, the norms, the embeddings and the residual stream stay in fp32. Only frozen
matrices are stored in bf16, so autocast need not convert them again at every use.
"""

from __future__ import annotations

import contextlib
from typing import Any

import torch


def autocast(model: torch.nn.Module, precision: str) -> Any:
    """Return the context in which the model's forward and backward run."""
    if precision != "bf16":
        return contextlib.nullcontext()
    device = next(model.parameters()).device.type
    return torch.autocast(device, dtype=torch.bfloat16)


def halve_frozen(model: torch.nn.Module, precision: str) -> None:
    """Store the frozen matrices of linear layers in bf16, but for those tied to embeddings."""
    if precision != "bf16":
        return
    embedded = {id(m.weight) for m in model.modules() if isinstance(m, torch.nn.Embedding)}
    for module in model.modules():
        if isinstance(module, torch.nn.Linear):
            for parameter in module.parameters(recurse=False):
                if not parameter.requires_grad and id(parameter) not in embedded:
                    parameter.data = parameter.data.to(torch.bfloat16)
