"""The few Linux calls that Python has no function for, by ctypes. Each raises OSError."""

from __future__ import annotations

import ctypes
import os
import signal
import struct

CLONE_NEWNS, CLONE_NEWUTS, CLONE_NEWIPC = 0x00020000, 0x04000000, 0x08000000
CLONE_NEWUSER, CLONE_NEWPID, CLONE_NEWNET = 0x10000000, 0x20000000, 0x40000000
MS_NOSUID, MS_NODEV, MS_BIND, MS_REC, MS_PRIVATE = 2, 4, 4096, 16384, 1 << 18
PR_SET_PDEATHSIG, PR_SET_NO_NEW_PRIVS, PR_CAPBSET_DROP, PR_SET_DUMPABLE = 1, 38, 24, 4

_MNT_DETACH = 2
_ATTR_READONLY, _ATTR_NOSUID, _ATTR_NODEV = 1, 2, 4
_AT_FDCWD, _AT_RECURSIVE = -100, 0x8000
_MOUNT_SETATTR = 442
_PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def checked(name: str, *arguments: object) -> int:
    """Call a function of libc; raise OSError, naming it, if it returns a negative number."""
    result = int(getattr(_libc(), name)(*arguments))
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), name)
    return result


def syscall(number: int, *arguments: object) -> int:
    """Make a system call by its number."""
    wide = [ctypes.c_long(a) if isinstance(a, int) else a for a in arguments]
    return checked("syscall", ctypes.c_long(number), *wide)


def unshare(flags: int) -> None:
    """Leave the namespaces in `flags` for fresh ones."""
    checked("unshare", ctypes.c_int(flags))


def mount(source: str, target: str, kind: str | None, flags: int, data: str | None = None) -> None:
    """Mount `source` at `target`."""
    checked(
        "mount", source.encode(), target.encode(), kind.encode() if kind else None,
        ctypes.c_ulong(flags), data.encode() if data else None,
    )  # fmt: skip


def make_readonly(target: str, *, devices: bool = False, below: bool = True) -> None:
    """Make a mount, and those below it, read-only and without set-uid programs (Linux 5.12)."""
    attributes = _ATTR_READONLY | _ATTR_NOSUID | (0 if devices else _ATTR_NODEV)
    block = struct.pack("=QQQQ", attributes, 0, 0, 0)
    flags = _AT_RECURSIVE if below else 0
    syscall(_MOUNT_SETATTR, _AT_FDCWD, target.encode(), flags, block, len(block))


def enter_root(directory: str) -> None:
    """Make `directory` the root of the file system and lose sight of the old one."""
    os.chdir(directory)
    syscall(_PIVOT_ROOT[os.uname().machine], b".", b".")
    checked("umount2", b".", ctypes.c_int(_MNT_DETACH))
    os.chdir("/")


def process_control(option: int, value: int) -> None:
    """Call prctl with one number."""
    zero = ctypes.c_ulong(0)
    checked("prctl", ctypes.c_int(option), ctypes.c_ulong(value), zero, zero, zero)


def die_with_parent() -> None:
    """Have this process killed when the thread that started it ends."""
    process_control(PR_SET_PDEATHSIG, signal.SIGKILL)


def drop_capabilities() -> None:
    """Take every capability out of reach of what is executed from here on, root's too."""
    for number in range(64):
        try:
            process_control(PR_CAPBSET_DROP, number)
        except OSError:
            break
