"""Tutelage: teach a general language model your domain, and keep it right after it ships."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = ["Project", "leak_certificate", "open"]

_LAZY = {
    "Project": ("tutelage.workflows.project", "Project"),
    "open": ("tutelage.workflows.project", "open_project"),
    "leak_certificate": ("tutelage.data.leakage", "leak_certificate"),
}

if TYPE_CHECKING:
    from tutelage.data.leakage import leak_certificate
    from tutelage.workflows.project import Project
    from tutelage.workflows.project import open_project as open


def __getattr__(name: str) -> Any:
    """Load the public names on first use, so that importing the package costs nothing."""
    if name not in _LAZY:
        raise AttributeError(f"module 'tutelage' has no attribute {name!r}")
    from importlib import import_module

    module, attribute = _LAZY[name]
    return getattr(import_module(module), attribute)
