"""The keyed side of a group, and the key it hangs on."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from tutelage.core.config import Splits
from tutelage.core.errors import EnvironmentProblem
from tutelage.core.workspace import Workspace
from tutelage.data.split import load_split_key, side_of

KEY = bytes(range(32))


def test_shares_are_kept() -> None:
    sides = Counter(side_of(KEY, f"user-{i}", Splits()) for i in range(20_000))
    assert abs(sides["train"] / 20_000 - 0.70) < 0.01
    assert abs(sides["test"] / 20_000 - 0.15) < 0.01


def test_a_side_never_changes_and_depends_on_the_key() -> None:
    groups = [f"g{i}" for i in range(200)]
    first = [side_of(KEY, g, Splits()) for g in groups]
    assert first == [side_of(KEY, g, Splits()) for g in groups]
    assert first != [side_of(b"x" * 32, g, Splits()) for g in groups]


def test_moving_the_validation_border_moves_no_test_row() -> None:
    wide = Splits(train=0.6, validation=0.25, test=0.15)
    for i in range(500):
        old, new = side_of(KEY, str(i), Splits()), side_of(KEY, str(i), wide)
        assert (old == "test") == (new == "test")


def test_the_key_is_made_once(tmp_path: Path) -> None:
    first = load_split_key(Workspace(tmp_path))
    assert len(first) == 32
    assert load_split_key(Workspace(tmp_path)) == first


def test_a_damaged_key_is_not_replaced(tmp_path: Path) -> None:
    load_split_key(Workspace(tmp_path))
    path = tmp_path / ".tutelage" / "split.key"
    path.write_text("half", encoding="ascii")
    with pytest.raises(EnvironmentProblem, match="would move rows between train and test"):
        load_split_key(Workspace(tmp_path))
    assert path.read_text(encoding="ascii") == "half"


def test_importing_it_loads_no_numpy() -> None:
    code = "import sys, tutelage.data.split; sys.exit('numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
