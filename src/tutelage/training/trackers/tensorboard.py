"""TensorBoard's event files, written by torch's own writer; nothing is sent anywhere."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tutelage.training.trackers.base import TrackedRun, require


class TensorboardTracker:
    """TensorBoard, in `.tutelage/tensorboard`: look with `tensorboard --logdir`."""

    def __init__(self, run: TrackedRun) -> None:
        require("tensorboard", "TensorBoard", "tensorboard")
        below = (run.group, run.name) if run.group else (run.name,)
        self._folder = run.workspace.home.joinpath("tensorboard", *below)
        self._writer: Any = None
        self._params: dict[str, Any] = {}

    def log_params(self, values: Mapping[str, Any]) -> None:
        """Keep `values` as a table among the texts."""
        self._params |= values

    def log_metrics(self, values: Mapping[str, float], step: int) -> None:
        """Keep one point of each curve; a resumed run's later points of the cut-off one go."""
        writer = self._opened(step)
        for name, value in values.items():
            writer.add_scalar(name, float(value), step)

    def log_artifact(self, path: Path) -> None:
        """Do nothing: TensorBoard keeps no files, and the run's lie in its artifact."""

    def finish(self, status: str) -> None:
        """Say how the run ended, and close the file."""
        writer = self._opened(0)
        writer.add_text("status", status)
        writer.close()
        self._writer = None

    def _opened(self, step: int) -> Any:
        if self._writer is None:
            from torch.utils.tensorboard import SummaryWriter

            again = any(self._folder.glob("events.*"))
            self._writer = SummaryWriter(
                str(self._folder), purge_step=step if again else None, flush_secs=10
            )
            if self._params and not again:
                rows = "\n".join(f"| {name} | {value} |" for name, value in self._params.items())
                self._writer.add_text("params", f"| setting | value |\n|---|---|\n{rows}")
        return self._writer
