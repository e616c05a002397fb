"""Every kind of bad input: one clear sentence, exit code 2, no traceback, the good rows kept."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.conftest import BASIC_CONFIG
from typer.testing import CliRunner

from tutelage.cli.main import app

MakeProject = Callable[..., Path]
THINGS = ("fire", "ice", "ember", "snow", "sunset", "glacier", "lava", "frost", "amber", "sea")
GOOD = [
    {"text": f"the {adjective} {thing} number {i}", "label": "warm" if i % 2 else "cold"}
    for i, (adjective, thing) in enumerate(
        (a, t) for a in ("old", "bright", "quiet", "distant", "small", "heavy") for t in THINGS
    )
]


def lines(rows: list[dict[str, object]]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def call(*arguments: str) -> tuple[int, str, str]:
    """Run the CLI in this process; return exit code, stdout, stderr on one line."""
    done = CliRunner().invoke(app, list(arguments))
    return done.exit_code, done.stdout, " ".join(done.stderr.split())


def expect(root: Path, command: tuple[str, ...], *fragments: str) -> None:
    """Check the sentence: exit 2, no traceback, and every fragment in it."""
    code, out, err = call(*command, "--project", str(root))
    assert code == 2, (code, out, err)
    assert "Traceback" not in out + err
    assert "error: " in err
    for fragment in fragments:
        assert fragment in err, err


def kept(root: Path) -> int:
    """Return how many rows the newest dataset version holds."""
    code, out, err = call("data", "report", "--project", str(root), "--json")
    assert code == 0, err
    return sum(json.loads(out)["counts"].values())


SPLIT = ("data", "split")

ROW_PROBLEMS = {
    "broken line": ('{"text": "half a row", "label": \n', ("rows.jsonl:61", "JSON")),
    "not an object": ("[1, 2]\n", ("rows.jsonl:61",)),
    "no answer": ('{"text": "no label here"}\n', ("rows.jsonl:61",)),
    "empty answer": ('{"text": "an empty label", "label": ""}\n', ("rows.jsonl:61",)),
    "empty input": ('{"text": "  ", "label": "warm"}\n', ("rows.jsonl:61",)),
    "label outside the list": (
        '{"text": "a lukewarm thing", "label": "wram"}\n',
        ("rows.jsonl:61", "wram", "warm"),
    ),
    "wrong role order": (
        '{"messages": [{"role": "assistant", "content": "warm"}, '
        '{"role": "user", "content": "fire?"}]}\n',
        ("rows.jsonl:61",),
    ),
    "unknown role": (
        '{"messages": [{"role": "robot", "content": "hello"}, '
        '{"role": "assistant", "content": "warm"}]}\n',
        ("rows.jsonl:61",),
    ),
    "a control token in the answer": (
        '{"text": "leaky", "label": "warm<|im_end|>"}\n',
        ("rows.jsonl:61",),
    ),
}


@pytest.mark.parametrize("name", ROW_PROBLEMS)
def test_a_bad_row_is_named_and_the_good_rows_are_kept(
    make_project: MakeProject, name: str
) -> None:
    bad, fragments = ROW_PROBLEMS[name]
    root = make_project({"rows.jsonl": lines(GOOD) + bad})
    expect(root, SPLIT, "1 row", "quarantine", *fragments)
    assert kept(root) == len(GOOD)


FILE_PROBLEMS: dict[str, tuple[dict[str, str | bytes], tuple[str, ...]]] = {
    "empty file": ({"rows.jsonl": ""}, ("rows.jsonl", "empty")),
    "three rows only": ({"rows.jsonl": lines(GOOD[:3])}, ("3",)),
    "all rows identical": ({"rows.jsonl": lines(GOOD[:1] * 60)}, ("identical",)),
    "one label only": (
        {"rows.jsonl": lines([row for row in GOOD if row["label"] == "warm"])},
        ("label", "warm"),
    ),
    "binary garbage": ({"rows.jsonl": bytes(range(256)) * 40}, ("rows.jsonl",)),
    "no such column": ({"rows.csv": "a,b\n1,2\n3,4\n"}, ("rows.csv", "text")),
    "unknown format": ({"rows.xyz": "what is this"}, ("rows.xyz",)),
    "no files at all": ({}, ("data/*",)),
}


@pytest.mark.parametrize("name", FILE_PROBLEMS)
def test_unusable_files_are_refused_in_one_sentence(make_project: MakeProject, name: str) -> None:
    files, fragments = FILE_PROBLEMS[name]
    expect(make_project(files), SPLIT, *fragments)


CONFIG_PROBLEMS = {
    "unknown key": ("trian: {}\n", ("tutelage.yaml:9", "train")),
    "unknown nested key": ("train: {rnk: 4}\n", ("train.rnk", "'rank'")),
    "broken yaml": ("deploy: [1, 2\n", ("YAML",)),
    "wrong type": ("train: {epochs: many}\n", ("train.epochs", "many")),
    "splits that do not sum to 1": (
        "evaluate: {few_shot: -3}\n",
        ("evaluate.few_shot", "greater than or equal to 0"),
    ),
    "canary that does not end at 100": ("deploy: {canary: [5, 50]}\n", ("canary", "100")),
}


@pytest.mark.parametrize("name", CONFIG_PROBLEMS)
def test_settings_are_checked_with_their_line(make_project: MakeProject, name: str) -> None:
    extra, fragments = CONFIG_PROBLEMS[name]
    root = make_project({"rows.jsonl": lines(GOOD)}, BASIC_CONFIG + extra)
    expect(root, SPLIT, "tutelage.yaml", *fragments)


def test_no_project_here(tmp_path: Path) -> None:
    expect(tmp_path, ("status",), "no tutelage.yaml", "tutelage init")


def test_a_second_init_keeps_the_first(make_project: MakeProject) -> None:
    root = make_project()
    before = (root / "tutelage.yaml").read_text()
    code, _, err = call("init", str(root))
    assert code == 2
    assert "already" in err
    assert (root / "tutelage.yaml").read_text() == before


def test_an_unreadable_model(make_project: MakeProject) -> None:
    config = BASIC_CONFIG.replace("model: demo", "model: broken.gguf")
    root = make_project({"rows.jsonl": lines(GOOD)}, config)
    (root / "broken.gguf").write_bytes(b"GGUF" + b"\0" * 64)
    expect(root, ("train", "--plan"), "broken.gguf")


def test_a_model_that_is_not_there(make_project: MakeProject) -> None:
    config = BASIC_CONFIG.replace("model: demo", "model: nobody/no-such-model")
    root = make_project({"rows.jsonl": lines(GOOD)}, config)
    expect(root, ("train", "--plan"), "nobody/no-such-model")


@pytest.mark.model
def test_no_answer_token_survives_the_limit(make_project: MakeProject) -> None:
    rows = [{**row, "label": f"{row['label']} " + "very " * 200} for row in GOOD]
    config = BASIC_CONFIG.replace("output: {field: family, labels: [warm, cold]}\n", "")
    config = config.replace("task: classification", "task: generation")
    root = make_project({"rows.jsonl": lines(rows)}, config + "train: {max_tokens: 32}\n")
    expect(root, ("train",), "32")


def test_an_unknown_method(make_project: MakeProject) -> None:
    root = make_project({"rows.jsonl": lines(GOOD)}, BASIC_CONFIG + "train: {method: lorra}\n")
    expect(root, ("train", "--plan"), "lorra", "'lora'")


def test_a_release_that_does_not_exist(make_project: MakeProject) -> None:
    root = make_project({"rows.jsonl": lines(GOOD)})
    expect(root, ("release", "show", "v99"), "v99")


def test_a_stage_before_its_input(make_project: MakeProject) -> None:
    root = make_project({"rows.jsonl": lines(GOOD)})
    expect(root, ("evaluate",), "tutelage run")


@pytest.mark.model
def test_a_port_that_is_taken(make_project: MakeProject) -> None:
    root = make_project({"rows.jsonl": lines(GOOD)})
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        expect(root, ("up", "--port", str(port)), str(port), "in use")


@pytest.mark.skipif(
    not sys.platform.startswith("linux") or os.geteuid() != 0,
    reason="a full disk is made with a small tmpfs, which takes root on Linux",
)
def test_a_full_disk(make_project: MakeProject, tmp_path: Path) -> None:
    root = make_project({"rows.jsonl": lines(GOOD)})
    disk = root / ".tutelage"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(disk)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("this system does not let a test mount a tmpfs")
    try:
        expect(root, SPLIT, "disk is full")
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)  # lazily: the store is open
    assert (root / "data" / "rows.jsonl").read_text() == lines(GOOD)
