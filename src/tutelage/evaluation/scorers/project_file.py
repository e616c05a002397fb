"""Files that a scorer's options name: only those inside the project's folder."""

from __future__ import annotations

from pathlib import Path

from tutelage.evaluation.scorers.base import Place


def project_file(name: str, place: Place, option: str) -> Path:
    """Return the file `name` of the project; raise ConfigError if it is not there, or outside."""
    root = (place.root or Path.cwd()).resolve()
    path = (root / name).resolve()
    if not path.is_relative_to(root):
        raise place.wrong(f"{option}: {name!r} lies outside the project's folder")
    if not path.is_file():
        raise place.wrong(f"{option}: there is no file {name!r} in {root}")
    return path
