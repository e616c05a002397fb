"""Where a run's numbers go besides the history file: the trackers that `train.tracker` names.

Each is a plug-in of `tutelage.trackers` (trackers/). This module only makes them by name.
"""

from __future__ import annotations

from collections.abc import Sequence

from tutelage.core import plugins
from tutelage.core.errors import ConfigError
from tutelage.training.trackers.base import (
    Guard,
    NullTracker,
    Several,
    TrackedRun,
    Tracker,
    hushed,
)

__all__ = ["NullTracker", "TrackedRun", "Tracker", "hushed", "make_tracker"]

NONE = "none"
_TITLES = {
    "mlflow": "MLflow", "wandb": "Weights & Biases", "tensorboard": "TensorBoard",
    "trackio": "Trackio",
}  # fmt: skip


def make_tracker(names: str | Sequence[str], run: TrackedRun) -> Tracker:
    """Return the tracker, or trackers, called `names`; "none" keeps nothing.

    Nothing is opened or written before the first value. Raises ConfigError for an unknown name,
    EnvironmentProblem if a named tracker's package is not installed.
    """
    wanted = list(dict.fromkeys([names] if isinstance(names, str) else names))
    if NONE in wanted and len(wanted) > 1:
        raise ConfigError(
            "train.tracker names none beside others",
            where="tutelage.yaml",
            fix="Leave none out, or name none alone",
        )
    made = [_guarded(name, run) for name in wanted if name != NONE]
    if not made:
        return NullTracker()
    return made[0] if len(made) == 1 else Several(made)


def _guarded(name: str, run: TrackedRun) -> Tracker:
    inner: Tracker = plugins.load("trackers", name)(run)
    return Guard(_TITLES.get(name, name), inner, run.warn)
