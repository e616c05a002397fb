"""Real Ray on this machine: a run that was cut off goes on in two of its processes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from tests.unit.training.test_several_processes import (
    RECIPE,
    assert_same_history,
    assert_same_weights,
    job,
    told,
)

from tutelage.core.errors import EnvironmentProblem
from tutelage.core.events import Event
from tutelage.inference.models import ModelSource
from tutelage.training import ray_launcher
from tutelage.training.launch import run
from tutelage.training.ray_launcher import Lines
from tutelage.training.session import train


def test_ray_goes_on_where_one_process_was_cut_off(
    tiny_source: ModelSource, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    alone = train(job(tiny_source, tmp_path / "alone", RECIPE))
    cut = job(tiny_source, tmp_path / "cut", RECIPE)

    def interrupt(event: Event) -> None:
        if event.kind == "progress" and event.done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(cut, emit=interrupt)
    events: list[Event] = []
    result = run(cut, processes=2, launcher="ray", emit=events.append)
    assert "Continuing from step 2" in [event.message for event in events]
    assert [e.done for e in events if e.kind == "progress"] == [3, 4, 5, 6]
    assert_same_history(told(alone)["history"], told(result)["history"])
    assert_same_weights(tmp_path / "alone", tmp_path / "cut")


def test_a_missing_ray_is_said(
    tiny_source: ModelSource, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray_launcher.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(EnvironmentProblem, match=r"pip install 'tutelage\[ray\]'"):
        run(replace(job(tiny_source, tmp_path, RECIPE)), processes=2, launcher="ray")


def test_only_whole_lines_are_read(tmp_path: Path) -> None:
    lines = Lines(tmp_path / "events")
    assert lines.new() == []
    (tmp_path / "events").write_text("one\ntwo\nthr")
    assert lines.new() == ["one", "two"]
    with (tmp_path / "events").open("a") as stream:
        stream.write("ee\n")
    assert lines.new() == ["three"]
