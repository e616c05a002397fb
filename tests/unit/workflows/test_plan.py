"""What `train --plan` says of rows that are too long, and of runs that would have to fail."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from tutelage.cli.main import app

CONFIG = """\
name: colours
task: %s
model: model
prompt: Name the colour family of the thing.
data: {sources: [data/*], splits: {train: 0.8, validation: 0.1, test: 0.1}}
train: {epochs: 1%s}
"""
LONG = "a very long tale of a thing " * 120  # more tokens than the tiny model's 1,024
Ask = Callable[..., tuple[int, dict[str, Any]]]


@pytest.fixture
def ask(tmp_path: Path, model: Path) -> Ask:
    """Return a function that gives the exit status and the JSON of `train --plan`."""
    (tmp_path / "model").symlink_to(model)

    def call(
        settings: str = "", *, rows: tuple[tuple[str, str], ...] = (), task: str = "generation"
    ) -> tuple[int, dict[str, Any]]:
        short = [
            (f"thing {number} of {number * number}", ("warm", "cold")[number % 2])
            for number in range(40)
        ]
        lines = [json.dumps({"input": i, "output": o}) + "\n" for i, o in (*rows, *short)]
        (tmp_path / "data").mkdir(exist_ok=True)
        (tmp_path / "data" / "rows.jsonl").write_text("".join(lines), encoding="utf-8")
        if "tracker" not in settings:
            settings = f"tracker: none, {settings}".rstrip(", ")
        config = CONFIG % (task, f", {settings}")
        (tmp_path / "tutelage.yaml").write_text(config, encoding="utf-8")
        call = ["train", "--plan", "--json", "--project", str(tmp_path)]
        done = CliRunner().invoke(app, call)
        return done.exit_code, json.loads(done.stdout or done.stderr)

    call.root = tmp_path  # type: ignore[attr-defined]
    return call


def chosen(plan: dict[str, Any], name: str) -> tuple[Any, str]:
    return next((c["value"], c["reason"]) for c in plan["choices"] if c["name"] == name)


def test_rows_that_the_model_can_not_read_whole_are_told(ask: Ask) -> None:
    tales = tuple((f"say {word}", f"{word} " * 400) for word in ("amber", "teal", "blue", "red"))
    many = tuple((f"{LONG} {number}", "cold") for number in range(12))
    code, plan = ask(rows=(*tales, *many))
    assert code == 0
    value, reason = chosen(plan, "max_tokens")
    assert value == 1024
    assert "the model reads 1,024: longer rows are cut" in reason
    told = " | ".join(plan["warnings"])
    assert "training rows are longer than 1,024 tokens and lose the middle" in told
    assert "training rows are rejected and not trained on (data/rows.jsonl:" in told
    assert "the answer alone has 2000 of 1024 tokens" in told
    assert told.endswith("shorten the answers")


def test_a_limit_of_the_users_that_cuts_rows_is_told_with_what_they_need(ask: Ask) -> None:
    _, free = ask()
    assert "nothing is cut" in chosen(free, "max_tokens")[1]
    assert not [text for text in free["warnings"] if "longer than" in text]
    need = chosen(free, "max_tokens")[0]
    _, plan = ask("max_tokens: 32")
    assert chosen(plan, "max_tokens") == (32, f"your setting (planned: {need})")
    (told,) = [text for text in plan["warnings"] if "longer than 32 tokens" in text]
    assert "raise train.max_tokens to " in told


def test_a_limit_above_what_the_model_reads_is_refused(ask: Ask) -> None:
    code, error = ask("max_tokens: 5000")
    assert code != 0
    assert "more than the 1024 tokens that the model reads" in json.dumps(error)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ("attention: flash_attention_2", "train.attention 'flash_attention_2' needs"),
        ("attention: flex_attention", "train.attention 'flex_attention' needs a CUDA GPU"),
        ("strategy: zero3", "need the package deepspeed"),
        ("strategy: fsdp2, precision: fp16", "can't train with precision fp16"),
        ("tracker: mlfow", "'mlfow' is not one of tutelage's trackers"),
        ("replay: 0.1, replay_from: nofile.txt", "there is no file 'nofile.txt'"),
        ("method: cloze, replay: 0.1", "train.replay has no meaning for 'cloze'"),
    ],
)
def test_a_run_that_must_fail_has_no_plan(
    ask: Ask, monkeypatch: pytest.MonkeyPatch, settings: str, words: str
) -> None:
    import importlib.util

    find = importlib.util.find_spec
    monkeypatch.setattr(
        "importlib.util.find_spec", lambda name, *more: None if name == "deepspeed" else find(name)
    )
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    code, error = ask(settings, task="classification\noutput: {field: tone, labels: [warm, cold]}")
    assert code != 0
    assert words in error["what"]
    root = ask.root  # type: ignore[attr-defined]
    done = CliRunner().invoke(app, ["train", "--json", "--project", str(root)])
    assert done.exit_code != 0
    assert words in done.output
    assert not list((root / ".tutelage" / "replay").glob("*"))  # nothing was drawn before that
