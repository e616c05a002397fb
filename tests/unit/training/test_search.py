"""The search over trials of known losses: what comes first, what a kill changes, what luck is."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import pytest

from tutelage.core.errors import ConfigError, Conflict, TutelageError
from tutelage.core.events import Emit, Event, silent
from tutelage.training.recipe import Recipe
from tutelage.training.search import Findings, SearchJob, search
from tutelage.training.search_gain import Pair, decide, gain_of
from tutelage.training.search_space import Dimension, beyond, space, sweep, usual
from tutelage.training.search_trial import Outcome, Report

pytest.importorskip("optuna")


class Killed(BaseException):
    """Stands in for the end of the process."""


@dataclass
class Bench:
    """Runs trials by a formula of (settings, seed) and remembers what it ran."""

    folder: Path
    loss: Callable[[dict[str, Any], int], float | None]
    ran: list[str] = field(default_factory=list)
    kill_at: int = -1  # the how many-th run that does not end
    tenths: tuple[int, ...] = (2, 4, 6, 8, 10)

    template: ClassVar[Path]  # an empty database: making one takes a second

    def __post_init__(self) -> None:
        self.folder.mkdir(exist_ok=True)
        if not (self.folder / "search.db").exists():
            shutil.copyfile(self.template, self.folder / "search.db")

    def job(self, names: tuple[str, ...] = ("learning_rate",), **fields: Any) -> SearchJob:
        dimensions = space(Recipe(learning_rate=1e-3, rank=16, epochs=3.0), names)
        given = {"trials": 8, "seeds": 0, **fields}
        return SearchJob(
            f"sqlite:///{self.folder / 'search.db'}", "search-1", self.folder / "runs",
            dimensions, self.make, execute=self.run, **given,
        )  # fmt: skip

    def make(self, changed: dict[str, Any], seed: int, run_dir: Path) -> Any:
        if changed.get("rank") == 4:
            raise ConfigError("rank 4 and batch 8 exclude each other")
        return changed, seed, run_dir

    def run(self, job: Any, report: Report, emit: Emit = silent) -> Outcome:
        changed, seed, run_dir = job
        self.ran.append(run_dir.name)
        run_dir.mkdir(parents=True, exist_ok=True)
        loss = self.loss(changed, seed)
        for tenth in self.tenths:
            if len(self.ran) == self.kill_at and tenth == 4:
                self.kill_at = -1
                raise Killed
            if loss is not None and report(tenth, loss + 1 / tenth):
                return Outcome("pruned")
        if loss is None:
            return Outcome("failed", note="diverged")
        return Outcome("complete", loss, "all steps done", 10)


@pytest.fixture(autouse=True, scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Make the empty database that every search here begins with."""
    import optuna

    Bench.template = tmp_path_factory.mktemp("template") / "search.db"
    storage = optuna.storages.RDBStorage(f"sqlite:///{Bench.template}")
    storage.engine.dispose()


def valley(best: float) -> Callable[[dict[str, Any], int], float]:
    """Return a loss that is lowest at the rate `best`, and a little lower at smaller ranks."""

    def loss(changed: dict[str, Any], seed: int) -> float:
        rate, rank = changed.get("learning_rate", 1e-3), changed.get("rank", 16)
        noise = 0.003 * ((seed * 7919) % 5 - 2)
        return 0.5 + abs(math.log(rate / best)) * 0.1 + 0.001 * rank + noise

    return loss


def settings(found: Findings) -> list[tuple[int, dict[str, Any], str, float | None]]:
    return [(t.number, t.settings, t.state, t.loss) for t in found.trials]


def test_the_plan_is_first_and_its_neighbours_follow(tmp_path: Path) -> None:
    found = search(Bench(tmp_path, valley(1e-3)).job())
    assert [t.settings["learning_rate"] for t in found.trials] == [
        1e-3,
        1.7e-3,
        5.8e-4,
        3e-3,
        3.3e-4,
    ]
    assert not found.take
    assert found.reason == "none of 5 trials did better than the plan: it stays"


def test_the_sweep_goes_on_where_the_best_is_at_its_end(tmp_path: Path) -> None:
    found = search(Bench(tmp_path, valley(5e-3)).job())
    rates = [t.settings["learning_rate"] for t in found.trials]
    assert rates[5:] == [5.2e-3, 9e-3]
    assert found.best.settings == {"learning_rate": 5.2e-3}


def test_the_rest_is_searched_with_what_is_left(tmp_path: Path) -> None:
    found = search(Bench(tmp_path, valley(1e-3)).job(("rank", "learning_rate"), trials=9))
    assert [t.phase for t in found.trials] == ["sweep"] * 5 + ["rest"] * 4
    assert {t.settings["rank"] for t in found.trials[:5]} == {16}
    assert len({t.settings["learning_rate"] for t in found.trials}) == 9


LONG = {"trials": 7, "seeds": 2}
BOTH = ("learning_rate", "rank")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Findings:
    """A search that nothing cut off."""
    folder = tmp_path_factory.mktemp("whole")
    return search(Bench(folder, valley(2e-3)).job(BOTH, **LONG))


@pytest.mark.parametrize("kill_at", [1, 3, 7, 9])
def test_a_killed_search_ends_as_one_that_was_not(
    tmp_path: Path, whole: Findings, kill_at: int
) -> None:
    cut = Bench(tmp_path, valley(2e-3), kill_at=kill_at)
    with pytest.raises(Killed):
        search(cut.job(BOTH, **LONG))
    found = search(cut.job(BOTH, **LONG))
    assert settings(found) == settings(whole)
    assert (found.best.number, found.pairs) == (whole.best.number, whole.pairs)
    again = [name for name in cut.ran if cut.ran.count(name) > 1]
    assert again == [cut.ran[kill_at - 1]] * 2  # the one that was cut off went on in its folder
    assert not [path for path in (cut.folder / "runs").iterdir() if path.is_dir()]


def test_a_finished_search_runs_nothing_again(tmp_path: Path) -> None:
    bench = Bench(tmp_path, valley(2e-3))
    first = search(bench.job(seeds=2))
    count = len(bench.ran)
    assert settings(search(bench.job(seeds=2))) == settings(first)
    assert len(bench.ran) == count
    more = search(bench.job(("learning_rate",), trials=8, seeds=3))
    assert len(bench.ran) == count + 2  # one more seed, for plan and best
    assert len(more.pairs) == 3


def test_a_hopeless_trial_is_stopped_early(tmp_path: Path) -> None:
    def loss(changed: dict[str, Any], seed: int) -> float:
        return 5.0 if changed.get("learning_rate", 1e-3) > 2e-3 else 0.5

    bench = Bench(tmp_path, loss)
    found = search(bench.job())
    states = {t.settings["learning_rate"]: t.state for t in found.trials}
    assert states[3e-3] == "pruned"
    assert states[1e-3] == states[1.7e-3] == states[5.8e-4] == "complete"
    pruned = next(t for t in found.trials if t.state == "pruned")
    assert [tenth for tenth, _ in pruned.curve] == [2, 4]  # never in the first 40 percent


def test_settings_that_cannot_be_trained_are_a_failed_trial(tmp_path: Path) -> None:
    def loss(changed: dict[str, Any], seed: int) -> float | None:
        return None if changed.get("learning_rate") == 1.7e-3 else 0.5

    found = search(Bench(tmp_path, loss).job())
    failed = next(t for t in found.trials if t.state == "failed")
    assert (failed.settings, failed.note) == ({"learning_rate": 1.7e-3}, "diverged")
    ranks = search(Bench(tmp_path / "runs", valley(1e-3)).job(("rank",), trials=20))
    notes = {t.settings["rank"]: t.note for t in ranks.trials}
    assert notes[4] == "rank 4 and batch 8 exclude each other"
    assert set(notes) == {4, 8, 16, 32}  # the space is used up before the trials are
    assert len(ranks.trials) == 4


def test_a_plan_that_cannot_be_trained_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(TutelageError, match="the plan itself can't be trained: diverged"):
        search(Bench(tmp_path, lambda changed, seed: None).job())


def test_no_trial_begins_when_the_time_is_up(tmp_path: Path) -> None:
    found = search(Bench(tmp_path, valley(2e-3)).job(minutes=0.0))
    assert len(found.trials) == 1  # the plan's own loss is always known


def test_only_one_process_runs_a_search(tmp_path: Path) -> None:
    bench = Bench(tmp_path, valley(1e-3))

    def second(changed: dict[str, Any], seed: int) -> float:
        with pytest.raises(Conflict, match="another process runs this search"):
            search(bench.job())
        return 0.5

    search(Bench(tmp_path, second).job(trials=1))


def test_better_beyond_the_noise_is_taken(tmp_path: Path) -> None:
    found = search(Bench(tmp_path, valley(3e-3)).job(seeds=3))
    assert found.take
    assert found.gain is not None and found.gain.seeds == 3
    assert {pair.seed for pair in found.pairs} == {
        8,
        9,
        10,
    }  # not 7, which the winner was chosen on
    assert "beyond the noise" in found.reason
    assert "outermost" not in found.reason


def test_a_rate_at_the_end_of_those_tried_is_said(tmp_path: Path) -> None:
    found = search(Bench(tmp_path, valley(1.0)).job(seeds=2))
    assert found.best.settings == {"learning_rate": 9e-3}
    assert found.reason.endswith("the outermost that was tried: write it and search again")


def test_luck_keeps_the_plan(tmp_path: Path) -> None:
    def loss(changed: dict[str, Any], seed: int) -> float:
        rate = changed.get("learning_rate", 1e-3)
        return 0.5 + 0.02 * math.sin(1e5 * rate * seed)

    found = search(Bench(tmp_path, loss).job(seeds=3))
    assert not found.take
    assert "within the noise" in found.reason and found.reason.endswith("the plan stays")


def test_the_bar_counts_trials_and_hears_of_each(tmp_path: Path) -> None:
    events: list[Event] = []
    search(Bench(tmp_path, valley(1e-3)).job(trials=2), events.append)
    assert [event.message for event in events] == [
        "trial 1: learning_rate 0.001: validation loss 0.5190, the lowest so far",
        "trial 2: learning_rate 0.0017: validation loss 0.5721",
    ]


def test_a_gain_is_judged_by_its_pairs() -> None:
    gain = gain_of([Pair(1, 1.0, 0.9), Pair(2, 1.1, 1.02), Pair(3, 0.9, 0.81)])
    assert gain is not None
    assert gain.mean == pytest.approx(0.09)
    # by hand: sd 0.01, t(0.95, 2) = 2.919986, margin = 2.919986 * 0.01 / sqrt(3)
    assert gain.low == pytest.approx(0.09 - 0.0168585, abs=1e-6)
    assert gain.noise == pytest.approx(0.1)
    assert decide(gain)[0]
    assert gain_of([Pair(1, 1.0, 0.9)]) is None
    assert decide(None)[1].startswith("the best settings were not repeated")


def test_a_real_gain_too_small_to_matter_keeps_the_plan() -> None:
    gain = gain_of([Pair(seed, 1.0 + seed, 0.998 + seed) for seed in range(4)])
    assert gain is not None and gain.low > 0
    take, reason = decide(gain)
    assert not take
    assert reason.startswith("the gain is real but 0.1% of the loss, less than is worth a change")


def test_what_can_be_searched_is_said() -> None:
    with pytest.raises(ConfigError) as caught:
        space(Recipe(), ["lerning_rate"])
    assert caught.value.sentence().startswith(
        "--over: 'lerning_rate' can't be searched. Did you mean 'learning_rate'? Known: "
    )
    assert [d.name for d in space(Recipe(), ["rank", "learning_rate"])] == ["learning_rate", "rank"]
    assert usual(Recipe(tune="full"))[1] == "layer_decay"
    assert "rank" in usual(Recipe()) and "rank" not in usual(Recipe(), going_on=True)


def test_every_setting_is_a_field_of_train_and_around_the_plan() -> None:
    from tutelage.core.config import Train
    from tutelage.training.search_space import SETTINGS

    for dimension in space(Recipe(), SETTINGS):
        assert dimension.name in Train.model_fields
        values = dimension.choices or (dimension.low, dimension.planned, dimension.high)
        assert dimension.planned in values
        for value in values:
            Train.model_validate({dimension.name: value})


def test_a_sweep_is_a_log_grid() -> None:
    rate = Dimension("learning_rate", 3e-4, low=3e-4 / 9, high=3e-4 * 9)
    assert sweep(rate, 8) == [3e-4, 5.2e-4, 1.7e-4, 9e-4, 1e-4]
    assert sweep(rate, 2) == [3e-4, 5.2e-4]
    assert beyond(rate, {3e-4: 1.0, 5.2e-4: 0.9}) == 9e-4
    assert beyond(rate, {3e-4: 0.8, 5.2e-4: 0.9, 1.7e-4: 0.9}) is None
    assert beyond(rate, {2.7e-3: 0.8, 5.2e-4: 0.9}) is None  # the end of the space
