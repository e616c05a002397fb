"""Fully sharded data parallelism (Zhao et al. 2023, arXiv 2304.11277) by torch's fully_shard.

Every weight lies in equal parts in all processes, with its gradient and its optimizer state; a
block's weights are gathered for its forward and its backward pass and let go again. Each process
first reads the whole model into the processor's memory.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import (
    CPUOffloadPolicy,
    MixedPrecisionPolicy,
    OffloadPolicy,
    fully_shard,
)
from torch.distributed.tensor import DTensor, distribute_tensor

from tutelage.training import checkpoint
from tutelage.training.adapters import restore, trained_parameters
from tutelage.training.precision import NARROW
from tutelage.training.strategies.base import Strategy, Tensors
from tutelage.training.strategies.lockstep import Lockstep


class Fsdp2(Strategy):
    """Weights in parts, one a process, as torch's DTensors."""

    reason = "weights are spread over the processes"

    def place(self, model: Any) -> Any:
        """Return `model` with every block, and then what is left, in parts."""
        kind = torch.device(self.team.device).type
        narrow = NARROW.get(self.recipe.precision)
        settings: dict[str, Any] = {
            "mesh": init_device_mesh(kind, (self.team.size,)),
            "mp_policy": MixedPrecisionPolicy(param_dtype=narrow, reduce_dtype=torch.float32),
            "offload_policy": CPUOffloadPolicy(pin_memory=kind == "cuda")
            if self.recipe.offload
            else OffloadPolicy(),
        }
        for block in blocks(model):
            fully_shard(block, **settings)
        if narrow is not None:  # the loss is taken of fp32 logits
            settings["mp_policy"] = replace(settings["mp_policy"], output_dtype=torch.float32)
        fully_shard(model, **settings)
        model.compute_device, model.spread = self.team.device, True
        return model

    def narrow(self, model: Any) -> None:
        """Leave the weights: they are narrowed as they are gathered."""

    def share(self, step: Any, model: Any) -> Any:
        """Return the step in which all processes make the same passes."""
        return Lockstep(self.team, step, self.recipe, gain=self.team.size)  # it takes the mean

    def score(self, measure: Callable[[Any], float] | None) -> Callable[[Any], float] | None:
        """Return `measure`, done by all, for all are needed; the first one's value counts."""
        if measure is None:
            return None

        def told(model: Any) -> float:
            value = measure(model)
            return self.team.total([value if self.team.first else 0.0])[0]

        return told

    def snapshot(self, model: Any) -> Tensors:
        """Return a copy of the trained weights in the first process; empty ones in the others."""
        return {name: self._whole(p.detach()) for name, p in trained_parameters(model).items()}

    def restore(self, model: Any, weights: Tensors) -> None:
        """Put the first process's snapshot back."""
        parameters = trained_parameters(model)
        names = {name: parameter for name, parameter in parameters.items() if name in weights}
        if len(names) != len(weights) or len(names) != len(parameters):
            restore(model, weights)  # says what is wrong
        with torch.no_grad():
            for name, parameter in parameters.items():
                part = self._part(weights[name], parameter)
                parameter.to_local().copy_(part.to_local())

    def state(self, optimizer: torch.optim.Optimizer) -> Tensors:
        """Return the optimizer's whole state in the first process."""
        state = optimizer.state_dict()["state"]
        return {
            f"{index}.{name}": self._whole(torch.as_tensor(value))
            for index, values in state.items()
            for name, value in values.items()
        }

    def load(self, optimizer: torch.optim.Optimizer, tensors: Tensors) -> None:
        """Put the state back, in parts."""
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        found = {}
        for key, value in tensors.items():
            parameter = parameters[int(key.split(".", 1)[0])]
            found[key] = value if key.endswith(".step") else self._part(value, parameter)
        checkpoint.load_optimizer(optimizer, found)

    def clip(self, model: Any, limit: float) -> float:
        """Scale all processes' gradients to a norm of at most `limit`; return the norm."""
        norm = torch.nn.utils.clip_grad_norm_(trained_parameters(model).values(), limit)
        return float(norm.full_tensor() if isinstance(norm, DTensor) else norm)

    def finished(self, model: Any, best: Tensors, fresh: Callable[[], Any]) -> Any:
        """Return a whole model with the `best` weights, in the first process alone."""
        if not self.team.first:
            return None
        made = fresh()
        restore(made, best)
        return made

    def _whole(self, tensor: torch.Tensor) -> torch.Tensor:
        """Return a whole copy on the CPU; an empty one in all processes but the first."""
        if isinstance(tensor, DTensor):
            tensor = tensor.full_tensor()
        if not self.team.first:
            return torch.empty(0)
        return tensor.detach().to("cpu", copy=True).contiguous()

    def _part(self, whole: torch.Tensor, like: Any) -> Any:
        """Return the first process's tensor in the parts of `like`."""
        if not self.team.first:
            whole = torch.empty(like.shape, dtype=like.dtype)
        whole = whole.to(self.team.device, like.dtype)
        return distribute_tensor(whole, like.device_mesh, like.placements)


def blocks(model: Any) -> list[torch.nn.Module]:
    """Return the transformer's blocks: the members of the longest list of modules."""
    lists = [m for m in model.modules() if isinstance(m, torch.nn.ModuleList)]
    return list(max(lists, key=len, default=[]))
