"""What a program in the sandbox may use, and what came of running it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Outcome = Literal["passed", "failed", "timeout", "memory", "output", "crashed"]
Mode = Literal["namespaces", "bubblewrap", "limits"]
MODES: tuple[Mode, ...] = ("namespaces", "bubblewrap", "limits")  # the strongest first
MEGABYTE = 1 << 20


@dataclass(frozen=True)
class Limits:
    """Bounds of one run. `processes` 1: the program itself; it can start no other."""

    seconds: float = 10.0  # wall clock, with the start of the interpreter
    memory: int = 1024 * MEGABYTE  # bytes of address space a process
    file_size: int = 16 * MEGABYTE  # bytes a file
    disk: int = 64 * MEGABYTE  # bytes of all files, where the folder is its own file system
    output: int = 256 * 1024  # bytes of stdout and stderr together
    processes: int = 1


@dataclass(frozen=True)
class Protection:
    """What holds a program back: how it is shut in, and the layers that were really active.

    Layers: namespaces or bubblewrap (own network, files, processes), landlock (files), seccomp
    (system calls), rlimits.
    """

    mode: Mode
    layers: tuple[str, ...]

    @property
    def network_closed(self) -> bool:
        """Whether the program can reach no network."""
        return bool({"namespaces", "bubblewrap", "seccomp"} & set(self.layers))

    @property
    def files_closed(self) -> bool:
        """Whether the program can neither read nor change the user's files."""
        return bool({"namespaces", "bubblewrap", "landlock"} & set(self.layers))

    def sentence(self) -> str:
        """Return what is shut and what is not, in words."""
        if not self.layers:
            return "it was stopped before it started"
        network = "no network" if self.network_closed else "THE NETWORK IS OPEN"
        files = "no files of yours" if self.files_closed else "YOUR FILES CAN BE READ AND CHANGED"
        return f"{', '.join(self.layers)}: {network}, {files}"


@dataclass(frozen=True)
class Result:
    """One run. `passed` means that every part of the program ran to its end."""

    outcome: Outcome
    exit_code: int | None  # None if it was killed from outside
    stdout: str
    stderr: str
    seconds: float
    protection: Protection

    @property
    def passed(self) -> bool:
        return self.outcome == "passed"

    @property
    def why(self) -> str | None:
        """What the program last complained of, at most 300 characters; None if it passed."""
        if self.passed:
            return None
        lines = [line for line in self.stderr.splitlines() if line.strip()]
        said = lines[-1].strip()[:300] if lines else ""
        if self.outcome == "failed":
            return said or "it ended before the tests did"
        words = {
            "timeout": "it ran out of time",
            "memory": "it ran out of memory",
            "output": "it wrote too much",
            "crashed": "it was killed by a signal",
        }[self.outcome]
        return f"{words} ({said})" if said and self.outcome == "crashed" else words
