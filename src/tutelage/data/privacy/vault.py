"""What stands behind each pseudonym, in one encrypted file: AES-256-GCM, key outside the project.

The file starts with a readable line (format, salt, fingerprint of the key), which is
authenticated too. Two keys are derived from the user's with HKDF-SHA256 (RFC 5869) and the salt:
one for the tags of pseudonyms, one for the file. So tags can't be compared between projects.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import json
import secrets
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tutelage.core.errors import Conflict, DataError, EnvironmentProblem
from tutelage.core.lock import sole
from tutelage.core.workspace import atomic_write

_FORMAT = "tutelage-vault-1"
_NONCE = 12  # bytes, drawn anew for every write


@dataclass(frozen=True)
class Form:
    """One way a value was written: its text, and how a JSON file wrote it if that is unusual."""

    text: str
    raw: str | None = None  # as it stood inside JSON, if json.dumps would write it differently
    bare: bool = False  # a JSON number, without quotes


@dataclass
class Entry:
    """All forms of one value. `owner` tells values whose short tags are the same apart."""

    owner: str
    forms: list[Form] = field(default_factory=list)


@dataclass
class Vault:
    """The pseudonyms of one project: `entries` by stem (`NAME_3f2a9c41`)."""

    tag_key: bytes
    entries: dict[str, Entry] = field(default_factory=dict)
    reserved: set[str] = field(default_factory=set)  # stems that the user's own texts contain

    @property
    def size(self) -> int:
        """How much is in it: grows with everything new."""
        return len(self.reserved) + sum(len(entry.forms) for entry in self.entries.values())

    @classmethod
    def passing(cls) -> Vault:
        """Return a vault with a key of its own that is never written: for looking only."""
        return cls(secrets.token_bytes(32))


@dataclass
class VaultFile:
    """A vault and where it is written. `salt` makes the project's tags its own."""

    path: Path
    key: bytes
    salt: bytes
    vault: Vault

    @classmethod
    def open(cls, path: Path, key: bytes) -> VaultFile:
        """Return the vault at `path`, an empty one if there is none.

        Raises DataError if the key is another one or the file was changed.
        """
        if not path.exists():
            salt = secrets.token_bytes(16)
            return cls(path, key, salt, Vault(_derive(key, salt, b"tags")))
        head, _, body = path.read_bytes().partition(b"\n")
        try:
            said = json.loads(head)
            salt = bytes.fromhex(said["salt"])
            known = said["format"] == _FORMAT
            fingerprint = str(said["key"])
        except (ValueError, KeyError, TypeError) as error:
            raise _damaged(path) from error
        if not known:
            raise _damaged(path)
        if not hmac.compare_digest(fingerprint, _fingerprint(key, salt)):
            raise DataError(
                "this key does not open the project's pseudonyms; another one made them",
                where=str(path),
                fix="Name the right key file with --key or data.privacy.key",
            )
        text = _decrypt(_derive(key, salt, b"vault"), body, head, path)
        return cls(path, key, salt, _read(text, _derive(key, salt, b"tags")))

    def save(self) -> None:
        """Write the vault, whole or not at all."""
        head = json.dumps(
            {"format": _FORMAT, "salt": self.salt.hex(), "key": _fingerprint(self.key, self.salt)}
        ).encode()
        nonce = secrets.token_bytes(_NONCE)
        secret = _cipher(_derive(self.key, self.salt, b"vault"))
        atomic_write(
            self.path, head + b"\n" + nonce + secret.encrypt(nonce, _text(self.vault), head)
        )


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the vault at `path` for this process; raise Conflict if another one holds it.

    The lock goes with the process, however it ends.
    """
    taken = Conflict(
        "another command is making pseudonyms in this project",
        where=str(path),
        fix="Wait until it has finished and run this one again",
    )
    with sole(path.with_suffix(".lock"), taken):
        yield


def _derive(key: bytes, salt: bytes, purpose: bytes) -> bytes:
    """Return 32 bytes for one purpose: HKDF-SHA256 with one block of output."""
    inner = hmac.digest(salt, key, hashlib.sha256)
    return hmac.digest(inner, b"tutelage privacy " + purpose + b"\x01", hashlib.sha256)


def _fingerprint(key: bytes, salt: bytes) -> str:
    return _derive(key, salt, b"fingerprint").hex()[:16]


def _cipher(key: bytes):  # type: ignore[no-untyped-def]
    try:
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM
    except ImportError as error:
        raise EnvironmentProblem(
            "pseudonyms need the package cryptography, which is not installed",
            fix="Run `pip install cryptography`",
        ) from error
    return AESGCM(key)


def _decrypt(key: bytes, body: bytes, head: bytes, path: Path) -> bytes:
    secret = _cipher(key)
    from cryptography.exceptions import InvalidTag

    try:
        return bytes(secret.decrypt(body[:_NONCE], body[_NONCE:], head))
    except (InvalidTag, ValueError) as error:
        raise _damaged(path) from error


def _damaged(path: Path) -> DataError:
    return DataError(
        "the file of pseudonyms is damaged or was changed",
        where=str(path),
        fix="Bring it back from a backup; rows redacted with it can't be restored without it",
    )


def _text(vault: Vault) -> bytes:
    entries = {
        stem: [entry.owner, [[form.text, form.raw, form.bare] for form in entry.forms]]
        for stem, entry in vault.entries.items()
    }
    return json.dumps({"entries": entries, "reserved": sorted(vault.reserved)}).encode()


def _read(text: bytes, tag_key: bytes) -> Vault:
    data = json.loads(text)
    entries = {
        stem: Entry(owner, [Form(*form) for form in forms])
        for stem, (owner, forms) in data["entries"].items()
    }
    return Vault(tag_key, entries, set(data["reserved"]))
