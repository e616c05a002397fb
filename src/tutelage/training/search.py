"""Hyperparameter search on the validation loss: the learning rate first, then the rest with TPE.

Every trial is a row of an Optuna study in SQLite and a training run of its own folder. A search
that was killed goes on: finished trials are kept, the one that was running continues from its
checkpoint, and each trial draws from a seed of its own, so the trials are those of a search that
was not killed. The test split is unknown here.
"""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tutelage.core.errors import ConfigError, Conflict, TutelageError
from tutelage.core.events import Emit, Event, silent
from tutelage.core.lock import sole
from tutelage.training.job import TrainingJob
from tutelage.training.search_gain import Gain, Pair, decide, gain_of
from tutelage.training.search_space import RATE, Dimension, beyond, sweep, tidy
from tutelage.training.search_store import studies
from tutelage.training.search_trial import Outcome, Report, run_trial

if TYPE_CHECKING:
    import optuna

STAGE = "search"
SWEEP, REST, SEEDS = "sweep", "rest", "seeds"
_REPEATS = 50  # draws in a row of settings that were tried already: the space is used up
Settings = dict[str, Any]
# from the settings that differ from the plan, the seed and the run's folder to the run
Make = Callable[[Settings, int, Path], TrainingJob]
Execute = Callable[[TrainingJob, Report, Emit], Outcome]


@dataclass(frozen=True)
class SearchJob:
    """What to search. `key` names it in the database at `url`; trials run in `folder`.

    `trials` counts those of the search itself; `minutes` bounds all of it, the runs with `seeds`
    other seeds included. `execute` runs one trial, here or elsewhere.
    """

    url: str
    key: str
    folder: Path
    space: tuple[Dimension, ...]
    make: Make
    trials: int
    seeds: int
    minutes: float | None = None
    seed: int = 7
    execute: Execute = run_trial

    @property
    def planned(self) -> Settings:
        """The plan's value of everything that is searched."""
        return {dimension.name: dimension.planned for dimension in self.space}


@dataclass(frozen=True)
class Trial:
    """One finished trial. `curve` holds (tenth of the run, validation loss)."""

    number: int
    phase: str
    settings: Settings
    state: str
    loss: float | None
    seconds: float
    note: str
    curve: list[tuple[int, float]]


@dataclass(frozen=True)
class Findings:
    """What a search gives: all trials, the best, what it gains, and whether to take it."""

    trials: list[Trial]
    planned: Trial
    best: Trial
    pairs: list[Pair]
    gain: Gain | None
    take: bool
    reason: str


def search(job: SearchJob, emit: Emit = silent) -> Findings:
    """Run the search to its end, from where an earlier process left it.

    Raises Conflict if another process runs it, TutelageError if the plan itself can't be trained.
    """
    taken = Conflict(
        "another process runs this search",
        where=str(job.folder),
        fix="Wait for it, or stop it, and run the same command again",
    )
    with sole(job.folder / "lock", taken), studies(job.url, job.key) as (trials, repeats):
        return _Search(job, trials, repeats, emit).run()


class _Search:
    """The two studies of a search: its trials, and the repeats with other seeds."""

    def __init__(
        self, job: SearchJob, trials: optuna.Study, repeats: optuna.Study, emit: Emit
    ) -> None:
        self._job, self._emit = job, emit
        self._trials, self._repeats = trials, repeats

    def run(self) -> Findings:
        """Sweep, search on, repeat, judge."""
        while (trial := self._next()) is not None:
            self._carry_out(trial)
        rows = self._rows()
        planned, best = self._planned(rows), min(_complete(rows), key=_by_loss)
        if best.settings == planned.settings:
            reason = f"none of {len(rows)} trials did better than the plan: it stays"
            return Findings(rows, planned, planned, [], None, False, reason)
        pairs = self._pairs(planned.settings, best.settings)
        gain = gain_of(pairs)
        take, reason = decide(gain)
        if take and self._at_an_end(rows, best):
            reason += "; the rate is the outermost that was tried: write it and search again"
        return Findings(rows, planned, best, pairs, gain, take, reason)

    def _at_an_end(self, rows: list[Trial], best: Trial) -> bool:
        """Return whether the best learning rate has no measured rate beyond it."""
        if RATE not in best.settings:
            return False
        rates = [row.settings[RATE] for row in rows if row.state != "failed"]
        return best.settings[RATE] in (min(rates), max(rates))

    def _next(self) -> optuna.Trial | None:
        """Return the trial to run now: one that was cut off, the next of the sweep, or a draw."""
        from optuna.trial import Trial as Drawn
        from optuna.trial import TrialState

        study = self._trials
        cut_off = study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
        if cut_off:
            study.sampler = self._sampler(cut_off[0].number)
            return Drawn(study, cut_off[0]._trial_id)
        rows = self._rows()
        if len(rows) >= self._job.trials or (rows and self._late()):
            return None
        if not study.get_trials(deepcopy=False, states=(TrialState.WAITING,)):
            point = self._sweep_point(rows)
            if point is not None:
                study.enqueue_trial(point, user_attrs={"phase": SWEEP})
            elif self._used_up(rows):
                return None
        study.sampler = self._sampler(len(study.get_trials(deepcopy=False)))
        return study.ask()

    def _sweep_point(self, rows: list[Trial]) -> Settings | None:
        """Return the next settings of the first phase: the plan's, but for the learning rate."""
        job = self._job
        rate = next((d for d in job.space if d.name == RATE), None)
        if rate is None:
            return None if rows else job.planned
        swept = {row.settings[RATE]: row for row in rows if row.phase == SWEEP}
        for value in sweep(rate, job.trials):
            if value not in swept:
                return {**job.planned, RATE: value}
        losses = {value: math.inf if row.loss is None else row.loss for value, row in swept.items()}
        further = beyond(rate, losses)
        return None if further in (None, *swept) else {**job.planned, RATE: further}

    def _used_up(self, rows: list[Trial]) -> bool:
        """Return whether there is nothing left to draw."""
        space = self._job.space
        if any(d.name == RATE for d in space):
            return len(space) == 1
        repeats = self._trials.get_trials(deepcopy=False)[-_REPEATS:]
        drawn = all("same_as" in row.user_attrs for row in repeats) and len(repeats) == _REPEATS
        return drawn or len(rows) >= math.prod(len(d.choices) for d in space)

    def _carry_out(self, trial: optuna.Trial) -> None:
        """Run one trial of the search and tell the study."""
        settings = {d.name: _suggest(trial, d) for d in self._job.space}
        rows = self._rows()
        earlier = next((row for row in rows if row.settings == settings), None)
        if earlier is not None and earlier.number != trial.number:
            trial.set_user_attr("same_as", earlier.number)
            self._tell(self._trials, trial, Outcome("complete", earlier.loss))
            return
        outcome = self._run(self._trials, trial, settings, self._job.seed, len(rows))
        if outcome.state == "failed" and settings == self._job.planned:
            raise TutelageError(
                f"the plan itself can't be trained: {outcome.note}",
                fix="Run `tutelage train --plan`, and mend that before a search",
            )
        self._tell(self._trials, trial, outcome)
        self._say(settings, outcome, len(rows), _complete(rows))

    def _pairs(self, planned: Settings, best: Settings) -> list[Pair]:
        """Train both settings with fresh seeds; a pair of which one failed is left out."""
        pairs: list[Pair] = []
        for index in range(self._job.seeds):
            if len(pairs) >= 2 and self._late(reserve=False):
                break
            seed = self._job.seed + 1 + index
            first = self._repeat(planned, seed, 2 * index)
            second = self._repeat(best, seed, 2 * index + 1)
            if first is not None and second is not None:
                pairs.append(Pair(seed, first, second))
        return pairs

    def _repeat(self, settings: Settings, seed: int, index: int) -> float | None:
        """Return the loss of `settings` with another seed; a finished repeat is not run again."""
        from optuna.trial import Trial as Drawn
        from optuna.trial import TrialState

        study = self._repeats
        wanted = {"settings": settings, "seed": seed, "phase": SEEDS}
        for frozen in study.get_trials(deepcopy=False):
            if any(frozen.user_attrs.get(name) != value for name, value in wanted.items()):
                continue
            if frozen.state is TrialState.COMPLETE:
                return float(frozen.value)
            if frozen.state is TrialState.FAIL:
                return None
            if frozen.state is TrialState.RUNNING:
                trial = Drawn(study, frozen._trial_id)
                break
        else:
            study.enqueue_trial({}, user_attrs=wanted, skip_if_exists=False)
            trial = study.ask()
        outcome = self._run(study, trial, settings, seed, index)
        self._tell(study, trial, outcome)
        return outcome.loss

    def _run(
        self, study: optuna.Study, trial: optuna.Trial, settings: Settings, seed: int, index: int
    ) -> Outcome:
        """Train with `settings`, reporting to the trial; its time counts over all processes."""
        job = self._job
        name = "trial" if study is self._trials else "repeat"
        changed = {k: v for k, v in settings.items() if v != job.planned[k]}
        frozen = study.get_trials(deepcopy=False)[trial.number]
        known = set(frozen.intermediate_values)
        before, began = frozen.user_attrs.get("seconds", 0.0), time.monotonic()

        def report(tenth: int, loss: float) -> bool:
            trial.set_user_attr("seconds", before + time.monotonic() - began)
            if tenth not in known:
                known.add(tenth)
                trial.report(loss, tenth)
            return bool(trial.should_prune())

        total = job.trials if name == "trial" else 2 * job.seeds
        listen = _progress(self._emit, f"{name} {index + 1} of {total}", index, total)
        try:
            run = job.make(changed, seed, job.folder / f"{name}-{trial.number}")
        except ConfigError as error:  # settings that exclude each other
            return Outcome("failed", note=error.what)
        outcome = job.execute(run, report, listen)
        trial.set_user_attr("seconds", before + time.monotonic() - began)
        return outcome

    def _tell(self, study: optuna.Study, trial: optuna.Trial, outcome: Outcome) -> None:
        """Keep how a trial ended, then drop its checkpoints."""
        from optuna.trial import TrialState

        trial.set_user_attr("note", outcome.note)
        if outcome.loss is not None:
            study.tell(trial, outcome.loss)
        else:
            pruned = outcome.state == "pruned"
            study.tell(trial, state=TrialState.PRUNED if pruned else TrialState.FAIL)
        name = "trial" if study is self._trials else "repeat"
        shutil.rmtree(self._job.folder / f"{name}-{trial.number}", ignore_errors=True)

    def _rows(self) -> list[Trial]:
        """Return the finished trials in order, draws that repeat an earlier one left out."""
        found = [row for row in self._trials.get_trials(deepcopy=False) if row.state.is_finished()]
        return [
            _row(row, self._job.space) for row in found
            if "same_as" not in row.user_attrs and len(row.params) == len(self._job.space)
        ]  # fmt: skip

    def _planned(self, rows: list[Trial]) -> Trial:
        return next(row for row in rows if row.settings == self._job.planned)

    def _late(self, *, reserve: bool = True) -> bool:
        """Return whether the time is up; with `reserve` what the repeats take is set aside."""
        if self._job.minutes is None:
            return False
        every = [*self._trials.get_trials(deepcopy=False), *self._repeats.get_trials()]
        spent: float = sum(row.user_attrs.get("seconds", 0.0) for row in every)
        whole = [row.seconds for row in _complete(self._rows())]
        later = 2 * self._job.seeds * sum(whole) / len(whole) if whole and reserve else 0.0
        return spent + later >= 60 * self._job.minutes

    def _sampler(self, number: int) -> optuna.samplers.BaseSampler:
        """Return the sampler of one trial: its draw depends on its number and the trials before."""
        from optuna.samplers import TPESampler

        return TPESampler(seed=1000 * self._job.seed + number, n_startup_trials=5)

    def _say(self, settings: Settings, outcome: Outcome, index: int, earlier: list[Trial]) -> None:
        words = ", ".join(f"{name} {value:g}" for name, value in settings.items())
        ending = {"pruned": "stopped early", "failed": f"failed: {outcome.note}"}.get(outcome.state)
        if outcome.loss is not None:
            best = all(row.loss is None or outcome.loss < row.loss for row in earlier)
            ending = f"validation loss {outcome.loss:.4f}{', the lowest so far' if best else ''}"
        self._emit(Event(STAGE, "note", f"trial {index + 1}: {words}: {ending}"))


def _suggest(trial: optuna.Trial, dimension: Dimension) -> Any:
    """Return the trial's value of a dimension; the same one however often it is asked."""
    if dimension.choices:
        return trial.suggest_categorical(dimension.name, dimension.choices)
    value = trial.suggest_float(dimension.name, dimension.low, dimension.high, log=True)
    return _value(value, dimension)


def _value(value: Any, dimension: Dimension) -> Any:
    return value if dimension.choices or value == dimension.planned else tidy(value)


def _row(frozen: optuna.trial.FrozenTrial, space: tuple[Dimension, ...]) -> Trial:
    state = {"COMPLETE": "complete", "PRUNED": "pruned"}.get(frozen.state.name, "failed")
    attrs: Mapping[str, Any] = frozen.user_attrs
    return Trial(
        number=frozen.number,
        phase=attrs.get("phase", REST),
        settings={d.name: _value(frozen.params[d.name], d) for d in space},
        state=state,
        loss=frozen.value if state == "complete" else None,
        seconds=round(attrs.get("seconds", 0.0), 2),
        note=attrs.get("note", ""),
        curve=sorted(frozen.intermediate_values.items()),
    )


def _complete(rows: list[Trial]) -> list[Trial]:
    return [row for row in rows if row.loss is not None]


def _by_loss(row: Trial) -> tuple[float, int]:
    return (math.inf if row.loss is None else row.loss, row.number)


def _progress(emit: Emit, label: str, index: int, total: int) -> Emit:
    """Return a listener that shows a run as a part of the search."""

    def listen(event: Event) -> None:
        if event.kind == "progress" and event.total:
            share = (event.done or 0) / event.total
            data = {k: v for k, v in event.data.items() if k != "eta_s"}
            emit(Event(STAGE, "progress", label, done=index + share, total=total, data=data))
        elif event.kind == "warning" and index == 0:
            emit(Event(STAGE, "warning", event.message, data=event.data))

    return listen
