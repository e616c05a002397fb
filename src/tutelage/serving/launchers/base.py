"""What serving asks of a launcher: start an engine somewhere, say where it is, stop it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol

Check = Callable[[str], Awaitable[None]]  # raises TutelageError if a release isn't what it was


async def unchecked(release_id: str) -> None:
    """Let a release be loaded again as it is: the check of a launcher that nobody gave one."""


@dataclass(frozen=True)
class Engine:
    """A running engine. `base_url` has no trailing slash and no /v1."""

    base_url: str
    pid: int


class Launcher(Protocol):
    """Starts and stops one engine. Plug-ins of `tutelage.launchers`."""

    async def start(self) -> Engine: ...

    async def stop(self) -> None: ...
