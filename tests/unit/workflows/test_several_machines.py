"""`tutelage train` over several processes, and `--prepare` for machines that a person starts."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.fakes.tiny_llama import build_tiny_model
from tests.unit.training.team import in_team
from typer.testing import CliRunner

from tutelage.cli.main import app
from tutelage.training.worker import Wire, work

CONFIG = """\
name: valves
task: classification
model: model
prompt: Say whether the valve is open or shut.
output: {field: state, labels: [open, shut]}
train:
  tracker: none
  epochs: 1
  rank: 4
"""
NOUNS = ("inlet", "outlet", "relief", "check", "ball", "gate", "needle", "pinch", "plug")
PLACES = ("cellar", "quay", "roof", "engine room", "laundry", "tower", "yard")


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project with sixty labelled rows and a tiny model."""
    torch.set_num_threads(1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        build_tiny_model(tmp_path / "model")
    (tmp_path / "tutelage.yaml").write_text(CONFIG, encoding="utf-8")
    (tmp_path / "data").mkdir()
    rows = [
        {"input": f"{noun} in the {place}", "output": ("open", "shut")[(n + m) % 2]}
        for n, noun in enumerate(NOUNS)
        for m, place in enumerate(PLACES)
    ]
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (tmp_path / "data" / "rows.jsonl").write_text(lines, encoding="utf-8")
    return tmp_path


def call(project: Path, *arguments: str, extra: str = "") -> tuple[int, dict[str, Any], str]:
    """Run `tutelage train --json` with more lines in the settings."""
    (project / "tutelage.yaml").write_text(CONFIG + extra, encoding="utf-8")
    done = CliRunner().invoke(app, ["train", *arguments, "--project", str(project), "--json"])
    return done.exit_code, json.loads(done.stdout), done.stderr


def test_machines_train_what_was_prepared(project: Path, tmp_path: Path) -> None:
    code, said, _ = call(project, "--prepare")
    run_dir = Path(said["run_dir"])
    assert code == 0
    assert said["command"].endswith(f"-m tutelage.training.worker {run_dir}")
    (steps, others) = in_team(2, lambda rank: work(run_dir, Wire(None)).steps, tmp_path / "team")
    assert steps == others > 0
    # filed as it is, under any number of processes
    code, filed, _ = call(project, extra="  processes: 3\n")
    assert (code, filed["steps"]) == (0, steps)
    assert (Path(filed["path"]) / "adapter_model.safetensors").is_file()
    assert not run_dir.exists()
    assert call(project)[1]["adapter"] == filed["adapter"]


@pytest.mark.parametrize(
    ("extra", "said"),
    [
        ("  processes: 0\n", "train.processes"),
        ("  launcher: slurm\n", "train.launcher"),
        ("  strategy: fsdp2\n  mixout: 0.1\n  method: full\n", "can't train with Mixout"),
    ],
)
def test_wrong_settings_are_said_in_a_sentence(project: Path, extra: str, said: str) -> None:
    code, found, stderr = call(project, extra=extra)
    assert code == 2
    assert said in json.dumps(found) and "Traceback" not in stderr
