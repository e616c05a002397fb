"""Several jobs in a row, each from the weights that the one before it gave.

For scripts that hold their rows in memory; a project does the same with train.before, which keeps
rows, plans and lineage besides (workflows/training/stages.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from tutelage.core.errors import DataError
from tutelage.core.events import Emit, silent
from tutelage.training.job import TrainingJob, TrainResult
from tutelage.training.session import train


def train_chain(jobs: Sequence[TrainingJob], *, emit: Emit = silent) -> list[TrainResult]:
    """Carry out `jobs` in order; a job's own `start` counts for the first one alone.

    Each needs a run folder of its own, and all must train the same weights. Started again, a
    finished job is read back from its last checkpoint and the one that was cut off goes on.
    Raises DataError if there is no job.
    """
    if not jobs:
        raise DataError("there is no job to train", fix="Give train_chain one TrainingJob or more")
    results: list[TrainResult] = []
    for job in jobs:
        if results:
            job = replace(job, start=results[-1].adapter_dir)
        results.append(train(job, emit=emit))
    return results
