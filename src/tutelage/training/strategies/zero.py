"""ZeRO stages 2 and 3 (Rajbhandari et al. 2020, arXiv 1910.02054) by DeepSpeed.

zero2 spreads gradients and optimizer over the processes, zero3 the weights too; with offload they
lie in the processor's memory (Ren et al. 2021, arXiv 2101.06840). DeepSpeed clips and updates in
one call; everything else, checkpoints included, is this program's own.
"""

from __future__ import annotations

import importlib.util
import os
from typing import TYPE_CHECKING, Any

import torch
from torch import distributed

from tutelage.core.errors import EnvironmentProblem
from tutelage.training import adapters, optim
from tutelage.training.recipe import Recipe
from tutelage.training.strategies.base import Tensors
from tutelage.training.strategies.fsdp2 import Fsdp2
from tutelage.training.strategies.lockstep import Lockstep

if TYPE_CHECKING:
    from tutelage.training.distributed import Team

_MOMENTS = ("exp_avg", "exp_avg_sq")
_NEVER = 10**9  # steps between DeepSpeed's own reports


def deepspeed_config(recipe: Recipe, team: Team) -> dict[str, Any]:
    """Return DeepSpeed's configuration for `recipe`.

    Micro-batches are this program's: DeepSpeed adds gradients up until it is told to update.
    """
    pinned = {"device": "cpu", "pin_memory": team.device != "cpu"}
    zero: dict[str, Any] = {"stage": 3 if recipe.strategy == "zero3" else 2}
    if recipe.offload:
        zero["offload_optimizer"] = pinned
        if recipe.strategy == "zero3":
            zero["offload_param"] = pinned
    return {
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": 1,
        "managed_gradient_accumulation": False,
        "gradient_clipping": recipe.max_grad_norm,
        "zero_optimization": zero | {"overlap_comm": False},
        "zero_allow_untested_optimizer": True,  # torch's own AdamW
        "zero_force_ds_cpu_optimizer": False,
        "bf16": {"enabled": recipe.precision == "bf16"},
        "steps_per_print": _NEVER,
    }


class Zero(Fsdp2):
    """Weights, gradients and optimizer as DeepSpeed spreads them."""

    @property
    def _third(self) -> bool:
        return self.recipe.strategy == "zero3"

    def place(self, model: Any) -> Any:
        """Return DeepSpeed's engine around `model`, with its optimizer."""
        require_deepspeed()
        os.environ.setdefault("LOCAL_RANK", "0")
        import deepspeed

        optimizer = optim.make_optimizer(model, self.recipe)
        self._order = [p for group in optimizer.param_groups for p in group["params"]]
        self._inner = optimizer
        self._engine, *_ = deepspeed.initialize(
            model=model, optimizer=optimizer, config=deepspeed_config(self.recipe, self.team),
            dist_init_required=False,
        )  # fmt: skip
        self._engine.compute_device, self._engine.spread = self.team.device, True
        return self._engine

    def optimizer(self, model: Any) -> torch.optim.Optimizer:
        """Return DeepSpeed's optimizer."""
        made: torch.optim.Optimizer = self._engine.optimizer
        return made

    def share(self, step: Any, model: Any) -> Any:
        """Return the step in which all processes make the same passes."""
        return Lockstep(self.team, step, self.recipe, gain=self.team.size)  # it takes the mean

    def snapshot(self, model: Any) -> Tensors:
        """Return a copy of the trained weights, fp32, in the first process."""
        from deepspeed.utils import safe_get_full_fp32_param

        trained = adapters.trained_parameters(self._engine.module)
        return {name: self._whole(safe_get_full_fp32_param(p)) for name, p in trained.items()}

    def restore(self, model: Any, weights: Tensors) -> None:
        """Put the first process's snapshot back, in full and in narrow precision."""
        import deepspeed
        from deepspeed.utils import safe_set_full_fp32_param

        trained = adapters.trained_parameters(self._engine.module)
        if set(trained) != set(weights):
            adapters.restore(self._engine.module, weights)  # says what is wrong
        for name, parameter in trained.items():
            with deepspeed.zero.GatheredParameters([parameter], modifier_rank=0), torch.no_grad():
                value = self._told(weights[name], parameter.shape)
                parameter.data.copy_(value)
            safe_set_full_fp32_param(parameter, value)

    def state(self, optimizer: torch.optim.Optimizer) -> Tensors:
        """Return the optimizer's whole state in the first process, as without DeepSpeed."""
        from deepspeed.utils import safe_get_full_optimizer_state

        steps = [values["step"] for values in self._inner.state.values() if "step" in values]
        self._link()
        found = {}
        for index, parameter in enumerate(self._order):
            for name in _MOMENTS:
                moment = safe_get_full_optimizer_state(parameter, name)
                found[f"{index}.{name}"] = self._whole(moment)
            found[f"{index}.step"] = self._whole(torch.as_tensor(float(max(steps))))
        return found

    def load(self, optimizer: torch.optim.Optimizer, tensors: Tensors) -> None:
        """Put the optimizer's state back."""
        from deepspeed.utils import safe_set_full_optimizer_state

        made = self._engine.optimizer
        flat = "fp32_partitioned_groups_flat" if self._third else "single_partition_of_fp32_groups"
        for part in getattr(made, flat):
            moments = {name: torch.zeros_like(part) for name in _MOMENTS}
            self._inner.state[part] = {"step": tensors["0.step"].clone(), **moments}
        self._link()
        for index, parameter in enumerate(self._order):
            for name in _MOMENTS:
                value = tensors[f"{index}.{name}"].to(self.team.device)
                safe_set_full_optimizer_state(parameter, value, name)

    def clip(self, model: Any, limit: float) -> float:
        """Clip the gradients and update the weights; return the norm before."""
        self._engine.step()
        return float(self._engine.get_global_grad_norm() or 0.0)

    def update(self, optimizer: torch.optim.Optimizer) -> None:
        """Do nothing more: clip has updated the weights."""

    def _link(self) -> None:
        """Let parameters find their moments: stage 2 links those of its first group alone."""
        made = self._engine.optimizer
        if hasattr(made, "_hp_optimizer_states_linked"):
            made._hp_optimizer_states_linked = False
            made._lazy_init_hp_params_optimizer_state()

    def _told(self, value: torch.Tensor, shape: torch.Size) -> torch.Tensor:
        """Return the first process's `value` in all processes, where they compute."""
        made = value.float() if self.team.first else torch.empty(shape)
        made = made.to(self.team.device)
        distributed.broadcast(made, 0)
        return made


def require_deepspeed() -> None:
    """Raise EnvironmentProblem if DeepSpeed is not installed."""
    if importlib.util.find_spec("deepspeed") is None:
        raise EnvironmentProblem(
            "train.strategy zero2 and zero3 need the package deepspeed, which is not installed",
            fix="Run `pip install 'tutelage[gpu]'`, or set train.strategy: fsdp2",
        )
