"""Several processes at one step: each takes a part of the rows, gradients and losses are summed.

The sum over processes is the sum that one process would have made, so every process decides the
same (clip, stop, best) and the loop needs to know nothing of it. Started by torchrun or Ray, which
set RANK, WORLD_SIZE and LOCAL_RANK; without them there is one process and nothing is exchanged.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import distributed

from tutelage.core.errors import EnvironmentProblem
from tutelage.training.adapters import trained_parameters
from tutelage.training.loop import Item, Step
from tutelage.training.recipe import Recipe
from tutelage.training.shared_step import StepResult

_BUCKET = 1 << 25  # values summed in one exchange: 128 MB of fp32
_NAMES = 2048  # bytes for the names of a step's metrics


@dataclass(frozen=True)
class Team:
    """This process among `size`; `rank` 0 speaks and writes for all."""

    rank: int = 0
    size: int = 1
    device: str = "cpu"

    @property
    def first(self) -> bool:
        """Whether this process speaks and writes for all."""
        return self.rank == 0

    def share(self, step: Step, model: torch.nn.Module, recipe: Recipe) -> Step:
        """Return the step that gives this process its part and sums what all have found."""
        if self.size == 1:
            return step
        return _SharedOut(self, step, model, recipe)

    def part(self, rows: Sequence[Item], cost: Callable[[Item], int] = lambda row: 1) -> list[Item]:
        """Return this process's rows: neighbours in order, equal in cost as far as that goes."""
        costs = [max(1, cost(row)) for row in rows]
        whole, before = sum(costs), 0
        mine = []
        for row, own in zip(rows, costs, strict=True):
            middle = before + own / 2
            if int(middle * self.size / whole) == self.rank:
                mine.append(row)
            before += own
        return mine

    def total(self, values: Sequence[float]) -> list[float]:
        """Return the values summed over all processes, in fp64."""
        if self.size == 1:
            return list(values)
        found = torch.tensor(values, dtype=torch.float64, device=self.device)
        distributed.all_reduce(found)
        return [float(value) for value in found]

    def agree(self, value: int, what: str) -> None:
        """Raise EnvironmentProblem unless `value` is the same in all processes."""
        if self.size == 1:
            return
        low, high = (torch.tensor(sign * value, device=self.device) for sign in (1, -1))
        distributed.all_reduce(low, distributed.ReduceOp.MIN)
        distributed.all_reduce(high, distributed.ReduceOp.MIN)
        if int(low) != -int(high):
            raise EnvironmentProblem(
                f"the processes do not agree on {what}: {int(low)} and {-int(high)}",
                fix="Give all machines the same project folder, on storage that they share",
            )

    def score(
        self, measure: Callable[[torch.nn.Module], float] | None
    ) -> Callable[[torch.nn.Module], float] | None:
        """Return `measure`, done by the first process and told to the others."""
        if measure is None or self.size == 1:
            return measure

        def told(model: torch.nn.Module) -> float:
            return self.total([measure(model) if self.first else 0.0])[0]

        return told

    def summed(self, part: StepResult) -> StepResult:
        """Return losses, counts and metrics (shares of means) summed over all processes."""
        if self.size == 1:
            return part
        names = self._names(part.metrics)
        metrics = [part.metrics.get(name, 0.0) for name in names]
        loss, unique, total, *means = self.total([part.loss, part.unique, part.total, *metrics])
        found = dict(zip(names, means, strict=True))
        return StepResult(loss, part.weight, round(unique), round(total), found)

    def _names(self, own: Iterable[str]) -> list[str]:
        """Return `own`, sorted, or what the others have where this process has none."""
        found = torch.zeros(_NAMES, dtype=torch.uint8)
        written = "\n".join(sorted(own)).encode()
        found[: len(written)] = torch.tensor(list(written), dtype=torch.uint8)
        found = found.to(self.device)
        distributed.all_reduce(found, distributed.ReduceOp.MAX)
        text = bytes(found[found > 0].tolist()).decode()
        return text.split("\n") if text else []

    def wait(self) -> None:
        """Go on when all processes are here."""
        if self.size > 1:
            distributed.barrier()


@contextlib.contextmanager
def open_team(*, alone: bool = False) -> Iterator[Team]:
    """Join the processes that the launcher started; leave them at the end.

    `alone` makes a group of one where there is no launcher, for strategies that want a group.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    gpu = torch.cuda.is_available()
    if size == 1 and not alone:
        yield Team(device="cuda" if gpu else "cpu")
        return
    place = int(os.environ.get("LOCAL_RANK", "0"))
    if gpu:
        place %= torch.cuda.device_count()  # Ray may show each process its own GPU alone
        torch.cuda.set_device(place)
    ours = not distributed.is_initialized()  # Ray has joined them already
    if ours:
        # tensors that are kept in the processor's memory are exchanged by gloo
        store = {"store": distributed.HashStore(), "rank": 0, "world_size": 1} if size == 1 else {}
        distributed.init_process_group("cpu:gloo,cuda:nccl" if gpu else "gloo", **store)
    try:
        yield Team(distributed.get_rank(), size, f"cuda:{place}" if gpu else "cpu")
    finally:
        if ours:
            distributed.destroy_process_group()


def joint(step: Any) -> Any:
    """Mark a step that exchanges values itself: a process without rows must call it too."""
    step.joint = True
    return step


def mean_of_all(values: torch.Tensor) -> torch.Tensor:
    """Return the mean of all processes' `values`, (N,) and for some (0,), as a scalar."""
    found = torch.stack([values.sum(), torch.tensor(float(len(values))).to(values)])
    if distributed.is_initialized() and distributed.get_world_size() > 1:
        distributed.all_reduce(found)
    return found[0] / found[1].clamp(min=1)


def draw_seed(seed: int, rank: int, rows: Sequence[Any]) -> int:
    """Return the seed of what a process draws in a step: a resumed run draws the same."""
    names = f"{seed}:{rank}:" + ":".join(row.id for row in rows)
    return int.from_bytes(hashlib.sha256(names.encode()).digest()[:4], "big")


class _SharedOut:
    """A step over this process's part of the rows."""

    def __init__(self, team: Team, step: Step, model: torch.nn.Module, recipe: Recipe) -> None:
        self._team, self._step, self._model, self._recipe = team, step, model, recipe
        self._joint = bool(getattr(step, "joint", False))

    def __call__(
        self,
        rows: Sequence[Any],
        micro_batch: int,
        *,
        backward: bool = True,
        weight: float | None = None,
    ) -> StepResult:
        """Return the loss over all processes' rows; their gradients are summed in place."""
        whole = sum(row.weight for row in rows) if weight is None else weight
        mine = self._team.part(rows, _tokens)
        if backward:
            torch.manual_seed(draw_seed(self._recipe.seed, self._team.rank, rows))
        result = StepResult(0.0, whole, 0, 0)
        if mine or self._joint:
            result = self._step(mine, micro_batch, backward=backward, weight=whole)
        if backward:
            self._sum_gradients()
        share = sum(row.weight for row in mine) / whole
        means = {name: value * share for name, value in result.metrics.items()}
        return self._team.summed(replace(result, weight=whole, metrics=means))

    def _sum_gradients(self) -> None:
        parameters = list(trained_parameters(self._model).values())
        for bucket in _buckets(parameters):
            flat = torch.cat([_gradient(p).flatten().float() for p in bucket])
            distributed.all_reduce(flat)
            place = 0
            for parameter in bucket:
                part = flat[place : place + parameter.numel()].view_as(parameter)
                parameter.grad = part.to(parameter.dtype)
                place += parameter.numel()


def _tokens(row: Any) -> int:
    return int(getattr(row, "computed", 1))


def _gradient(parameter: torch.nn.Parameter) -> torch.Tensor:
    return torch.zeros_like(parameter) if parameter.grad is None else parameter.grad


def _buckets(parameters: Sequence[torch.nn.Parameter]) -> Iterator[list[torch.nn.Parameter]]:
    """Yield the parameters in groups of at most _BUCKET values."""
    group: list[torch.nn.Parameter] = []
    room = _BUCKET
    for parameter in parameters:
        if group and parameter.numel() > room:
            yield group
            group, room = [], _BUCKET
        group.append(parameter)
        room -= parameter.numel()
    if group:
        yield group
