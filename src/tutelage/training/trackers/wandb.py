"""Weights & Biases: files in the project, sent only where the user has set a key.

Points carry their optimizer step as a value of their own, so that steps which a resumed run
repeats fall on the same place of a curve instead of being refused.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tutelage.training.trackers.base import TrackedRun, keep, kept, require

_NOTE = "wandb"
_STEP = "optimizer_step"


class WandbTracker:
    """Weights & Biases: offline in `.tutelage/wandb` unless WANDB_API_KEY or WANDB_MODE is set."""

    def __init__(self, run: TrackedRun) -> None:
        require("wandb", "Weights & Biases", "wandb")
        self._tracked = run
        self._run: Any = None

    def log_params(self, values: Mapping[str, Any]) -> None:
        """Keep `values` in the run's configuration."""
        self._opened().config.update(dict(values), allow_val_change=True)

    def log_metrics(self, values: Mapping[str, float], step: int) -> None:
        """Keep one point of each curve."""
        self._opened().log({_STEP: step, **values})

    def log_artifact(self, path: Path) -> None:
        """Copy a file to the run."""
        self._opened().save(str(path), base_path=str(path.parent), policy="now")

    def finish(self, status: str) -> None:
        """End the run: FINISHED, FAILED or KILLED."""
        self._opened().finish(exit_code=0 if status == "FINISHED" else 1)
        self._run = None

    def _opened(self) -> Any:
        if self._run is None:
            self._run = self._open()
        return self._run

    def _open(self) -> Any:
        import wandb

        tracked = self._tracked
        earlier = kept(tracked.run_dir, _NOTE)
        name = earlier or f"{tracked.name}-{os.urandom(4).hex()}"
        if not earlier:
            keep(tracked.run_dir, _NOTE, name)
        mode: Any = os.environ.get("WANDB_MODE") or _mode()
        run = wandb.init(
            project=tracked.project,
            id=name,
            name=tracked.name,
            group=tracked.group,
            dir=str(tracked.workspace.home),
            mode=mode,
            resume="allow" if mode == "online" else None,
            reinit="create_new",
            settings=wandb.Settings(
                silent=True, console="off", disable_git=True, disable_code=True,
                disable_job_creation=True, x_disable_meta=True, x_disable_machine_info=True,
                x_disable_stats=True,
            ),
        )  # fmt: skip
        run.define_metric(_STEP, hidden=True)
        run.define_metric("*", step_metric=_STEP)
        return run


def _mode() -> str:
    return "online" if os.environ.get("WANDB_API_KEY") else "offline"
