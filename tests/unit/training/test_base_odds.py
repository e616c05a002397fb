"""Replayed rows that hold the model to its base: what they weigh, what they teach, and when."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional

from tutelage.core.config import Train
from tutelage.core.errors import ConfigError
from tutelage.core.example import Example, Message
from tutelage.inference.models import ModelSource
from tutelage.training.base_odds import as_heavy_as, odds_step
from tutelage.training.job import TrainingJob
from tutelage.training.methods.sft import Supervised
from tutelage.training.planner import make_plan
from tutelage.training.prefix_tree import Row
from tutelage.training.profile import DataProfile, Machine, ModelProfile
from tutelage.training.recipe import Recipe
from tutelage.training.session import train
from tutelage.training.shared_step import plain_step
from tutelage.training.tunings import tuning

PROMPT = "Say whether the colour is warm or cold, as JSON, and nothing else at all."
RECIPE = Recipe(rank=4, epochs=2, batch_size=4, micro_batch=4, replay=0.2, replay_loss="base")


def row(name: str, ids: list[int], start: int, *, odds: bool = False) -> Row:
    weights = tuple(float(place >= start) for place in range(len(ids)))
    return Row(name, tuple(ids), weights, start, odds)


OWN = [row("a", [5, 6, 7, 8, 9, 10], 4), row("b", [5, 6, 7, 8, 11, 12, 13], 4)]
GENERAL = [row("g", list(range(20, 40)), 1), row("h", list(range(30, 41)), 1)]


def gradients(model: Any) -> dict[str, torch.Tensor]:
    found = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
    model.zero_grad(set_to_none=True)
    return found


def general() -> list[Example]:
    texts = ("the sea is wide and the wind is up", "a long road leads over the hill")
    return [
        Example(messages=(Message(role="assistant", content=text),), meta={"replay": "own"})
        for text in texts
    ]


def test_a_replayed_row_weighs_as_much_as_an_average_row() -> None:
    heavy = as_heavy_as(OWN, GENERAL, odds=True)
    assert [r.weight for r in heavy] == pytest.approx([2.5, 2.5])
    assert all(r.odds for r in heavy)
    assert [r.ids for r in heavy] == [r.ids for r in GENERAL]


def test_the_loss_is_the_divergence_of_every_labelled_token(tiny_lora: Any) -> None:
    held = as_heavy_as(OWN, GENERAL, odds=True)
    expected = torch.zeros(())
    for item in held:
        ids = torch.tensor([item.ids[:-1]])
        with torch.no_grad(), tiny_lora.disable_adapter():
            base = tiny_lora(input_ids=ids).logits[0].log_softmax(-1)
        own = tiny_lora(input_ids=ids).logits[0].log_softmax(-1)
        each = functional.kl_div(own, base, log_target=True, reduction="none").sum(-1)
        expected = expected + (each * torch.tensor(item.weights[1:])).sum() / 7
    expected.backward()
    expected = expected.detach()
    wanted = gradients(tiny_lora)
    for micro_batch in (1, 2):
        found = odds_step(tiny_lora, held, micro_batch, 7.0)
        assert found.loss == pytest.approx(float(expected), rel=1e-5)
        assert found.loss > 0
        now = gradients(tiny_lora)
        assert set(now) == set(wanted)
        for name, tensor in wanted.items():
            torch.testing.assert_close(now[name], tensor, rtol=1e-4, atol=1e-7)


def test_a_fresh_adapter_is_held_for_nothing(tiny_lora: Any) -> None:
    with torch.no_grad():
        for name, parameter in tiny_lora.named_parameters():
            if "lora_B" in name:
                parameter.zero_()
    assert odds_step(tiny_lora, GENERAL, 2, 1.0).loss == pytest.approx(0, abs=1e-6)


def test_a_step_adds_both_kinds_of_rows_over_one_weight(tiny_lora: Any) -> None:
    held = as_heavy_as(OWN, GENERAL, odds=True)
    whole = sum(r.weight for r in [*OWN, *held])
    plain_step(tiny_lora, OWN, 4, weight=whole)
    odds_step(tiny_lora, held, 4, whole)
    wanted = gradients(tiny_lora)
    step, _ = Supervised().step(tiny_lora, [*OWN, *held], RECIPE, lambda event: None)
    found = step([held[0], *OWN, held[1]], 4)
    assert found.weight == pytest.approx(whole)
    now = gradients(tiny_lora)
    for name, tensor in wanted.items():
        torch.testing.assert_close(now[name], tensor, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("loss", ["base", "text"])
def test_a_run_with_replayed_rows_ends_the_same_twice(
    tiny_source: ModelSource, colours: list[Example], tmp_path: Path, loss: str
) -> None:
    recipe = RECIPE.model_copy(update={"replay_loss": loss, "learning_rate": 5e-3})
    found = []
    for name in ("one", "two"):
        rows = [*colours[:8], *general()]
        job = TrainingJob(tiny_source, rows, colours[8:], PROMPT, recipe, tmp_path / name)
        found.append(train(job))
    assert found[0].history[1]["loss"] == found[1].history[1]["loss"]
    files = [(r.adapter_dir / "adapter_model.safetensors").read_bytes() for r in found]
    assert files[0] == files[1]


@pytest.mark.parametrize(
    "changes",
    [
        {"method": "full"}, {"method": "pissa"}, {"strategy": "fsdp2"},
        {"peft": {"init_lora_weights": "olora"}},
    ],
)  # fmt: skip
def test_what_can_not_be_switched_off_refuses(changes: dict[str, Any]) -> None:
    recipe = RECIPE.model_copy(update=changes)
    with pytest.raises(ConfigError, match="replay_loss: base has no meaning"):
        tuning(recipe.method, recipe)


def test_the_plan_holds_adapters_to_the_base_and_says_so() -> None:
    data = DataProfile(
        task="classification", rows=215, validation_rows=30, labels=22, prompt_p50=120,
        prompt_max=150, answer_p50=7, answer_max=9, row_p95=140, row_max=155, shared=0.7,
        prefix=105,
    )  # fmt: skip
    model = ModelProfile("small", 134_515_008, 30, 576, 1536, 9, 3, 49152, 8192)
    laptop = Machine(2, 20_000, 50_000, None, 0, True)

    def planned(**settings: Any) -> tuple[float, str]:
        recipe = make_plan(data, model, laptop, Train(**settings)).recipe
        return recipe.replay, recipe.replay_loss

    assert planned() == (0.1, "base")
    assert planned(method="full") == (0.0, "text")
    assert planned(method="full", replay=0.2) == (0.2, "text")
    assert planned(method="pissa") == (0.0, "text")
    assert planned(method="dpo") == (0.0, "text")
    assert planned(method="cpt") == (0.1, "text")
    shown = {c.name for c in make_plan(data, model, laptop, Train()).choices}
    assert "replay_loss" in shown
    shown = {c.name for c in make_plan(data, model, laptop, Train(replay=0.0)).choices}
    assert "replay_loss" not in shown
