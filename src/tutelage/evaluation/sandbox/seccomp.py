"""A seccomp filter: system calls that no test of a function needs answer "not permitted".

Without sockets there is no network, whatever else is missing. syscalls.json has the numbers;
on a processor that is not in there, no filter is installed.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import struct
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tutelage.evaluation.sandbox.kernel import checked

_PR_SET_SECCOMP, _FILTER = 22, 2
_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_ALLOW, _KILL, _ERRNO = 0x7FFF0000, 0x80000000, 0x00050000
_NUMBER, _ARCH, _ARG0 = 0, 4, 16  # offsets in struct seccomp_data; low words of arguments
_DENY, _MISSING = _ERRNO | errno.EPERM, _ERRNO | errno.ENOSYS
_X32 = 0x40000000
_NEW_NAMESPACES, _THREAD = 0x7E020080, 0x00010000  # flags of clone


def table() -> dict[str, Any] | None:
    """Return this processor's system calls, or None."""
    every = json.loads(Path(__file__).with_name("syscalls.json").read_bytes())
    found: dict[str, Any] | None = every.get(os.uname().machine)
    return found


def install(calls: dict[str, Any] | None, *, processes: bool, in_the_open: bool) -> bool:
    """Install the filter for this process and what it executes; return False without a table.

    `processes` allows new ones. `in_the_open`: no namespace protects files and other processes,
    so permissions can't be changed and only the program itself can be signalled. Needs
    no_new_privs.
    """
    if calls is None:
        return False
    code = b"".join(program(calls, processes=processes, in_the_open=in_the_open, pid=os.getpid()))
    buffer = ctypes.create_string_buffer(code, len(code))
    head = struct.pack("HL", len(code) // 8, ctypes.addressof(buffer))
    try:
        checked("prctl", _PR_SET_SECCOMP, ctypes.c_ulong(_FILTER), head)
    except OSError:
        return False
    return True


def program(calls: dict[str, Any], *, processes: bool, in_the_open: bool, pid: int) -> list[bytes]:
    """Return the filter's instructions (classic BPF)."""
    made = [
        _step(_LOAD, _ARCH), _step(_EQUAL, calls["audit"], 1, 0), _step(_RETURN, _KILL),
        _step(_LOAD, _NUMBER), _step(_AT_LEAST, _X32, 0, 1), _step(_RETURN, _DENY),
    ]  # fmt: skip
    made += _refused(calls["never"].values(), _DENY)
    made += _refused([calls["clone3"]], _MISSING)  # its flags can't be looked at: use clone
    clone = [_step(_LOAD, _ARG0), _step(_ANY_BIT, _NEW_NAMESPACES, 0, 1), _step(_RETURN, _DENY)]
    if not processes:
        made += _refused(calls["new_process"].values(), _DENY)
        clone += [_step(_ANY_BIT, _THREAD, 1, 0), _step(_RETURN, _DENY)]
    made += _only_for(calls["clone"], clone)
    if in_the_open:
        made += _refused(calls["in_the_open"].values(), _DENY)
        for name in ("kill", "tgkill", "prlimit64"):
            own = 0 if name == "prlimit64" else pid
            argument = [_step(_LOAD, _ARG0), _step(_EQUAL, own, 1, 0), _step(_RETURN, _DENY)]
            made += _only_for(calls[name], argument)
    return [*made, _step(_RETURN, _ALLOW)]


def _step(code: int, value: int, yes: int = 0, no: int = 0) -> bytes:
    return struct.pack("=HBBI", code, yes, no, value)


def _refused(numbers: Iterable[int], answer: int) -> list[bytes]:
    made: list[bytes] = []
    for number in numbers:
        made += [_step(_EQUAL, number, 0, 1), _step(_RETURN, answer)]
    return made


def _only_for(number: int, steps: list[bytes]) -> list[bytes]:
    """Take `steps` for one system call, allow it after them, and go on for all others."""
    steps = [*steps, _step(_RETURN, _ALLOW)]
    return [_step(_EQUAL, number, 0, len(steps)), *steps]
