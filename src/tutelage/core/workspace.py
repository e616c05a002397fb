"""Where things lie in a project directory, and how to write there so that a crash loses nothing.

Nothing here knows what the files mean.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tutelage.core.errors import ConfigError, EnvironmentProblem

CONFIG_NAME = "tutelage.yaml"
HIDDEN = ".tutelage"


@dataclass(frozen=True)
class Workspace:
    """The paths of one project. `root` holds tutelage.yaml."""

    root: Path

    @property
    def config_path(self) -> Path:
        return self.root / CONFIG_NAME

    @property
    def home(self) -> Path:
        return self.root / HIDDEN

    @property
    def store_url(self) -> str:
        return os.environ.get("TUTELAGE_STORE_URL") or f"sqlite:///{self.home / 'store.db'}"

    @property
    def mlflow_uri(self) -> str:
        return f"sqlite:///{self.home / 'mlflow.db'}"

    @property
    def artifacts(self) -> Path:
        return self.home / "artifacts"

    @property
    def logs(self) -> Path:
        return self.home / "logs"

    @property
    def runs(self) -> Path:
        return self.home / "runs"

    def artifact_dir(self, kind: str, digest: str) -> Path:
        """Return the folder of an artifact: artifacts/<kind>/<first 12 digits>."""
        return self.artifacts / kind / digest[:12]

    def relative(self, path: Path) -> str:
        """Return `path` relative to .tutelage, the form the store keeps."""
        return path.relative_to(self.home).as_posix()

    def create(self) -> None:
        """Make the hidden folders; existing ones stay as they are."""
        with disk_errors(self.home):
            for folder in (self.home, self.artifacts, self.logs, self.runs):
                folder.mkdir(parents=True, exist_ok=True)
            ignore = self.home / ".gitignore"
            if not ignore.exists():
                atomic_write(ignore, b"*\n")


def find_project(start: Path) -> Workspace:
    """Return the project at `start`; raise ConfigError if there is no tutelage.yaml."""
    root = start.expanduser().resolve()
    if not (root / CONFIG_NAME).is_file():
        raise ConfigError(
            "there is no tutelage.yaml here",
            where=str(root),
            fix="Run `tutelage init` in the folder, or name the project with --project DIR",
        )
    return Workspace(root)


@contextlib.contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turn a full disk or a missing permission into one clear sentence."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise EnvironmentProblem(
                "the disk is full",
                where=str(path),
                fix="Free some space and run the same command again; finished work is kept",
            ) from error
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise EnvironmentProblem(
                "no permission to write",
                where=str(path),
                fix="Make the folder writable or choose another with --project DIR",
            ) from error
        raise


def fsync_dir(path: Path) -> None:
    """Make a rename inside `path` durable."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def atomic_write(path: Path, data: bytes) -> None:
    """Write `data` to `path` whole or not at all, durable when this returns."""
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        temporary = Path(name)
        try:
            with os.fdopen(handle, "wb") as stream:
                stream.write(data)
                stream.flush()
                os.fsync(stream.fileno())
            os.replace(temporary, path)
            fsync_dir(path.parent)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise


def atomic_dir(target: Path, fill: Callable[[Path], None]) -> Path:
    """Build a folder beside `target` with `fill(folder)`, then rename it into place.

    If `target` exists (the same content was made before) the new copy is dropped.
    """

    def named(folder: Path) -> str:
        fill(folder)
        return target.name

    return named_dir(target.parent, named)


def named_dir(parent: Path, fill: Callable[[Path], str]) -> Path:
    """Build a folder in `parent` with `fill(folder)`, which returns its name, and rename it.

    If a folder of that name exists (the same content was made before) the new copy is dropped.
    """
    with disk_errors(parent):
        parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(dir=parent, prefix=".new."))
        try:
            target = parent / fill(temporary)
            for file in temporary.rglob("*"):
                if file.is_file():
                    with file.open("rb") as stream:
                        os.fsync(stream.fileno())
            temporary.chmod(0o755)
            if not target.exists():
                os.rename(temporary, target)
                fsync_dir(parent)
            return target
        finally:
            if temporary.exists():
                shutil.rmtree(temporary, ignore_errors=True)
