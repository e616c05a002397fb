"""The Python API says in one sentence what it can't take."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import tutelage
from tutelage.core.errors import DataError
from tutelage.training.chain import train_chain


def test_what_a_method_can_not_take_is_named(make_project: Callable[..., Path]) -> None:
    project: Any = tutelage.open(make_project())
    with pytest.raises(DataError, match=r"^'x' is not what project\.curate\(\) gave\. Give that"):
        project.train("x")
    with pytest.raises(DataError, match=r"^'x' is not what project\.train\(\) gave\. Give that"):
        project.release("x")
    project.close()


def test_a_chain_without_jobs_is_no_chain() -> None:
    with pytest.raises(DataError, match="there is no job to train"):
        train_chain([])
