"""The train stage on a tiny model: a plan first, then an adapter, and no work done twice."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tests.fakes.tiny_llama import build_tiny_model

from tutelage.core.artifact import Artifact, describe
from tutelage.core.errors import Conflict, DataError, PlanRefused
from tutelage.core.events import Event
from tutelage.core.example import Example, Message
from tutelage.data.version import VersionDraft, write_version
from tutelage.release.lineage import lineage, render
from tutelage.workflows.context import Context, open_context, register
from tutelage.workflows.training.plan import plan
from tutelage.workflows.training.train import train

CONFIG = """\
name: colours
task: classification
model: model
prompt: Name the colour family of the thing. It is warm or cold, nothing else.
output: {field: family, labels: [warm, cold]}
data: {sources: [data/*]}
train: {tracker: none, epochs: 1, rank: 4, replay: 0%s}
"""


def row(index: int) -> Example:
    label = "warm" if index % 2 else "cold"
    turns = (
        Message(role="user", content=f"thing number {index}"),
        Message(role="assistant", content=json.dumps({"family": label})),
    )
    return Example(messages=turns, label=label)


Opened = tuple[Context, Artifact, list[Event]]


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Callable[..., Opened]]:
    """Return a function that opens a project with a frozen dataset version of `rows` rows."""
    torch.set_num_threads(1)
    contexts: list[Context] = []

    def make(rows: int = 24, settings: str = "") -> Opened:
        if not (tmp_path / "model").exists():
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                build_tiny_model(tmp_path / "model")
        (tmp_path / "tutelage.yaml").write_text(CONFIG % settings, encoding="utf-8")
        events: list[Event] = []
        ctx = open_context(tmp_path, events.append)
        contexts.append(ctx)
        splits = {
            "train": [row(n) for n in range(rows)],
            "validation": [row(n) for n in range(100, 104)],
            "test": [row(n) for n in range(200, 204)],
        }
        version = write_version(ctx.workspace.artifacts / "datasets", VersionDraft(splits, {}))  # type: ignore[arg-type]
        place = ctx.workspace.relative(version.directory)
        dataset = register(ctx.store, describe("dataset", version.hash, place))
        return ctx, dataset, events

    yield make
    for ctx in contexts:
        ctx.store.close()


def test_a_plan_trains_nothing(opened: Callable[..., Opened]) -> None:
    ctx, dataset, _ = opened()
    made = plan(ctx, dataset, probe=False)
    assert made.recipe.rank == 4
    assert made.recipe.shared_prefix
    assert made.steps == 3
    assert made.memory.total_mb > 400  # the libraries alone take that
    assert list(ctx.workspace.runs.iterdir()) == []


def test_the_plan_is_told_before_the_first_step(opened: Callable[..., Opened]) -> None:
    ctx, dataset, events = opened()
    train(ctx, dataset)
    stages = [(event.stage, event.kind) for event in events]
    told = next(i for i, event in enumerate(events) if "plan" in event.data)
    assert stages[told] == ("plan", "note")
    assert told < stages.index(("train", "start"))
    assert events[told].data["plan"]["choices"][0]["name"] == "method"


def test_the_adapter_artifact_holds_what_it_was_made_from(opened: Callable[..., Opened]) -> None:
    ctx, dataset, _ = opened()
    outcome = train(ctx, dataset)
    artifact, folder = outcome.artifact, ctx.path_of(outcome.artifact)
    assert {file.name for file in folder.iterdir()} == {
        "adapter_model.safetensors", "adapter_config.json", "plan.json", "history.json",
        "manifest.json",
    }  # fmt: skip
    assert artifact.kind == "adapter"
    assert artifact.parents == (dataset.hash,)
    assert artifact.seed == 7
    assert artifact.meta["steps"] == 3
    assert 1 <= artifact.meta["best_step"] <= 3
    assert artifact.meta["coverage"]["rows"] == 24
    assert artifact.meta["summary"].startswith("3 steps, best at ")
    assert str(ctx.workspace.root) not in (folder / "adapter_config.json").read_text()
    assert list(ctx.workspace.runs.iterdir()) == []  # checkpoints are not kept once it is done


def test_by_default_the_base_writes_rows_that_hold_the_adapter(
    opened: Callable[..., Opened],
) -> None:
    ctx, dataset, _ = opened()
    settings = ctx.config.train.model_copy(update={"replay": None})
    ctx = replace(ctx, config=ctx.config.model_copy(update={"train": settings}))
    artifact = train(ctx, dataset).artifact
    assert (artifact.meta["recipe"]["replay"], artifact.meta["recipe"]["replay_loss"]) == (
        0.1,
        "base",
    )
    assert artifact.meta["coverage"]["rows"] == 24 + 3
    tree = render(lineage(ctx.store, artifact.hash))
    assert "replay " in tree and "3 rows that" in tree


def test_the_same_inputs_are_trained_once(opened: Callable[..., Opened]) -> None:
    ctx, dataset, events = opened()
    first = train(ctx, dataset)
    events.clear()
    again = train(ctx, dataset)
    assert again.skipped and not first.skipped
    assert again.artifact.hash == first.artifact.hash
    assert [event.message for event in events] == ["unchanged, kept"]


def test_a_run_has_one_process_at_a_time(opened: Callable[..., Opened]) -> None:
    ctx, dataset, events = opened()
    taken: list[str] = []

    def also(event: Event) -> None:
        events.append(event)
        if event.kind == "progress" and not taken:
            with pytest.raises(Conflict, match="another process trains this run") as caught:
                train(replace(ctx, emit=events.append), dataset)
            taken.append(caught.value.sentence())

    done = train(replace(ctx, emit=also), dataset)
    assert taken and not done.skipped
    assert list(ctx.workspace.runs.iterdir()) == []  # neither the run's folder nor its lock


def test_an_edited_plan_of_a_run_that_was_cut_off_is_not_followed(
    opened: Callable[..., Opened],
) -> None:
    ctx, dataset, events = opened()

    def cut(event: Event) -> None:
        if event.stage == "train" and event.kind == "progress" and event.done == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(replace(ctx, emit=cut), dataset)
    (path,) = ctx.workspace.runs.glob("train-*/plan.json")
    kept = path.read_bytes()
    path.write_bytes(kept.replace(b'"learning_rate": ', b'"learning_rate": 9'))
    assert path.read_bytes() != kept
    made = train(ctx, dataset).artifact
    told = [event.message for event in events if event.kind == "warning"]
    assert f"{path} was changed after the run began: it is planned anew" in told[0]
    planned = plan(ctx, dataset, probe=False).recipe
    assert made.meta["recipe"]["learning_rate"] == planned.learning_rate
    with pytest.raises(KeyboardInterrupt):
        train(replace(opened(settings=", seed: 3")[0], emit=cut), dataset)
    ctx, dataset, events = opened(settings=", seed: 3")
    train(ctx, dataset)
    assert not [event for event in events if event.kind == "warning"], "nobody has edited it"


def test_settings_that_change_nothing_keep_the_run(opened: Callable[..., Opened]) -> None:
    ctx, dataset, _ = opened()
    first = train(ctx, dataset).artifact
    ctx, dataset, _ = opened(settings=", hour_price: 2, checkpoint_every: 3, force: true")
    assert train(ctx, dataset).skipped
    left = ctx.workspace.runs / "train-0123456789ab" / "checkpoints"
    left.mkdir(parents=True)
    ctx, dataset, events = opened(settings=", seed: 9")
    assert train(ctx, dataset).artifact.hash != first.hash
    assert any("train-0123456789ab (0 MB)" in event.message for event in events)


def test_the_same_seed_gives_the_same_weights(opened: Callable[..., Opened]) -> None:
    ctx, dataset, _ = opened()
    first = train(ctx, dataset).artifact
    other_ctx, dataset, _ = opened(settings=", seed: 8")
    other = train(other_ctx, dataset).artifact
    back_ctx, dataset, _ = opened()
    back = train(back_ctx, dataset)
    assert not back.skipped
    assert first.hash == back.artifact.hash != other.hash


def test_too_few_rows_are_refused_before_any_training(opened: Callable[..., Opened]) -> None:
    ctx, dataset, events = opened(rows=6)
    with pytest.raises(PlanRefused) as caught:
        train(ctx, dataset)
    assert caught.value.exit_code == 1
    assert caught.value.sentence() == (
        "6 training rows are too few to tune on (at least 20): tuning would overfit, it learns "
        "them by heart; take few-shot prompting and put the rows into the prompt as examples. "
        "Label more rows, or set train.force: true."
    )
    assert ("train", "start") not in [(event.stage, event.kind) for event in events]


def test_force_trains_on_few_rows(opened: Callable[..., Opened]) -> None:
    ctx, dataset, _ = opened(rows=6, settings=", force: true")
    assert train(ctx, dataset).artifact.meta["steps"] == 1


def test_an_empty_train_split_is_a_data_error(opened: Callable[..., Opened]) -> None:
    ctx, dataset, _ = opened(rows=0)
    with pytest.raises(DataError, match="there are no rows to train on"):
        train(ctx, dataset)
