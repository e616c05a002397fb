"""Run a program in the sandbox, under the strongest protection that works on this machine.

`run_code` is the whole interface. It is safe to call from several threads. What it promises and
what not stands in docs/how-to/code.md.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import selectors
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from tutelage.core.errors import EnvironmentProblem
from tutelage.evaluation.sandbox.limits import MODES, Limits, Mode, Outcome, Protection, Result

_SYSTEM = ("/usr", "/lib", "/lib64", "/bin", "/sbin", "/etc/ld.so.cache")
_PACKAGE = Path(__file__).resolve().parents[2]  # the folder of tutelage
_LAUNCHER = ("-I", "-S", "-B", "-c")
_START = "from tutelage.evaluation.sandbox.launcher import main; main()"
_UIDS = 61184, 4336  # users that exist nowhere (systemd's dynamic range)
_CHUNK = 1 << 16

DEFAULTS = Limits()
Part = tuple[str, str]  # a name for messages, and source


class SandboxError(EnvironmentProblem):
    """The sandbox could not be set up."""


def run_code(
    parts: Sequence[Part],
    limits: Limits = DEFAULTS,
    *,
    packages: bool = False,
    mode: Mode | None = None,
) -> Result:
    """Execute the parts one after the other in one fresh Python; return what came of it.

    `packages` lets the program import what is installed beside tutelage, not only the standard
    library. `mode` asks for one kind of protection; unset, the strongest that works is taken.
    Raises SandboxError if it can't be set up.
    """
    mode = mode or protection().mode
    folder = Path(tempfile.mkdtemp(prefix="tutelage-sandbox-"))
    token = secrets.token_hex(16)
    try:
        for name in ("tools", "work"):
            (folder / name).mkdir()
        shutil.copyfile(Path(__file__).with_name("driver.py"), folder / "tools" / "driver.py")
        plan = json.dumps({"token": token, "parts": [list(part) for part in parts]})
        (folder / "tools" / "plan.json").write_text(plan, encoding="utf-8")
        folder.chmod(0o755)
        return _watch(_Run(mode, folder, limits, packages, token))
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@cache
def protection() -> Protection:
    """Return the strongest protection that works here, found by running an empty program.

    Raises SandboxError that says why none does.
    """
    problems = []
    for mode in MODES:
        try:
            found = run_code([("probe", "pass")], Limits(seconds=30), mode=mode)
        except SandboxError as error:
            problems.append(f"{mode}: {error.what}")
            continue
        if found.passed:
            return found.protection
        problems.append(f"{mode}: {found.why}")
    raise SandboxError(
        f"code can't be run safely on this machine ({'; '.join(problems)})",
        fix="Run it on Linux, or in WSL on Windows",
    )


@dataclass
class _Run:
    """One run on its way."""

    mode: Mode
    folder: Path
    limits: Limits
    packages: bool
    token: str
    out: dict[str, bytearray] = field(default_factory=dict)

    def command(self, report: int) -> list[str]:
        """Return the command line of the launcher."""
        python = sys.executable if self.packages else os.path.realpath(sys.executable)
        isolation = ["-s", "-P", "-B", *([] if self.packages else ["-S"])]
        visible = self._visible()
        plan = {
            "mode": "inside" if self.mode == "bubblewrap" else self.mode,
            "command": (python, *isolation, "{tools}/driver.py", "{tools}/plan.json"),
            "folder": str(self.folder),
            "visible": visible,
            "report": report,
            "uid": _UIDS[0] + int(self.token[:8], 16) % _UIDS[1],
            "seconds": self.limits.seconds,
            "memory": self.limits.memory,
            "file_size": self.limits.file_size,
            "disk": self.limits.disk,
            "processes": self.limits.processes,
        }
        start = f"import sys; sys.path.insert(0, {str(_PACKAGE.parent)!r}); {_START}"
        launcher = [os.path.realpath(sys.executable), *_LAUNCHER, start, json.dumps(plan)]
        return [*self._bubblewrap(visible), *launcher]

    def _visible(self) -> list[str]:
        """Return what the interpreter needs to see, outer folders first."""
        wanted = [*_SYSTEM, sys.base_prefix, *([sys.prefix] if self.packages else [])]
        return list(dict.fromkeys(path for path in wanted if Path(path).exists()))

    def _bubblewrap(self, visible: Sequence[str]) -> list[str]:
        if self.mode != "bubblewrap":
            return []
        program = shutil.which("bwrap")
        if program is None:
            raise SandboxError("bubblewrap is not installed", fix="Install the package bubblewrap")
        command = [program, "--unshare-all", "--die-with-parent", "--new-session", "--clearenv"]
        for path in [*visible, str(_PACKAGE)]:
            if Path(path).is_symlink():
                command += ["--symlink", str(Path(path).readlink()), path]
            else:
                command += ["--ro-bind", path, path]
        command += ["--ro-bind", str(self.folder / "tools"), "/tools", "--dev", "/dev"]
        return [*command, "--size", str(self.limits.disk), "--tmpfs", "/tmp", "--"]  # noqa: S108


def _watch(run: _Run) -> Result:
    """Start the launcher, read what comes until it ends or a limit is reached, kill the rest."""
    readable, writable = os.pipe()
    started = time.monotonic()
    try:
        process = subprocess.Popen(
            run.command(writable),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={"LANG": "C.UTF-8"},
            cwd=run.folder / "work",
            pass_fds=(writable,),
            start_new_session=True,
        )
    except OSError as error:
        os.close(readable)
        raise SandboxError(f"no process can be started ({error})") from error
    finally:
        os.close(writable)
    run.out = {"stdout": bytearray(), "stderr": bytearray(), "report": bytearray()}
    pipes = {process.stdout: "stdout", process.stderr: "stderr"}
    try:
        stopped = _read(run, {**pipes, readable: "report"}, started + run.limits.seconds)
    finally:
        _kill(process)
        os.close(readable)
        for pipe in pipes:
            if pipe is not None:
                pipe.close()
    return _result(run, process.returncode, stopped, time.monotonic() - started)


def _read(run: _Run, pipes: dict[Any, str], deadline: float) -> Outcome | None:
    """Collect output until all pipes are closed; return the limit that was reached, if any."""
    with selectors.DefaultSelector() as selector:
        for pipe, name in pipes.items():
            selector.register(pipe, selectors.EVENT_READ, name)
        while selector.get_map():
            ready = selector.select(max(0.0, deadline - time.monotonic()))
            if not ready:
                return "timeout"
            for key, _ in ready:
                chunk = os.read(key.fd, _CHUNK)
                if not chunk:
                    selector.unregister(key.fileobj)
                run.out[key.data] += chunk
            if sum(len(found) for found in run.out.values()) > run.limits.output:
                return "output"
    return None


def _kill(process: subprocess.Popen[bytes]) -> None:
    """Kill the launcher and everything of its process group; a namespace dies with it."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _result(run: _Run, code: int, stopped: Outcome | None, seconds: float) -> Result:
    out, err = (run.out[n].decode(errors="replace") for n in ("stdout", "stderr"))
    told: dict[str, Any] = {}
    for line in run.out["report"].splitlines():
        told |= json.loads(line)
    if "error" in told or ("layers" not in told and stopped is None):
        reason = told.get("error") or err.strip()[-300:] or f"exit status {code}"
        raise SandboxError(f"the sandbox can't be set up with {run.mode} ({reason})")
    done = stopped is None and code == 0 and out.endswith(run.token)
    held = Protection(run.mode, tuple(told.get("layers", ())))
    outcome = "passed" if done else stopped or _outcome(code, err)
    out = out.removesuffix(run.token)[: run.limits.output]
    killed = stopped is not None
    return Result(outcome, None if killed else code, out, err[: run.limits.output], seconds, held)


def _outcome(code: int, err: str) -> Outcome:
    last = err.rstrip().rsplit("\n", 1)[-1]
    if last.startswith("MemoryError"):
        return "memory"
    if code in (128 + signal.SIGXCPU, -signal.SIGXCPU):
        return "timeout"
    return "crashed" if code < 0 or code > 128 else "failed"
