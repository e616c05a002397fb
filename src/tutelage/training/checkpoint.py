"""Checkpoints of a run that survive a kill at any moment: safetensors and JSON, never pickles.

A checkpoint is a folder `step-<n>` with the trained weights, the best weights so far, the
optimizer's tensors, the random states and the counters; its manifest holds the hash of every
file. It is written under another name and renamed, so a name that exists is whole or damaged by
something else; the newest one that verifies is taken. The last two are kept; each carries the
best weights, so pruning never loses them.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tutelage.core.artifact import MANIFEST, canonical, hash_file
from tutelage.core.workspace import disk_errors, fsync_dir

KEPT = 2
_PREFIX = "step-"
Tensors = dict[str, torch.Tensor]
Seam = Callable[[str], None]


@dataclass
class Checkpoint:
    """Everything a run needs to go on as if it had never stopped.

    `counters` is JSON: step, best, early-stop counters, history. `key` says which job it is of.
    """

    step: int
    key: str
    weights: Tensors
    best: Tensors
    optimizer: Tensors
    counters: dict[str, Any] = field(default_factory=dict)
    random: dict[str, Any] = field(default_factory=dict)


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> Tensors:
    """Return the optimizer's state by `<parameter index>.<name>`, on the CPU."""
    state = optimizer.state_dict()["state"]
    return {
        f"{index}.{name}": torch.as_tensor(value).detach().to("cpu", copy=True).contiguous()
        for index, values in state.items()
        for name, value in values.items()
    }


def load_optimizer(optimizer: torch.optim.Optimizer, tensors: Tensors) -> None:
    """Put `optimizer_tensors` back."""
    state: dict[int, Tensors] = {}
    for key, value in tensors.items():
        index, name = key.split(".", 1)
        state.setdefault(int(index), {})[name] = value
    optimizer.load_state_dict({**optimizer.state_dict(), "state": state})


def random_state() -> dict[str, Any]:
    """Return the states of every generator a run may draw from, as JSON values and tensors."""
    version, words, gauss = random.getstate()
    kind, keys, position, has_gauss, cached = np.random.get_state(legacy=True)
    state: dict[str, Any] = {
        "python": [version, list(words), gauss],
        "numpy": [str(kind), np.asarray(keys).tolist(), int(position), int(has_gauss), cached],
        "torch": torch.get_rng_state().tolist(),
    }
    if torch.cuda.is_available():
        state["cuda"] = [s.tolist() for s in torch.cuda.get_rng_state_all()]
    return state


def set_random_state(state: dict[str, Any]) -> None:
    """Put `random_state` back."""
    version, words, gauss = state["python"]
    random.setstate((version, tuple(words), gauss))
    kind, keys, *rest = state["numpy"]
    np.random.set_state((kind, np.array(keys, dtype=np.uint32), *rest))
    torch.set_rng_state(torch.tensor(state["torch"], dtype=torch.uint8))
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state_all([torch.tensor(s, dtype=torch.uint8) for s in state["cuda"]])


def save_checkpoint(root: Path, checkpoint: Checkpoint, seam: Seam = lambda name: None) -> Path:
    """Write `checkpoint` under `root`, durable when this returns, and prune older ones.

    `seam` is told "weights", "manifest" and "kept" as each is done.
    """
    from safetensors.torch import save_file

    with disk_errors(root):
        root.mkdir(parents=True, exist_ok=True)
        _sweep(root)
        folder = Path(tempfile.mkdtemp(dir=root, prefix=".writing-"))
        for name in ("weights", "best", "optimizer"):
            save_file(getattr(checkpoint, name), str(folder / f"{name}.safetensors"))
            seam(name)
        state = {
            "step": checkpoint.step,
            "key": checkpoint.key,
            "counters": checkpoint.counters,
            "random": checkpoint.random,
        }
        (folder / "state.json").write_bytes(canonical(state))
        files = {f.name: hash_file(f) for f in sorted(folder.iterdir())}
        (folder / MANIFEST).write_bytes(canonical({"step": checkpoint.step, "files": files}))
        seam("manifest")
        for file in folder.iterdir():
            with file.open("rb") as stream:
                os.fsync(stream.fileno())
        fsync_dir(folder)
        target = root / f"{_PREFIX}{checkpoint.step:08d}"
        if target.exists():  # a damaged one of the same step
            shutil.rmtree(target)
        os.rename(folder, target)
        fsync_dir(root)
        for old in _folders(root)[KEPT:]:
            shutil.rmtree(old, ignore_errors=True)
        seam("kept")
        return target


def load_newest(root: Path, key: str) -> tuple[Checkpoint | None, list[str]]:
    """Return the newest checkpoint under `root` that verifies, and why newer ones were skipped.

    A checkpoint of another job (`key`) is skipped too.
    """
    skipped: list[str] = []
    for folder in _folders(root):
        problem = damage(folder)
        if problem is None:
            checkpoint = _load(folder)
            if checkpoint.key == key:
                return checkpoint, skipped
            problem = "it belongs to another job"
        skipped.append(f"{folder.name}: {problem}")
    return None, skipped


def damage(folder: Path) -> str | None:
    """Return what is wrong with a checkpoint folder, or None if every hash is right."""
    try:
        files = dict(json.loads((folder / MANIFEST).read_bytes())["files"])
    except (OSError, ValueError, KeyError, TypeError):
        return "its manifest is missing or unreadable"
    for name, digest in files.items():
        try:
            if hash_file(folder / name) != digest:
                return f"{name} is damaged"
        except OSError:
            return f"{name} is missing"
    return None


def _load(folder: Path) -> Checkpoint:
    from safetensors.torch import load_file

    state = json.loads((folder / "state.json").read_bytes())
    tensors = {n: load_file(folder / f"{n}.safetensors") for n in ("weights", "best", "optimizer")}
    return Checkpoint(**state, **tensors)


def _folders(root: Path) -> list[Path]:
    """Return the checkpoint folders, newest first."""
    if not root.is_dir():
        return []
    return sorted((p for p in root.iterdir() if p.name.startswith(_PREFIX)), reverse=True)


def _sweep(root: Path) -> None:
    """Remove what a killed run was writing."""
    for folder in root.glob(".writing-*"):
        shutil.rmtree(folder, ignore_errors=True)
