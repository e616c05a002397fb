"""The memory estimate: exact where it can be counted, and moving the right way where it can't."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tutelage.training.memory import adapter_params, estimate_memory, tokens_at_once
from tutelage.training.profile import DataProfile, ModelProfile, profile_model
from tutelage.training.recipe import Recipe

DATA = DataProfile(
    task="classification", rows=215, validation_rows=30, labels=22, prompt_p50=120, prompt_max=150,
    answer_p50=7, answer_max=9, row_p95=140, row_max=155, shared=0.7, prefix=105,
)  # fmt: skip
SMALL = ModelProfile("small", 134_515_008, 30, 576, 1536, 9, 3, 49152, 8192)
RECIPE = Recipe(rank=16, batch_size=8, micro_batch=8, max_tokens=256)


def test_the_items_sum_to_the_total() -> None:
    estimate = estimate_memory(DATA, SMALL, RECIPE)
    items = estimate.model_dump()
    total = items.pop("total_mb")
    assert total == pytest.approx(sum(items.values()), abs=0.1)
    assert all(value > 0 for value in items.values())


def test_weights_and_adapter_are_counted_exactly(tiny_dir: Path, tiny_lora: Any) -> None:
    profile = profile_model("tiny", tiny_dir)
    trained = sum(p.numel() for p in tiny_lora.parameters() if p.requires_grad)
    frozen = sum(p.numel() for p in tiny_lora.parameters() if not p.requires_grad)
    assert adapter_params(profile, rank=4) == trained
    estimate = estimate_memory(DATA, profile, Recipe(rank=4, alpha=8))
    assert estimate.weights_mb == pytest.approx(4 * frozen / 1e6, abs=0.05)
    assert estimate.adapter_mb == pytest.approx(8 * trained / 1e6, abs=0.05)


def test_the_demo_models_weights() -> None:
    assert estimate_memory(DATA, SMALL, RECIPE).weights_mb == pytest.approx(538.1, abs=0.1)


def test_sharing_the_prefix_counts_it_once() -> None:
    alone = RECIPE.model_copy(update={"shared_prefix": False})
    assert tokens_at_once(DATA, alone) == 8 * 140
    assert tokens_at_once(DATA, RECIPE) == 105 + 8 * 35
    small = RECIPE.model_copy(update={"micro_batch": 2})
    assert tokens_at_once(DATA, small) == 2 * 140  # rows that fit go in one stream: 5 of the 8
    shared, plain = (estimate_memory(DATA, SMALL, r) for r in (RECIPE, alone))
    assert shared.activations_mb < plain.activations_mb / 2
    assert shared.prefix_mb > 0 == plain.prefix_mb


@pytest.mark.parametrize(
    ("change", "item"),
    [
        ({"precision": "bf16"}, "weights_mb"),
        ({"precision": "bf16"}, "activations_mb"),
        ({"micro_batch": 2}, "activations_mb"),
        ({"micro_batch": 2}, "logits_mb"),
        ({"rank": 4}, "optimizer_mb"),
        ({"max_tokens": 64}, "activations_mb"),
    ],
)
def test_what_makes_it_smaller(change: dict[str, Any], item: str) -> None:
    before = estimate_memory(DATA, SMALL, RECIPE).model_dump()
    after = estimate_memory(DATA, SMALL, RECIPE.model_copy(update=change)).model_dump()
    assert after[item] < before[item]


def test_longer_rows_take_more() -> None:
    longer = replace(DATA, row_p95=240)
    before, after = (estimate_memory(d, SMALL, RECIPE) for d in (DATA, longer))
    assert after.total_mb > before.total_mb
