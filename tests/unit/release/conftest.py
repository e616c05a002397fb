"""A project on disk with two releases in its store: what most release tests start from."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tutelage.core.workspace import Workspace
from tutelage.inference.base import Decoding
from tutelage.release.bundle import (
    AdapterRef,
    BaseRef,
    Golden,
    ReleaseManifest,
    adapter_files,
    create_release,
)
from tutelage.store.base import Store, open_store
from tutelage.store.releases import ReleaseRow


@dataclass(frozen=True)
class Home:
    """One project's places and store."""

    workspace: Workspace
    store: Store

    def adapter(self, name: str = "a" * 12, weights: bytes = b"weights") -> AdapterRef:
        """Write a small adapter folder and return its reference."""
        folder = self.workspace.artifacts / "adapters" / name
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "adapter_model.safetensors").write_bytes(weights)
        (folder / "adapter_config.json").write_text(json.dumps({"r": 8}), encoding="utf-8")
        path = self.workspace.relative(folder)
        return AdapterRef(hash=name.ljust(64, "0"), path=path, files=adapter_files(folder))

    def manifest(self, **changes: object) -> ReleaseManifest:
        """Return a tuned release's manifest with `changes`."""
        values: dict[str, object] = {
            "kind": "tuned",
            "base": BaseRef(spec="demo", name="SmolLM2", digest="d" * 64),
            "prompt": "Name the colour.",
            "prompt_hash": "p" * 64,
            "decoding": Decoding(max_tokens=32),
            "golden": (
                Golden(
                    id="1",
                    messages=({"role": "user", "content": "snow\u2028"},),
                    expected="white",
                    reference="white",
                ),
            ),
        }
        return ReleaseManifest.model_validate(values | changes)

    def release(self, **changes: object) -> ReleaseRow:
        """Make a release."""
        return create_release(
            self.store, self.workspace, self.manifest(**changes), project="colours"
        )


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    """An empty project with a migrated store."""
    workspace = Workspace(tmp_path)
    workspace.create()
    store = open_store(f"sqlite:///{workspace.home / 'store.db'}")
    yield Home(workspace, store)
    store.close()


@pytest.fixture
def two(home: Home) -> tuple[Home, str, str]:
    """The project with a base and a tuned release: (home, base id, tuned id)."""
    base = home.release(kind="base", golden=())
    return home, base.id, home.release(adapter=home.adapter()).id
