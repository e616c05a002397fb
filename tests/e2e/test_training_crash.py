"""kill -9 in the middle of `tutelage run`: run again, it goes on and ends in the same weights."""

from __future__ import annotations

import os
import random
import signal
import string
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from tests.fakes.tiny_llama import build_tiny_model

CONFIG = """\
name: colours
task: classification
model: model
prompt: Name the colour family of the thing. It is warm or cold, nothing else.
output: {field: family, labels: [warm, cold]}
data: {sources: [data/*], columns: {input: text, output: label}}
train: {tracker: none, epochs: 6, rank: 4, patience: 99, checkpoint_every: 3, force: true}
"""
ENDED = (0, 1, 3)  # a random tiny model may pass, fail or not show enough


def make_project(root: Path) -> Path:
    (root / "data").mkdir(parents=True)
    build_tiny_model(root / "model")
    (root / "tutelage.yaml").write_text(CONFIG)
    rng = random.Random(5)
    words = ["".join(rng.choices(string.ascii_lowercase, k=7)) for _ in range(300)]
    rows = [
        f"{' '.join(rng.sample(words, 4))},{'warm' if number % 2 else 'cold'}"
        for number in range(48)
    ]
    (root / "data" / "rows.csv").write_text("text,label\n" + "\n".join(rows) + "\n")
    return root


def command(root: Path) -> Sequence[str]:
    code = "from tutelage.cli.main import main; main()"
    return [sys.executable, "-W", "ignore", "-c", code, "run", "--project", str(root)]


ENV = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}


def adapters(root: Path) -> list[bytes]:
    found = (root / ".tutelage" / "artifacts" / "adapters").glob("*/adapter_model.safetensors")
    return [path.read_bytes() for path in found]


def test_a_run_killed_in_training_ends_in_the_same_weights(tmp_path: Path) -> None:
    whole = make_project(tmp_path / "whole")
    done = subprocess.run(command(whole), capture_output=True, text=True, env=ENV)
    assert done.returncode in ENDED, done.stderr

    killed = make_project(tmp_path / "killed")
    process = subprocess.Popen(command(killed), stderr=subprocess.PIPE, env=ENV)
    runs = killed / ".tutelage" / "runs"
    while not list(runs.glob("train-*/checkpoints/step-*/manifest.json")):
        assert process.poll() is None, process.stderr and process.stderr.read()
        time.sleep(0.01)  # looks again; nothing depends on how long it takes
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert adapters(killed) == []

    again = subprocess.run(command(killed), capture_output=True, text=True, env=ENV)
    assert again.returncode in ENDED, again.stderr
    assert "Continuing from step" in again.stderr
    assert adapters(killed) == adapters(whole)
    assert len(adapters(killed)) == 1
