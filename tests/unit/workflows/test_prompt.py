"""Prompts from the command line: a draft is tested on the golden set, reviewed, published, used."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.fakes.evaluation_engine import FakeEngine
from tests.unit.evaluation.evaluation_rows import FORMAT, examples
from typer.testing import CliRunner

from tutelage.cli.main import app
from tutelage.core.artifact import content_hash, describe
from tutelage.core.errors import Conflict, DataError
from tutelage.core.events import Event
from tutelage.data.version import VersionDraft, write_version
from tutelage.inference.base import Completion, Prompt
from tutelage.inference.models import ModelSource
from tutelage.release import bundle
from tutelage.release.deployments import ensure_deployment
from tutelage.store.artifacts import StageRow
from tutelage.workflows.context import Context, open_context, register
from tutelage.workflows.evaluation.evaluate import LoadedEngine
from tutelage.workflows.release import prompt as prompting
from tutelage.workflows.release import prompt_trial

SPLITS = {
    "train": examples("old", 24),
    "validation": examples("middle", 4),
    "test": examples("new", 30),
}
RIGHT = {row.input_text: row.answer or "" for row in SPLITS["test"]}
ALL_WARM = dict.fromkeys(RIGHT, FORMAT.render("warm"))
FIRST = "Name the colour family of the thing."


class TwoPrompts(FakeEngine):
    """Answers right under a system message that holds `magic`, else always warm."""

    def __init__(self, magic: str = "carefully") -> None:
        super().__init__(ALL_WARM, RIGHT)
        self.magic, self.adapters = magic, set[Path | None]()

    def generate(self, prompts: Any, on_done: Any = None) -> list[Completion]:
        adapter = self.adapter
        self.adapters.add(adapter)
        first: Prompt = prompts[0]
        self.adapter = Path("x") if self.magic in first.messages[0].content else None
        try:
            return super().generate(prompts, on_done)
        finally:
            self.adapter = adapter


@pytest.fixture
def ctx(
    make_project: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Context:
    source = ModelSource("demo", "demo", "directory", tmp_path, "d" * 64)
    monkeypatch.setattr(prompt_trial, "locate_model", lambda spec, root: source)
    opened = open_context(make_project())
    clusters = {row.id: row.id for rows in SPLITS.values() for row in rows}
    version = write_version(opened.workspace.artifacts / "datasets", VersionDraft(SPLITS, clusters))
    path = opened.workspace.relative(version.directory)
    register(opened.store, describe("dataset", version.hash, path))
    with opened.store.begin() as session:
        session.add(StageRow(stage="curate", input_hash="x", output=version.hash, seconds=0.0))
    return opened


def try_out(ctx: Context, engine: FakeEngine, **options: Any) -> dict[str, Any]:
    return prompt_trial.trial(
        ctx, open_engine=lambda source, size: LoadedEngine(engine, len), **options
    )


def reopen(ctx: Context, events: list[Event] | None = None) -> Context:
    return open_context(ctx.workspace.root, (events if events is not None else []).append)


def call(ctx: Context, *arguments: str, stdin: str | None = None) -> tuple[int, str, str]:
    where = ["--project", str(ctx.workspace.root)]
    done = CliRunner().invoke(app, ["prompt", *arguments, *where], input=stdin)
    return done.exit_code, done.stdout, done.stderr


def test_a_better_draft_is_tested_reviewed_published_and_used(ctx: Context) -> None:
    drafted = prompting.draft(ctx, f"{FIRST} Look carefully.", by="ann", note="a nudge")
    assert (drafted["number"], drafted["state"], drafted["new"]) == (2, "draft", True)
    found = try_out(ctx, TwoPrompts(), rows=30, by="ann")
    assert found["outcome"] == "improved"
    assert found["difference"]["n"] == 30 and found["difference"]["low"] > 0
    assert found["scores"] == {"draft": 1.0, "published": 0.5}
    assert found["counts"] == {"worse": 0, "better": 15, "other_words": 0, "same": 15}
    assert found["changed"][0]["before"] != found["changed"][0]["after"]
    assert found["sentence"].startswith("Version 2: accuracy +50.0 points against version 1")
    kept = json.loads((ctx.workspace.home / found["path"] / "test.json").read_text())
    assert kept["sentence"] == found["sentence"] and not list(ctx.workspace.runs.iterdir())
    assert prompting.review(ctx, "2", approve=True, by="bob", note="fine")["state"] == "approved"
    moved = prompting.publish(ctx, "2", note="for the forms", by="ann")
    assert (moved["state"], moved["before"]) == ("published", 1)
    events: list[Event] = []
    fresh = reopen(ctx, events)
    assert fresh.config.prompt == f"{FIRST} Look carefully."
    fresh.tell_prompt("train")
    fresh.tell_prompt("evaluate")
    assert [e.message for e in events] == [
        "version 2 of the prompt is used, the published one; tutelage.yaml holds version 1 "
        "(`tutelage prompt restore 1` puts it in force)"
    ]
    prompting.restore(fresh, "1", note="complaints")
    assert reopen(ctx).config.prompt == FIRST


def test_a_worse_draft_is_refused_with_exit_1(
    ctx: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    prompting.draft(ctx, "Say warm.")
    engine = TwoPrompts(magic="Name the colour")
    monkeypatch.setattr(prompt_trial.trial, "__kwdefaults__", {
        **(prompt_trial.trial.__kwdefaults__ or {}),
        "open_engine": lambda source, size: LoadedEngine(engine, len),
    })  # fmt: skip
    code, out, _ = call(ctx, "test", "2", "--rows", "30")
    assert code == 1 and "it is worse" in out and "15 worse" in " ".join(out.split())
    code, _, err = call(ctx, "publish", "2", "--note", "hurry")
    assert code == 1 and "version 2 of the prompt regressed" in err
    code, out, _ = call(ctx, "publish", "2", "--note", "hurry", "--force")
    assert code == 0 and "version 2 is published in place of version 1" in out
    code, out, _ = call(ctx, "log", "--json")
    last = json.loads(out)["events"][0]
    assert (last["action"], last["note"], last["evidence"]["forced"]) == (
        "published",
        "hurry",
        True,
    )


def test_must_pass_rows_alone_can_refuse(ctx: Context) -> None:
    cold = next(row for row in SPLITS["test"] if row.label == "cold")
    config = ctx.workspace.config_path
    config.write_text(config.read_text() + f"evaluate: {{must_pass: ['{cold.id}']}}\n")
    ctx = reopen(ctx)
    prompting.draft(ctx, "Say warm.")
    found = try_out(ctx, TwoPrompts())
    assert found["rows"] == 1 and found["must_pass"]["failed"] == [cold.id]
    assert found["outcome"] == "regressed" and "1 must-pass rows fail" in found["sentence"]


def test_golden_prompts_of_the_stable_release_are_asked_with_its_adapter(ctx: Context) -> None:
    folder = ctx.workspace.artifacts / "adapters" / "aaa"
    folder.mkdir(parents=True)
    (folder / "adapter_config.json").write_text("{}")
    (folder / "adapter_model.safetensors").write_bytes(b"w")
    adapter = bundle.AdapterRef(
        hash="a" * 64, path=ctx.workspace.relative(folder), files=bundle.adapter_files(folder)
    )
    rows = SPLITS["test"][:4]
    manifest = bundle.ReleaseManifest(
        kind="tuned", base=bundle.BaseRef(spec="demo", name="demo", digest="d" * 64),
        adapter=adapter, prompt=FIRST,
        golden=tuple(
            bundle.Golden(
                id=row.id, messages=({"role": "user", "content": row.input_text},),
                expected=row.answer or "", reference=row.answer,
            )
            for row in rows
        ),
    )  # fmt: skip
    release = bundle.create_release(ctx.store, ctx.workspace, manifest, project="colours")
    ensure_deployment(ctx.store, "colours", release.id)
    prompting.draft(ctx, "Say warm.")
    engine = TwoPrompts(magic="Name the colour")
    found = try_out(ctx, engine)
    assert engine.adapters == {folder}
    assert found["model"] == {"name": "colours-v1", "adapter": "a" * 64}
    cold = [row.id for row in rows if row.label == "cold"]
    assert (found["golden"]["rows"], found["golden"]["same_text"]) == (4, 4 - len(cold))
    assert found["golden"]["lost"] == cold and found["outcome"] == "regressed"


def test_a_killed_test_goes_on(ctx: Context) -> None:
    prompting.draft(ctx, f"{FIRST} Look carefully.")
    dying, second = TwoPrompts(), TwoPrompts()
    dying.dies_after = 1
    with pytest.raises(KeyboardInterrupt):
        try_out(ctx, dying, rows=30)
    assert try_out(ctx, second, rows=30)["outcome"] == "improved"
    asked = [sum(len(rows) for _, rows in engine.calls) for engine in (dying, second)]
    assert asked[0] > 0 and sum(asked) == 2 * 30  # nothing is asked twice


def test_without_anything_to_test_on_one_sentence_says_so(ctx: Context) -> None:
    with pytest.raises(DataError, match="there is no draft of the prompt to test"):
        try_out(ctx, TwoPrompts(), rows=5)
    prompting.draft(ctx, "Say warm.")
    with pytest.raises(DataError, match=r"nothing to test on: no must-pass row.*--rows 50"):
        try_out(ctx, TwoPrompts())
    with pytest.raises(Conflict, match="version 1 is the published one"):
        try_out(ctx, TwoPrompts(), version="1", rows=3)


def test_a_draft_comes_from_a_file_stdin_or_the_editor(
    ctx: Context, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "new.txt"
    file.write_text("From a file.\n")
    code, out, _ = call(ctx, "draft", str(file))
    assert code == 0 and out.strip() == "version 2 is a draft; `tutelage prompt test 2` tests it"
    code, out, _ = call(ctx, "draft", "-", "--json", stdin="From stdin.")
    assert code == 0 and json.loads(out)["number"] == 3
    code, out, _ = call(ctx, "draft", str(file))
    assert out.strip() == "this text is version 2 already (draft)"
    editor = tmp_path / "editor.py"
    editor.write_text("import sys; p = sys.argv[1]; open(p, 'a').write('More.')")
    monkeypatch.delenv("VISUAL", raising=False)
    monkeypatch.setenv("EDITOR", f"{sys.executable} {editor}")
    code, _, _ = call(ctx, "draft", "--edit")
    _, out, _ = call(ctx, "show", "4")
    assert code == 0 and out.strip().splitlines()[-1] == f"{FIRST}More."


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["draft"], "a draft comes from one place"),
        (["draft", "no-such-file.txt"], "there is no such file"),
        (["draft", "-"], "the prompt is empty"),
        (["draft", "--edit"], "neither $VISUAL nor $EDITOR is set"),
        (["publish", "1"], "publishing needs a note"),
        (["publish", "9", "--note", "x"], "there is no version '9' of the prompt"),
        (["review", "1", "--by", "ann"], "a review needs a verdict"),
        (["test", "--rows", "-1"], "can't be negative"),
    ],
)
def test_what_is_wrong_is_said_in_one_sentence(
    ctx: Context, monkeypatch: pytest.MonkeyPatch, arguments: list[str], says: str
) -> None:
    for name in ("VISUAL", "EDITOR"):
        monkeypatch.delenv(name, raising=False)
    code, out, err = call(ctx, *arguments, stdin="")
    assert code == 2 and says in err and out == "" and len(err.strip().splitlines()) == 1


def test_the_difference_is_plain_in_json_and_coloured_on_a_terminal(ctx: Context) -> None:
    from rich.console import Console

    from tutelage.cli import prompt_view
    from tutelage.release.prompts import changes

    prompting.draft(ctx, "Name the shape of the thing.")
    _, out, _ = call(ctx, "diff", "1", "2", "--json")
    assert json.loads(out)["diff"] == "Name the [-colour family-]{+shape+} of the thing."
    console = Console(file=io.StringIO(), force_terminal=True, color_system="standard")
    console.print(prompt_view.difference(changes("a b", "a c")))
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert "\x1b[9;31m[-b-]\x1b[0m" in text and "\x1b[1;32m{+c+}\x1b[0m" in text


def test_the_stage_inputs_change_with_the_published_prompt(ctx: Context) -> None:
    before = content_hash(ctx.config.prompt)
    prompting.draft(ctx, "Say warm.")
    prompting.publish(ctx, "2", note="x", force=True)
    assert content_hash(reopen(ctx).config.prompt) != before


def test_who_decides_on_what_he_saw_is_told_when_that_moved(ctx: Context) -> None:
    first = prompting.adopt(ctx)
    assert first is not None
    prompting.draft(ctx, "Say warm.")
    prompting.draft(ctx, "Say cold.")
    prompting.publish(ctx, "2", note="mine", force=True, seen=first.hash)
    with pytest.raises(Conflict, match="somebody else moved the published prompt"):
        prompting.publish(ctx, "3", note="late", force=True, seen=first.hash)
    with pytest.raises(Conflict, match="somebody else moved the published prompt"):
        prompting.restore(ctx, "1", seen=first.hash)


def test_the_standing_follows_what_is_published_and_what_the_settings_say(ctx: Context) -> None:
    prompting.draft(ctx, "Say warm.")
    assert prompting.standing(ctx)["in_force"] == 1
    prompting.publish(ctx, "2", note="short", force=True)
    found = prompting.standing(ctx)
    assert (found["in_force"], found["text"]) == (2, "Say warm.")
    assert [row["number"] for row in found["versions"]] == [2, 1]
    path = ctx.workspace.config_path
    path.write_text(path.read_text().replace(FIRST, "Say what it is."))
    assert prompting.standing(ctx)["text"] == "Say what it is."


def test_the_document_of_a_test_is_read_back(ctx: Context) -> None:
    prompting.draft(ctx, f"{FIRST} Look carefully.")
    assert prompting.trial_of(ctx, "2") is None
    found = try_out(ctx, TwoPrompts(), rows=10)
    kept = prompting.trial_of(ctx, "2")
    assert kept is not None and kept["sentence"] == found["sentence"]
    (ctx.workspace.home / found["path"] / "test.json").unlink()
    assert prompting.trial_of(ctx, "2") is None
