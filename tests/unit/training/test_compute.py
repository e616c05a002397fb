"""16-bit training, gradient checkpointing and attention kernels: the same maths, less memory."""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from tutelage.core.errors import ConfigError, EnvironmentProblem, ModelError
from tutelage.core.events import Event
from tutelage.core.example import Example
from tutelage.inference.models import ModelSource
from tutelage.inference.transformers import load_model
from tutelage.training.adapters import trained_parameters
from tutelage.training.kernels import prepare_compute, set_attention, set_checkpointing
from tutelage.training.loss_scale import START, LossScaler
from tutelage.training.prefix_tree import Row
from tutelage.training.recipe import Recipe
from tutelage.training.session import TrainingJob, TrainResult, train
from tutelage.training.shared_step import SharedStep, StepResult, plain_step
from tutelage.training.tunings import tuning

PROMPT = "Say whether the colour is warm or cold, as JSON, and nothing else at all."


def rows(count: int = 6, prefix: int = 40) -> list[Row]:
    """Return rows that share a prefix and branch twice."""
    drawn = random.Random(3)
    start = tuple(drawn.choices(range(250), k=prefix))
    middles = [tuple(drawn.choices(range(250), k=20)) for _ in range(2)]
    made = []
    for index in range(count):
        prompt = start + middles[index % 2] + tuple(drawn.choices(range(250), k=5))
        answer = tuple(drawn.choices(range(250), k=4))
        weights = (0.0,) + (0.1,) * (len(prompt) - 1) + (1.0,) * len(answer)
        made.append(Row(f"row{index}", prompt + answer, weights, len(prompt)))
    return made


def gradients(model: Any) -> dict[str, torch.Tensor]:
    taken = {}
    for name, parameter in trained_parameters(model).items():
        assert parameter.grad is not None, name
        taken[name] = parameter.grad.clone()
        parameter.grad = None
    return taken


Steps = Callable[[Any], Callable[..., StepResult]]
PATHS: dict[str, Steps] = {"plain": lambda model: partial(plain_step, model), "shared": SharedStep}


@pytest.mark.parametrize("method", ["lora", "full"])
@pytest.mark.parametrize("micro_batch", [1, 6])
@pytest.mark.parametrize("path", list(PATHS))
def test_checkpointing_changes_no_gradient(
    tiny_source: ModelSource, path: str, micro_batch: int, method: str
) -> None:
    found = []
    for checkpointing in (False, True):
        recipe = Recipe(method=method, rank=4, dropout=0.0, checkpointing=checkpointing)
        model = tuning(method, recipe).attach(load_model(tiny_source), recipe)
        prepare_compute(model, recipe)
        model.train()
        result = PATHS[path](model)(rows(), micro_batch)
        found.append((result.loss, gradients(model)))
    (loss, wanted), (other, again) = found
    assert other == pytest.approx(loss, abs=1e-6)
    for name, gradient in wanted.items():
        assert torch.allclose(again[name], gradient, rtol=1e-4, atol=1e-7), name


@pytest.mark.parametrize("changes", [{"mixout": 0.7}, {"dropout": 0.3}])
def test_what_is_drawn_is_drawn_the_same_again(
    tiny_source: ModelSource, changes: dict[str, Any]
) -> None:
    found = []
    for checkpointing in (False, True):
        method = "full" if "mixout" in changes else "lora"
        recipe = Recipe(method=method, rank=4, checkpointing=checkpointing, **changes)
        model = tuning(method, recipe).attach(load_model(tiny_source), recipe)
        prepare_compute(model, recipe)
        with torch.no_grad():
            torch.manual_seed(1)
            for parameter in trained_parameters(model).values():
                parameter.add_(torch.randn_like(parameter) * 0.02)
        model.train()
        torch.manual_seed(9)
        SharedStep(model)(rows(), 1)
        found.append(gradients(model))
    for name, gradient in found[0].items():
        assert torch.allclose(found[1][name], gradient, rtol=1e-4, atol=1e-7), name


def kept_bytes(model: Any, step: Callable[..., StepResult]) -> int:
    """Return the bytes that autograd keeps at most for one pass over the rows."""
    kept = 0

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        nonlocal kept
        own = tensor.untyped_storage().data_ptr()
        if own not in weights and own not in seen:
            seen.add(own)
            kept += tensor.untyped_storage().nbytes()
        return tensor

    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
    seen: set[int] = set()
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        step(rows(), 6)
    return kept


@pytest.mark.parametrize("path", list(PATHS))
def test_checkpointing_keeps_less(tiny_source: ModelSource, path: str) -> None:
    found = []
    for checkpointing in (False, True):
        recipe = Recipe(rank=4, checkpointing=checkpointing)
        model = tuning("lora", recipe).attach(load_model(tiny_source), recipe)
        prepare_compute(model, recipe)
        model.train()
        found.append(kept_bytes(model, PATHS[path](model)))
    assert found[1] < 0.4 * found[0]


def test_a_block_that_runs_again_does_not_keep_its_keys_twice(tiny_lora: Any) -> None:
    from tutelage.training.prefix_tree import build_forest, lay_out
    from tutelage.training.tree_attention import NAME, TreePlan, register

    register()
    set_checkpointing(tiny_lora)
    tiny_lora.train()
    decoder = tiny_lora.get_base_model().get_decoder()
    (root,) = build_forest(rows()).roots
    stream = lay_out([root], deep=False)
    plan = TreePlan(stream.spans, keep=True)
    decoder.config._attn_implementation = NAME
    output = decoder(
        input_ids=torch.tensor([stream.ids]), position_ids=torch.tensor([stream.positions]),
        use_cache=False, tree_plan=plan,
    )  # fmt: skip
    first = {layer: (key, value) for layer, (key, value) in plan.kept.items()}
    output.last_hidden_state.sum().backward()
    assert set(plan.kept) == {0, 1}
    for layer, (key, value) in first.items():
        assert plan.kept[layer][0] is key and plan.kept[layer][1] is value


class TestLossScaling:
    """fp16 gradients are lifted, and overflowing ones dropped."""

    def step(self, losses: list[float]) -> Any:
        def made(
            items: Any, micro_batch: int, *, backward: bool = True, weight: float | None = None
        ) -> StepResult:
            weight = weight if weight is not None else 4.0
            loss = self.parameter.sum() * losses.pop(0) * 4.0 / weight
            if backward:
                loss.backward()
            return StepResult(float(loss.detach()), weight, 1, 1, {"reward": 2.0})

        return made

    def test_gradients_come_back_at_their_true_size_and_the_loss_is_untouched(self) -> None:
        self.parameter = torch.nn.Parameter(torch.ones(2))
        optimizer = torch.optim.SGD([self.parameter], lr=0.1)
        scaler = LossScaler("cpu")
        item = Row("a", (1, 2), (0.0, 4.0), 1)
        result = scaler.wrap(self.step([3.0]))([item], 1)
        assert (result.loss, result.weight, result.metrics) == (6.0, 4.0, {"reward": 2.0})
        assert self.parameter.grad is not None
        assert self.parameter.grad.tolist() == [3.0 * START] * 2
        scaler.unscale(optimizer)
        assert self.parameter.grad.tolist() == [3.0, 3.0]
        scaler.step(optimizer)
        assert self.parameter.tolist() == pytest.approx([0.7, 0.7])

    def test_an_overflow_drops_the_update_and_halves_the_scale(self) -> None:
        self.parameter = torch.nn.Parameter(torch.ones(2))
        optimizer = torch.optim.SGD([self.parameter], lr=0.1)
        scaler = LossScaler("cpu")
        item = Row("a", (1, 2), (0.0, 4.0), 1)
        step = scaler.wrap(self.step([float("inf"), 1.0]))
        step([item], 1)
        scaler.unscale(optimizer)
        assert scaler.overflowed(float("inf"))
        scaler.step(optimizer)
        assert self.parameter.tolist() == [1.0, 1.0]
        assert scaler.scale == START / 2
        again = LossScaler("cpu")
        again.load(scaler.state())
        assert again.scale == START / 2

    def test_an_overflow_at_scale_1_is_trouble(self) -> None:
        scaler = LossScaler("cpu")
        scaler.load({**_fresh_state(), "scale": 1.0})
        assert not scaler.overflowed(float("inf"))
        assert not scaler.overflowed(3.0)


def _fresh_state() -> dict[str, Any]:
    state: dict[str, Any] = torch.amp.GradScaler("cpu").state_dict()
    return state


def run(
    source: ModelSource, colours: list[Example], folder: Path, emit: Any = None, **changes: Any
) -> TrainResult:
    recipe = Recipe(
        rank=4, alpha=8.0, learning_rate=1e-2, epochs=4, batch_size=4, micro_batch=4,
        eval_every=4, patience=99, checkpoint_every=2, **changes,
    )  # fmt: skip
    job = TrainingJob(source, colours[:8], colours[8:], PROMPT, recipe, folder)
    return train(job, emit=emit or (lambda event: None))


def losses(result: TrainResult) -> list[float]:
    return [point["loss"] for point in result.history if "loss" in point]


@pytest.mark.parametrize("shared", [True, False])
def test_fp16_follows_fp32(
    tiny_source: ModelSource, colours: list[Example], tmp_path: Path, shared: bool
) -> None:
    whole = run(tiny_source, colours, tmp_path / "fp32", shared_prefix=shared)
    half = run(tiny_source, colours, tmp_path / "fp16", shared_prefix=shared, precision="fp16")
    assert losses(half) == pytest.approx(losses(whole), rel=0.02)
    assert half.prefix["shared"] is shared


def test_a_run_in_fp16_drops_overflowing_steps_and_goes_on(
    tiny_source: ModelSource,
    colours: list[Example],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from tutelage.training import loss_scale

    monkeypatch.setattr(loss_scale, "START", 2.0**40)
    with pytest.raises(ModelError, match="every gradient overflowed"):
        run(tiny_source, colours, tmp_path / "never", precision="fp16")
    monkeypatch.setattr(loss_scale, "START", 2.0**22)
    result = run(tiny_source, colours, tmp_path / "some", precision="fp16")
    skipped = [point["step"] for point in result.history if point.get("skipped")]
    assert result.stopped == "all 8 steps done"
    assert skipped and skipped == list(range(1, len(skipped) + 1))
    assert result.history[1]["grad_norm"] == 0.0


class _Cut(BaseException):
    """Stands in for a kill: nothing after it runs."""


@pytest.mark.parametrize("changes", [{"precision": "fp16"}, {"checkpointing": True}])
def test_a_run_that_was_cut_ends_in_the_same_bits(
    tiny_source: ModelSource, colours: list[Example], tmp_path: Path, changes: dict[str, Any]
) -> None:
    def cut(event: Event) -> None:
        if event.kind == "progress" and event.done == 5:
            raise _Cut

    whole = run(tiny_source, colours, tmp_path / "whole", dropout=0.1, **changes)
    with pytest.raises(_Cut):
        run(tiny_source, colours, tmp_path / "cut", emit=cut, dropout=0.1, **changes)
    again = run(tiny_source, colours, tmp_path / "cut", dropout=0.1, **changes)
    name = "adapter_model.safetensors"
    assert (again.adapter_dir / name).read_bytes() == (whole.adapter_dir / name).read_bytes()
    assert losses(again) == losses(whole)


@pytest.mark.parametrize("kind", ["flash_attention_2", "flex_attention"])
@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_kernels_for_a_gpu_say_so_without_one(tiny_lora: Any, kind: str) -> None:
    with pytest.raises(EnvironmentProblem, match="needs a CUDA GPU") as caught:
        set_attention(tiny_lora, kind)
    assert caught.value.fix == "Set train.attention to sdpa, or leave it unset"


def test_the_package_of_flash_attention_is_asked_for(
    tiny_lora: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    import importlib.util

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(EnvironmentProblem, match="needs the package flash-attn"):
        set_attention(tiny_lora, "flash_attention_2")


def test_flash_attention_in_fp32_is_an_error(tiny_lora: Any) -> None:
    with pytest.raises(ConfigError, match="16 bits only"):
        prepare_compute(tiny_lora, Recipe(attention="flash_attention_2"))


def test_prefixes_are_checked_without_a_kernel_that_takes_16_bits_only(tiny_lora: Any) -> None:
    from tutelage.training.self_check import self_check

    config = tiny_lora.get_base_model().config
    config._attn_implementation_internal = "flash_attention_2"
    assert self_check(tiny_lora, rows()) is None
    assert config._attn_implementation == "flash_attention_2"


def test_the_attention_of_the_recipe_is_that_of_the_model(tiny_source: ModelSource) -> None:
    recipe = Recipe(rank=4, attention="sdpa")
    model: Any = load_model(tiny_source)
    model.set_attn_implementation("eager")
    model = tuning("lora", recipe).attach(model, recipe)
    prepare_compute(model, recipe)
    assert model.get_base_model().config._attn_implementation == "sdpa"
