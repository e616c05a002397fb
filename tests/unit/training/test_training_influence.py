"""Gradients of single rows: equal to autograd's, sketched without bias, and worth something."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from tutelage.core.errors import ModelError
from tutelage.core.example import Example, Message
from tutelage.data.valuation import gradient_influence, value_gradient
from tutelage.inference.models import ModelSource
from tutelage.training.influence import RowGradients, Sketch, encode_rows

PROMPT = "Say whether the colour is warm or cold."


def test_a_rows_gradient_is_autograds(
    tiny_lora: Any, tiny_source: ModelSource, colours: list[Example]
) -> None:
    rows = encode_rows(tiny_source, colours[:3], PROMPT, 1024)
    gradients = RowGradients(tiny_lora)
    named = {n: p for n, p in sorted(tiny_lora.named_parameters()) if "lora_" in n}
    for row in rows:
        ids = torch.tensor([row.ids])
        labels = torch.tensor([[i if w else -100 for i, w in zip(row.ids, row.weights,
                                                                 strict=True)]])  # fmt: skip
        loss = tiny_lora(input_ids=ids, labels=labels).loss
        expected = torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(named.values()))])
        found = gradients.whole(row)
        assert found.norm() > 0
        assert (found - expected).norm() / expected.norm() < 1e-5


def test_rows_do_not_leak_into_each_other_and_the_model_stays(
    tiny_lora: Any, tiny_source: ModelSource, colours: list[Example]
) -> None:
    rows = encode_rows(tiny_source, colours[:4], PROMPT, 1024)
    before = [p.detach().clone() for p in tiny_lora.parameters()]
    gradients = RowGradients(tiny_lora, dimensions=256)
    together, alone = gradients(rows), gradients(rows[2:3])
    assert together.shape == (4, 256)
    assert together.dtype == np.float32
    assert np.array_equal(together[2], alone[0])
    assert gradients([]).shape == (0, 256)
    assert all(p.grad is None for p in tiny_lora.parameters())
    assert all(torch.equal(a, b) for a, b in zip(before, tiny_lora.parameters(), strict=True))
    frozen = [n for n, p in tiny_lora.named_parameters() if p.requires_grad and "lora_" not in n]
    assert frozen == []


def test_the_sketch_keeps_inner_products() -> None:
    generator = torch.Generator().manual_seed(1)
    one, two = torch.randn(2, 5000, generator=generator)
    two = 0.3 * one + two
    sketches = [Sketch(5000, 512, seed) for seed in range(60)]
    products = torch.stack([s(one) @ s(two) for s in sketches]) / (one.norm() * two.norm())
    exact = float(one @ two / (one.norm() * two.norm()))
    spread = float(products.std())
    assert float(products.mean()) == pytest.approx(exact, abs=3 * spread / 60**0.5)
    assert spread < 1.5 / 512**0.5
    twice = sketches[0](2 * one + two)
    assert torch.allclose(twice, 2 * sketches[0](one) + sketches[0](two), atol=1e-3)
    assert torch.equal(Sketch(5000, 512, 3)(one), Sketch(5000, 512, 3)(one))


def test_sketched_cosines_are_the_whole_ones(
    tiny_lora: Any, tiny_source: ModelSource, colours: list[Example]
) -> None:
    rows = encode_rows(tiny_source, colours[:6], PROMPT, 1024)
    gradients = RowGradients(tiny_lora)
    whole = torch.stack([gradients.whole(row) for row in rows])
    whole = whole / whole.norm(dim=1, keepdim=True)
    short = torch.from_numpy(gradients(rows))
    short = short / short.norm(dim=1, keepdim=True)
    assert (whole @ whole.T - short @ short.T).abs().max() < 0.08


def other_answer(row: Example) -> Example:
    label = "cold" if row.label == "warm" else "warm"
    turns = (*row.context, Message(role="assistant", content=f'{{"family": "{label}"}}'))
    return row.model_copy(update={"messages": turns, "label": label})


def test_copies_of_validation_rows_help_and_their_contradictions_hurt(
    tiny_lora: Any, tiny_source: ModelSource, colours: list[Example]
) -> None:
    validation = colours[:2]
    train = [*colours[:2], *(other_answer(row) for row in colours[:2]), *colours[4:]]
    gradients = RowGradients(tiny_lora)
    sides = tuple(
        gradients(encode_rows(tiny_source, rows, PROMPT, 1024)) for rows in (train, validation)
    )
    values = gradient_influence(sides[0], sides[1])
    assert values[:2].min() > values[2:4].max()
    own = gradient_influence(sides[0], sides[0][:1])
    assert own[0] == pytest.approx(1.0, abs=1e-5)
    assert own.argmax() == 0
    found = value_gradient(train, validation, (sides[0], sides[1]))
    assert {one.id for one in found.rows[:2]} == {row.id for row in validation}


def test_a_model_without_an_adapter_is_refused(tiny_source: ModelSource) -> None:
    from tutelage.inference.transformers import load_model

    with pytest.raises(ModelError, match="no LoRA weights"):
        RowGradients(load_model(tiny_source))
