"""Landlock: an unprivileged process shuts itself out of files, TCP and foreign processes.

Linux 5.13 for files, 6.7 for TCP, 6.12 for signals; see landlock(7).
"""

from __future__ import annotations

import os
import stat
import struct
from collections.abc import Iterable

from tutelage.evaluation.sandbox.kernel import syscall

_CREATE, _ADD, _RESTRICT = 444, 445, 446
_EXECUTE, _WRITE, _READ, _LIST = 1, 2, 4, 8
_TRUNCATE, _DEVICE = 1 << 14, 1 << 15
_OF_FILES = _EXECUTE | _WRITE | _READ | _TRUNCATE | _DEVICE
_RIGHTS = ((1, 13), (2, 14), (3, 15), (5, 16))  # version, how many rights on files it knows


def version() -> int:
    """Return Landlock's version, 0 where the kernel has none."""
    try:
        return syscall(_CREATE, None, 0, 1)
    except OSError:
        return 0


def shut_in(readable: Iterable[str], writable: Iterable[str]) -> bool:
    """Allow this process these files and folders only; return False where there is no Landlock.

    Needs no_new_privs. Paths that do not exist are passed over.
    """
    known = version()
    if not known:
        return False
    handled = (1 << max(count for since, count in _RIGHTS if since <= known)) - 1
    block = struct.pack("=Q", handled)
    if known >= 4:
        block += struct.pack("=Q", 0b11)  # bind and connect of TCP
    if known >= 6:
        block += struct.pack("=Q", 0b11)  # abstract sockets and signals
    ruleset = syscall(_CREATE, block, len(block), 0)
    for path in readable:
        _allow(ruleset, path, (_EXECUTE | _READ | _LIST) & handled)
    for path in writable:
        _allow(ruleset, path, handled & ~_EXECUTE)
    syscall(_RESTRICT, ruleset, 0)
    os.close(ruleset)
    return True


def _allow(ruleset: int, path: str, rights: int) -> None:
    try:
        place = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    if not stat.S_ISDIR(os.fstat(place).st_mode):
        rights &= _OF_FILES
    syscall(_ADD, ruleset, 1, struct.pack("=Qi", rights, place), 0)
    os.close(place)
