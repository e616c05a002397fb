"""Content addresses: the hash, parents, seed and library versions of everything Tutelage makes.

An artifact is a folder whose name ends in the first 12 hex digits of its content hash and
which holds `manifest.json`. The manifest says what it was made from and by which versions.
"""

from __future__ import annotations

import hashlib
import json
import math
import platform
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

MANIFEST = "manifest.json"
_PACKAGES = ("tutelage", "torch", "transformers", "peft", "xllamacpp", "mlflow")


class Artifact(BaseModel):
    """One immutable output: `kind` is dataset, plan, run, adapter, evaluation, report, release."""

    model_config = ConfigDict(frozen=True)

    kind: str
    hash: str  # 64 hex digits
    path: str  # relative to the project's .tutelage folder
    parents: tuple[str, ...] = ()
    seed: int | None = None
    versions: dict[str, str] = {}
    meta: dict[str, Any] = {}
    created_at: datetime

    @property
    def short(self) -> str:
        """The first 12 hex digits, the form people type."""
        return self.hash[:12]


def canonical(value: Any) -> bytes:
    """Return the one JSON encoding of `value` that is hashed: sorted keys, no spaces, UTF-8."""
    return json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, default=str
    ).encode()


def finite(value: Any) -> Any:
    """Return plain data with numbers that JSON can't carry as None."""
    if isinstance(value, Mapping):
        return {str(k): finite(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(v) for v in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def content_hash(value: Any) -> str:
    """Return the SHA-256 of `value`'s canonical JSON, 64 hex digits."""
    return hashlib.sha256(canonical(value)).hexdigest()


def hash_file(path: Path) -> str:
    """Return the SHA-256 of a file's bytes, 64 hex digits."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def hash_files(root: Path, names: Iterable[str]) -> str:
    """Return one hash over named files under `root` (names and bytes both count)."""
    return content_hash({name: hash_file(root / name) for name in sorted(names)})


def library_versions() -> dict[str, str]:
    """Return the versions that can change a result, for the manifest."""
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def utc_now() -> datetime:
    """Return the current time with its zone."""
    return datetime.now(UTC)


def describe(
    kind: str,
    digest: str,
    path: str,
    *,
    parents: Iterable[str] = (),
    seed: int | None = None,
    meta: Mapping[str, Any] | None = None,
) -> Artifact:
    """Return the Artifact for content that hashes to `digest`, stamped with time and versions."""
    return Artifact(
        kind=kind,
        hash=digest,
        path=path,
        parents=tuple(parents),
        seed=seed,
        versions=library_versions(),
        meta=dict(meta or {}),
        created_at=utc_now(),
    )
