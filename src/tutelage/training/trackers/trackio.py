"""Trackio in the project's own folder; sent only where the user has named a Space or a server."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tutelage.training.trackers.base import TrackedRun, require


class TrackioTracker:
    """Trackio, in `.tutelage/trackio` unless TRACKIO_SPACE_ID or TRACKIO_SERVER_URL is set."""

    def __init__(self, run: TrackedRun) -> None:
        require("trackio", "Trackio", "trackio")
        self._tracked = run
        self._params: dict[str, Any] = {}
        self._run: Any = None

    def log_params(self, values: Mapping[str, Any]) -> None:
        """Keep `values` in the run's configuration."""
        self._params |= {name: _plain(value) for name, value in values.items()}
        self._opened()

    def log_metrics(self, values: Mapping[str, float], step: int) -> None:
        """Keep one point of each curve."""
        self._opened().log(dict(values), step=step)

    def log_artifact(self, path: Path) -> None:
        """Do nothing: the run's files lie in its artifact."""

    def finish(self, status: str) -> None:
        """End the run."""
        import trackio

        self._opened()
        trackio.finish()
        self._run = None

    def _opened(self) -> Any:
        """Return the run, taken up again if another one was begun since: Trackio has one a time."""
        home = self._tracked.workspace.home / "trackio"
        os.environ.setdefault("TRACKIO_DIR", str(home))  # it is read once, at the import
        import trackio

        if self._run is None or trackio.context_vars.current_run.get() is not self._run:
            self._run = trackio.init(
                project=self._tracked.project, name=self._tracked.name,
                group=self._tracked.group, config=self._params, resume="allow", embed=False,
                auto_log_gpu=False, auto_log_cpu=False,
            )  # fmt: skip
        return self._run


def _plain(value: Any) -> Any:
    return value if isinstance(value, (str, int, float, bool, type(None))) else str(value)
