"""Every adapter by its name: it trains, is written small and alone, and loads on the same base."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from tutelage.core.errors import ConfigError, EnvironmentProblem, ModelError
from tutelage.core.example import Example
from tutelage.inference.models import ModelSource
from tutelage.inference.transformers import load_model
from tutelage.training.adapter_config import make_config, peft_names
from tutelage.training.adapters import trained_parameters
from tutelage.training.methods import resolve
from tutelage.training.methods.sft import Supervised
from tutelage.training.optim import make_optimizer, rate_scales, set_rate
from tutelage.training.recipe import Recipe
from tutelage.training.session import TrainingJob, TrainResult, train
from tutelage.training.tunings import tuning, tuning_of

RECIPE = Recipe(
    rank=4, alpha=8.0, learning_rate=1e-2, epochs=2, batch_size=4, micro_batch=4,
    eval_every=4, patience=99, checkpoint_every=50,
)  # fmt: skip
PROMPT = "Say whether the colour is warm or cold, as JSON, and nothing else at all."


def recipe(**changes: Any) -> Recipe:
    return Recipe(**(RECIPE.model_dump() | changes))


class Job:
    """Trains on the colours by one method after the other."""

    def __init__(self, source: ModelSource, rows: list[Example], folder: Path) -> None:
        self.source, self.rows, self.folder = source, rows, folder

    def __call__(self, folder: str = "run", **changes: Any) -> TrainResult:
        return train(
            TrainingJob(
                self.source, self.rows[:8], self.rows[8:], PROMPT, recipe(**changes),
                self.folder / folder,
            )
        )  # fmt: skip

    def loss(self, adapter: Path) -> float:
        """Return the validation loss of the base with the adapter loaded on it."""
        from tutelage.inference.transformers import load_tokenizer
        from tutelage.training.encode import encode
        from tutelage.training.shared_step import plain_step

        model = load_model(self.source, adapter=adapter)
        rows = encode(self.rows[8:], load_tokenizer(self.source), PROMPT, max_tokens=1024).rows
        with torch.no_grad():
            return plain_step(model, rows, 4, backward=False).loss


@pytest.fixture
def job(tiny_source: ModelSource, colours: list[Example], tmp_path: Path) -> Job:
    return Job(tiny_source, colours, tmp_path)


def best_loss(result: TrainResult) -> float:
    return min(p["validation_loss"] for p in result.history if "validation_loss" in p)


def first_and_last(result: TrainResult) -> tuple[float, float]:
    losses = [point["loss"] for point in result.history if "loss" in point]
    return losses[0], losses[-1]


@pytest.mark.parametrize(
    "method",
    ["rslora", "dora", "pissa", "lora_plus", "loha", "lokr", "ia3", "vera", "oft", "boft", "hra",
     "miss", "randlora", "ln_tuning"],
)  # fmt: skip
def test_an_adapter_of_any_name_learns_and_loads_on_its_base(job: Job, method: str) -> None:
    result = job(method=method)
    first, last = first_and_last(result)
    assert last < first
    assert result.prefix["shared"] is True
    assert {f.name for f in result.adapter_dir.iterdir()} == {
        "adapter_config.json", "adapter_model.safetensors",
    }  # fmt: skip
    assert str(job.source.path) not in (result.adapter_dir / "adapter_config.json").read_text()
    assert job.loss(result.adapter_dir) == pytest.approx(best_loss(result), abs=1e-4)


@pytest.mark.parametrize(
    ("name", "given", "plain"),
    [
        ("lora", {}, True),
        ("rslora", {}, True),
        ("pissa", {}, True),
        ("dora", {}, False),
        ("lora", {"lora_bias": True}, False),
        ("lora", {"modules_to_save": ["norm"]}, False),
        ("loha", {}, False),
    ],
)
def test_only_a_pair_of_matrices_is_plain_lora(
    tiny_source: ModelSource, tmp_path: Path, name: str, given: dict[str, Any], plain: bool
) -> None:
    from tutelage.inference.tuned import read_tuned

    settings = recipe(method=name, peft=given)
    made = tuning(name, settings)
    made.save(made.attach(load_model(tiny_source), settings), tmp_path, "tiny")
    assert read_tuned(tmp_path).is_plain_lora is plain


def test_equal_runs_write_equal_bytes(job: Job) -> None:
    one, other = job("one", method="dora"), job("other", method="DoRA")
    for name in ("adapter_model.safetensors", "adapter_config.json"):
        assert (one.adapter_dir / name).read_bytes() == (other.adapter_dir / name).read_bytes()


def test_names_are_found_in_any_case_and_unknown_ones_name_the_nearest() -> None:
    settings = recipe()
    assert isinstance(resolve("LoHa").objective(settings), Supervised)
    assert {"lora", "loha", "ia3", "miss"} <= set(peft_names())
    with pytest.raises(ConfigError, match="Did you mean 'lora'"):
        resolve("lorra")
    with pytest.raises(ConfigError, match="Did you mean 'dora'"):
        tuning_of(recipe(tune="doraa"))


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("prefix_tuning", "can't share prefixes"),
        ("P_TUNING", "can't share prefixes"),
        ("prompt-tuning", "can't share prefixes"),
        ("adalora", "a checkpoint does not carry that"),
        ("xlora", "adapters that are trained already"),
    ],
)
def test_what_can_not_be_trained_here_says_why_and_what_to_take(name: str, reason: str) -> None:
    with pytest.raises(ConfigError, match=reason) as caught:
        resolve(name)
    assert caught.value.fix is not None and caught.value.fix.startswith("Take lora, dora")


@pytest.mark.parametrize(
    ("name", "given", "problem"),
    [
        ("lora", {"use_rslorra": True}, "Did you mean 'use_rslora'"),
        ("lora", {"r": 3}, "set train.rank"),
        ("lora", {"init_lora_weights": "eva"}, "needs a pass over data"),
        ("lora", {"layers_to_transform": [1]}, "cannot be used when `target_modules` is a str"),
        ("ia3", {"target_modules": ["q_proj"]}, "set train.target_modules"),
        ("lokr", {"decompose_facto": 4}, "Did you mean 'decompose_factor'"),
    ],
)
def test_wrong_fields_for_peft_are_one_clear_sentence(
    name: str, given: dict[str, Any], problem: str
) -> None:
    with pytest.raises(ConfigError, match=problem):
        make_config(name, recipe(peft=given))


def test_a_field_that_the_method_fixes_can_not_be_given_twice() -> None:
    with pytest.raises(ConfigError, match="fixed by the method"):
        make_config("lora", recipe(peft={"use_dora": False}), use_dora=True)


def test_more_fields_reach_peft(tiny_source: ModelSource) -> None:
    more = {"use_rslora": True, "layers_to_transform": [1]}
    settings = recipe(peft=more, target_modules=("q_proj", "down_proj"))
    model = tuning("lora", settings).attach(load_model(tiny_source), settings)
    assert model.peft_config["default"].use_rslora is True
    assert all(".layers.1." in name for name in trained_parameters(model))


@pytest.mark.parametrize(
    ("name", "settings", "fix"),
    [
        ("vblora", recipe(), "Set train.peft.vector_length to a number"),
        ("waveft", recipe(), "Set train.peft.n_frequency to fewer"),
        ("vblora", recipe(target_modules=("q_proj",)), "Leave train.target_modules unset"),
    ],
)
def test_an_adapter_that_does_not_fit_names_the_setting_at_fault(
    tiny_source: ModelSource, name: str, settings: Recipe, fix: str
) -> None:
    with pytest.raises(ModelError, match=f"can't carry the adapter {name} on .*{fix}"):
        tuning(name, settings).attach(load_model(tiny_source), settings)


def test_the_recipe_says_which_layers_carry_an_adapter(tiny_source: ModelSource) -> None:
    settings = recipe(target_modules=("q_proj", "v_proj"))
    model = tuning("loha", settings).attach(load_model(tiny_source), settings)
    assert {name.split(".")[-3] for name in trained_parameters(model)} == {"q_proj", "v_proj"}


@pytest.mark.parametrize(
    ("name", "changes", "field"),
    [
        ("lora", {"mixout": 0.5}, "train.mixout"),
        ("dora", {"layer_decay": 0.9}, "train.layer_decay"),
        ("ia3", {"lora_plus": 4}, "train.lora_plus"),
        ("full", {"peft": {"use_dora": True}}, "train.peft"),
    ],
)
def test_settings_without_a_meaning_are_errors(
    name: str, changes: dict[str, Any], field: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        tuning(name, recipe(**changes))
    assert caught.value.where == field


@pytest.mark.parametrize(
    ("changes", "ratio"),
    [
        ({"method": "lora"}, 1.0),
        ({"method": "lora", "lora_plus": 4.0}, 4.0),
        ({"method": "LoRA+"}, 16.0),
        ({"method": "cpt", "tune": "lora_plus"}, 16.0),
        ({"method": "lora_plus", "lora_plus": 8.0}, 8.0),
    ],
)
def test_lora_plus_lets_b_learn_faster(
    tiny_lora: Any, changes: dict[str, Any], ratio: float
) -> None:
    settings = recipe(**changes)
    scales = rate_scales(tiny_lora, settings)
    assert {s for name, s in scales.items() if "lora_A" in name} == {1.0}
    assert {s for name, s in scales.items() if "lora_B" in name} == {ratio}
    optimizer = make_optimizer(tiny_lora, settings)
    set_rate(optimizer, 1e-3)
    rates = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
    for name, parameter in trained_parameters(tiny_lora).items():
        assert rates[id(parameter)] == pytest.approx(1e-3 * scales[name])


@pytest.mark.parametrize(
    ("method", "given"),
    [
        ("pissa", {}),
        ("pissa", {"use_rslora": True, "use_dora": True}),
        ("pissa", {"rank_pattern": {"q_proj": 2}, "alpha_pattern": {"v_proj": 3}}),
        ("lora", {"init_lora_weights": "olora"}),
    ],
)
def test_a_start_taken_out_of_the_base_is_put_back_in_the_file(
    tiny_source: ModelSource, tmp_path: Path, method: str, given: dict[str, Any]
) -> None:
    settings = recipe(method=method, peft=given)
    made = resolve(method).tuning(settings)
    model = made.attach(load_model(tiny_source), settings)
    ids = torch.arange(40)[None]
    with torch.no_grad():
        base = load_model(tiny_source)(ids).logits
        assert torch.allclose(model(ids).logits, base, atol=1e-4)
        torch.manual_seed(1)
        for parameter in trained_parameters(model).values():
            parameter.add_(torch.randn_like(parameter) * 0.05)
        wanted = model(ids).logits
    made.save(model, tmp_path, "tiny")
    assert json.loads((tmp_path / "adapter_config.json").read_text())["r"] == 8
    with torch.no_grad():
        found = load_model(tiny_source, adapter=tmp_path)(ids).logits
    assert not torch.allclose(found, base, atol=1e-2)
    assert torch.allclose(found, wanted, atol=1e-4)


def test_objectives_get_what_the_recipe_tunes() -> None:
    assert tuning_of(recipe(method="cpt", tune="full")).__class__.__name__ == "FullTuning"
    assert tuning_of(recipe(method="dpo", tune="LOHA")).__class__.__name__ == "PeftTuning"


class TestQlora:
    """bitsandbytes works on a CPU too."""

    @pytest.fixture(autouse=True)
    def _needs(self) -> None:
        pytest.importorskip("bitsandbytes")

    @pytest.mark.parametrize("precision", ["fp32", "bf16"])
    def test_a_base_in_four_bits_learns_and_its_adapter_loads_on_the_whole_one(
        self, job: Job, precision: str
    ) -> None:
        result = job(method="qlora", precision=precision, epochs=4)
        first, last = first_and_last(result)
        assert last < 0.8 * first
        assert result.prefix["shared"] is True
        assert job.loss(result.adapter_dir) == pytest.approx(best_loss(result), abs=0.1)
        config = (result.adapter_dir / "adapter_config.json").read_text()
        assert "4bit" not in config and "quantization" not in config

    @pytest.mark.parametrize("loaded_by", ["options", "nothing"])
    def test_linear_layers_are_packed_and_the_head_is_not(
        self, tiny_source: ModelSource, loaded_by: str
    ) -> None:
        from bitsandbytes.nn import Linear4bit

        settings = recipe(method="qlora")
        made: Any = resolve("qlora").tuning(settings)
        options = made.load_options() if loaded_by == "options" else {}
        model = made.attach(load_model(tiny_source, **options), settings)
        packed = [m for m in model.modules() if isinstance(m, Linear4bit)]
        assert len(packed) == 14
        assert all(m.weight.quant_state.nested for m in packed)  # double quantisation
        assert {m.weight.quant_state.quant_type for m in packed} == {"nf4"}
        inner = model.get_base_model()
        assert type(inner.get_output_embeddings()) is torch.nn.Linear
        assert inner.get_output_embeddings().weight.dtype == torch.float32
        bits = sum(m.weight.numel() * 8 for m in packed)
        whole = sum(m.in_features * m.out_features for m in packed)
        assert bits / whole == 4

    def test_magnitudes_can_be_trained_over_four_bits(self, job: Job) -> None:
        result = job(method="qlora", peft={"use_dora": True})
        first, last = first_and_last(result)
        assert last < first
        assert job.loss(result.adapter_dir) == pytest.approx(best_loss(result), abs=0.1)

    def test_a_start_can_not_be_taken_out_of_four_bits(self, tiny_source: ModelSource) -> None:
        settings = recipe(method="qlora", peft={"init_lora_weights": "pissa"})
        with pytest.raises(ConfigError, match="held in 4 bits"):
            tuning("qlora", settings).attach(load_model(tiny_source), settings)

    def test_another_objective_can_tune_in_four_bits(self, job: Job) -> None:
        from tutelage.training.tunings import load_options

        assert load_options(recipe(method="qlora"))["quantization"].load_in_4bit is True
        assert load_options(recipe(method="lora")) == {}


def test_without_bitsandbytes_one_sentence_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, job: Job
) -> None:
    import importlib.util

    real = importlib.util.find_spec

    def find(name: str, *rest: Any) -> Any:
        return None if name == "bitsandbytes" else real(name, *rest)

    monkeypatch.setattr(importlib.util, "find_spec", find)
    with pytest.raises(EnvironmentProblem, match=r"pip install 'tutelage\[gpu\]'"):
        job(method="qlora")
