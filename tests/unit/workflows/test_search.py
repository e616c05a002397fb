"""A search of training settings on a tiny model: resumable, blind to the test split, honest."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml
from tests.fakes.tiny_llama import build_tiny_model

from tutelage.core.artifact import Artifact, describe
from tutelage.core.errors import ConfigError, DataError, PlanRefused, TutelageError
from tutelage.core.events import Event
from tutelage.core.example import Example, Message
from tutelage.data.version import VersionDraft, load_version, write_version
from tutelage.workflows.context import Context, open_context, register
from tutelage.workflows.training.search import OPEN_SPLITS, Limits, search
from tutelage.workflows.training.search_report import fragment
from tutelage.workflows.training.search_write import write_overrides

pytest.importorskip("optuna")

CONFIG = """\
name: colours
task: classification
model: model
prompt: Name the colour family of the thing. It is warm or cold, nothing else.
output: {field: family, labels: [warm, cold]}
data: {sources: [data/*]}
train: {tracker: none, epochs: 1, rank: 4, replay: 0%s}
"""
Opened = tuple[Context, Artifact, list[Event]]


def row(index: int) -> Example:
    label = "warm" if index % 2 else "cold"
    turns = (
        Message(role="user", content=f"thing number {index}"),
        Message(role="assistant", content=json.dumps({"family": label})),
    )
    return Example(messages=turns, label=label)


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Callable[..., Opened]]:
    """Return a function that opens a project with a frozen dataset version of `rows` rows."""
    torch.set_num_threads(1)
    contexts: list[Context] = []

    def make(rows: int = 24, validation: int = 4, settings: str = "", place: str = "p") -> Opened:
        root = tmp_path / place
        root.mkdir(exist_ok=True)
        if not (root / "model").exists():
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                build_tiny_model(root / "model")
        (root / "tutelage.yaml").write_text(CONFIG % settings, encoding="utf-8")
        events: list[Event] = []
        ctx = open_context(root, events.append)
        contexts.append(ctx)
        splits = {
            "train": [row(n) for n in range(rows)],
            "validation": [row(n) for n in range(100, 100 + validation)],
            "test": [row(n) for n in range(200, 204)],
        }
        version = write_version(ctx.workspace.artifacts / "datasets", VersionDraft(splits, {}))  # type: ignore[arg-type]
        home = ctx.workspace.relative(version.directory)
        return ctx, register(ctx.store, describe("dataset", version.hash, home)), events

    yield make
    for ctx in contexts:
        ctx.store.close()


class Killed(BaseException):
    """Stands in for the end of the process."""


def test_a_search_gives_advice_and_a_page(opened: Callable[..., Opened]) -> None:
    ctx, dataset, events = opened()
    found = search(ctx, dataset, Limits(trials=3, seeds=0), ["rank", "learning_rate"])
    trials, planned = found.data["trials"], found.data["planned"]
    assert list(planned) == ["learning_rate", "rank"]
    assert trials[0]["settings"] == planned and planned["rank"] == 4
    assert [t["phase"] for t in trials] == ["sweep"] * 3
    assert found.data["best_loss"] == min(t["loss"] for t in trials if t["loss"] is not None)
    assert not found.take  # not repeated with other seeds
    assert (found.overrides, found.fragment) == ({}, "")
    assert found.artifact.kind == "search" and found.artifact.parents == (dataset.hash,)
    page = found.report.read_text()
    assert "<script" not in page and "Keep the plan" in page and "The learning rate" in page
    bar = [event for event in events if event.stage == "search" and event.kind == "progress"]
    assert bar[0].total == 3 and bar[-1].done == 3
    assert "validation_loss" in bar[-1].data and "tokens_per_s" in bar[-1].data
    assert list(ctx.workspace.runs.iterdir()) == []

    again = search(ctx, dataset, Limits(trials=3, seeds=0), ["learning_rate", "rank"])
    assert again.skipped and again.artifact.hash == found.artifact.hash
    events.clear()
    more = search(ctx, dataset, Limits(trials=4, seeds=0), ["rank", "learning_rate"])
    assert more.data["trials"][:3] == trials  # none of them was run again
    told = [event.message for event in events if event.message.startswith("trial ")]
    assert not any(message.startswith("trial 3 of") for message in told)


def test_the_test_split_cannot_be_read(opened: Callable[..., Opened]) -> None:
    ctx, dataset, _ = opened()
    folder = ctx.path_of(dataset)
    (folder / "test.jsonl").unlink()  # reading it would fail
    found = search(ctx, dataset, Limits(trials=1, seeds=0), ["learning_rate"])
    assert found.data["trials"][0]["loss"] > 0
    view = load_version(folder, OPEN_SPLITS)
    for read in (lambda: view.rows("test"), lambda: list(view.stream("test"))):
        with pytest.raises(DataError, match="the test split is closed to what chooses settings"):
            read()
    assert len(view.all_rows()) == 28


def test_a_killed_trial_goes_on_from_its_checkpoint(opened: Callable[..., Opened]) -> None:
    settings = ", checkpoint_every: 1"
    ctx, dataset, _ = opened(settings=settings, place="whole")
    limits = Limits(trials=2, seeds=0)
    expected = search(ctx, dataset, limits, ["learning_rate"])
    ctx, dataset, events = opened(settings=settings, place="cut")

    def kill(event: Event) -> None:
        events.append(event)
        if event.kind == "progress" and event.done is not None and event.done > 1.6:
            raise Killed  # in the second trial, after its second step

    with pytest.raises(Killed):
        search(replace(ctx, emit=kill), dataset, limits, ["learning_rate"])
    events.clear()
    found = search(ctx, dataset, limits, ["learning_rate"])
    outcome = [(t["settings"], t["state"], t["loss"], t["curve"]) for t in found.data["trials"]]
    assert outcome == [
        (t["settings"], t["state"], t["loss"], t["curve"]) for t in expected.data["trials"]
    ]
    steps = [event.done for event in events if event.kind == "progress"]
    assert steps == pytest.approx([5 / 3, 2.0])  # two steps were left, of one trial


def test_every_trial_is_a_run_below_the_search(opened: Callable[..., Opened]) -> None:
    ctx, dataset, _ = opened()
    tracked = ctx.config.train.model_copy(update={"tracker": "mlflow"})
    ctx = replace(ctx, config=ctx.config.model_copy(update={"train": tracked}))
    search(ctx, dataset, Limits(trials=1, seeds=0), ["learning_rate"])

    from mlflow.tracking import MlflowClient

    client = MlflowClient(tracking_uri=ctx.workspace.mlflow_uri)
    runs = client.search_runs([client.get_experiment_by_name("colours").experiment_id])
    trial, whole = sorted(runs, key=lambda run: run.info.run_name == "trial-0", reverse=True)
    assert trial.data.tags["mlflow.parentRunId"] == whole.info.run_id
    assert {run.info.status for run in runs} == {"FINISHED"}
    assert whole.data.params["over"] == "learning_rate"
    assert whole.data.metrics["best_loss"] == trial.data.metrics["validation_loss"]


def test_what_cannot_be_searched_is_said_before_any_work(opened: Callable[..., Opened]) -> None:
    ctx, dataset, _ = opened()
    with pytest.raises(ConfigError, match="'rnk' can't be searched"):
        search(ctx, dataset, Limits(), ["rnk"])
    ctx, dataset, _ = opened(validation=0)
    with pytest.raises(DataError, match="the validation split is empty"):
        search(ctx, dataset)
    ctx, dataset, _ = opened(rows=6)
    with pytest.raises(PlanRefused):
        search(ctx, dataset)
    for settings, words in (
        ("attention: flash_attention_2", "'flash_attention_2' needs"),
        ("strategy: fsdp2, precision: fp16", "can't train with precision fp16"),
        ("method: cpt", "are questions with answers"),
    ):
        ctx, dataset, events = opened(settings=f", {settings}")
        with pytest.raises(TutelageError, match=words):
            search(ctx, dataset)
        assert not any(event.kind == "start" for event in events)
    ctx, dataset, _ = opened(settings=", method: hosted")
    with pytest.raises(ConfigError, match="a search trains here"):
        search(ctx, dataset)


HEAD = "name: a\nmodel: demo\n"


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("", "train:\n  learning_rate: 0.0017\n  rank: 8\n"),
        (
            "train:  # how\n  method: auto  # planned\n  rank: 16  # why\nprompt: hi\n",
            "train:  # how\n  learning_rate: 0.0017\n  method: auto  # planned\n  rank: 8  # why\n"
            "prompt: hi\n",
        ),
        (
            "train: {method: auto}  # all\n",
            "train: {method: auto, rank: 8, learning_rate: 0.0017}  # all\n",
        ),
        ("train: {}\n", "train: {rank: 8, learning_rate: 0.0017}\n"),
        ("train: {rank: 4, seed: 3}\n", "train: {rank: 8, seed: 3, learning_rate: 0.0017}\n"),
        ("train:\nprompt: hi\n", "train:\n  learning_rate: 0.0017\n  rank: 8\nprompt: hi\n"),
    ],
)  # fmt: skip
def test_settings_are_written_in_place(tmp_path: Path, before: str, after: str) -> None:
    path = tmp_path / "tutelage.yaml"
    path.write_text(HEAD + before)
    write_overrides(path, {"learning_rate": 0.0017, "rank": 8})
    assert path.read_text() == HEAD + after


def test_what_cannot_be_written_safely_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "tutelage.yaml"
    text = HEAD + "x-base: &base {rank: 4}\ntrain: *base\n"
    path.write_text(text)
    with pytest.raises(ConfigError, match="Write them by hand: train:;   rank: 8"):
        write_overrides(path, {"rank": 8})
    assert path.read_text() == text


def test_a_small_rate_is_a_number_in_yaml() -> None:
    assert yaml.safe_load(fragment({"learning_rate": 3e-05})) == {"train": {"learning_rate": 3e-05}}
