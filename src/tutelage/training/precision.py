"""Number formats of a run: which operations are done in 16 bits, and which weights are stored so.

The trained weights stay in fp32. On a GPU all that is frozen is stored in bf16, so the residual
stream has 16 bits too, as checkpoints of large models expect; norms, softmax and loss are computed
in fp32. With fp16, whose range is too small for that, and on a CPU the norms, the embeddings and
the residual stream stay in fp32: only frozen matrices are stored narrow, so autocast need not
convert them again at every use. A CPU without
bf16 instructions emulates them ten times slower than fp32: there the matrices are stored narrow
all the same, and widened one at a time for the multiplication.
"""

from __future__ import annotations

import contextlib
import threading
from functools import partial
from typing import Any

import torch
from torch.nn import functional

NARROW = {"bf16": torch.bfloat16, "fp16": torch.float16}


def multiplies_bf16(device: str) -> bool:
    """Return whether the device multiplies bf16 matrices itself."""
    if device != "cpu":
        return True
    checks = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(bool(getattr(torch.cpu, name, lambda: False)()) for name in checks)


def autocast(model: torch.nn.Module, precision: str) -> Any:
    """Return the context in which the model's forward and backward run."""
    if precision not in NARROW or getattr(model, "spread", False):
        return contextlib.nullcontext()
    device = next(model.parameters()).device.type
    if precision == "bf16" and not multiplies_bf16(device):
        return contextlib.nullcontext()
    return torch.autocast(device, dtype=NARROW[precision])


def halve_frozen(model: torch.nn.Module, precision: str) -> None:
    """Store the frozen matrices of linear layers in 16 bits, but for those tied to embeddings.

    With bf16 on a GPU everything frozen is stored so. Packed ones (QLoRA) stay packed and are
    multiplied in 16 bits.
    """
    if precision not in NARROW or getattr(model, "spread", False):
        return
    if precision == "bf16" and not multiplies_bf16(next(model.parameters()).device.type):
        _halve_and_widen(model)
        return
    if precision == "bf16" and next(model.parameters()).is_cuda:
        for parameter in model.parameters():
            if parameter.is_floating_point() and not parameter.requires_grad:
                parameter.data = parameter.data.to(torch.bfloat16)
    embedded = {id(m.weight) for m in model.modules() if isinstance(m, torch.nn.Embedding)}
    for module in model.modules():
        if not isinstance(module, torch.nn.Linear):
            continue
        if hasattr(module, "compute_dtype"):  # bitsandbytes' Linear4bit
            module.compute_dtype = NARROW[precision]
        for parameter in module.parameters(recurse=False):
            frozen = parameter.is_floating_point() and not parameter.requires_grad
            if frozen and id(parameter) not in embedded:
                parameter.data = parameter.data.to(NARROW[precision])


def _halve_and_widen(model: torch.nn.Module) -> None:
    """Store frozen matrices in bf16 that are used by their own layer's multiplication alone."""
    kept = {id(m.weight) for m in model.modules() if isinstance(m, torch.nn.Embedding)}
    head = getattr(model, "get_output_embeddings", lambda: None)()
    if head is not None:
        kept.add(id(head.weight))  # the loss multiplies by it in its own way
    for module in model.modules():
        base = getattr(module, "base_layer", None)
        if isinstance(base, torch.nn.Linear) and not _adds_to_base(module):
            kept.add(id(base.weight))
    for module in model.modules():
        if type(module) is not torch.nn.Linear or id(module.weight) in kept:
            continue
        if not any(p.requires_grad for p in module.parameters(recurse=False)):
            module.weight.data = module.weight.data.to(torch.bfloat16)
            module.forward = partial(_widened, module)
    for parameter in model.parameters():  # one tensor of a mapped file keeps all of it in memory
        if not parameter.requires_grad and parameter.dtype != torch.bfloat16:
            parameter.data = parameter.data.clone()


_scratch = threading.local()


def widen(weight: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Return `weight` in `dtype`, to be used at once: the next one of its shape overwrites it.

    One buffer a shape, since a new one each time would break the heap into pieces between the
    tensors that are kept for the backward pass.
    """
    if weight.dtype == dtype or weight.device.type != "cpu":
        return weight.to(dtype)
    buffers: dict[Any, torch.Tensor] = vars(_scratch).setdefault("buffers", {})
    key = (weight.shape, dtype)
    if key not in buffers:
        buffers[key] = torch.empty(weight.shape, dtype=dtype)
    return buffers[key].copy_(weight)


def _adds_to_base(module: Any) -> bool:
    """Return whether an adapter layer adds to its base's output and never reads its weight."""
    from peft.tuners.lora.layer import Linear

    return type(module) is Linear and not module.lora_variant


def _widened(module: torch.nn.Linear, x: torch.Tensor) -> torch.Tensor:
    return _Widened.apply(x, module.weight, module.bias)


class _Widened(torch.autograd.Function):  # type: ignore[misc]
    """A frozen linear layer whose narrow weight is widened for each use and not kept so."""

    @staticmethod
    def forward(
        ctx: Any, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None
    ) -> torch.Tensor:
        ctx.save_for_backward(weight)
        return functional.linear(
            x, widen(weight, x.dtype), None if bias is None else bias.to(x.dtype)
        )

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[Any, ...]:
        (weight,) = ctx.saved_tensors
        return grad @ widen(weight, grad.dtype), None, None
