"""Log-likelihoods of rows, and losses of them, against autograd through each row by itself."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.nn import functional

from tutelage.training.adapters import trained_parameters
from tutelage.training.prefix_tree import Row, build_forest
from tutelage.training.shared_logprobs import SharedLogprobs
from tutelage.training.shared_step import SharedStep

WORDS = range(250)


def rows_under_prompts(seed: int, prompts: int = 3, branches: int = 4) -> list[Row]:
    """Return `branches` answers under each of `prompts` prompts; all share their start."""
    draw = random.Random(seed)
    start = tuple(draw.choices(WORDS, k=24))
    opening = tuple(draw.choices(WORDS, k=3))
    rows = []
    for prompt in range(prompts):
        context = start + tuple(draw.choices(WORDS, k=draw.randrange(9, 14)))
        for branch in range(branches):
            answer = opening + tuple(draw.choices(WORDS, k=draw.randrange(1, 5)))
            weights = (0.0,) * len(context) + (1.0,) * len(answer)
            rows.append(Row(f"{prompt}:{branch}", context + answer, weights, len(context)))
    return rows


def one_by_one(model: Any, rows: list[Row]) -> torch.Tensor:
    """Return sum_t w_t log p_t of each row through the model's own forward, with gradient."""
    found = []
    for row in rows:
        ids = torch.tensor([row.ids])
        odds = torch.log_softmax(model(input_ids=ids).logits[0, :-1].float(), -1)
        picked = odds.gather(1, ids[0, 1:, None])[:, 0]
        found.append((picked * torch.tensor(row.weights[1:])).sum())
    return torch.stack(found)


def labels_loss(values: torch.Tensor) -> torch.Tensor:
    """Cross-entropy of the second branch among each prompt's four: slopes of both signs."""
    return functional.cross_entropy(values.view(-1, 4), torch.ones(len(values) // 4).long())


def pairs_loss(values: torch.Tensor) -> torch.Tensor:
    """A preference for each even row over the next; the last two rows do not matter."""
    return -functional.logsigmoid(0.3 * (values[0:-2:2] - values[1:-2:2])).mean()


def gradients(model: Any) -> dict[str, torch.Tensor]:
    """Take the gradients off the model."""
    taken = {}
    for name, parameter in trained_parameters(model).items():
        assert parameter.grad is not None, name
        taken[name], parameter.grad = parameter.grad.clone(), None
    return taken


def assert_close(found: dict[str, torch.Tensor], wanted: dict[str, torch.Tensor]) -> None:
    for name, gradient in wanted.items():
        assert (found[name] - gradient).norm() <= 1e-4 * gradient.norm(), name


def deep(rows: list[Row]) -> list[Row]:
    """Let answers share their beginnings too."""
    return [Row(row.id, row.ids, row.weights, len(row.ids)) for row in rows]


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("micro_batch", [1, 3, 12])
def test_values_equal_those_of_each_row_by_itself(
    tiny_lora: Any, micro_batch: int, shared: bool
) -> None:
    rows = rows_under_prompts(1)
    with torch.no_grad():
        wanted = one_by_one(tiny_lora, rows)
    found = SharedLogprobs(tiny_lora, shared=shared)(rows, micro_batch)
    torch.testing.assert_close(found, wanted, atol=1e-4, rtol=1e-5)
    assert not found.requires_grad
    if shared:
        trie = SharedLogprobs(tiny_lora, min_shared=2)(deep(rows), micro_batch)
        torch.testing.assert_close(trie, wanted, atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("micro_batch", [1, 3, 12])
@pytest.mark.parametrize("loss_of", [labels_loss, pairs_loss])
def test_any_loss_of_the_values_has_its_own_gradient(
    tiny_lora: Any,
    loss_of: Callable[[torch.Tensor], torch.Tensor],
    micro_batch: int,
    shared: bool,
) -> None:
    rows = rows_under_prompts(2)
    plain = loss_of(one_by_one(tiny_lora, rows))
    plain.backward()
    wanted = gradients(tiny_lora)
    logprobs = SharedLogprobs(tiny_lora, shared=shared)
    result = logprobs.step(rows, micro_batch, loss_of, weight=3.0)
    assert result.loss == pytest.approx(plain.item(), abs=1e-5)
    assert result.weight == 3.0
    assert (result.unique < result.total) == shared
    assert_close(gradients(tiny_lora), wanted)
    again = logprobs.step(rows, micro_batch, loss_of, backward=False)
    assert again.loss == pytest.approx(plain.item(), abs=1e-5)
    assert all(p.grad is None for p in tiny_lora.parameters())


@pytest.mark.parametrize("micro_batch", [1, 12])
def test_shared_beginnings_of_answers_give_the_same_gradient(
    tiny_lora: Any, micro_batch: int
) -> None:
    rows = rows_under_prompts(3)
    labels_loss(one_by_one(tiny_lora, rows)).backward()
    wanted = gradients(tiny_lora)
    plain = build_forest(rows)
    result = SharedLogprobs(tiny_lora, min_shared=2).step(deep(rows), micro_batch, labels_loss)
    assert result.unique < plain.unique
    assert_close(gradients(tiny_lora), wanted)


def test_a_trained_head_learns_too(tiny_lora: Any) -> None:
    rows = rows_under_prompts(4)
    tiny_lora.get_base_model().get_output_embeddings().weight.requires_grad_(True)
    labels_loss(one_by_one(tiny_lora, rows)).backward()
    wanted = gradients(tiny_lora)
    assert any("lm_head" in name for name in wanted)
    for micro_batch in (1, 12):
        SharedLogprobs(tiny_lora).step(rows, micro_batch, labels_loss)
        assert_close(gradients(tiny_lora), wanted)


@pytest.mark.parametrize("shared", [True, False])
def test_weights_of_any_sign_and_rows_without_any(tiny_lora: Any, shared: bool) -> None:
    rows = rows_under_prompts(5, branches=2)
    signs = (1.0, -2.0, 0.0, 0.5, -1.0, 0.0)
    rows = [
        Row(row.id, row.ids, tuple(sign * w for w in row.weights), row.answer_start)
        for row, sign in zip(rows, signs, strict=True)
    ]
    wanted = one_by_one(tiny_lora, rows)
    wanted.square().sum().backward()
    slopes = gradients(tiny_lora)
    for micro_batch in (1, 6):
        logprobs = SharedLogprobs(tiny_lora, shared=shared)
        found = logprobs(rows, micro_batch)
        torch.testing.assert_close(found, wanted.detach(), atol=1e-4, rtol=1e-5)
        assert found[2] == found[5] == 0.0
        logprobs.step(rows, micro_batch, lambda values: values.square().sum())
        assert_close(gradients(tiny_lora), slopes)


def test_both_passes_draw_the_same_dropout(tiny_lora: Any) -> None:
    rows = rows_under_prompts(6)
    for module in tiny_lora.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.3
    tiny_lora.train()
    torch.manual_seed(0)
    SharedStep(tiny_lora)(rows, 1, weight=1.0)
    wanted = gradients(tiny_lora)
    torch.manual_seed(0)
    SharedLogprobs(tiny_lora).step(rows, 1, lambda values: -values.sum())
    assert_close(gradients(tiny_lora), wanted)


def test_bf16_has_a_gradient_in_two_passes(tiny_lora: Any) -> None:
    rows = rows_under_prompts(7)
    labels_loss(one_by_one(tiny_lora, rows)).backward()
    wanted = gradients(tiny_lora)
    for shared in (True, False):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            SharedLogprobs(tiny_lora, shared=shared).step(rows, 1, labels_loss)
        for name, gradient in gradients(tiny_lora).items():
            cosine = functional.cosine_similarity(gradient.flatten(), wanted[name].flatten(), 0)
            assert cosine > 0.95, name


def test_no_rows_give_no_values(tiny_lora: Any) -> None:
    for shared in (True, False):
        assert SharedLogprobs(tiny_lora, shared=shared)([], 4).shape == (0,)
