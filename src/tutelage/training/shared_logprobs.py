"""Log-likelihoods of whole rows, and the gradient of any loss of them, over shared prefixes.

The seam for losses that look at sequences (preferences, a choice among labels). With
c_i = dloss/dlogp_i, the gradient is sum_i c_i · grad(logp_i): a weighted cross-entropy with the
weights -c_i. So where the rows do not fit in one stream, a first pass without gradient gives the
values, and a second one, an ordinary step over the same forest, gives the gradient, exactly.
No loss is defined here.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import torch

from tutelage.training.head_loss import head_logprobs, head_loss
from tutelage.training.prefix_tree import MIN_SHARED, Forest, Row, Stream, build_forest, pack
from tutelage.training.shared_step import (
    SharedStep,
    StepResult,
    device_of,
    padded_losses,
    plain_step,
)

LossOf = Callable[[torch.Tensor], torch.Tensor]  # (N,) log-likelihoods -> a scalar


class SharedLogprobs:
    """Measures rows with one model. `shared=False` takes the plain, padded path.

    A row's value is sum_t weights[t] · log p(ids[t] | before), natural log, fp32: the
    log-likelihood of what is labelled where the weights are 1. Rows whose `answer_start` is their
    length share their answers' beginnings too, from `min_shared` tokens on.
    """

    def __init__(self, model: Any, *, shared: bool = True, min_shared: int = MIN_SHARED) -> None:
        self._model, self._shared, self._min_shared = model, shared, min_shared
        self._device = device_of(model)

    @property
    def device(self) -> torch.device:
        """Where rows are computed."""
        return self._device

    def __call__(self, rows: Sequence[Row], micro_batch: int) -> torch.Tensor:
        """Return the rows' values, (N,), without gradient. `micro_batch` rows bound the memory."""
        with torch.no_grad():
            if not self._shared:
                return self._plain_values(rows, micro_batch)
            recorder = _Recorder(self._model, len(rows))
            recorder.run(self._forest(rows), _budget(rows, micro_batch), backward=False)
        return recorder.values

    def step(
        self,
        rows: Sequence[Row],
        micro_batch: int,
        loss_of: LossOf,
        *,
        backward: bool = True,
        weight: float = 1.0,
    ) -> StepResult:
        """Add the gradients of `loss_of(values)` to the parameters; return that loss.

        `weight` is only passed on in the result: what `loss_of` has divided by. Both passes draw
        the same dropout.
        """
        if self._shared:
            return self._shared_step(rows, micro_batch, loss_of, backward, weight)
        size = max(1, micro_batch)
        whole = backward and len(rows) <= size
        live = [row for row in rows if row.computed > 0]
        total = sum(row.computed for row in live)
        with torch.set_grad_enabled(whole), _same_draws(self._device, not whole):
            values = self._plain_values(rows, size)
        if whole and values.requires_grad:
            loss = loss_of(values)
            loss.backward()
            return StepResult(float(loss.detach()), weight, total, total)
        loss, slopes = _slopes(values, loss_of, backward)
        if slopes is not None:
            scaled = [
                replace(row, weights=tuple(-slope * w for w in row.weights))
                for row, slope in zip(rows, slopes.tolist(), strict=True)
            ]
            plain_step(self._model, scaled, size, weight=1.0)
        return StepResult(float(loss), weight, total, total)

    def _shared_step(
        self,
        rows: Sequence[Row],
        micro_batch: int,
        loss_of: LossOf,
        backward: bool,
        weight: float,
    ) -> StepResult:
        forest, budget = self._forest(rows), _budget(rows, micro_batch)
        groups = list(pack(forest.roots, budget))
        whole = backward and len(groups) == 1 and forest.unique <= budget
        recorder = _Recorder(self._model, len(rows), keep=whole)
        with torch.set_grad_enabled(whole), _same_draws(self._device, not whole):
            recorder.run(forest, budget, backward=whole)
        loss, slopes = _slopes(recorder.values, loss_of, backward)
        if whole and slopes is not None:
            recorder.backward(slopes)
        elif slopes is not None:
            _weigh(forest, slopes.tolist())
            SharedStep(self._model).run(replace(forest, weight=1.0), budget)
        return StepResult(float(loss), weight, forest.unique, forest.total)

    def _forest(self, rows: Sequence[Row]) -> Forest:
        named = [replace(row, id=str(index)) for index, row in enumerate(rows)]
        return build_forest(named, min_shared=self._min_shared)

    def _plain_values(self, rows: Sequence[Row], micro_batch: int) -> torch.Tensor:
        order = sorted(
            (index for index, row in enumerate(rows) if row.computed > 0),
            key=lambda index: rows[index].computed,
        )
        values = torch.zeros(len(rows), device=self._device)
        for start in range(0, len(order), micro_batch):
            part = order[start : start + micro_batch]
            found = -padded_losses(self._model, [rows[index] for index in part])
            values = values.index_add(0, torch.tensor(part, device=self._device), found)
        return values


class _Recorder(SharedStep):
    """Runs a forest for its values; with `keep` the one stream's graph is held for `backward`."""

    def __init__(self, model: Any, rows: int, *, keep: bool = False) -> None:
        super().__init__(model)
        self.values = torch.zeros(rows, device=self._device)
        self._keep = keep
        self._kept: tuple[Stream, torch.Tensor] | None = None

    def _value(self, stream: Stream, hidden: torch.Tensor, forest: Forest) -> None:
        found = head_logprobs(self._head, *self._predicted(stream, hidden))
        rows, terms, weights = zip(
            *(
                (int(row), term, weight)
                for term, owners in enumerate(stream.owners)
                for row, weight in owners
            ),
            strict=True,
        )
        shares = found[list(terms)] * torch.tensor(weights, device=self._device)
        self.values.index_add_(0, torch.tensor(rows, device=self._device), shares)
        if self._keep:
            self._kept = (stream, hidden)

    def backward(self, slopes: torch.Tensor) -> None:
        """Add the gradient of sum(slopes · values) to the parameters."""
        if self._kept is None:
            return
        stream, hidden = self._kept
        steep = slopes.tolist()
        weights = [-sum(steep[int(row)] * w for row, w in owners) for owners in stream.owners]
        share = torch.tensor(weights, device=self._device, dtype=torch.float32)
        with self._tree_attention():  # for what is computed again in the backward pass
            value = head_loss(self._head, *self._predicted(stream, hidden), share)
            if value.requires_grad:
                value.backward()

    def _predicted(self, stream: Stream, hidden: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the states that predict, NE, and what they predict, N."""
        places = torch.tensor([place for place, _, _ in stream.terms], device=self._device)
        targets = torch.tensor([target for _, target, _ in stream.terms], device=self._device)
        return hidden[places], targets


def _slopes(
    values: torch.Tensor, loss_of: LossOf, backward: bool
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Return the loss and its slope by each value; no slopes without `backward`."""
    leaf = values.detach().clone().requires_grad_(backward)
    with torch.set_grad_enabled(backward):
        loss = loss_of(leaf)
    if not backward or not loss.requires_grad:
        return loss.detach(), None
    (slopes,) = torch.autograd.grad(loss, leaf)
    return loss.detach(), slopes


def _weigh(forest: Forest, slopes: Sequence[float]) -> None:
    """Give every term of the forest the weight that makes the step's loss -sum(slopes · values)."""
    for root in forest.roots:
        for node in root.walk():
            for key, owners in node.owners.items():
                node.terms[key] = -sum(slopes[int(row)] * weight for row, weight in owners)


def _budget(rows: Sequence[Row], micro_batch: int) -> int:
    return micro_batch * max((row.computed for row in rows), default=0)


@contextlib.contextmanager
def _same_draws(device: torch.device, again: bool) -> Iterator[None]:
    """Put the random state back at the end, so that a second pass draws the same dropout."""
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices, enabled=again):
        yield
    if again:
        torch.clear_autocast_cache()  # bf16 copies made without gradient must not serve the second
