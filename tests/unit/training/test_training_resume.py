"""A run killed at any moment ends, when started again, in the same bits as one that was not."""

from __future__ import annotations

import contextlib
import importlib.util
import multiprocessing
import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tutelage.inference.models import ModelSource
from tutelage.training.checkpoint import (
    Checkpoint,
    damage,
    load_newest,
    save_checkpoint,
)
from tutelage.training.recipe import Recipe

SCRIPT = Path(__file__).with_name("killed_run.py")


def start(model: Path, run_dir: Path, at: str = "") -> tuple[int, str]:
    """Run the script in a forked process, which has torch loaded; return its exit and output."""
    run_dir.mkdir(parents=True, exist_ok=True)
    output = run_dir / "output.txt"
    output.unlink(missing_ok=True)
    process = multiprocessing.get_context("fork").Process(
        target=_child, args=(model, run_dir, at, output)
    )
    process.start()
    process.join()
    assert process.exitcode is not None
    return process.exitcode, output.read_text() if output.exists() else ""


def _child(model: Path, run_dir: Path, at: str, output: Path) -> None:
    spec = importlib.util.spec_from_file_location("killed_run", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    with output.open("w") as stream, contextlib.redirect_stdout(stream):
        module.main(str(model), str(run_dir), at)


@pytest.fixture(scope="module")
def undisturbed(tiny_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The adapter of a run that nobody stopped, in an interpreter of its own."""
    run_dir = tmp_path_factory.mktemp("whole")
    done = subprocess.run(
        [sys.executable, "-W", "ignore", str(SCRIPT), str(tiny_dir), str(run_dir)],
        capture_output=True,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "all 12 steps done True\n"
    return (run_dir / "adapter" / "adapter_model.safetensors").read_bytes()


@pytest.mark.parametrize(
    ("kills", "resumed_from"),
    [
        (["step:1"], None),  # before the first checkpoint
        (["step:5"], 4),
        (["optimizer:6"], 4),  # a file of the checkpoint is there, its manifest is not
        (["manifest:6"], 4),  # whole, but not yet renamed
        (["kept:12"], 12),  # after the last step, before the adapter is written
        (["weights:2", "step:7", "best:10"], 8),
    ],
)
def test_a_killed_run_ends_in_the_same_bits(
    tiny_dir: Path,
    tmp_path: Path,
    undisturbed: bytes,
    kills: list[str],
    resumed_from: int | None,
) -> None:
    for at in kills:
        assert start(tiny_dir, tmp_path, at)[0] == -signal.SIGKILL
    code, output = start(tiny_dir, tmp_path)
    assert code == 0
    expected = f"Continuing from step {resumed_from}\n" if resumed_from else ""
    assert output.startswith(expected + "all 12 steps done")
    assert (tmp_path / "adapter" / "adapter_model.safetensors").read_bytes() == undisturbed
    assert not list((tmp_path / "checkpoints").glob(".writing-*"))
    assert len(list((tmp_path / "checkpoints").iterdir())) == 2


@pytest.fixture
def loaded(tiny_source: ModelSource) -> None:
    """Import all that a run needs, so that the forked ones need not."""
    from tutelage.inference.transformers import load_model, load_tokenizer
    from tutelage.training.adapters import attach_lora

    load_tokenizer(tiny_source)
    attach_lora(load_model(tiny_source), Recipe())


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.usefixtures("loaded")
def test_fifty_kills_at_random_moments_change_nothing(
    tiny_dir: Path, tmp_path: Path, undisturbed: bytes
) -> None:
    code, output = start(tiny_dir, tmp_path / "counted", "count:")
    assert code == 0
    calls, writes = (int(number) for number in output.split()[-2:])
    assert calls > 10_000 and writes > 1_000
    draw = random.Random(50)
    kills = finished = writing = 0
    while kills < 50:
        run_dir = tmp_path / f"run-{finished}"
        inside = kills % 2 == 1  # every other one while a checkpoint is written
        at = f"write:{draw.randint(1, writes)}" if inside else f"call:{draw.randint(1, calls)}"
        code, _ = start(tiny_dir, run_dir, at)
        if code == -signal.SIGKILL:
            kills += 1
            writing += any((run_dir / "checkpoints").glob(".writing-*"))
            continue
        assert code == 0  # what was left of the run had fewer calls than that
        assert (run_dir / "adapter" / "adapter_model.safetensors").read_bytes() == undisturbed
        finished += 1
    assert start(tiny_dir, run_dir)[0] == 0
    assert (run_dir / "adapter" / "adapter_model.safetensors").read_bytes() == undisturbed
    assert writing >= 10


def checkpoint(step: int, key: str = "job") -> Checkpoint:
    """Return a small checkpoint whose numbers tell its step."""
    tensors = {"w": torch.full((3,), float(step))}
    return Checkpoint(step, key, tensors, tensors, {"0.exp_avg": torch.zeros(3)}, {"step": step})


@pytest.mark.parametrize(
    ("file", "problem"),
    [
        ("weights.safetensors", "weights.safetensors is damaged"),
        ("state.json", "state.json is damaged"),
        ("manifest.json", "its manifest is missing or unreadable"),
    ],
)
def test_a_damaged_newest_checkpoint_is_skipped(tmp_path: Path, file: str, problem: str) -> None:
    save_checkpoint(tmp_path, checkpoint(5))
    newest = save_checkpoint(tmp_path, checkpoint(10))
    content = bytearray((newest / file).read_bytes())
    content[len(content) // 2] ^= 0xFF
    (newest / file).write_bytes(bytes(content))
    found, skipped = load_newest(tmp_path, "job")
    assert found is not None and found.step == 5
    assert torch.equal(found.weights["w"], torch.full((3,), 5.0))
    assert skipped == [f"step-00000010: {problem}"]


def test_a_missing_file_is_noticed(tmp_path: Path) -> None:
    folder = save_checkpoint(tmp_path, checkpoint(5))
    (folder / "optimizer.safetensors").unlink()
    assert damage(folder) == "optimizer.safetensors is missing"
    assert load_newest(tmp_path, "job")[0] is None


@pytest.mark.parametrize("text", ["", "[]", '{"files": ["a"]}', '{"files": 3}'])
def test_a_manifest_of_another_shape_is_noticed(tmp_path: Path, text: str) -> None:
    (save_checkpoint(tmp_path, checkpoint(5)) / "manifest.json").write_text(text)
    assert load_newest(tmp_path, "job")[0] is None


def test_a_checkpoint_of_another_job_is_not_used(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, checkpoint(5, "other"))
    assert load_newest(tmp_path, "job") == (None, ["step-00000005: it belongs to another job"])


def test_the_last_two_checkpoints_are_kept(tmp_path: Path) -> None:
    for step in (1, 2, 3, 20):
        save_checkpoint(tmp_path, checkpoint(step))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["step-00000003", "step-00000020"]


def test_a_checkpoint_holds_no_pickle(tmp_path: Path) -> None:
    folder = save_checkpoint(tmp_path, checkpoint(1))
    assert {p.suffix for p in folder.iterdir()} == {".safetensors", ".json"}
