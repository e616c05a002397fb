"""Started as its own process for each run: shuts itself in, then becomes the program.

With namespaces there are three processes: this one, which waits outside; the first process of
the new namespace, which takes everything in it along when it ends; and the program. It imports
little, because it is started for every run. What was active goes to the report's descriptor, as
JSON.
"""

from __future__ import annotations

import json
import os
import resource
import sys
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from tutelage.evaluation.sandbox import kernel, landlock, seccomp

_FAILED = 97  # exit status where the sandbox could not be set up
_DEVICES = ("/dev/null", "/dev/zero", "/dev/urandom", "/dev/random")
_WORK = "/tmp"  # noqa: S108  the program's folder, inside its own file system
_OPEN_FILES = 64
_HELPERS = 2  # processes of the sandbox itself that count towards the limit


class Plan(NamedTuple):
    """What to run and how, as it is handed over on the command line."""

    mode: str  # namespaces, inside (bubblewrap has shut this process in), limits
    command: tuple[str, ...]  # with {tools} and {work} to be filled in
    folder: str  # holds tools (driver and parts) and work, on the host
    visible: tuple[str, ...]  # folders and files that the interpreter needs
    report: int  # descriptor
    uid: int  # who the program is, if this is root
    seconds: float
    memory: int
    file_size: int
    disk: int
    processes: int  # 1: the program alone


def main() -> NoReturn:
    """Run the plan in argv[1]; never returns."""
    plan = Plan(**json.loads(sys.argv[1]))
    try:
        calls = seccomp.table()
        layers, places = _shut_in(plan)
        layers += _narrow(plan, places, calls)
        _report(plan, {"layers": layers})
        command = [part.format(**places) for part in plan.command]
        os.set_inheritable(plan.report, False)
        os.execve(command[0], command, _environment(places["work"]))  # noqa: S606
    except BaseException as error:
        _report(plan, {"error": f"{type(error).__name__}: {error}"})
    os._exit(_FAILED)


def _report(plan: Plan, said: dict[str, object]) -> None:
    os.write(plan.report, json.dumps(said).encode() + b"\n")


def _environment(work: str) -> dict[str, str]:
    """Return the whole environment of the program."""
    threads = {f"{name}_NUM_THREADS": "1" for name in ("OMP", "OPENBLAS", "MKL")}
    return {
        "PATH": "/usr/bin:/bin", "HOME": work, "TMPDIR": work, "LANG": "C.UTF-8",
        "PYTHONHASHSEED": "0", **threads,
    }  # fmt: skip


def _shut_in(plan: Plan) -> tuple[list[str], dict[str, str]]:
    """Leave the user's files, network and processes behind; return the layer and the places."""
    kernel.die_with_parent()
    if plan.mode == "namespaces":
        _namespaces(plan)
        return ["namespaces"], {"tools": "/tools", "work": _WORK}
    if plan.mode == "inside":
        os.chdir(_WORK)
        return ["bubblewrap"], {"tools": "/tools", "work": _WORK}
    folder = Path(plan.folder)
    os.chdir(folder / "work")
    return [], {"tools": str(folder / "tools"), "work": str(folder / "work")}


def _narrow(plan: Plan, places: dict[str, str], calls: dict[str, Any] | None) -> list[str]:
    """Give up every right that the program does not need; return the layers that hold."""
    kernel.process_control(kernel.PR_SET_NO_NEW_PRIVS, 1)
    open_ = plan.mode == "limits"
    layers = []
    if open_:
        kernel.drop_capabilities()
        readable = (*plan.visible, places["tools"])
        if landlock.shut_in(readable, (places["work"], *_DEVICES)):
            layers.append("landlock")
    _limit(plan)
    if seccomp.install(calls, processes=plan.processes > 1, in_the_open=open_):
        layers.append("seccomp")
    return [*layers, "rlimits"]


def _limit(plan: Plan) -> None:
    seconds = max(1, int(plan.seconds) + 1)
    bounds = {
        resource.RLIMIT_AS: plan.memory,
        resource.RLIMIT_CPU: seconds,
        resource.RLIMIT_FSIZE: plan.file_size,
        resource.RLIMIT_NOFILE: _OPEN_FILES,
        resource.RLIMIT_CORE: 0,
    }
    if plan.processes > 1:
        others = _HELPERS if plan.mode != "limits" else _own_tasks()
        bounds[resource.RLIMIT_NPROC] = plan.processes + others
    for name, value in bounds.items():
        _, hard = resource.getrlimit(name)
        value = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(name, (value, value))


def _own_tasks() -> int:
    """Return how many threads this user runs: without a namespace the limit counts them all."""
    count = 0
    for entry in Path("/proc").glob("[0-9]*/task"):
        try:
            if entry.stat().st_uid == os.getuid():
                count += entry.stat().st_nlink - 2
        except OSError:
            continue
    return count


def _namespaces(plan: Plan) -> None:
    """Enter fresh namespaces with a root of their own, as their second process."""
    uid, gid = os.geteuid(), os.getegid()
    flags = (
        kernel.CLONE_NEWNS | kernel.CLONE_NEWPID | kernel.CLONE_NEWNET
        | kernel.CLONE_NEWIPC | kernel.CLONE_NEWUTS
    )  # fmt: skip
    kernel.unshare(flags | (kernel.CLONE_NEWUSER if uid else 0))
    if uid:
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"{uid} {uid} 1")
        Path("/proc/self/gid_map").write_text(f"{gid} {gid} 1")
    root = _build_root(plan)
    _wait_unless_child()
    kernel.die_with_parent()
    kernel.enter_root(str(root))
    if not uid:
        kernel.drop_capabilities()
        os.setgroups([])
        os.setresgid(plan.uid, plan.uid, plan.uid)
        os.setresuid(plan.uid, plan.uid, plan.uid)
        kernel.die_with_parent()  # a change of user takes it back
    _wait_unless_child()
    os.chdir(_WORK)


def _wait_unless_child() -> None:
    """Fork; the child returns, the parent reaps until the child is gone and ends as it did."""
    child = os.fork()
    if child == 0:
        return
    while True:
        pid, status = os.wait()
        if pid == child:
            code = os.waitstatus_to_exitcode(status)
            os._exit(code if code >= 0 else 128 - code)


def _build_root(plan: Plan) -> Path:
    """Mount a small file system with what the interpreter needs, read-only, and one folder."""
    kernel.mount("none", "/", None, kernel.MS_REC | kernel.MS_PRIVATE)
    root = Path(plan.folder) / "root"
    root.mkdir()
    kernel.mount("tmpfs", str(root), "tmpfs", kernel.MS_NOSUID | kernel.MS_NODEV, "size=1m")
    for path in plan.visible:
        _show(Path(path), root)
    _bind(Path(plan.folder) / "tools", root / "tools")
    for device in _DEVICES:
        _bind(Path(device), root / device.lstrip("/"), devices=True)
    work = root / _WORK.lstrip("/")
    work.mkdir()
    flags = kernel.MS_NOSUID | kernel.MS_NODEV
    kernel.mount("tmpfs", str(work), "tmpfs", flags, f"size={plan.disk},mode=0777")
    kernel.make_readonly(str(root), below=False)
    return root


def _show(path: Path, root: Path) -> None:
    """Make a folder, file or link of the host visible at the same place."""
    target = root / str(path).lstrip("/")
    if target.exists() or target.is_symlink():
        return
    if path.is_symlink():
        target.parent.mkdir(parents=True, exist_ok=True)
        target.symlink_to(path.readlink())
    elif path.exists():
        _bind(path, target)


def _bind(source: Path, target: Path, *, devices: bool = False) -> None:
    if source.is_dir():
        target.mkdir(parents=True)
    else:
        target.parent.mkdir(parents=True, exist_ok=True)
        target.touch()
    kernel.mount(str(source), str(target), None, kernel.MS_BIND | kernel.MS_REC)
    if not devices:
        kernel.make_readonly(str(target))


if __name__ == "__main__":
    main()
