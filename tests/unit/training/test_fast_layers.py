"""Layers computed in one autograd step: the same numbers as the layers' own forward."""

from __future__ import annotations

import copy
import random
from collections.abc import Iterable
from typing import Any

import pytest
import torch
from tests.unit.training.test_training_prefix import assert_close, draw, gradients

from tutelage.inference.transformers import load_model
from tutelage.training.adapters import save_adapter, trained_parameters
from tutelage.training.fast_layers import FastLayers
from tutelage.training.precision import autocast, halve_frozen
from tutelage.training.shared_step import SharedStep, plain_step


def noisy(model: Any) -> Any:
    """Give every trained weight of the model some noise, so that no gradient is zero."""
    torch.manual_seed(3)
    with torch.no_grad():
        for parameter in trained_parameters(model).values():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    return model


def kinds(modules: Iterable[torch.nn.Module]) -> set[str]:
    """Return the class names of the modules."""
    return {type(module).__name__ for module in modules}


def test_every_layer_of_a_llama_is_replaced_and_put_back(tiny_lora: Any) -> None:
    layers = FastLayers(tiny_lora)
    modules = list(layers)
    assert kinds(modules) == {"Linear", "LlamaMLP", "LlamaRMSNorm"}
    assert (
        len([m for m in modules if hasattr(m, "lora_A")]) == 7 * tiny_lora.config.num_hidden_layers
    )
    with layers.replaced(), layers.replaced():
        assert all("forward" in vars(module) for module in modules)
    assert not any("forward" in vars(module) for module in modules)


@pytest.mark.parametrize("fast", [True, False])
def test_gradients_equal_the_plain_path_with_and_without(tiny_lora: Any, fast: bool) -> None:
    rows = draw(random.Random(1), (30, 20), 6, 0.05)
    plain = plain_step(tiny_lora, rows, 6)
    wanted = gradients(tiny_lora)
    for micro_batch in (1, 6):
        step = SharedStep(tiny_lora, fast=fast)
        assert step(rows, micro_batch).loss == pytest.approx(plain.loss, abs=1e-5)
        assert_close(gradients(tiny_lora), wanted)


def test_the_gradient_of_the_input_is_right_in_double_precision(tiny_lora: Any) -> None:
    model = copy.deepcopy(tiny_lora).double()
    block = model.get_base_model().model.layers[0]
    for module in (block.mlp, block.self_attn.q_proj, block.input_layernorm):
        width = block.mlp.gate_proj.in_features
        one = torch.randn(3, width, dtype=torch.float64, requires_grad=True)
        other = one.detach().clone().requires_grad_()
        module(one).pow(3).sum().backward()
        with FastLayers(module).replaced():
            module(other).pow(3).sum().backward()
        assert one.grad is not None and other.grad is not None
        precise = 1e-6 if module is block.input_layernorm else 1e-12  # its own norm is fp32
        assert (one.grad - other.grad).norm() <= precise * one.grad.norm()


@pytest.mark.parametrize(
    ("settings", "plain"),
    [
        ({"use_dora": True}, False),
        ({"lora_dropout": 0.1}, False),
        ({"use_rslora": True}, True),
    ],
)
def test_only_plain_lora_is_replaced(
    tiny_source: Any, settings: dict[str, Any], plain: bool
) -> None:
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM", **settings)
    model = noisy(get_peft_model(load_model(tiny_source), config))
    assert ("Linear" in kinds(FastLayers(model))) == plain
    rows = draw(random.Random(1), (30,), 4, 0.0)
    model.eval()
    loss = plain_step(model, rows, 4).loss
    wanted = gradients(model)
    assert SharedStep(model)(rows, 4).loss == pytest.approx(loss, abs=1e-5)
    assert_close(gradients(model), wanted)


def test_a_layer_that_computes_otherwise_keeps_its_forward(tiny_lora: Any) -> None:
    inner = tiny_lora.get_base_model().model
    inner.layers[0].mlp.act_fn = torch.nn.GELU()
    inner.norm.forward = lambda x: x
    modules = FastLayers(tiny_lora)
    assert inner.layers[0].mlp not in modules and inner.norm not in modules
    assert inner.layers[1].mlp in modules


def test_a_switched_off_adapter_is_left_out(tiny_lora: Any) -> None:
    rows = draw(random.Random(1), (30,), 4, 0.0)
    step = SharedStep(tiny_lora)
    with tiny_lora.disable_adapter(), torch.no_grad():
        plain = plain_step(tiny_lora, rows, 4, backward=False)
        assert step(rows, 4, backward=False).loss == pytest.approx(plain.loss, abs=1e-5)


def test_a_saved_adapter_is_the_same_to_the_bit(tiny_lora: Any, tmp_path: Any) -> None:
    save_adapter(tiny_lora, tmp_path / "before", "tiny")
    SharedStep(tiny_lora)(draw(random.Random(1), (30,), 4, 0.0), 4)
    save_adapter(tiny_lora, tmp_path / "after", "tiny")
    for name in ("adapter_model.safetensors", "adapter_config.json"):
        before, after = ((tmp_path / x / name).read_bytes() for x in ("before", "after"))
        assert before == after


def test_frozen_matrices_in_bf16_are_widened_where_the_cpu_has_no_bf16(
    tiny_lora: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tutelage.training.precision.multiplies_bf16", lambda device: False)
    rows = draw(random.Random(1), (30,), 4, 0.0)
    rounded = copy.deepcopy(tiny_lora)
    with torch.no_grad():
        for module in rounded.modules():
            if hasattr(module, "base_layer"):
                module.base_layer.weight.copy_(module.base_layer.weight.bfloat16().float())
    wanted_loss = plain_step(rounded, rows, 4).loss
    wanted = gradients(rounded)
    halve_frozen(tiny_lora, "bf16")
    stored = {m.base_layer.weight.dtype for m in tiny_lora.modules() if hasattr(m, "base_layer")}
    assert stored == {torch.bfloat16}
    for run in (lambda: plain_step(tiny_lora, rows, 4), lambda: SharedStep(tiny_lora)(rows, 4)):
        assert run().loss == pytest.approx(wanted_loss, abs=1e-5)
        assert_close(gradients(tiny_lora), wanted)


def test_layers_stored_in_16_bits_are_tried_under_autocast(
    tiny_lora: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tutelage.training.precision.multiplies_bf16", lambda device: True)
    halve_frozen(tiny_lora, "bf16")
    assert kinds(FastLayers(tiny_lora)) == {"Linear", "LlamaMLP", "LlamaRMSNorm"}
    rows = draw(random.Random(1), (30,), 4, 0.0)
    with autocast(tiny_lora, "bf16"):
        plain = plain_step(tiny_lora, rows, 4)
        wanted = gradients(tiny_lora)
        assert SharedStep(tiny_lora)(rows, 4).loss == pytest.approx(plain.loss, rel=1e-2)
    found = gradients(tiny_lora)
    off = torch.stack([(found[name] - wanted[name]).norm() for name in wanted]).norm()
    assert off <= 0.03 * torch.stack([g.norm() for g in wanted.values()]).norm()


def test_layers_of_one_input_keep_one_narrow_copy(tiny_lora: Any) -> None:
    attention = tiny_lora.get_base_model().model.layers[0].self_attn
    x = torch.randn(1, 7, attention.q_proj.in_features, requires_grad=True)
    kept: set[int] = set()

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.shape == x.shape:
            kept.add(tensor.data_ptr())
        return tensor

    with (
        torch.autocast("cpu", dtype=torch.bfloat16),
        FastLayers(attention).replaced(),
        torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor),
    ):
        outputs = [layer(x) for layer in (attention.q_proj, attention.k_proj, attention.v_proj)]
    assert len(kept) == 1
    sum(output.float().sum() for output in outputs).backward()
    assert x.grad is not None and x.grad.dtype == torch.float32


def test_weights_that_move_before_the_first_step_count(tiny_lora: Any) -> None:
    rows = draw(random.Random(1), (30,), 4, 0.0)
    step = SharedStep(tiny_lora)
    with torch.no_grad():
        for parameter in trained_parameters(tiny_lora).values():
            parameter.add_(0.3 * torch.randn_like(parameter))
    plain = plain_step(tiny_lora, rows, 4)
    wanted = gradients(tiny_lora)
    assert step(rows, 4).loss == pytest.approx(plain.loss, abs=1e-5)
    assert_close(gradients(tiny_lora), wanted)
