"""A tiny random Llama with a byte tokenizer, small enough to train in a second."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.fakes.tiny_llama import build_tiny_model

from tutelage.core.example import Example, Message
from tutelage.inference.models import ModelSource


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> None:
    """Small tensors are fastest, and sums in one order, on one thread."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def tiny_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the tiny model."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return build_tiny_model(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="session")
def tiny_source(tiny_dir: Path) -> ModelSource:
    """The tiny model as the training stage gets it."""
    return ModelSource(
        spec=str(tiny_dir), name="tiny", kind="directory", path=tiny_dir, digest="0" * 64
    )


@pytest.fixture
def tiny_lora(tiny_source: ModelSource) -> Any:
    """The tiny model under a fresh adapter whose zero half has been given small values."""
    from tutelage.inference.transformers import load_model
    from tutelage.training.adapters import attach_lora
    from tutelage.training.recipe import Recipe

    model = attach_lora(load_model(tiny_source), Recipe(rank=4, alpha=8.0))
    torch.manual_seed(3)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.05)
    return model


COLOURS = {
    "amber": "warm", "azure": "cold", "coral": "warm", "teal": "cold", "rust": "warm",
    "navy": "cold", "gold": "warm", "mint": "cold", "brick": "warm", "ice": "cold",
    "honey": "warm", "slate": "cold",
}  # fmt: skip


@pytest.fixture
def colours() -> list[Example]:
    """Twelve short classification rows."""
    return [
        Example(
            messages=(
                Message(role="user", content=f"the colour {name}"),
                Message(role="assistant", content=f'{{"family": "{label}"}}'),
            ),
            label=label,
        )
        for name, label in COLOURS.items()
    ]
