"""Back towards the base after training: what is kept, how far it goes, and when it is not done."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tutelage.core.config import Train
from tutelage.core.errors import ConfigError
from tutelage.core.example import Example
from tutelage.inference.models import ModelSource
from tutelage.inference.transformers import load_model
from tutelage.training import interpolate
from tutelage.training.adapters import snapshot
from tutelage.training.interpolate import SHARES, between, choose_share
from tutelage.training.planner import make_plan
from tutelage.training.profile import DataProfile, Machine, ModelProfile
from tutelage.training.recipe import INTERPOLATED, Recipe
from tutelage.training.session import TrainingJob, train
from tutelage.training.tunings import tuning

PROMPT = "Say whether the colour is warm or cold, as JSON, and nothing else at all."
RECIPE = Recipe(
    rank=4, learning_rate=5e-3, epochs=3, batch_size=4, micro_batch=4, eval_every=4, patience=99,
    checkpoint_every=50, interpolate=True,
)  # fmt: skip


def losses_at(rises: dict[float, float], spread: float) -> Any:
    """Return a measure whose groups rise by `rises` on average, and differ by ± `spread`."""

    def measure(share: float) -> Sequence[float]:
        if share == 1.0:
            return [1.0, 2.0, 3.0, 4.0]
        signs = (1, -1, 1, -1)
        return [
            loss + rises[share] + sign * spread
            for loss, sign in zip((1.0, 2.0, 3.0, 4.0), signs, strict=True)
        ]

    return measure


def test_the_smallest_share_within_one_standard_error_is_kept() -> None:
    error = 0.1 * math.sqrt(4 / 3) / 2  # of the mean of +0.1, -0.1, +0.1, -0.1
    rises = {0.9: 0.0, 0.8: 0.9 * error, 0.7: 1.1 * error}
    kept, looks = choose_share(losses_at(rises, spread=0.1))
    assert kept == 0.8
    assert [look["share"] for look in looks] == [1.0, 0.9, 0.8, 0.7]  # no further than it must
    assert looks[2]["standard_error"] == pytest.approx(error, abs=1e-6)


def test_where_less_is_better_the_least_is_kept() -> None:
    falls = {share: share - 1 for share in SHARES}
    assert choose_share(losses_at(falls, spread=0.0))[0] == SHARES[-1]


@pytest.mark.parametrize("rise", [0.5, math.nan, math.inf])
def test_where_less_is_worse_the_whole_change_is_kept(rise: float) -> None:
    kept, looks = choose_share(losses_at({0.9: rise}, spread=0.1))
    assert kept == 1.0
    assert len(looks) == (2 if math.isfinite(rise) else 1)


def test_between_scales_the_change_of_a_lora_layer(tiny_lora: Any) -> None:
    best = snapshot(tiny_lora)
    some = between(best, None, 0.7)
    pairs = [name for name in best if ".lora_A." in name]
    assert pairs
    for a in pairs:
        b = a.replace(".lora_A.", ".lora_B.")
        assert best[b].abs().max() > 0
        torch.testing.assert_close(some[b] @ some[a], 0.7 * (best[b] @ best[a]))


def test_between_full_weights_lies_on_the_line_from_the_base() -> None:
    base, best = {"w": torch.tensor([1.0, 2.0])}, {"w": torch.tensor([3.0, -2.0])}
    torch.testing.assert_close(between(best, base, 0.25)["w"], torch.tensor([1.5, 1.0]))


def run(
    source: ModelSource, rows: list[Example], folder: Path, recipe: Recipe
) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    from safetensors.torch import load_file

    job = TrainingJob(source, rows[:8], rows[8:], PROMPT, recipe, folder)
    result = train(job)
    (file,) = result.adapter_dir.glob("*model.safetensors")
    return result.interpolation, load_file(file)


@pytest.mark.parametrize("method", ["lora", "full"])
def test_a_run_writes_the_share_that_validation_chose(
    tiny_source: ModelSource,
    colours: list[Example],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    method: str,
) -> None:
    monkeypatch.setattr(interpolate, "LEAST_TO_INTERPOLATE", 2)
    recipe = RECIPE.model_copy(
        update={"method": method, "learning_rate": 5e-3 if method == "lora" else 3e-3}
    )
    plain = recipe.model_copy(update={"interpolate": False})
    report, whole = run(tiny_source, colours, tmp_path / "plain", plain)
    assert report == {"share": 1.0, "reason": "the recipe turns it off"}

    # tiny models rarely give a part of the change up for nothing: the groups' losses are scripted
    monkeypatch.setattr(interpolate, "group_losses", _flat)
    report, kept = run(tiny_source, colours, tmp_path / "kept", recipe)
    assert report["share"] == SHARES[-1]
    base: dict[str, torch.Tensor] = {}
    if method == "full":
        base = dict(load_model(tiny_source, dtype="float32").state_dict())
    for name, tensor in whole.items():
        if method == "full":
            expected = base[name] + SHARES[-1] * (tensor - base[name])
        else:
            expected = tensor * (SHARES[-1] if "lora_B" in name else 1.0)
        torch.testing.assert_close(kept[name], expected)


def _flat(*_: Any) -> list[float]:
    return [1.0, 1.0]


def test_the_share_is_measured_on_the_weights_it_is_chosen_for(
    tiny_source: ModelSource,
    colours: list[Example],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(interpolate, "LEAST_TO_INTERPOLATE", 2)
    job = TrainingJob(tiny_source, colours[:8], colours[8:], PROMPT, RECIPE, tmp_path / "run")
    result = train(job)
    best = min(p["validation_loss"] for p in result.history if "validation_loss" in p)
    looks = result.interpolation["looks"]
    assert looks[0]["validation_loss"] == pytest.approx(best, rel=0.02)  # groups weigh alike
    again = train(replace(job, run_dir=tmp_path / "again"))
    assert again.interpolation == result.interpolation


def test_few_validation_rows_leave_the_change_whole(
    tiny_source: ModelSource, colours: list[Example], tmp_path: Path
) -> None:
    report, _ = run(tiny_source, colours, tmp_path / "run", RECIPE)
    assert report == {"share": 1.0, "reason": "fewer than 16 validation rows"}


def test_a_tuning_without_that_line_refuses() -> None:
    with pytest.raises(ConfigError, match="interpolate has no meaning for 'dora'"):
        tuning("dora", RECIPE)


def test_the_plan_says_when_it_is_done_and_why() -> None:
    data = DataProfile(
        task="classification", rows=215, validation_rows=30, labels=22, prompt_p50=120,
        prompt_max=150, answer_p50=7, answer_max=9, row_p95=140, row_max=155, shared=0.7,
        prefix=105,
    )  # fmt: skip
    model = ModelProfile("small", 134_515_008, 30, 576, 1536, 9, 3, 49152, 8192)
    laptop = Machine(2, 20_000, 50_000, None, 0, True)

    def planned(data: DataProfile = data, **settings: Any) -> bool:
        settings = {"replay": 0.0, **settings}
        return make_plan(data, model, laptop, Train(**settings)).recipe.interpolate

    assert planned()
    assert not planned(replay=0.1)  # held in place already
    assert planned(replay=0.1, replay_loss="text")
    assert all(planned(method=name) for name in INTERPOLATED)
    assert not planned(method="dora")
    assert not planned(method="cpt")
    assert not planned(replace(data, validation_rows=15))
    assert not planned(interpolate=False)
