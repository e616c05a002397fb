"""What serving asks of a launcher: start an engine somewhere, say where it is, stop it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True)
class Engine:
    """A running engine. `base_url` has no trailing slash and no /v1."""

    base_url: str
    pid: int


class Launcher(Protocol):
    """Starts and stops one engine. Plug-ins of `tutelage.launchers`."""

    async def start(self) -> Engine: ...

    async def stop(self) -> None: ...
