"""One trial of a search: a training run that can be told to stop early.

It knows no study: it reports each evaluation and obeys the answer, so it can run anywhere.
"""

from __future__ import annotations

import gc
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, Protocol

from tutelage.core.errors import EnvironmentProblem, TutelageError
from tutelage.core.events import Emit, Event, silent
from tutelage.training.job import TrainingJob, TrainResult
from tutelage.training.tracker import Tracker

Report = Callable[[int, float], bool]  # (tenth of the run, loss) -> whether to stop now
State = Literal["complete", "pruned", "failed"]
_OUT_OF_MEMORY = "out of memory"


@dataclass(frozen=True)
class Outcome:
    """How a trial ended. `loss` is the lowest validation loss, of the weights that are kept."""

    state: State
    loss: float | None = None
    note: str = ""
    steps: int = 0


class _Stopped(Exception):
    """The report's answer was to stop."""


class Train(Protocol):
    """Carries a job out, as session.train does; launch.run does it in several processes."""

    def __call__(self, job: TrainingJob, *, emit: Emit) -> TrainResult: ...


def run_trial(
    job: TrainingJob, report: Report, emit: Emit = silent, *, run: Train | None = None
) -> Outcome:
    """Train `job` by `run` (unset: here) and return its lowest validation loss.

    A trial that was killed goes on.

    A setting that can't be trained with (no memory, a loss that goes wild) is a failed trial, not
    an error. Raises EnvironmentProblem where no other setting would help.
    """
    from tutelage.training.session import train

    end = _End(job.tracker)

    def listen(event: Event) -> None:
        emit(event)
        loss = event.data.get("validation_loss") if event.kind == "metric" else None
        if not isinstance(loss, float) or not event.done or not event.total:
            return  # step 0 is the model as it came
        tenth = math.ceil(10 * event.done / event.total)
        if math.isfinite(loss) and report(tenth, loss):
            end.pruned = True
            raise _Stopped

    try:
        result = (run or train)(replace(job, tracker=end), emit=listen)
        return _outcome(result.history, result.stopped, result.steps)
    except _Stopped:
        return Outcome("pruned")
    except EnvironmentProblem:
        raise
    except TutelageError as error:
        return Outcome("failed", note=error.what)
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and _OUT_OF_MEMORY not in str(error).lower():
            raise
        return Outcome("failed", note="it does not fit into memory")
    finally:
        gc.collect()


def _outcome(history: list[dict[str, Any]], stopped: str, steps: int) -> Outcome:
    """Return the lowest loss after the first step: the untrained model is no result of a trial."""
    losses = [p["validation_loss"] for p in history if "validation_loss" in p and p["step"] > 0]
    sound = [loss for loss in losses if math.isfinite(loss)]
    if not sound:
        return Outcome("failed", note=stopped or "nothing was measured", steps=steps)
    return Outcome("complete", min(sound), stopped, steps)


class _End:
    """A tracker that hears of a pruned run as killed, not failed."""

    def __init__(self, inner: Tracker) -> None:
        self._inner = inner
        self.pruned = False

    def log_params(self, values: Mapping[str, Any]) -> None:
        self._inner.log_params(values)

    def log_metrics(self, values: Mapping[str, float], step: int) -> None:
        self._inner.log_metrics(values, step)

    def log_artifact(self, path: Path) -> None:
        self._inner.log_artifact(path)

    def finish(self, status: str) -> None:
        self._inner.finish("KILLED" if self.pruned else status)
