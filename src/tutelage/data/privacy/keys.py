"""The key of a project's pseudonyms: a small file that must lie outside the project's folder.

Whoever has the data set but not this file can't tell who a pseudonym is. Nothing here encrypts.
"""

from __future__ import annotations

import base64
import binascii
import os
import secrets
import stat
import tempfile
from pathlib import Path

from tutelage.core.errors import ConfigError, DataError
from tutelage.core.workspace import disk_errors, fsync_dir

ENVIRONMENT = "TUTELAGE_PRIVACY_KEY_FILE"
_HEAD = "tutelage-privacy-key-1"
_BYTES = 32


def key_path(project: str, root: Path, named: str | Path | None = None) -> Path:
    """Return where the key lies: `named`, else the environment's, else the user's own folder.

    `root` is the project's folder; a relative path counts from there. Raises ConfigError if the
    file would lie inside it.
    """
    given = named or os.environ.get(ENVIRONMENT)
    if given:
        path = root / Path(given).expanduser()
    else:
        home = os.environ.get("XDG_CONFIG_HOME") or "~/.config"
        path = Path(home).expanduser() / "tutelage" / "keys" / f"{project}.key"
    if path.resolve().is_relative_to(root.resolve()):
        raise ConfigError(
            "the key of the pseudonyms would lie inside the project, beside what it protects",
            where=str(path),
            fix=f"Name a file outside {root} in data.privacy.key, ${ENVIRONMENT} or --key",
        )
    return path


def load_key(path: Path) -> bytes:
    """Return the 32 bytes of the key file; raise DataError if it is absent, open or no key."""
    try:
        text = path.read_text(encoding="ascii").strip()
        mode = path.stat().st_mode
    except FileNotFoundError as error:
        raise DataError(
            "the key of the pseudonyms is not there",
            where=str(path),
            fix=f"Bring the file back, or name it with --key or ${ENVIRONMENT}",
        ) from error
    except UnicodeDecodeError as error:
        raise _no_key(path) from error
    if os.name == "posix" and stat.S_IMODE(mode) & 0o077:
        raise DataError(
            "other people of this machine can read the key of the pseudonyms",
            where=str(path),
            fix=f"Run `chmod 600 {path}`",
        )
    head, _, body = text.partition(" ")
    try:
        key = base64.b64decode(body, validate=True)
    except binascii.Error as error:
        raise _no_key(path) from error
    if head != _HEAD or len(key) != _BYTES:
        raise _no_key(path)
    return key


def _no_key(path: Path) -> DataError:
    return DataError(
        "this is no key of pseudonyms",
        where=str(path),
        fix="Name the key file that the project's rows were redacted with",
    )


def make_key(path: Path) -> bytes:
    """Return the key at `path`; draw it and write it (mode 0600) if there is none yet."""
    if path.exists():
        return load_key(path)
    text = f"{_HEAD} {base64.b64encode(secrets.token_bytes(_BYTES)).decode()}\n"
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=".key.")  # mode 0600
        temporary = Path(name)
        try:
            with os.fdopen(handle, "w", encoding="ascii") as stream:
                stream.write(text)
                stream.flush()
                os.fsync(stream.fileno())
            try:
                os.link(temporary, path)  # never over a key that another process just made
            except FileExistsError:
                return load_key(path)
        finally:
            temporary.unlink(missing_ok=True)
        fsync_dir(path.parent)
    return load_key(path)
