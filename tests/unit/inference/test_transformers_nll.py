"""Texts that begin alike are read once, and weigh what they weigh alone."""

from __future__ import annotations

import pytest
import torch
from tests.unit.inference.test_transformers_search import source  # noqa: F401

from tutelage.inference.models import ModelSource
from tutelage.inference.transformers import TransformersGenerator

TEXTS = [
    "The sun rises in the east.",
    "The sun rises in the west.",
    "The sun rises in the east and sets in the west.",
    "The sun rises in the east.",
    "Water boils at a hundred degrees.",
    "Ah",
    "",
]


def test_shared_beginnings_change_no_sum(source: ModelSource) -> None:  # noqa: F811
    shared, plain = TransformersGenerator(source), TransformersGenerator(source, share=False)
    found, known = shared.mean_nll(TEXTS), plain.mean_nll(TEXTS)
    assert [tokens for _, tokens in found] == [tokens for _, tokens in known]
    assert [nats for nats, _ in found] == pytest.approx([nats for nats, _ in known], abs=2e-4)
    assert found[0] == found[3]


def test_what_texts_begin_with_alike_is_read_once(
    source: ModelSource,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    engine = TransformersGenerator(source)
    assert engine._runner.shares
    read: list[int] = []
    stream = engine._runner.stream

    def counted(*args: object, **keywords: object) -> torch.Tensor:
        read.append(len(args[1].ids))  # type: ignore[attr-defined]
        return stream(*args, **keywords)  # type: ignore[arg-type]

    monkeypatch.setattr(engine._runner, "stream", counted)
    alike = TEXTS[:4]
    sums = engine.mean_nll(alike)
    assert 0 < sum(read) < 0.6 * sum(tokens for _, tokens in sums)
