"""The shared path against the plain one: the same loss and gradients, for fewer tokens."""

from __future__ import annotations

import random
from functools import partial
from typing import Any

import pytest
import torch

from tutelage.training import attention_kernels, tree_attention
from tutelage.training import self_check as self_check_module
from tutelage.training.adapters import trained_parameters
from tutelage.training.prefix_tree import Row, build_forest
from tutelage.training.self_check import self_check, shorten, unsupported
from tutelage.training.shared_step import SharedStep, plain_step

VOCABULARY = 250


def draw(
    generator: random.Random, lengths: tuple[int, ...], rows: int, prompt_weight: float
) -> list[Row]:
    """Return rows under a tree of prefixes: level i branches in two and is lengths[i] long."""
    words = range(VOCABULARY)
    runs = {
        (level, branch): tuple(generator.choices(words, k=length))
        for level, length in enumerate(lengths)
        for branch in range(2**level)
    }
    made = []
    for index in range(rows):
        context: tuple[int, ...] = ()
        for level in range(len(lengths)):
            context += runs[(level, index % 2**level)]
        context += tuple(generator.choices(words, k=generator.randrange(1, 9)))
        answer = tuple(generator.choices(words, k=generator.randrange(1, 7)))
        weights = (0.0,) + (prompt_weight,) * (len(context) - 1) + (1.0,) * len(answer)
        made.append(Row(f"row{index}", context + answer, weights, len(context)))
    return made


def gradients(model: Any) -> dict[str, torch.Tensor]:
    """Take the gradients off the model."""
    taken = {}
    for name, parameter in trained_parameters(model).items():
        assert parameter.grad is not None, name
        taken[name] = parameter.grad.clone()
        parameter.grad = None
    return taken


def assert_close(found: dict[str, torch.Tensor], wanted: dict[str, torch.Tensor]) -> None:
    """Every parameter's gradient agrees to a relative 1e-4."""
    for name, gradient in wanted.items():
        assert (found[name] - gradient).norm() <= 1e-4 * gradient.norm(), name


@pytest.mark.parametrize("prompt_weight", [0.0, 0.1])
@pytest.mark.parametrize("micro_batch", [1, 3, 8])
@pytest.mark.parametrize("lengths", [(), (40,), (30, 20, 12)])
def test_loss_and_gradients_equal_the_plain_path(
    tiny_lora: Any, lengths: tuple[int, ...], micro_batch: int, prompt_weight: float
) -> None:
    rows = draw(random.Random(len(lengths)), lengths, 8, prompt_weight)
    plain = plain_step(tiny_lora, rows, 8)
    wanted = gradients(tiny_lora)
    shared = SharedStep(tiny_lora)(rows, micro_batch)
    assert shared.loss == pytest.approx(plain.loss, abs=1e-5)
    assert_close(gradients(tiny_lora), wanted)
    assert shared.total == sum(len(row.ids) - 1 for row in rows)
    assert (shared.unique < shared.total) == bool(lengths)


def test_the_portable_attention_gives_the_same(
    tiny_lora: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = draw(random.Random(5), (30, 20), 6, 0.05)
    plain = plain_step(tiny_lora, rows, 6)
    wanted = gradients(tiny_lora)
    monkeypatch.setattr(attention_kernels, "_FLASH", None)
    monkeypatch.setattr(attention_kernels, "_FLASH_BACKWARD", None)
    monkeypatch.setattr(attention_kernels, "_CHUNK", 16)
    assert SharedStep(tiny_lora)(rows, 2).loss == pytest.approx(plain.loss, abs=1e-5)
    assert_close(gradients(tiny_lora), wanted)


@pytest.mark.parametrize("micro_batch", [1, 2, 5])
def test_the_loss_does_not_depend_on_the_micro_batch_split(
    tiny_lora: Any, micro_batch: int
) -> None:
    rows = draw(random.Random(9), (25,), 7, 0.0)
    whole = plain_step(tiny_lora, rows, 7)
    wanted = gradients(tiny_lora)
    split = plain_step(tiny_lora, rows, micro_batch)
    assert split.loss == pytest.approx(whole.loss, abs=1e-5)
    assert_close(gradients(tiny_lora), wanted)


@pytest.mark.parametrize("path", ["plain", "shared"])
def test_parts_of_a_step_add_up_under_the_whole_weight(tiny_lora: Any, path: str) -> None:
    rows = draw(random.Random(11), (25,), 6, 0.05)
    step = SharedStep(tiny_lora) if path == "shared" else partial(plain_step, tiny_lora)
    whole = plain_step(tiny_lora, rows, 6)
    wanted = gradients(tiny_lora)
    parts = [step(part, 3, weight=whole.weight) for part in (rows[:2], rows[2:])]
    assert sum(part.loss for part in parts) == pytest.approx(whole.loss, abs=1e-5)
    assert [part.weight for part in parts] == [whole.weight] * 2
    assert_close(gradients(tiny_lora), wanted)


def test_a_branch_point_keeps_one_term_for_each_first_token(tiny_lora: Any) -> None:
    context = tuple(range(20, 50))
    rows = [
        Row(name, (*context, *answer), (0.0,) * 30 + (1.0,) * len(answer), 30)
        for name, answer in [("a", (1, 2)), ("b", (3,)), ("c", (3, 4, 5)), ("d", (6,))]
    ]
    forest = build_forest(rows)
    (root,) = forest.roots
    # The last shared token predicts 1, 3 (twice) and 6; one-token answers need no node at all.
    assert root.terms == {(29, 1): 1.0, (29, 3): 2.0, (29, 6): 1.0}
    assert sorted(child.ids for child in root.children) == [(1,), (3, 4)]
    assert (forest.unique, forest.total) == (33, 31 + 30 + 32 + 30)
    plain = plain_step(tiny_lora, rows, 4)
    wanted = gradients(tiny_lora)
    for micro_batch in (1, 4):
        assert SharedStep(tiny_lora)(rows, micro_batch).loss == pytest.approx(plain.loss, abs=1e-5)
        assert_close(gradients(tiny_lora), wanted)


def test_answers_are_never_shared_even_if_rows_are_equal() -> None:
    row = Row("same", tuple(range(40)), (0.0,) * 30 + (1.0,) * 10, 30)
    forest = build_forest([row, row])
    (root,) = forest.roots
    assert len(root.ids) == 30
    assert [child.ids for child in root.children] == [tuple(range(30, 39))] * 2


def test_a_run_too_short_to_share_does_not_keep_longer_ones_apart(tiny_lora: Any) -> None:
    contexts = [(7, 7, *range(20 * i, 20 * i + 15)) for i in (1, 2, 3)]
    rows = [
        Row(f"{i}{answer}", (*context, answer, 9), (0.0,) * 17 + (1.0, 1.0), 17)
        for i, context in enumerate(contexts)
        for answer in (3, 4)
    ]
    forest = build_forest(rows)
    # Two tokens are common to all: each context has them again, but is itself computed once.
    assert [root.ids for root in forest.roots] == contexts
    assert forest.unique == 3 * 17 + 6
    plain = plain_step(tiny_lora, rows, 6)
    wanted = gradients(tiny_lora)
    for micro_batch in (1, 6):
        assert SharedStep(tiny_lora)(rows, micro_batch).loss == pytest.approx(plain.loss, abs=1e-5)
        assert_close(gradients(tiny_lora), wanted)


def test_a_shared_prompt_token_weighs_as_much_as_all_its_rows(tiny_lora: Any) -> None:
    rows = draw(random.Random(2), (16,), 4, 0.25)
    (root,) = build_forest(rows).roots
    assert {weight for (offset, _), weight in root.terms.items() if offset < 15} == {1.0}


def test_evaluation_gives_the_same_loss_and_no_gradient(tiny_lora: Any) -> None:
    rows = draw(random.Random(4), (30, 20), 6, 0.0)
    with torch.no_grad():
        plain = plain_step(tiny_lora, rows, 6, backward=False)
    for micro_batch in (1, 6):
        shared = SharedStep(tiny_lora)(rows, micro_batch, backward=False)
        assert shared.loss == pytest.approx(plain.loss, abs=1e-5)
    assert all(p.grad is None for p in tiny_lora.parameters())


def test_the_self_check_passes_and_leaves_no_trace(tiny_lora: Any) -> None:
    rows = draw(random.Random(6), (60, 20), 5, 0.0)
    before = {name: p.clone() for name, p in trained_parameters(tiny_lora).items()}
    state = torch.get_rng_state()
    assert self_check(tiny_lora, rows) is None
    assert torch.equal(torch.get_rng_state(), state)
    for name, parameter in trained_parameters(tiny_lora).items():
        assert torch.equal(parameter, before[name])
        assert parameter.grad is None
    assert tiny_lora.config._attn_implementation == "sdpa"


def test_the_self_check_finds_attention_that_is_wrong(
    tiny_lora: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = draw(random.Random(6), (60,), 5, 0.0)
    monkeypatch.setattr(tree_attention, "_blocks", lambda spans: [])
    reason = self_check(tiny_lora, rows)
    assert reason is not None and reason.startswith("the shared path differs from the plain one")


@pytest.mark.parametrize(("error", "found"), [(1e-3, True), (1e-5, False)])
def test_the_self_check_finds_a_gradient_that_is_wrong_by_a_thousandth(
    tiny_lora: Any, monkeypatch: pytest.MonkeyPatch, error: float, found: bool
) -> None:
    class Wrong(SharedStep):
        def __call__(self, *args: Any, **kwargs: Any) -> Any:
            result = super().__call__(*args, **kwargs)
            for parameter in trained_parameters(tiny_lora).values():
                assert parameter.grad is not None
                parameter.grad *= 1 + error
            return result

    monkeypatch.setattr(self_check_module, "SharedStep", Wrong)
    reason = self_check(tiny_lora, draw(random.Random(6), (60, 20), 5, 0.0))
    assert (reason is not None and "gradients 1.0e-03" in reason) == found


@pytest.mark.parametrize(("noise", "allowed"), [(0.0, 1e-4), (2e-5, 2e-4), (4e-4, 5e-4)])
def test_what_rounding_may_do_is_ten_times_what_it_does_within_bounds(
    noise: float, allowed: float
) -> None:
    gaps = self_check_module._Gaps(loss=0.0, gradients=noise)
    limits = self_check_module._limits(gaps, 1.0)
    assert limits.gradients == pytest.approx(allowed) and limits.loss == 5e-5


@pytest.mark.parametrize(
    ("setting", "reason"),
    [
        ({"sliding_window": 64}, "the model has sliding-window attention"),
        (
            {"layer_types": ["linear_attention", "full_attention"]},
            "the model has linear_attention layers",
        ),
        ({"attention_dropout": 0.1}, "the model has dropout inside attention"),
        ({"is_encoder_decoder": True}, "the model is an encoder-decoder"),
        (
            {"rope_parameters": {"rope_type": "dynamic"}},
            "the model's positions depend on the row's length",
        ),
    ],
)
def test_models_that_can_not_share_say_why(
    tiny_lora: Any, setting: dict[str, Any], reason: str
) -> None:
    config = tiny_lora.get_base_model().get_decoder().config
    for name, value in setting.items():
        object.__setattr__(config, name, value)
    assert unsupported(tiny_lora) == reason


def test_a_shortened_row_keeps_its_start_and_its_answer() -> None:
    row = Row("long", tuple(range(200)), (0.0,) * 190 + (1.0,) * 10, 190)
    short = shorten(row)
    assert short.ids == (*range(24), *range(176, 200))
    assert short.ids[short.answer_start :] == tuple(range(190, 200))
    assert short.weight == row.weight
