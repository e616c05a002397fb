"""Mixout against its formula: expectation, gradient, identity, and what it leaves alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tutelage.core.errors import ModelError
from tutelage.inference.models import ModelSource
from tutelage.inference.transformers import load_model
from tutelage.training.mixout import MixoutLinear, add_mixout
from tutelage.training.recipe import Recipe
from tutelage.training.tunings import tuning


def layer(chance: float, *, moved: bool = True) -> MixoutLinear:
    """Return a layer of 6 inputs whose weight has moved away from the base's."""
    torch.manual_seed(2)
    made = MixoutLinear(torch.nn.Linear(6, 5).double(), chance)
    if moved:
        with torch.no_grad():
            made.weight.add_(torch.randn(5, 6))
    return made.train()


@pytest.mark.parametrize("chance", [0.3, 0.7, 0.9])
def test_the_mean_of_all_draws_is_the_weight(chance: float) -> None:
    made = layer(chance)
    draws = 20_000
    with torch.no_grad():
        mean = sum(made.mixed() for _ in range(draws)) / draws
    # W_eff - u is (W - u) / (1 - p) with chance 1 - p, else 0: deviation |W - u| sqrt(p / (1-p)).
    spread = (made.weight - made.base).abs() * (chance / (1 - chance) / draws) ** 0.5
    assert bool(((mean - made.weight).abs() <= 5 * spread).all())


def test_each_column_is_the_base_s_or_drawn_away_from_it() -> None:
    made = layer(0.5)
    with torch.no_grad():
        mixed = made.mixed()
    base = (mixed == made.base).all(0)
    away = torch.isclose(mixed, made.base + 2 * (made.weight - made.base)).all(0)
    assert bool((base ^ away).all()) and bool(base.any()) and bool(away.any())


def test_the_gradient_is_the_mask_over_what_is_kept() -> None:
    made = layer(0.7)
    x = torch.randn(3, 6, dtype=torch.float64)
    torch.manual_seed(5)
    made(x).sum().backward()
    torch.manual_seed(5)
    columns = torch.bernoulli(torch.full((6,), 0.3)).double()
    assert columns.any() and not columns.all()
    plain = x.sum(0).expand(5, 6)  # of W_eff
    assert made.weight.grad is not None
    assert torch.allclose(made.weight.grad, plain * columns / (1 - 0.7))


def test_without_a_chance_and_in_evaluation_it_is_the_plain_layer() -> None:
    x = torch.randn(3, 6, dtype=torch.float64)
    for made in (layer(0.0), layer(0.9).eval()):
        assert torch.equal(made(x), torch.nn.functional.linear(x, made.weight, made.bias))


def test_before_the_first_update_nothing_changes() -> None:
    made = layer(0.9, moved=False)
    x = torch.randn(3, 6, dtype=torch.float64)
    assert torch.allclose(made(x), torch.nn.functional.linear(x, made.weight, made.bias))


@pytest.mark.parametrize(("exact", "dtype"), [(True, torch.bfloat16), (False, torch.float32)])
def test_the_base_weight_is_kept_in_half_the_bits_if_that_is_exact(
    exact: bool, dtype: torch.dtype
) -> None:
    linear = torch.nn.Linear(8, 8)
    if exact:
        linear.weight.data = linear.weight.data.bfloat16().float()
    made = MixoutLinear(linear, 0.5)
    assert made.base.dtype == dtype
    assert torch.equal(made.base.float(), linear.weight)


def test_names_and_files_stay_as_they_are(tiny_source: ModelSource) -> None:
    plain, mixed = load_model(tiny_source), load_model(tiny_source)
    count = add_mixout(mixed, 0.7)
    assert count == 14  # 7 in each of 2 blocks; the head is left alone
    assert list(mixed.state_dict()) == list(plain.state_dict())
    assert type(mixed.get_output_embeddings()) is torch.nn.Linear
    ids = torch.arange(20)[None]
    with torch.no_grad():
        assert torch.equal(mixed.eval()(ids).logits, plain.eval()(ids).logits)


def test_only_trained_layers_are_mixed(tiny_source: ModelSource) -> None:
    recipe = Recipe(method="full", mixout=0.5, target_modules=("layers.1",))
    model = tuning("full", recipe).attach(load_model(tiny_source), recipe)
    mixed = [name for name, module in model.named_modules() if isinstance(module, MixoutLinear)]
    assert len(mixed) == 7 and all("layers.1" in name for name in mixed)
    none = Recipe(method="full", mixout=0.5, target_modules=("norm",))
    with pytest.raises(ModelError, match="no trained linear layer"):
        tuning("full", none).attach(load_model(tiny_source), none)


def test_a_killed_run_with_mixout_ends_in_the_same_bits(
    tiny_source: ModelSource, colours: Any, tmp_path: Path
) -> None:
    from tutelage.core.events import Event
    from tutelage.training.session import TrainingJob, train

    recipe = Recipe(
        method="full", mixout=0.7, layer_decay=0.9, learning_rate=1e-3, epochs=2, batch_size=4,
        micro_batch=2, eval_every=2, patience=99, checkpoint_every=2,
    )  # fmt: skip

    class Cut(BaseException):
        """Stands in for a kill: nothing after it runs."""

    def cut(event: Event) -> None:
        if event.kind == "progress" and event.done == 3:
            raise Cut

    def job(name: str) -> TrainingJob:
        return TrainingJob(
            tiny_source, colours[:8], colours[8:], "Warm or cold?", recipe, tmp_path / name
        )

    whole = train(job("whole")).adapter_dir / "model.safetensors"
    with pytest.raises(Cut):
        train(job("cut"), emit=cut)
    notes: list[str] = []
    again = train(job("cut"), emit=lambda event: notes.append(event.message)).adapter_dir
    assert "Continuing from step 2" in notes
    assert (again / "model.safetensors").read_bytes() == whole.read_bytes()
