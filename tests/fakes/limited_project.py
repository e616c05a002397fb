"""A project that serves from the fake backend and has budgets, prices or other own settings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from tests.fakes.gateway import gateway_project

from tutelage.core.workspace import atomic_write
from tutelage.workflows.context import Context, open_context


def limited_project(
    root: Path, backend_url: str, settings: dict[str, Any] | None = None, **deploy: Any
) -> Context:
    """Return the project of `gateway_project` with `settings` added to its file."""
    gateway_project(root, backend_url, **deploy).store.close()
    path = root / "tutelage.yaml"
    known = yaml.safe_load(path.read_text())
    atomic_write(path, yaml.safe_dump({**known, **(settings or {})}).encode())
    return open_context(root)
