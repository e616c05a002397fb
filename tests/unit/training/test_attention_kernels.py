"""The kernels of tree attention: each gives what plain products give, or is not used."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from tests.fakes import varlen_flash
from tests.unit.training.test_training_prefix import assert_close, draw, gradients

from tutelage.training import attention_kernels, tree_attention
from tutelage.training.attention_kernels import PerNode, Varlen, kernel_of, varlen_works
from tutelage.training.shared_step import SharedStep, plain_step

CPU = torch.device("cpu")


@pytest.fixture
def flash(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """Put the fake kernel in the place of the GPU's."""
    varlen_works.cache_clear()
    monkeypatch.setattr(attention_kernels, "_VARLEN", varlen_flash.forward)
    monkeypatch.setattr(attention_kernels, "_VARLEN_BACKWARD", varlen_flash.backward)
    yield monkeypatch
    varlen_works.cache_clear()


@pytest.mark.parametrize("micro_batch", [1, 8])
def test_all_nodes_in_one_call_give_the_plain_gradients(
    tiny_lora: Any, flash: pytest.MonkeyPatch, micro_batch: int
) -> None:
    rows = draw(random.Random(5), (30, 20), 8, 0.05)
    plain = plain_step(tiny_lora, rows, 8)
    wanted = gradients(tiny_lora)
    flash.setattr(tree_attention, "kernel_of", lambda query: Varlen())
    assert SharedStep(tiny_lora)(rows, micro_batch).loss == pytest.approx(plain.loss, abs=1e-5)
    assert_close(gradients(tiny_lora), wanted)


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_a_block_split_over_threads_has_the_same_gradients(
    monkeypatch: pytest.MonkeyPatch, threads: int
) -> None:
    generator = torch.Generator().manual_seed(0)
    query, grad = (torch.randn(1, 6, 144, 16, generator=generator) for _ in range(2))
    key, value = (torch.randn(1, 2, 50, 16, generator=generator) for _ in range(2))
    out, lse = PerNode().block(query, key, value, 0.25)
    leaves = [t.clone().requires_grad_() for t in (query, key, value)]
    wide = [leaves[0], *(t.repeat_interleave(3, 1) for t in leaves[1:])]
    wanted = torch.nn.functional.scaled_dot_product_attention(*wide, scale=0.25)
    wanted.backward(grad)
    assert torch.allclose(out, wanted, atol=1e-5)
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    slopes = PerNode().block_backward([grad, query, key, value, out, lse], 0.25)
    for slope, leaf in zip(slopes, leaves, strict=True):
        assert leaf.grad is not None and torch.allclose(slope, leaf.grad, atol=1e-5)


def test_a_kernel_is_used_only_if_it_gives_the_same_on_noise(flash: pytest.MonkeyPatch) -> None:
    assert varlen_works(CPU, torch.bfloat16, 16)
    assert isinstance(kernel_of(torch.zeros(1, 2, 3, 16)), PerNode)  # not on a GPU

    def doubled(*args: Any, **kwargs: Any) -> Any:
        dq, dk, dv = varlen_flash.backward(*args, **kwargs)
        return dq, 2 * dk, dv

    def refuses(*args: Any, **kwargs: Any) -> Any:
        raise RuntimeError("no kernel image is available")

    for wrong in (doubled, refuses, None):
        varlen_works.cache_clear()
        flash.setattr(attention_kernels, "_VARLEN_BACKWARD", wrong)
        assert not varlen_works(CPU, torch.bfloat16, 16)
