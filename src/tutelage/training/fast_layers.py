"""Frozen layers with LoRA, gated MLPs and RMS norms as single autograd steps, while a step runs.

The weights stay those of the model and of peft; only the modules' forward is replaced, and put
back afterwards. A layer is replaced only if it is of a kind whose maths is written here and gives
the same numbers on random input; every other layer (DoRA, quantised, dropout, several adapters)
keeps its own forward. What is saved for the backward pass is each block's input and its two gate
inputs; products that cost one multiplication are computed again.

Shapes: T tokens, I inputs, O outputs, F the MLP's inner size, r the adapter's rank.
"""

from __future__ import annotations

import contextlib
import threading
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.nn import functional

from tutelage.training import fused
from tutelage.training.precision import widen

_AGREE = 1e-5  # relative difference allowed when a replaced forward is tried
_AGREE_NARROW = 2e-2  # the same for a layer whose output has 16 bits
_NARROW = (torch.bfloat16, torch.float16)
_LARGE = 1 << 22  # numbers: fewer cost a GPU less time than the host needs to start one kernel
Gradients = tuple[torch.Tensor, torch.Tensor]  # of a LoRA's A (rI) and B (Or)
Factors = tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]


@dataclass(frozen=True)
class _Lora:
    """A frozen linear layer with a low-rank update: x Wᵀ + b + scale · (x Aᵀ) Bᵀ."""

    weight: torch.Tensor  # OI
    bias: torch.Tensor | None  # O
    a: torch.Tensor  # rI
    b: torch.Tensor  # Or
    scale: float
    name: str  # of the adapter
    made: dict[torch.dtype, Factors] = field(default_factory=dict)

    def stands(self, module: Any) -> bool:
        """Return whether the layer still is what `_lora_of` found: a look at what can change."""
        own = vars(module)
        base, parts = own["_modules"]["base_layer"], own["_modules"]
        return (
            not own["merged_adapters"]
            and not own["_disable_adapters"]
            and own["_active_adapter"] in (self.name, [self.name])
            and own["scaling"].get(self.name) == self.scale
            and vars(base)["_parameters"]["weight"] is self.weight
            and not self.weight.requires_grad
            and vars(parts["lora_A"]._modules[self.name])["_parameters"]["weight"] is self.a
            and vars(parts["lora_B"]._modules[self.name])["_parameters"]["weight"] is self.b
        )

    def factors(self, dtype: torch.dtype) -> Factors:
        """Return A, scale · A, B, scale · B in `dtype`, made once while the layers are replaced."""
        if dtype not in self.made:
            a, b = self.a.detach(), self.b.detach()
            found = (a, a * self.scale, b, b * self.scale)
            self.made[dtype] = tuple(matrix.to(dtype) for matrix in found)
        return self.made[dtype]

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the output (TO) and scale · x Aᵀ (Tr), which the backward pass needs."""
        out = functional.linear(x, widen(self.weight, x.dtype), _cast(self.bias, x.dtype))
        _, a, b, _ = self.factors(x.dtype)
        low = x @ a.T
        return out.addmm_(low, b.T), low

    def backward(
        self,
        grad: torch.Tensor,  # TO
        x: torch.Tensor,  # TI
        low: torch.Tensor,  # Tr, scaled
        into: torch.Tensor | None,  # TI
        *,
        keep: int = 0,
    ) -> Gradients:
        """Return the gradients of A and B; put that of x into `into`, on top of it if `keep`."""
        a, _, _, b = self.factors(grad.dtype)
        up = grad @ b  # Tr, scaled
        if into is not None:
            into.addmm_(grad, widen(self.weight, grad.dtype), beta=keep)
            into.addmm_(up, a)
        return _product(up.T, x, self.a.dtype), _product(low.T, grad, self.b.dtype).T


def _product(left: torch.Tensor, right: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Return left @ right in `dtype`, straight from the sums where the device can."""
    if left.is_cuda and left.dtype in _NARROW and dtype == torch.float32:
        return torch.mm(left, right, out_dtype=dtype)
    return (left @ right).to(dtype)


def _cast(tensor: torch.Tensor | None, dtype: torch.dtype) -> torch.Tensor | None:
    return None if tensor is None else tensor.to(dtype)


def _fusable(x: torch.Tensor) -> bool:
    """Return whether elementwise work on x is worth a kernel of its own."""
    return bool(x.is_cuda) and x.numel() >= _LARGE


class _LoraLinear(torch.autograd.Function):  # type: ignore[misc]
    @staticmethod
    def forward(
        ctx: Any, x: torch.Tensor, a: torch.Tensor, b: torch.Tensor, layer: _Lora
    ) -> torch.Tensor:
        flat = x.reshape(-1, x.shape[-1])
        out, low = layer.forward(flat)
        ctx.save_for_backward(x, low)
        ctx.layer = layer
        return out.view(*x.shape[:-1], -1)

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[Any, ...]:
        x, low = ctx.saved_tensors
        flat = x.reshape(-1, x.shape[-1])
        into = torch.empty_like(flat) if ctx.needs_input_grad[0] else None
        d_a, d_b = ctx.layer.backward(grad.reshape(-1, grad.shape[-1]), flat, low, into)
        return (None if into is None else into.view_as(x)), d_a, d_b, None


class _GatedMlp(torch.autograd.Function):  # type: ignore[misc]
    """down(silu(gate(x)) · up(x)), all three with LoRA (Shazeer 2020, arXiv 2002.05202)."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, layers: tuple[_Lora, ...], *_: Any) -> torch.Tensor:
        gate_layer, up_layer, down_layer = layers
        flat = x.reshape(-1, x.shape[-1])
        gate, low_gate = gate_layer.forward(flat)
        up, low_up = up_layer.forward(flat)
        active = fused.gate(gate, up) if _fusable(gate) else functional.silu(gate).mul_(up)
        out, low_down = down_layer.forward(active)
        ctx.save_for_backward(x, gate, up, low_gate, low_up, low_down)
        ctx.layers = layers
        return out.view_as(x)

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[Any, ...]:
        x, gate, up, low_gate, low_up, low_down = ctx.saved_tensors
        gate_layer, up_layer, down_layer = ctx.layers
        flat, grad = x.reshape(-1, x.shape[-1]), grad.reshape(-1, x.shape[-1])
        slope = torch.empty_like(gate)  # TF
        if _fusable(gate):
            of_down = down_layer.backward(grad, fused.gate(gate, up), low_down, slope)
            d_gate, d_up = fused.gate_slope(slope, gate, up)
        else:
            active = functional.silu(gate)
            of_down = down_layer.backward(grad, active * up, low_down, slope)
            d_up = active.mul_(slope)
            d_gate = torch.ops.aten.silu_backward(slope.mul_(up), gate)
        into = torch.empty_like(flat) if ctx.needs_input_grad[0] else None
        of_gate = gate_layer.backward(d_gate, flat, low_gate, into)
        of_up = up_layer.backward(d_up, flat, low_up, into, keep=1)
        slopes = (*of_gate, *of_up, *of_down)
        return (None if into is None else into.view_as(x)), None, *slopes


def _wide(x: torch.Tensor) -> torch.Tensor:
    return x if x.dtype == torch.float64 else x.float()


class _RmsNorm(torch.autograd.Function):  # type: ignore[misc]
    """weight · x / sqrt(mean(x²) + eps) over the last axis (Zhang & Sennrich 2019)."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight: torch.Tensor, eps: float) -> torch.Tensor:
        if _fusable(x):
            out, inverse = fused.rms_norm(x.reshape(-1, x.shape[-1]), weight, eps)
            ctx.save_for_backward(x, inverse, weight)
            return out.view_as(x)
        wide = _wide(x)
        norm = torch.linalg.vector_norm(wide, dim=-1, keepdim=True)
        inverse = norm.square_().div_(x.shape[-1]).add_(eps).rsqrt_()
        ctx.save_for_backward(x, inverse, weight)
        return (wide * inverse).mul_(weight).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[Any, ...]:
        x, inverse, weight = ctx.saved_tensors
        if _fusable(x):
            flat, given = (t.reshape(-1, t.shape[-1]) for t in (x, grad))
            return fused.rms_norm_slope(given, flat, inverse, weight).view_as(x), None, None
        wide = _wide(x)
        slope = _wide(grad) * weight
        along = torch.linalg.vecdot(slope, wide)[..., None]
        along.mul_(inverse.pow(3)).div_(-x.shape[-1])
        return slope.mul_(inverse).addcmul_(wide, along).to(x.dtype), None, None


_last = threading.local()


def _narrow(x: torch.Tensor) -> torch.Tensor:
    """Return x in the format that autocast, if it is on, gives a linear layer's input.

    Layers that read the same x one after the other get the same narrow copy, kept once.
    """
    device = x.device.type
    if not torch.is_autocast_enabled(device) or x.dtype == torch.get_autocast_dtype(device):
        return x
    want = (torch.get_autocast_dtype(device), x.requires_grad and torch.is_grad_enabled())
    last: _Cast | None = vars(_last).get("cast")
    if last is None or last.of() is not x or (last.made.dtype, last.made.requires_grad) != want:
        last = _last.cast = _Cast(weakref.ref(x), x.to(want[0]))
    return last.made


@dataclass(frozen=True)
class _Cast:
    of: weakref.ref[torch.Tensor]
    made: torch.Tensor


def _lora_of(module: Any) -> _Lora | None:
    """Return the layer's parts if it is a frozen linear layer with one plain LoRA, else None."""
    from peft.tuners.lora.layer import Linear

    if type(module) is not Linear or type(module.base_layer) is not torch.nn.Linear:
        return None
    names = [name for name in module.active_adapters if name in module.lora_A]
    if len(names) != 1 or module.merged or module.disable_adapters or module.fan_in_fan_out:
        return None
    (name,) = names
    base, b = module.base_layer, module.lora_B[name]
    dropout = module.lora_dropout[name]
    plain = isinstance(dropout, torch.nn.Identity) or dropout.p == 0
    trained = base.weight.requires_grad or (base.bias is not None and base.bias.requires_grad)
    if module.lora_variant.get(name) is not None or b.bias is not None or trained or not plain:
        return None
    return _Lora(
        base.weight, base.bias, module.lora_A[name].weight, b.weight, module.scaling[name], name
    )  # fmt: skip


@dataclass(frozen=True)
class _Fast:
    """A module's fast forward, and the adapters it computes with by the child that holds them."""

    run: Callable[[torch.Tensor], torch.Tensor]
    layers: tuple[tuple[str, _Lora], ...] = ()  # "": the module itself

    def stands(self, module: Any) -> bool:
        """Return whether `run` still computes what the module does."""
        children = module._modules
        return all(lora.stands(children[name] if name else module) for name, lora in self.layers)


def _fast_linear(module: Any) -> _Fast | None:
    layer = _lora_of(module)
    if layer is None:
        return None
    return _Fast(lambda x: _LoraLinear.apply(_narrow(x), layer.a, layer.b, layer), (("", layer),))


def _fast_mlp(module: Any) -> _Fast | None:
    names = ("gate_proj", "up_proj", "down_proj")
    if not all(hasattr(module, name) for name in names):
        return None
    found = [(name, _lora_of(getattr(module, name))) for name in names]
    kept = tuple((name, layer) for name, layer in found if layer is not None)
    if len(kept) < len(names):
        return None
    layers = tuple(layer for _, layer in kept)
    weights = [w for layer in layers for w in (layer.a, layer.b)]
    return _Fast(lambda x: _GatedMlp.apply(_narrow(x), layers, *weights), kept)


def _fast_norm(module: Any) -> _Fast | None:
    weight = getattr(module, "weight", None)
    eps = getattr(module, "variance_epsilon", getattr(module, "eps", None))
    if not type(module).__name__.endswith("RMSNorm") or weight is None or eps is None:
        return None
    if weight.requires_grad:
        return None
    return _Fast(lambda x: _RmsNorm.apply(x, weight, eps))


_KINDS = (_fast_linear, _fast_mlp, _fast_norm)


_AGREED: weakref.WeakKeyDictionary[torch.nn.Module, bool] = weakref.WeakKeyDictionary()


class FastLayers:
    """The modules of a model that give the same with their fast forward, tried once."""

    def __init__(self, model: torch.nn.Module) -> None:
        self._made: dict[torch.nn.Module, _Fast] = {}
        for module in model.modules():
            fast = _fast(module)
            if fast is None:
                continue
            if module not in _AGREED:
                _AGREED[module] = _agrees(module, fast.run)
            if _AGREED[module]:
                self._made[module] = fast

    def __iter__(self) -> Iterator[torch.nn.Module]:
        return iter(self._made)

    @contextlib.contextmanager
    def replaced(self) -> Iterator[None]:
        """Run with the fast forwards, as far as they still apply; put all back after."""
        changed = []
        self._forget_factors()  # the weights may have moved since
        try:
            for module in list(self._made):
                fast = self._standing(module)
                if fast is not None and "forward" not in vars(module):
                    module.forward = fast.run
                    changed.append(module)
            self._narrow_factors()
            yield
        finally:
            for module in changed:
                del module.forward
            vars(_last).clear()
            self._forget_factors()

    def _forget_factors(self) -> None:
        for layer in self._layers():
            layer.made.clear()

    def _standing(self, module: torch.nn.Module) -> _Fast | None:
        kept = self._made[module]
        if kept.stands(module):
            return kept
        fast = _fast(module)
        if fast is not None:
            self._made[module] = fast
        return fast

    def _layers(self) -> Iterator[_Lora]:
        for fast in self._made.values():
            for _, layer in fast.layers:
                yield layer

    def _narrow_factors(self) -> None:
        """Make all factors that autocast asks for on a GPU at once: few kernels, not thousands."""
        layers = [layer for layer in self._layers() if layer.a.is_cuda]
        if not layers or not torch.is_autocast_enabled("cuda"):
            return
        dtype = torch.get_autocast_dtype("cuda")
        with torch.no_grad():
            plain = [w.detach() for layer in layers for w in (layer.a, layer.b)]
            scaled = torch._foreach_mul(plain, [x.scale for x in layers for _ in range(2)])
            wide = [*plain, *scaled]
            flat = torch.empty(sum(w.numel() for w in wide), dtype=dtype, device=wide[0].device)
            parts = flat.split([w.numel() for w in wide])
            narrow = [part.view(w.shape) for part, w in zip(parts, wide, strict=True)]
            torch._foreach_copy_(narrow, wide)
        for place, layer in enumerate(layers):
            a, b = narrow[2 * place : 2 * place + 2]
            a_scaled, b_scaled = narrow[len(plain) + 2 * place : len(plain) + 2 * place + 2]
            layer.made[dtype] = (a, a_scaled, b, b_scaled)


def _fast(module: torch.nn.Module) -> _Fast | None:
    return next((fast for kind in _KINDS if (fast := kind(module)) is not None), None)


def _agrees(module: torch.nn.Module, fast: Callable[[torch.Tensor], torch.Tensor]) -> bool:
    """Compare both forwards on two rows of noise of the module's width.

    Matrices that are stored in 16 bits beside fp32 adapters need autocast for the module's own.
    """
    own = list(module.parameters())
    like = next((p for p in own if p.requires_grad), own[0])
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(2, _width(module), generator=generator).to(like)
    narrow = next((p.dtype for p in own if p.dtype in _NARROW), torch.bfloat16)
    for cast in (False, True):
        try:
            with torch.no_grad(), torch.autocast(like.device.type, dtype=narrow, enabled=cast):
                wanted, found = module(noise), fast(noise)
        except (RuntimeError, TypeError):
            continue
        limit = _AGREE_NARROW if wanted.dtype in _NARROW else _AGREE
        return bool((wanted - found).norm() <= limit * wanted.norm())
    return False


def _width(module: Any) -> int:
    """Return the size of the module's input."""
    module = getattr(module, "gate_proj", module)
    base = getattr(module, "base_layer", None)
    return int(module.weight.shape[-1] if base is None else base.in_features)
