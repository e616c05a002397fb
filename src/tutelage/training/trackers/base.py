"""What a tracker is, what it is told about its run, and the care that surrounds every one.

A plug-in of `tutelage.trackers` is a class made with a TrackedRun that meets Tracker. It may fail
as it likes: Guard turns its first failure into one warning and drops it, keeps it off the
terminal, and takes secrets out before anything reaches it.
"""

from __future__ import annotations

import contextlib
import io
import json
import logging
import os
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

from tutelage.core.errors import EnvironmentProblem
from tutelage.core.workspace import Workspace, atomic_write
from tutelage.training.trackers.secrets import redact

_LOGGERS = ("mlflow", "alembic", "sqlalchemy", "git", "wandb", "tensorboard", "trackio", "httpx")


class Tracker(Protocol):
    """Listens to a run. Values are numbers; `step` counts optimizer steps."""

    def log_params(self, values: Mapping[str, Any]) -> None: ...

    def log_metrics(self, values: Mapping[str, float], step: int) -> None: ...

    def log_artifact(self, path: Path) -> None: ...

    def finish(self, status: str) -> None: ...


def _ignore(text: str) -> None:
    pass


@dataclass(frozen=True)
class TrackedRun:
    """Whose numbers are kept. The run is named by its folder, and so found again after a kill.

    `parent` is the folder of the run this one is a part of. `warn` gets one sentence if a tracker
    fails.
    """

    workspace: Workspace
    project: str
    run_dir: Path
    parent: Path | None = None
    warn: Callable[[str], None] = _ignore

    @property
    def name(self) -> str:
        """The run's name."""
        return self.run_dir.name

    @property
    def group(self) -> str | None:
        """The name of the run this one is a part of."""
        return self.parent.name if self.parent else None


class NullTracker:
    """Keeps nothing."""

    def log_params(self, values: Mapping[str, Any]) -> None:
        """Do nothing."""

    def log_metrics(self, values: Mapping[str, float], step: int) -> None:
        """Do nothing."""

    def log_artifact(self, path: Path) -> None:
        """Do nothing."""

    def finish(self, status: str) -> None:
        """Do nothing."""


class Guard:
    """A tracker that never fails: the first error of `inner` is one warning, and its last word."""

    def __init__(self, title: str, inner: Tracker, warn: Callable[[str], None]) -> None:
        self._title, self._warn = title, warn
        self._inner: Tracker | None = inner

    def log_params(self, values: Mapping[str, Any]) -> None:
        """Keep `values`, without the secrets among them."""
        self._tell(lambda inner: inner.log_params(redact(values)))

    def log_metrics(self, values: Mapping[str, float], step: int) -> None:
        """Keep one point of each curve."""
        self._tell(lambda inner: inner.log_metrics(values, step))

    def log_artifact(self, path: Path) -> None:
        """Keep a file with the run."""
        self._tell(lambda inner: inner.log_artifact(path))

    def finish(self, status: str) -> None:
        """End the run: FINISHED, FAILED or KILLED."""
        self._tell(lambda inner: inner.finish(status))

    def _tell(self, write: Callable[[Tracker], None]) -> None:
        if self._inner is None:
            return
        try:
            with hushed():
                write(self._inner)
        except Exception as error:
            self._inner = None
            reason = str(error).strip().splitlines()
            why = reason[0][:160] if reason else type(error).__name__
            self._warn(f"{self._title} tracking stopped ({why})")


class Several:
    """Tells several trackers, in order; each is guarded on its own."""

    def __init__(self, trackers: Sequence[Tracker]) -> None:
        self._trackers = list(trackers)

    def log_params(self, values: Mapping[str, Any]) -> None:
        """Tell all."""
        for tracker in self._trackers:
            tracker.log_params(values)

    def log_metrics(self, values: Mapping[str, float], step: int) -> None:
        """Tell all."""
        for tracker in self._trackers:
            tracker.log_metrics(values, step)

    def log_artifact(self, path: Path) -> None:
        """Tell all."""
        for tracker in self._trackers:
            tracker.log_artifact(path)

    def finish(self, status: str) -> None:
        """Tell all."""
        for tracker in self._trackers:
            tracker.finish(status)


def require(package: str, title: str, extra: str) -> None:
    """Raise EnvironmentProblem unless `package` is installed."""
    if find_spec(package) is None:
        raise EnvironmentProblem(
            f"train.tracker names {title}, which is not installed",
            fix=f"Run `pip install 'tutelage[{extra}]'`, or name another tracker",
        )


def kept(run_dir: Path, name: str) -> str:
    """Return what `keep` wrote under this name in an earlier process, or an empty string."""
    with contextlib.suppress(OSError, ValueError, KeyError):
        return str(json.loads((run_dir / f"{name}.json").read_bytes())["run_id"])
    return ""


def keep(run_dir: Path, name: str, run_id: str) -> None:
    """Keep a tracker's id of the run beside its checkpoints, durable when this returns."""
    atomic_write(run_dir / f"{name}.json", json.dumps({"run_id": run_id}).encode())


@contextlib.contextmanager
def hushed() -> Iterator[None]:
    """Keep trackers and their migrations off the terminal, and their own telemetry off."""
    os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
    os.environ["DO_NOT_TRACK"] = "true"
    os.environ["WANDB_ERROR_REPORTING"] = "false"
    os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")
    loggers = [logging.getLogger(name) for name in _LOGGERS]
    levels = [logger.level for logger in loggers]
    sink = io.StringIO()
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        with (
            contextlib.redirect_stdout(sink),
            contextlib.redirect_stderr(sink),
            warnings.catch_warnings(),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
