"""Processes started by torchrun: what they say, how they end, and that they go on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest
from tests.unit.training.test_several_processes import (
    PROMPT,
    RECIPE,
    assert_same_history,
    assert_same_weights,
    job,
    told,
)

from tutelage.core.errors import DataError, EnvironmentProblem, ModelError
from tutelage.core.events import Event
from tutelage.core.example import Example, Message
from tutelage.inference.models import ModelSource
from tutelage.training.job_files import (
    FOLDER,
    read_job,
    read_result,
    write_error,
    write_job,
    write_result,
)
from tutelage.training.launch import outcome, relaying, run
from tutelage.training.search_trial import run_trial
from tutelage.training.session import train
from tutelage.training.worker import Wire, work

GONE = 60  # seconds in which processes must be gone


class Heard:
    """A tracker that notes what it is told."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, Any]] = []

    def log_params(self, params: Mapping[str, Any]) -> None:
        self.calls.append(("params", params["method"]))

    def log_metrics(self, metrics: Mapping[str, float], step: int) -> None:
        self.calls.append(("metrics", step))

    def log_artifact(self, path: Path) -> None:
        self.calls.append(("artifact", path.name))

    def finish(self, status: str) -> None:
        self.calls.append(("finish", status))


def test_a_job_is_the_same_after_files(tiny_source: ModelSource, tmp_path: Path) -> None:
    made = job(tiny_source, tmp_path / "run", RECIPE)
    turns = (Message(role="user", content='a\u2028b\n"c"'), Message(role="assistant", content="d"))
    odd = Example(messages=turns, meta={"n": [1, None]})
    made = replace(made, train=[*made.train, odd], start=tmp_path)
    again = read_job(write_job(made))
    assert replace(again, tracker=made.tracker) == replace(made, start=tmp_path.resolve())
    assert [row.id for row in again.train] == [row.id for row in made.train]
    assert again.prompt == PROMPT


def test_a_folder_without_a_job_is_said(tmp_path: Path) -> None:
    with pytest.raises(EnvironmentProblem, match="tutelage train --prepare"):
        read_job(tmp_path)


def test_an_error_of_a_process_is_raised_as_it_was(
    tiny_source: ModelSource, tmp_path: Path
) -> None:
    empty = replace(job(tiny_source, tmp_path / "run", RECIPE), train=[])
    write_job(empty)
    with pytest.raises(DataError) as there:
        work(empty.run_dir, Wire(None))
    with pytest.raises(DataError) as here:
        outcome(empty.run_dir, 2)
    assert here.value.sentence() == there.value.sentence()
    write_job(empty)  # an earlier outcome is forgotten
    with pytest.raises(EnvironmentProblem, match=r"ended before its time \(exit status -9\)"):
        outcome(empty.run_dir, -9)


@pytest.mark.parametrize("name", ["result.json", "error.json"])
@pytest.mark.parametrize("text", ['{"steps": 3', "[]", "{}", '{"adapter_dir": 3}', "\x00"])
def test_a_damaged_outcome_is_said_with_what_to_do(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / FOLDER).mkdir()
    (tmp_path / FOLDER / name).write_text(text)
    with pytest.raises(EnvironmentProblem, match="the outcome of the training is damaged") as told:
        outcome(tmp_path, 0)
    assert f"{name}: " in told.value.sentence()
    assert "delete it and run the command again" in told.value.sentence()


def test_a_tracker_hears_of_every_ending() -> None:
    heard = Heard()
    with pytest.raises(EnvironmentProblem), relaying(heard):
        raise EnvironmentProblem("a process died")
    with pytest.raises(KeyboardInterrupt), relaying(heard):
        raise KeyboardInterrupt
    with pytest.raises(DataError), relaying(heard) as listen:
        listen('{"tracker": "finish", "with": ["FAILED"]}', lambda event: None)
        raise DataError("said by the process itself")
    assert heard.calls == [("finish", "FAILED"), ("finish", "KILLED"), ("finish", "FAILED")]


def test_what_other_machines_have_done_is_taken(tiny_source: ModelSource, tmp_path: Path) -> None:
    made = job(tiny_source, tmp_path / "run", RECIPE.model_copy(update={"epochs": 1}))
    write_job(made)
    assert read_result(made.run_dir) is None
    result = work(made.run_dir, Wire(None))
    taken = run(made, processes=2)
    assert replace(taken, coverage={}) == replace(result, coverage={})
    (made.run_dir / FOLDER / "result.json").unlink()
    write_result(made.run_dir, result)
    write_error(made.run_dir, DataError("of another try"))
    with pytest.raises(DataError):
        outcome(made.run_dir, 0)


def test_torchrun_is_interrupted_and_goes_on(tiny_source: ModelSource, tmp_path: Path) -> None:
    alone = train(job(tiny_source, tmp_path / "alone", RECIPE))
    heard = Heard()
    made = replace(job(tiny_source, tmp_path / "team", RECIPE), tracker=heard)
    others = set(psutil.Process().children(recursive=True))
    running: list[psutil.Process] = []

    def interrupt(event: Event) -> None:
        if event.kind == "progress" and event.done == 3:
            running.extend(set(psutil.Process().children(recursive=True)) - others)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(made, processes=2, emit=interrupt)
    assert len(running) >= 3  # torchrun and its two processes
    assert not psutil.wait_procs(running, GONE)[1]
    assert heard.calls[-1] == ("finish", "KILLED")
    events: list[Event] = []
    result = run(made, processes=2, emit=events.append)
    assert "Continuing from step 2" in [event.message for event in events]
    assert heard.calls[-1] == ("finish", "FINISHED")
    assert ("artifact", "history.json") in heard.calls
    assert_same_history(told(alone)["history"], told(result)["history"])
    assert_same_weights(tmp_path / "alone", tmp_path / "team")


def test_a_trial_of_a_search_is_stopped_in_all_processes(
    tiny_source: ModelSource, tmp_path: Path
) -> None:
    heard = Heard()
    made = replace(job(tiny_source, tmp_path / "run", RECIPE), tracker=heard)
    told: list[tuple[int, float]] = []
    others = set(psutil.Process().children(recursive=True))
    running: list[psutil.Process] = []

    def report(tenth: int, loss: float) -> bool:
        told.append((tenth, loss))
        running.extend(set(psutil.Process().children(recursive=True)) - others)
        return True

    assert run_trial(made, report, run=partial(run, processes=2)).state == "pruned"
    assert [tenth for tenth, _ in told] == [4]  # of ten: after step 2 of 6
    assert not psutil.wait_procs(running, GONE)[1]
    assert heard.calls[-1] == ("finish", "KILLED")


def test_too_little_memory_is_said(
    tiny_source: ModelSource, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*arguments: Any, **more: Any) -> None:
        raise RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB")

    monkeypatch.setattr("tutelage.training.session.train", full)
    run_dir = write_job(job(tiny_source, tmp_path / "run", RECIPE))
    with pytest.raises(ModelError):
        work(run_dir, Wire(None))
    with pytest.raises(ModelError, match=r"does not fit into memory\. Lower train.micro_batch"):
        outcome(run_dir, 1)


STARTER = """
import sys
from pathlib import Path
from tutelage.training.job_files import read_job
from tutelage.training.launch import run
job = read_job(Path(sys.argv[1]))
run(job, processes=2, emit=lambda event: print(event.kind, flush=True))
"""


def test_processes_end_with_the_one_that_started_them(
    tiny_source: ModelSource, tmp_path: Path
) -> None:
    endless = RECIPE.model_copy(update={"epochs": 100_000})
    run_dir = write_job(job(tiny_source, tmp_path / "run", endless))
    starter = subprocess.Popen(
        [sys.executable, "-c", STARTER, str(run_dir)], stdout=subprocess.PIPE, text=True
    )
    assert starter.stdout is not None
    with starter, starter.stdout:
        assert "progress\n" in starter.stdout
        running = psutil.Process(starter.pid).children(recursive=True)
        assert len(running) >= 3
        os.kill(starter.pid, signal.SIGKILL)
        assert not psutil.wait_procs(running, GONE)[1]
