"""Where a search is kept: two Optuna studies in one SQLite file, held by one process at a time.

It knows how studies are opened and when a trial may be stopped early, not what a trial is.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import optuna

_WHOLE_TRIALS = 3  # trials that run to their end before any is stopped early
_WHOLE_TENTHS = 4  # tenths of a run in which it is never stopped


@contextlib.contextmanager
def studies(url: str, key: str) -> Iterator[tuple[optuna.Study, optuna.Study]]:
    """Open the studies of trials and of repeats; they are closed at the end.

    A trial is stopped early when its lowest loss so far is above the median of the earlier ones
    at the same tenth of the run.
    """
    import optuna
    import sqlalchemy
    from optuna.pruners import MedianPruner, NopPruner

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    storage = optuna.storages.RDBStorage(url)
    storage.engine.dispose()
    sqlalchemy.event.listen(storage.engine, "connect", _write_ahead)
    median = MedianPruner(_WHOLE_TRIALS, _WHOLE_TENTHS, n_min_trials=2)
    try:
        yield (
            optuna.create_study(
                storage=storage, study_name=key, pruner=median, load_if_exists=True
            ),
            optuna.create_study(
                storage=storage, study_name=f"{key}:repeats", pruner=NopPruner(),
                load_if_exists=True,
            ),
        )  # fmt: skip
    finally:
        storage.remove_session()
        storage.engine.dispose()


def _write_ahead(connection: Any, record: Any) -> None:
    """Have SQLite wait for the disk at checkpoints only: a killed process still loses nothing."""
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=NORMAL")
