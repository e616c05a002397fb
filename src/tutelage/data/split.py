"""Which side a row is on when only its group is known: a keyed hash, decided on arrival.

Standard library only, so that the gateway can import it. Curation's stratified, frozen splits
are made in assign.py.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import os
import secrets
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from tutelage.core.errors import EnvironmentProblem
from tutelage.core.workspace import Workspace, disk_errors, fsync_dir

if TYPE_CHECKING:
    from tutelage.core.config import Splits
    from tutelage.core.example import SplitName

_KEY_BYTES = 32


def side_of(key: bytes, group: str, splits: Splits) -> SplitName:
    """Return the split of everything that shares `group`: HMAC-SHA256 as a number in [0, 1).

    Test takes the lowest share, then validation, so that moving the border between validation
    and train never moves a test row.
    """
    digest = hmac.digest(key, group.encode(), hashlib.sha256)
    point = int.from_bytes(digest[:8], "big") / 2**64
    if point < splits.test:
        return "test"
    if point < splits.test + splits.validation:
        return "validation"
    return "train"


def private_name(key: bytes, name: str) -> str:
    """Return what stands for a user or a group in the log: 64 hex digits that only `key` can make.

    Without the key nobody can try out whose they are, however short the name.
    """
    return hmac.digest(key, b"name\0" + name.encode(), "sha256").hex()


def load_split_key(workspace: Workspace) -> bytes:
    """Return the project's 32-byte split key, made once and never replaced.

    Raises EnvironmentProblem if the file was damaged: a new key would move rows across sides.
    """
    path = workspace.home / "split.key"
    if not path.exists():
        _create_once(path, secrets.token_hex(_KEY_BYTES).encode() + b"\n")
    try:
        key = bytes.fromhex(path.read_text(encoding="ascii").strip())
    except ValueError:
        key = b""
    if len(key) != _KEY_BYTES:
        raise EnvironmentProblem(
            "the split key is damaged, and a new one would move rows between train and test",
            where=str(path),
            fix="Restore the file from a backup, or delete .tutelage to start the project afresh",
        )
    return key


def _create_once(path: Path, data: bytes) -> None:
    """Write `path` whole, unless another process was first: then its content stays."""
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=".split.key.")
        try:
            with os.fdopen(handle, "wb") as stream:
                stream.write(data)
                stream.flush()
                os.fsync(stream.fileno())
            with contextlib.suppress(FileExistsError):
                os.link(name, path)
            fsync_dir(path.parent)
        finally:
            Path(name).unlink(missing_ok=True)
