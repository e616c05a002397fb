"""One optimizer step's loss and gradients, with every shared prefix computed once.

The plain path (each row whole, padded, through the model's own forward) is the reference and the
fallback; the shared path runs the forest of prefix_tree.py through the model as flat streams.

Memory stays that of a micro-batch: a subtree that fits the token budget is one stream; a larger
one runs its top node alone, keeps its keys and values as leaf tensors, lets the streams below add
to the leaves' gradients, and then sends those through the node's own graph once. Dropout inside a
shared prefix is therefore drawn once for all rows that share it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch.nn import functional

from tutelage.inference.transformers_load import unwrapped
from tutelage.training.fast_layers import FastLayers
from tutelage.training.head_loss import head_loss
from tutelage.training.prefix_tree import Forest, Node, Row, Stream, build_forest, lay_out, pack
from tutelage.training.tree_attention import NAME, Past, TreePlan, register

RowLosses = Callable[[Any, Sequence[Row]], torch.Tensor]  # the loss of each row, (N,)
Levels = dict[int, Past]  # layer -> one (key, value) a level above


@dataclass(frozen=True)
class StepResult:
    """The step's loss (nats a weighted token) and how many tokens were fed for how many.

    `weight` is what the loss was divided by; `metrics` are means over the rows that were given, by
    their weights.
    """

    loss: float
    weight: float
    unique: int
    total: int
    metrics: dict[str, float] = field(default_factory=dict)


def decoder_of(model: Any) -> tuple[torch.nn.Module, torch.nn.Module]:
    """Return (decoder without head, head) of a model, with or without peft around it.

    The head is that over the vocabulary, or else the classification head.
    """
    inner = unwrapped(model)
    head = inner.score if is_classifier(model) else inner.get_output_embeddings()
    return inner.get_decoder(), head


def device_of(model: Any) -> torch.device:
    """Return where a model computes; its weights may wait elsewhere."""
    place = getattr(model, "compute_device", None) or next(model.parameters()).device
    return torch.device(place)


def is_classifier(model: Any) -> bool:
    """Return whether the model has a classification head in place of that over the vocabulary."""
    return unwrapped(model).get_output_embeddings() is None


def plain_step(
    model: torch.nn.Module,
    rows: Sequence[Row],
    micro_batch: int,
    *,
    backward: bool = True,
    weight: float | None = None,
    losses: RowLosses | None = None,
) -> StepResult:
    """Run `rows` in padded micro-batches through the model's own forward.

    Gradients are added to the parameters'; the loss is divided by `weight`, the label weight of
    the whole optimizer step (of `rows` if None), so it does not depend on `micro_batch`. `losses`
    gives each row's loss, the cross-entropy of its labels if None.
    """
    losses = losses or padded_losses
    live = sorted((row for row in rows if row.computed > 0), key=lambda row: row.computed)
    weight = sum(row.weight for row in live) if weight is None else weight
    loss = 0.0
    total = 0
    for start in range(0, len(live), micro_batch):
        part = live[start : start + micro_batch]
        value = losses(model, part).sum() / weight
        if backward:
            value.backward()
        loss += float(value.detach())
        total += len(part) * max(row.computed for row in part)
    return StepResult(loss, weight, total, total)


@dataclass(frozen=True)
class Padded:
    """Rows of unequal length side by side; only columns where some row is labelled are predicted.

    `ids` and `mask` are (N, T), `columns` (C,), `targets` and `weights` (N, C).
    """

    ids: torch.Tensor
    mask: torch.Tensor
    columns: torch.Tensor
    targets: torch.Tensor
    weights: torch.Tensor


def pad(rows: Sequence[Row], device: torch.device) -> Padded:
    """Return the rows padded on the right to the longest, on `device`."""
    width = max(row.computed for row in rows)
    ids = torch.zeros(len(rows), width, dtype=torch.long)
    mask = torch.zeros(len(rows), width, dtype=torch.long)
    targets = torch.zeros(len(rows), width, dtype=torch.long)
    weights = torch.zeros(len(rows), width)
    for index, row in enumerate(rows):
        length = row.computed
        ids[index, :length] = torch.tensor(row.ids[:length])
        mask[index, :length] = 1
        targets[index, :length] = torch.tensor(row.ids[1 : length + 1])
        weights[index, :length] = torch.tensor(row.weights[1 : length + 1])
    columns = weights.any(0).nonzero()[:, 0]
    parts = (ids, mask, columns, targets[:, columns], weights[:, columns])
    return Padded(*(part.to(device) for part in parts))


def padded_losses(model: torch.nn.Module, rows: Sequence[Row]) -> torch.Tensor:
    """Return the weighted cross-entropy of each row, summed over its tokens, nats, (N,)."""
    batch = pad(rows, device_of(model))
    # Where a row is not labelled its token may lie outside a classifier's labels.
    targets = batch.targets * (batch.weights != 0)
    logits = padded_logits(model, batch)
    losses = functional.cross_entropy(logits, targets.flatten(), reduction="none")
    return (losses * batch.weights.flatten()).unflatten(0, (len(rows), -1)).sum(1)


def padded_logits(model: Any, batch: Padded) -> torch.Tensor:
    """Return the logits of the batch's columns, (N · C, V), fp32; V labels of a classifier.

    A classifier's own forward reads one place a row, so its decoder and head are run here.
    """
    whole = bool(batch.mask.all())
    settings: dict[str, Any] = {"attention_mask": None if whole else batch.mask}
    settings["use_cache"] = False
    decoder, head = decoder_of(model)
    if is_classifier(model):
        hidden = decoder(input_ids=batch.ids, **settings).last_hidden_state
        return head(hidden[:, batch.columns]).float().flatten(0, 1)
    found: torch.Tensor = model(
        input_ids=batch.ids, logits_to_keep=batch.columns, **settings
    ).logits
    return found.float().flatten(0, 1)


class SharedStep:
    """Runs steps of one model over shared prefixes. `budget` tokens bound one stream.

    `fast` lets layers of known kinds compute their LoRA, gates and norms in one step each.
    """

    def __init__(self, model: torch.nn.Module, *, fast: bool = True) -> None:
        register()
        self._model = model
        self._fast = FastLayers(model) if fast else None
        self._decoder, self._head = decoder_of(model)
        self._device = next(model.parameters()).device

    def __call__(
        self,
        rows: Sequence[Row],
        micro_batch: int,
        *,
        backward: bool = True,
        weight: float | None = None,
    ) -> StepResult:
        """Add the gradients of the mean loss over all labels of `rows`; return that loss.

        The sum over labels is divided by `weight`, that of the whole optimizer step, if it is
        given: a process that holds a part of the step's rows passes the sum over all processes.
        """
        forest = build_forest(rows)
        if weight is not None:
            forest = replace(forest, weight=weight)
        budget = micro_batch * max((row.computed for row in rows), default=0)
        return self.run(forest, budget, backward=backward)

    def run(self, forest: Forest, budget: int, *, backward: bool = True) -> StepResult:
        """Do the same for a forest as it is, in streams of at most `budget` tokens."""
        if not forest.roots:
            return StepResult(0.0, forest.weight, 0, 0)
        with self._tree_attention(), contextlib.nullcontext() if backward else torch.no_grad():
            loss = self._descend(forest.roots, {}, forest, budget)
        return StepResult(loss, forest.weight, forest.unique, forest.total)

    @contextlib.contextmanager
    def _tree_attention(self) -> Iterator[None]:
        config: Any = self._decoder.config
        usual = config._attn_implementation
        config._attn_implementation = NAME
        try:
            with self._fast.replaced() if self._fast else contextlib.nullcontext():
                yield
        finally:
            config._attn_implementation = usual

    def _descend(self, nodes: Sequence[Node], above: Levels, forest: Forest, budget: int) -> float:
        """Run the subtrees of `nodes` under the levels `above`; return their share of the loss."""
        loss = 0.0
        for group in pack(nodes, budget):
            if len(group) == 1 and group[0].children and group[0].size > budget:
                loss += self._alone(group[0], above, forest, budget)
                continue
            value, _ = self._stream(group, above, forest, deep=True)
            if value is not None:
                if value.requires_grad:
                    value.backward()
                loss += float(value.detach())
        return loss

    def _alone(self, node: Node, above: Levels, forest: Forest, budget: int) -> float:
        """Run `node` by itself, what is below on top of its detached keys and values, then back."""
        value, kept = self._stream([node], above, forest, deep=False)
        leaves: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}
        for layer, (key, val) in kept.items():
            leaves[layer] = (
                key.detach().requires_grad_(key.requires_grad),
                val.detach().requires_grad_(val.requires_grad),
            )
        below = {layer: [*above.get(layer, []), pair] for layer, pair in leaves.items()}
        loss = self._descend(node.children, below, forest, budget)
        tensors: list[torch.Tensor] = []
        slopes: list[torch.Tensor | None] = []
        if value is not None:
            loss += float(value.detach())
            if value.requires_grad:
                tensors.append(value)
                slopes.append(None)
        for layer, pair in kept.items():
            for tensor, leaf in zip(pair, leaves[layer], strict=True):
                if tensor.requires_grad and leaf.grad is not None:
                    tensors.append(tensor)
                    slopes.append(leaf.grad)
        if tensors:
            torch.autograd.backward(tensors, slopes)
        return loss

    def _stream(
        self, nodes: Sequence[Node], above: Levels, forest: Forest, *, deep: bool
    ) -> tuple[torch.Tensor | None, dict[int, tuple[torch.Tensor, torch.Tensor]]]:
        """Forward one stream; return its loss share (None without terms) and kept keys, values."""
        stream = lay_out(nodes, deep=deep)
        plan = TreePlan(stream.spans, above, keep=not deep)
        output = self._decoder(
            input_ids=torch.tensor([stream.ids], device=self._device),
            position_ids=torch.tensor([stream.positions], device=self._device),
            use_cache=False,
            tree_plan=plan,
        )
        if not stream.terms:
            return None, plan.kept
        return self._value(stream, output.last_hidden_state[0], forest), plan.kept

    def _value(
        self,
        stream: Stream,
        hidden: torch.Tensor,  # TE
        forest: Forest,
    ) -> torch.Tensor | None:
        """Return the stream's share of the loss."""
        places, targets, weights = zip(*stream.terms, strict=True)
        return head_loss(
            self._head,
            hidden[torch.tensor(places, device=self._device)],
            torch.tensor(targets, device=self._device),
            torch.tensor(weights, device=self._device, dtype=torch.float32) / forest.weight,
        )
