"""What several tests of the workflows start from."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest
import torch
from tests.fakes.tiny_llama import build_tiny_model


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a tiny random model."""
    torch.set_num_threads(1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return build_tiny_model(tmp_path_factory.mktemp("tiny") / "model")
