"""Mixout: in each forward pass, columns of a weight fall back to the base model's at random.

Lee et al. 2020 (arXiv 1909.11299), equation 3 with the mask drawn per input column, that is, for
all outgoing weights of one neuron at once: W_eff = u + m (W - u) / (1 - p), u the base model's
weight, m ~ Bernoulli(1 - p). So E[W_eff] = W, and the gradient of W is that of W_eff times
m / (1 - p): plain autograd gives it. In evaluation W is used as it is.

The masks come from torch's generator of the weight's device, whose state checkpoints carry. u is
one more copy of each linear weight: in bf16 (half of fp32) where that loses nothing, as for every
base that was published in bf16, else in fp32. W_eff lives until the backward pass of its forward.
"""

from __future__ import annotations

import torch
from torch.nn import functional

from tutelage.core.errors import ModelError


class MixoutLinear(torch.nn.Linear):  # type: ignore[misc]
    """A linear layer over another one's own parameters, under the same names."""

    def __init__(self, linear: torch.nn.Linear, chance: float) -> None:
        """Share the parameters of `linear`; `chance` (0 to 1) is that of a column to fall back."""
        torch.nn.Module.__init__(self)
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.weight, self.bias = linear.weight, linear.bias
        self.chance = chance
        self.register_buffer("base", _packed(linear.weight.detach()), persistent=False)
        self.train(linear.training)

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """Return the layer's output for `input` (…I), (…O)."""
        if not self.training or self.chance == 0:
            return functional.linear(input, self.weight, self.bias)
        return functional.linear(input, self.mixed(), self.bias)

    def mixed(self) -> torch.Tensor:
        """Return W_eff (OI) of one draw."""
        keep = 1 - self.chance
        chances = torch.full((self.in_features,), keep, device=self.weight.device)
        columns = torch.bernoulli(chances).to(self.weight.dtype) / keep
        base = self.base.to(self.weight.dtype)
        return base + (self.weight - base) * columns


def add_mixout(model: torch.nn.Module, chance: float) -> int:
    """Put Mixout on every trained linear layer of `model` but its output head; return how many.

    Call it while the weights are the base model's. Raises ModelError if there is no such layer.
    """
    head = model.get_output_embeddings() if hasattr(model, "get_output_embeddings") else None
    found = [
        (name, module)
        for name, module in model.named_modules()
        if type(module) is torch.nn.Linear and module is not head and module.weight.requires_grad
    ]
    if not found:
        raise ModelError(
            "the model has no trained linear layer that Mixout could act on",
            fix="Remove train.mixout, or name other train.target_modules",
        )
    for name, module in found:
        model.set_submodule(name, MixoutLinear(module, chance))
    return len(found)


def _packed(weight: torch.Tensor) -> torch.Tensor:
    """Return a copy in bf16 where that is exact, else in the weight's own format."""
    half = weight.to(torch.bfloat16)
    return half if torch.equal(half.to(weight.dtype), weight) else weight.clone()
