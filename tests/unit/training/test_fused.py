"""The formulas that a GPU computes in one kernel: the same numbers as autograd's, and a way out."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.nn import functional

from tutelage.training import fused


def noise(*shape: int) -> torch.Tensor:
    """Return noise that asks for a gradient."""
    return torch.randn(*shape, requires_grad=True)


def own(function: Any) -> Any:
    """Return the formula as it is written, not compiled."""
    return function.__wrapped__


def test_the_norm_and_its_slope_are_those_of_autograd() -> None:
    torch.manual_seed(0)
    x, weight, grad = noise(6, 16), torch.rand(16) + 0.5, torch.randn(6, 16)
    wanted = functional.rms_norm(x, (16,), weight, 1e-5)
    wanted.backward(grad)
    found, inverse = own(fused.rms_norm)(x.detach(), weight, 1e-5)
    torch.testing.assert_close(found, wanted.detach())
    torch.testing.assert_close(own(fused.rms_norm_slope)(grad, x.detach(), inverse, weight), x.grad)


def test_the_gate_and_its_slopes_are_those_of_autograd() -> None:
    torch.manual_seed(1)
    gated, up, grad = noise(5, 8), noise(5, 8), torch.randn(5, 8)
    wanted = functional.silu(gated) * up
    wanted.backward(grad)
    torch.testing.assert_close(own(fused.gate)(gated.detach(), up.detach()), wanted.detach())
    slopes = own(fused.gate_slope)(grad, gated.detach(), up.detach())
    torch.testing.assert_close(slopes, (gated.grad, up.grad))


def test_two_parts_of_a_softmax_merge_into_the_softmax_of_all_keys() -> None:
    torch.manual_seed(2)
    scores, values = torch.randn(1, 2, 3, 10), torch.randn(1, 2, 10, 4)
    parts = [
        (scores[..., keys].softmax(-1) @ values[:, :, keys], scores[..., keys].logsumexp(-1))
        for keys in (slice(0, 7), slice(7, 10))
    ]
    out, lse = own(fused.merge)(*parts[0], *parts[1])
    torch.testing.assert_close(out, scores.softmax(-1) @ values)
    torch.testing.assert_close(lse, scores.logsumexp(-1))


def test_a_formula_that_does_not_compile_is_computed_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def broken(function: Any) -> Any:
        def compiled(*args: Any) -> Any:
            raise RuntimeError("no compiler here")

        return compiled

    monkeypatch.setattr(torch, "compile", broken)

    def double(x: torch.Tensor) -> torch.Tensor:
        return 2 * x

    run = fused.fused(double)
    with pytest.warns(UserWarning, match="double is not compiled: no compiler here"):
        assert run(torch.ones(2, 2)).sum() == 8
    assert run(torch.ones(2, 2)).sum() == 8
