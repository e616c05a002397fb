"""Passwords: which ones are good enough, and argon2id hashes of them.

Nothing here knows people or the store.
"""

from __future__ import annotations

import threading
from functools import cache
from typing import TYPE_CHECKING

from tutelage.core.errors import DataError, EnvironmentProblem

if TYPE_CHECKING:
    from argon2 import PasswordHasher

LEAST = 12  # letters
_MOST = 200  # letters, so that a hash is never of megabytes
_LEAST_KINDS = 5  # different letters
_AT_ONCE = threading.BoundedSemaphore(2)  # a hash takes 64 MiB: strangers can't ask for many


def check(password: str, name: str) -> None:
    """Raise DataError unless `password` is long enough to be nobody's guess."""
    fix = "Several words in a row are easy to keep in mind"
    if len(password) < LEAST:
        raise DataError(f"a password has at least {LEAST} letters", fix=fix)
    if len(password) > _MOST:
        raise DataError(f"a password has at most {_MOST} letters", fix="Choose a shorter one")
    if len(set(password)) < _LEAST_KINDS:
        raise DataError("this password repeats the same few letters", fix=fix)
    if len(name) > 2 and password.casefold().replace(name.casefold(), "").strip("0123456789") == "":
        raise DataError("this password is the person's name", fix=fix)


def hashed(password: str) -> str:
    """Return the argon2id hash, which names its parameters and holds its salt."""
    with _AT_ONCE:
        return _hasher().hash(_bytes(password))


def matches(kept: str | None, password: str) -> bool:
    """Return whether `password` is the one kept. Without one it takes as long and says no."""
    from argon2.exceptions import InvalidHashError, VerificationError

    hasher = _hasher()
    with _AT_ONCE:
        try:
            right = hasher.verify(kept or _nobody(), _bytes(password[: _MOST + 1]))
        except (VerificationError, InvalidHashError):
            return False
    return right and kept is not None


def is_outdated(kept: str) -> bool:
    """Return whether a hash was made with weaker parameters than are in use now."""
    return _hasher().check_needs_rehash(kept)


@cache
def _hasher() -> PasswordHasher:
    try:
        from argon2 import PasswordHasher
    except ModuleNotFoundError as error:
        raise EnvironmentProblem(
            "accounts need the package argon2-cffi", fix="pip install 'tutelage[web]'"
        ) from error
    return PasswordHasher()


@cache
def _nobody() -> str:
    """Return the hash of a password that nobody has."""
    import secrets

    return _hasher().hash(secrets.token_bytes(16))


def _bytes(password: str) -> bytes:
    return password.encode("utf-8", "surrogatepass")
