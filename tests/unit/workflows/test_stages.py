"""Stages before the project's own training, on a tiny model: their rows, chain, kill and replay."""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from tutelage.cli.main import app
from tutelage.core.artifact import Artifact, describe
from tutelage.core.errors import ConfigError, DataError, PlanRefused, TutelageError
from tutelage.core.events import Event
from tutelage.core.example import Example, Message
from tutelage.data.version import VersionDraft, load_version, write_version
from tutelage.release.lineage import lineage, render
from tutelage.store.artifacts import StageRow
from tutelage.workflows.context import Context, find_artifact, open_context, register
from tutelage.workflows.curate import curate
from tutelage.workflows.training.plan import plan
from tutelage.workflows.training.search import search
from tutelage.workflows.training.stages import apart, before, planned, stage_context, stage_rows
from tutelage.workflows.training.train import carry_out, prepare, train

CONFIG = """\
name: valves
task: classification
model: model
prompt: Say whether the valve is open or shut.
output: {field: state, labels: [open, shut]}
data: {sources: [data/*], splits: {train: 0.7, validation: 0.15, test: 0.15}}
train:
  tracker: none
  epochs: 1
  rank: 4
%s
"""
STAGES = """\
  before:
  - {method: cpt, sources: [texts/*], max_tokens: 64, replay: 0}
  - {method: lora, sources: [related.jsonl], epochs: 1}
"""
ONE_STAGE = """\
  before: [{method: cpt, sources: [texts/*], max_tokens: 64, replay: 0}]
"""
ANSWERS = ("open", "shut")
NOUNS = (
    "inlet", "outlet", "relief", "check", "ball", "gate", "needle", "pinch", "plug", "globe",
    "angle", "butterfly",
)  # fmt: skip
PLACES = ("boiler house", "cellar", "roof garden", "engine room", "quay", "old laundry")


def write(path: Path, rows: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


@pytest.fixture
def project(tmp_path: Path, model: Path) -> Path:
    """A project with labelled rows, raw texts and a related task."""
    (tmp_path / "model").symlink_to(model)
    (tmp_path / "tutelage.yaml").write_text(CONFIG % STAGES, encoding="utf-8")
    rows = [
        {"input": f"{noun} in the {place}", "output": ANSWERS[(n + m) % 2]}
        for n, noun in enumerate(NOUNS)
        for m, place in enumerate(PLACES)
    ]
    write(tmp_path / "data" / "rows.jsonl", rows)
    write(tmp_path / "related.jsonl", related())
    (tmp_path / "texts").mkdir()
    for seed, word in enumerate(NOUNS):
        (tmp_path / "texts" / f"{word}.txt").write_text(babble(seed, 25), encoding="utf-8")
    return tmp_path


def babble(seed: int, count: int) -> str:
    """Return `count` words in an order of their own."""
    return " ".join(random.Random(seed).choices((*NOUNS, *" ".join(PLACES).split()), k=count))


def related() -> list[dict[str, Any]]:
    """Rows of another task with the same answers."""
    return [{"input": babble(seed, 6), "output": ANSWERS[seed % 2]} for seed in range(100, 130)]


Opened = tuple[Context, Artifact, list[Event]]


@pytest.fixture
def opened(project: Path) -> Iterator[Opened]:
    events: list[Event] = []
    ctx = open_context(project, events.append)
    yield ctx, curate(ctx).artifact, events
    ctx.store.close()


def stages_of(ctx: Context) -> dict[str, Artifact]:
    with ctx.store.session() as session:
        found = {row.stage: row.output for row in session.query(StageRow).all()}
    return {name: a for name, h in found.items() if (a := find_artifact(ctx.store, h))}


def test_stages_go_on_from_each_other_and_are_skipped_when_unchanged(
    opened: Opened, project: Path
) -> None:
    ctx, dataset, events = opened
    last = train(ctx, dataset).artifact
    made = stages_of(ctx)
    assert {"rows-1", "train-1", "rows-2", "train-2", "train"} <= set(made)
    assert made["train-1"].parents == (made["rows-1"].hash,)
    assert {made["rows-2"].hash, made["train-1"].hash} < set(made["train-2"].parents)
    assert {dataset.hash, made["train-2"].hash} < set(last.parents)  # and what is replayed
    assert [made[n].meta["method"] for n in ("train-1", "train-2")] == ["cpt", "lora"]
    assert "held-out perplexity" in made["train-1"].meta["summary"]
    tree = render(lineage(ctx.store, last.hash))
    assert tree.count("adapter ") == 3
    assert "file related.jsonl" in tree
    assert "file texts/ball.txt" in tree

    events.clear()
    again = train(ctx, dataset)
    assert again.skipped
    assert again.artifact.hash == last.hash
    assert [e.stage for e in events if e.data.get("skipped")] == [
        "rows-1", "train-1", "rows-2", "train-2", "train",
    ]  # fmt: skip

    write(project / "related.jsonl", [*related(), {"input": "silence all day", "output": "shut"}])
    events.clear()
    assert not train(ctx, dataset).skipped
    assert [e.stage for e in events if e.data.get("skipped")] == ["rows-1", "train-1"]


def test_the_plan_shows_every_stage_and_trains_none(project: Path) -> None:
    call = ["train", "--plan", "--project", str(project)]
    done = CliRunner().invoke(app, [*call, "--json"])
    assert done.exit_code == 0, done.output
    plan = json.loads(done.stdout)
    methods = [stage["recipe"]["method"] for stage in plan["stages"]]
    assert (methods, plan["recipe"]["method"]) == (["cpt", "lora"], "lora")
    assert plan["stages"][0]["recipe"]["max_tokens"] == 64
    assert not (project / ".tutelage" / "artifacts" / "adapters").exists()
    heads = [line for line in CliRunner().invoke(app, call).stdout.split("\n") if "stage " in line]
    assert "stage 2 of 3: related.jsonl" in heads
    assert "stage 3 of 3: the project's own rows" in heads


def test_the_plan_of_a_staged_run_is_the_runs_plan(opened: Opened, project: Path) -> None:
    _, dataset, _ = opened
    config = (CONFIG % ONE_STAGE).replace("  rank: 4\n", "")
    (project / "tutelage.yaml").write_text(config, encoding="utf-8")
    for number in range(100):  # texts enough for a larger adapter than the rows would get
        (project / "texts" / f"{number}.txt").write_text(babble(number, 60), encoding="utf-8")
    other = open_context(project, lambda event: None)
    stages, own = planned(other, dataset, probe=False)
    alone = plan(other, dataset, probe=False).recipe
    assert (stages[0].recipe.rank, own.recipe.rank, alone.rank) == (16, 16, 8)
    told = {choice.name: (choice.reason, choice.source) for choice in own.choices}
    same = ("as the stage before", "train.before")
    assert [told[name] for name in ("rank", "alpha", "target_modules")] == [same] * 3
    made = train(other, dataset).artifact
    run = json.loads((other.path_of(made) / "plan.json").read_text())
    assert (run["recipe"], run["choices"]) == (
        own.recipe.model_dump(mode="json"),
        [choice.model_dump(mode="json") for choice in own.choices],
    )
    other.store.close()


def test_rows_held_out_by_the_project_are_left_out_of_a_stage(
    opened: Opened, project: Path
) -> None:
    ctx, dataset, events = opened
    version = load_version(ctx.path_of(dataset))
    held = [row.input_text for row in (*version.rows("test"), *version.rows("validation"))]
    leaks = [{"input": text, "output": "open"} for text in held]
    write(project / "related.jsonl", [*related(), *leaks])
    with (project / "related.jsonl").open("a") as file:
        file.write("{broken\n")
    stage = ctx.config.train.before[1]
    rows = stage_rows(stage_context(ctx, stage), stage, 2, dataset).artifact
    lines = (ctx.path_of(rows) / "dropped.jsonl").read_text().splitlines()
    reasons = [json.loads(line)["reason"] for line in lines]
    assert len(reasons) == len(held) == rows.meta["dropped"]
    assert all("the held-out row data/rows.jsonl:" in reason for reason in reasons)
    assert rows.meta["quarantined"] == 1
    assert "broken" in (ctx.path_of(rows) / "quarantine.jsonl").read_text()
    kept = load_version(ctx.path_of(rows))
    assert not {row.input_text for row in kept.all_rows()} & set(held)
    assert (len(kept.rows("validation")) > 0, kept.rows("test")) == (True, [])
    assert any(f"{len(held)} rows resemble held-out rows" in e.message for e in events)


def test_a_text_that_quotes_a_held_out_row_is_left_out(opened: Opened, project: Path) -> None:
    ctx, dataset, _ = opened
    version = load_version(ctx.path_of(dataset))
    long = "the valve that nobody had turned since the flood of last spring stood half open"
    held = version.rows("test")[0]
    turns = (Message(role="user", content=long), held.messages[-1])
    quoted = held.model_copy(update={"messages": turns})
    rows = [text_row(f"As we wrote, {long}, and so on."), text_row("Nothing of the kind here.")]
    kept, dropped = apart(rows, [quoted])
    assert kept == rows[1:]
    assert [item.example for item in dropped] == rows[:1]
    assert "shares words with the held-out row" in dropped[0].reason


def text_row(text: str) -> Example:
    return Example(messages=(Message(role="assistant", content=text),))


def _die(project: str, at: tuple[str, int]) -> None:
    """Train until `at`, the stage's number and the step in it, and die there."""
    torch.set_num_threads(1)
    stage = 0

    def emit(event: Event) -> None:
        nonlocal stage
        stage += event.kind == "start" and event.stage == "train"
        if event.kind == "progress" and event.stage == "train" and (stage, event.done) == at:
            os.kill(os.getpid(), signal.SIGKILL)

    ctx = open_context(Path(project), emit)
    train(ctx, curate(ctx).artifact)


def test_a_kill_in_any_stage_ends_in_the_same_weights(
    project: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    twin = tmp_path_factory.mktemp("twin") / "project"
    (project / "tutelage.yaml").write_text(CONFIG % ONE_STAGE, encoding="utf-8")
    shutil.copytree(project, twin, symlinks=True)
    # The first run dies in the stage, the second in the stage it went on with or the next one.
    for at in ((1, 1), (2, 2)):
        process = multiprocessing.get_context("fork").Process(target=_die, args=(str(project), at))
        process.start()
        process.join()
        assert process.exitcode == -signal.SIGKILL
    ends = []
    for folder in (project, twin):
        ctx = open_context(folder, lambda event: None)
        ends.append(train(ctx, curate(ctx).artifact).artifact.hash)
        ctx.store.close()
    assert ends[0] == ends[1]


def test_replayed_rows_are_a_parent_and_never_validated_on(opened: Opened, project: Path) -> None:
    ctx, dataset, _ = opened
    (project / "tutelage.yaml").write_text(CONFIG % "  replay: 0.2\n", encoding="utf-8")
    other = open_context(project, lambda event: None)
    made = train(other, dataset).artifact
    parents = [find_artifact(other.store, digest) for digest in made.parents]
    replayed = next(a for a in parents if a is not None and a.kind == "replay")
    train_rows = len(load_version(ctx.path_of(dataset)).rows("train"))
    assert replayed.meta["rows"] == round(train_rows * 0.25)
    assert "that tiny" in replayed.meta["summary"] or "wrote itself" in replayed.meta["summary"]
    assert made.meta["coverage"]["rows"] == train_rows + replayed.meta["rows"]
    planned = json.loads((other.path_of(made) / "plan.json").read_text())
    assert planned["steps"] == made.meta["steps"]
    other.store.close()


def test_replayed_text_is_cut_at_its_share(opened: Opened, project: Path) -> None:
    _, dataset, _ = opened
    (project / "general.txt").write_text("Ships tell of salt and sails. " * 200, encoding="utf-8")
    stage = ONE_STAGE.replace("replay: 0", "replay: 0.1, replay_from: general.txt")
    (project / "tutelage.yaml").write_text(CONFIG % stage, encoding="utf-8")
    events: list[Event] = []
    other = open_context(project, events.append)
    before(other, dataset, carry_out)
    (told,) = [event.message for event in events if event.stage == "replay"]
    assert told == "1 text of general.txt, 10% of the training texts"
    other.store.close()


def test_replay_from_a_file_leaves_out_what_is_held_out(opened: Opened, project: Path) -> None:
    ctx, dataset, _ = opened
    held = load_version(ctx.path_of(dataset)).rows("test")[0].input_text
    general = [held, *(f"Chapter {n} tells of ships, salt and {n * n} sails." for n in range(12))]
    write(project / "general.jsonl", [{"text": text} for text in general])
    settings = "  replay: 0.3\n  replay_from: general.jsonl\n"
    (project / "tutelage.yaml").write_text(CONFIG % settings, encoding="utf-8")
    events: list[Event] = []
    other = open_context(project, events.append)
    made = train(other, dataset).artifact
    told = [event.message for event in events if event.stage == "replay"]
    assert "1 row of general.jsonl, held out here, not replayed" in told
    tree = render(lineage(other.store, made.hash))
    assert "file general.jsonl" in tree
    other.store.close()


@pytest.mark.parametrize(
    ("settings", "problem", "words"),
    [
        ("  before: [{method: cpt, sources: [none/*]}]\n", DataError, "train.before, stage 1"),
        (
            "  before: [{method: cpt, sources: [none/*]}]\n",
            DataError,
            "or correct the stage's sources",
        ),
        (
            "  replay: 0.1\n  replay_from: empty.txt\n",
            DataError,
            "or correct train.replay_from in tutelage.yaml",
        ),
        (
            "  before: [{method: lora, sources: [few.jsonl]}]\n",
            PlanRefused,
            "training rows are too few",
        ),
        (
            "  before: [{method: cpt, rank: 8, sources: [texts/*]}]\n",
            ConfigError,
            "the same weights",
        ),
        (
            "  before: [{method: full, sources: [related.jsonl]}]\n",
            ConfigError,
            "the stage trains full, the project's own training lora, as planned",
        ),
        (
            "  method: loha\n  before: [{method: lora, sources: [related.jsonl]}]\n",
            ConfigError,
            "Set train.method: lora, or let the stage's method",
        ),
        ("  method: pissa\n  before: [{method: cpt, sources: [texts/*]}]\n", ConfigError, "nor a"),
        (
            "  before: [{method: classify, sources: [related.jsonl]}]\n",
            ConfigError,
            "trains a classification head, and the next training (planned) has none",
        ),
        (
            "  before:\n"
            "  - {method: classify, sources: [related.jsonl]}\n"
            "  - {method: cpt, sources: [texts/*]}\n",
            ConfigError,
            "and the next training (cpt) has none",
        ),
        (
            "  method: classify\n  before:\n  - method: classify\n"
            "    sources: [related.jsonl]\n    output: {field: state, labels: [shut, ajar]}\n",
            ConfigError,
            "has other labels than the next training's",
        ),
        ("  method: cpt\n", PlanRefused, "are questions with answers"),
        ("  replay: 0.1\n  replay_from: gone.txt\n", ConfigError, "there is no file 'gone.txt'"),
        ("  method: classify\n  replay: 0.1\n", ConfigError, "has no meaning for 'classify'"),
    ],
)
def test_what_can_be_wrong_is_one_sentence(
    opened: Opened, project: Path, settings: str, problem: type[Exception], words: str
) -> None:
    _, dataset, _ = opened
    write(project / "few.jsonl", related()[:6])
    (project / "empty.txt").touch()
    (project / "tutelage.yaml").write_text(CONFIG % settings, encoding="utf-8")
    other = open_context(project, lambda event: None)
    with pytest.raises(problem) as caught:
        train(other, dataset)
    assert words in caught.value.sentence()  # type: ignore[attr-defined]
    other.store.close()


@pytest.mark.parametrize("work", [train, prepare, search])
@pytest.mark.parametrize(
    ("own", "words"),
    [
        ("method: cloze\n  replay: 0.1", "train.replay has no meaning for 'cloze'"),
        ("attention: flash_attention_2", "train.attention 'flash_attention_2' needs"),
        ("method: cpt", "are questions with answers"),
    ],
)
def test_what_the_last_training_would_fail_of_is_said_before_the_first_is_trained(
    opened: Opened, project: Path, work: Callable[..., Any], own: str, words: str
) -> None:
    _, dataset, _ = opened
    (project / "tutelage.yaml").write_text(CONFIG % f"  {own}\n{ONE_STAGE}", encoding="utf-8")
    other = open_context(project, lambda event: None)
    with pytest.raises(TutelageError) as caught:
        work(other, dataset)
    assert words in caught.value.sentence()
    assert "train-1" not in stages_of(other)
    other.store.close()


def test_a_search_without_validation_rows_trains_no_stage(project: Path) -> None:
    (project / "tutelage.yaml").write_text(CONFIG % ONE_STAGE, encoding="utf-8")
    other = open_context(project, lambda event: None)
    version = write_version(
        other.workspace.artifacts / "datasets",
        VersionDraft({"train": [row_of(n) for n in range(24)], "validation": [], "test": []}, {}),
    )
    place = other.workspace.relative(version.directory)
    dataset = register(other.store, describe("dataset", version.hash, place))
    with pytest.raises(DataError, match="the validation split is empty"):
        search(other, dataset)
    assert "train-1" not in stages_of(other)
    other.store.close()


def row_of(number: int) -> Example:
    turns = (
        Message(role="user", content=f"valve number {number}"),
        Message(role="assistant", content='{"state": "open"}'),
    )
    return Example(messages=turns, label="open")


def test_a_system_message_of_a_row_is_preferred_to_the_prompt(model: Path) -> None:
    """Under 100 rows too the prompt stands in every row, or the row's own message does."""
    from tutelage.inference.models import ModelSource
    from tutelage.inference.transformers import load_tokenizer
    from tutelage.training.encode import encode

    source = ModelSource(str(model), "tiny", "directory", model, "0" * 64)
    tokenizer = load_tokenizer(source)
    turns = (Message(role="user", content="q"), Message(role="assistant", content="a"))
    own = Example(messages=(Message(role="system", content="OWN"), *turns))
    rows = encode([Example(messages=turns)] * 12 + [own], tokenizer, "PROMPT", max_tokens=99).rows
    texts = [tokenizer.decode(row.ids) for row in rows]
    assert all(text.startswith("<|im_start|>system\nPROMPT<|im_end|>") for text in texts[:-1])
    assert texts[-1].startswith("<|im_start|>system\nOWN<|im_end|>")
    assert "PROMPT" not in texts[-1]
