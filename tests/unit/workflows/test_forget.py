"""A user who is forgotten leaves no trace, wherever it was; what was trained on them is named."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sqlalchemy import select
from typer.testing import CliRunner

import tutelage
from tutelage.cli.main import app
from tutelage.core.artifact import content_hash, describe, utc_now
from tutelage.core.errors import DataError
from tutelage.core.example import Example, Message, Origin
from tutelage.data.split import load_split_key
from tutelage.data.version import VersionDraft, is_buried, load_version, write_version
from tutelage.feedback.privacy import tables
from tutelage.feedback.privacy.late import sweep_late
from tutelage.feedback.privacy.traces import Traces
from tutelage.feedback.signals import read_feedback
from tutelage.inference.embed_cache import embed_cached
from tutelage.serving.records.retention import delete_orphans
from tutelage.serving.records.spill import Spill, encode_row
from tutelage.store.alerts import EventRow
from tutelage.store.annotations import ItemRow
from tutelage.store.artifacts import SplitRow, StageRow
from tutelage.store.privacy import ErasureRow, ForgottenRow
from tutelage.store.records import HeldSignalRow, RecordRow, SignalRow
from tutelage.store.scores import ScoreRow
from tutelage.workflows.context import register
from tutelage.workflows.data.privacy import privacy_steps
from tutelage.workflows.data.versions import versions
from tutelage.workflows.feedback.forget import erasures, forget, look_up
from tutelage.workflows.feedback.forget_pseudonyms import pseudonyms_of
from tutelage.workflows.outputs import Dataset

USER, MARK = "zoe.forgettable@example.org", "quaxolotl"
CONFIG = """\
name: colours
task: classification
model: demo
prompt: Name the colour family of the thing.
output: {field: family, labels: [warm, cold]}
data:
  sources: [data/*]
  columns: {input: text, output: label}
  splits: {group: user}
"""
Make = Callable[..., Path]


class Counted:
    """An embedder that counts letters."""

    fingerprint = "letters"

    def embed(self, texts: Any, on_batch: Any = None) -> Any:
        """Return one vector a text."""
        return np.array([[len(text), 1.0] for text in texts], dtype=np.float32)


def table() -> str:
    drawn, lines = random.Random(5), ["text,label,user"]
    words = ("ember", "frost", "lava", "snow", "rust", "ice", "amber", "mint", "coral", "steel")
    for number in range(80):
        text = " ".join(drawn.sample(words, 4)) + f" number {number * 7919}"
        lines.append(f"{text},{('warm', 'cold')[number % 2]},user-{number % 20:04d}")
    lines += [f"the {MARK} of {i * 31337} glows in the dark,warm,{USER}" for i in range(3)]
    return "\n".join(lines) + "\n"


@pytest.fixture
def project(make_project: Make) -> Any:
    opened = tutelage.open(make_project({"rows.csv": table()}, CONFIG))
    yield opened
    opened.close()


def call(number: int, user: str, text: str) -> dict[str, Any]:
    return {"id": f"chatcmpl-{number:024x}", "prompt": text, "completion": f"{text} is warm",
            "user": user, "rating": "down", "edit": "cold", "comment": f"no, {text}"}  # fmt: skip


def freeze(project: Any) -> Dataset:
    """Make the dataset version of the project's file, without looking for duplicates."""
    ctx = project.context
    sides: dict[Any, list[Example]] = {"train": [], "validation": [], "test": []}
    for number, line in enumerate(table().splitlines()[1:]):
        text, label, user = line.rsplit(",", 2)
        turns = (Message(role="user", content=text), Message(role="assistant", content=label))
        row = Example(messages=turns, label=label, group=user,
                      origin=Origin(source=f"data/rows.csv:{number + 2}"))  # fmt: skip
        sides["test" if number % 10 == 0 else "train"].append(row)
    clusters = {row.id: row.group or "" for rows in sides.values() for row in rows}
    draft = VersionDraft(sides, clusters, meta={"project": "colours", "parents": []})
    version = write_version(ctx.workspace.artifacts / "datasets", draft)
    path = ctx.workspace.relative(version.directory)
    made = describe("dataset", version.hash, path, meta={"counts": version.manifest["counts"]})
    register(ctx.store, made)
    with ctx.store.begin() as session:
        session.add(StageRow(stage="curate", input_hash="x", output=made.hash, seconds=0.0))
        session.add_all(SplitRow(example_id=row.id, split=split, cluster="c")
                        for split, rows in sides.items() for row in rows)  # fmt: skip
    return Dataset(made, version.directory)


def fill(project: Any) -> dict[str, Any]:
    """Put the user in every place that holds something of users; return what to compare with."""
    ctx, root = project.context, project.context.workspace.root
    dataset = freeze(project)
    log = root.parent / "log.jsonl"
    calls = [call(i, USER, f"does the {MARK} shine, part {i}") for i in range(4)]
    calls += [call(100 + i, "somebody.else", f"another thing {i * 977}") for i in range(4)]
    log.write_text("".join(json.dumps(one) + "\n" for one in calls))
    project.logs.add(log)
    log.unlink()
    theirs = [row for split in ("train", "validation", "test") for row in dataset.rows(split)
              if row.group == USER]  # fmt: skip
    assert len(theirs) == 3
    adapter = describe(
        "adapter", "a" * 64, "artifacts/adapters/aaa", parents=[dataset.artifact.hash]
    )
    register(ctx.store, adapter)
    example = {"messages": [{"role": "user", "content": calls[0]["prompt"]}],
               "origin": {"kind": "production", "source": calls[0]["id"]}}  # fmt: skip
    with ctx.store.begin() as session:
        session.add(ItemRow(id="f" * 24, example=example, source="production", label=None,
                            answer=MARK))  # fmt: skip
        session.add(ScoreRow(evaluation=None, item=calls[1]["id"], candidate="x", metric="m",
                             value=0.0, evidence={"why": MARK}, source="judge"))  # fmt: skip
        session.add(EventRow(key="test", kind="test", level="info", message="an example",
                             data={"examples": [{"record": calls[2]["id"], "text": MARK}, "kept"]},
                             at=utc_now()))  # fmt: skip
    embed_cached(
        Counted(), [calls[0]["prompt"], "another thing"], ctx.workspace.home / "embeddings"
    )
    folder = ctx.workspace.artifacts / "evaluations" / "e1"
    folder.mkdir(parents=True)
    line = {"item": theirs[0].id, "text": "glows"}
    (folder / "rows.jsonl").write_text(
        json.dumps(line) + "\n" + json.dumps({"item": "kept"}) + "\n"
    )
    (folder / "golden.json").write_text(
        json.dumps([{"id": theirs[1].id, "messages": [theirs[1].input_text]}, {"id": "kept"}])
    )
    (folder / "report.html").write_text(f"<p>{theirs[2].input_text}</p>")
    return {"dataset": dataset, "calls": calls, "folder": folder, "rows": theirs}


def files_with(root: Path, *words: str) -> list[str]:
    return [
        f"{path.relative_to(root)}: {word}"
        for path in sorted(root.rglob("*"))
        if path.is_file()
        for word in words
        if word.encode() in path.read_bytes()
    ]


def test_a_forgotten_user_is_in_no_file_of_the_project(project: Any) -> None:
    ctx, root = project.context, project.context.workspace.root
    there = fill(project)
    ids = [one["id"] for one in there["calls"][:4]] + [row.id for row in there["rows"]]
    assert files_with(root, MARK)
    assert look_up(ctx, USER).store["records"] == 4
    done = forget(ctx, USER, reason="ticket 7")
    ctx.store.close()
    assert files_with(root, MARK, USER, *ids) == []
    assert done.remains == []
    assert (done.store["records"], done.store["label_items"], done.store["scores"]) == (4, 1, 1)
    assert done.store["signals"] == 12
    assert done.files["data/rows.csv"] == 3
    assert done.vectors == 1
    assert done.removed == [".tutelage/artifacts/evaluations/e1/report.html"]
    assert json.loads((there["folder"] / "golden.json").read_text()) == [{"id": "kept"}]
    assert (there["folder"] / "rows.jsonl").read_text() == '{"item": "kept"}\n'


def test_what_others_said_stays(project: Any) -> None:
    ctx = project.context
    fill(project)
    forget(ctx, USER)
    with ctx.store.session() as session:
        assert len(list(session.scalars(select(RecordRow)))) == 4
        assert len(list(session.scalars(select(SignalRow)))) == 12
        (event,) = session.scalars(select(EventRow).where(EventRow.kind == "test"))
        assert event.data == {"examples": ["kept"]}
    text = (ctx.workspace.root / "data" / "rows.csv").read_text()
    assert text == "".join(line + "\n" for line in table().splitlines() if MARK not in line)


def test_a_version_without_the_rows_follows_and_a_tombstone_keeps_the_hash(project: Any) -> None:
    ctx = project.context
    there = fill(project)
    old = there["dataset"]
    done = forget(ctx, USER)
    (told,) = done.versions
    assert (told["hash"], sum(told["rows"].values())) == (old.artifact.short, 3)
    assert is_buried(old.path)
    assert [path.name for path in old.path.iterdir()] == ["manifest.json"]
    with pytest.raises(DataError, match=f"were erased on .*Use the version {told['replaced_by']}"):
        load_version(old.path)
    newest, before = versions(ctx)
    assert (newest["hash"], newest["current"], newest["parents"]) == (
        told["replaced_by"], True, [old.artifact.short],
    )  # fmt: skip
    assert sum(newest["counts"].values()) == sum(before["counts"].values()) - 3
    assert not before["on_disk"]
    rows = load_version(ctx.workspace.artifacts / "datasets" / newest["hash"]).all_rows()
    assert len(rows) == sum(newest["counts"].values())


def test_the_models_that_know_the_user_are_named(project: Any) -> None:
    ctx = project.context
    there = fill(project)
    models = forget(ctx, USER).models
    assert [(model["hash"], model["rows"]["train"]) for model in models] == [("a" * 12, 2)]
    (kept,) = erasures(ctx)
    assert (kept["state"], kept["report"]["models"]) == ("done", models)
    assert USER not in json.dumps(kept)
    assert there["dataset"].artifact.short in json.dumps(kept)


def test_models_of_a_version_that_lost_rows_before_know_the_next_user_too(project: Any) -> None:
    fill(project)
    forget(project.context, USER)
    models = forget(project.context, "user-0003").models
    assert [(model["hash"], model["rows"]["train"]) for model in models] == [("a" * 12, 4)]


@pytest.mark.parametrize("step", ["replace_version", "_sweep", "forget_texts", "_finish"])
def test_an_interrupted_run_is_taken_up(
    project: Any, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    from tutelage.workflows.feedback import forget as work

    ctx, root = project.context, project.context.workspace.root
    there = fill(project)
    real = getattr(work, step)

    def killed(*given: Any, **named: Any) -> Any:
        real(*given, **named)
        raise KeyboardInterrupt

    monkeypatch.setattr(work, step, killed)
    with pytest.raises(KeyboardInterrupt):
        forget(ctx, USER)
    monkeypatch.undo()
    if step == "_finish":
        with pytest.raises(DataError, match="nothing is known"):
            forget(ctx, USER)
    else:
        done = forget(ctx, USER)
        assert [one["hash"] for one in done.versions] == [there["dataset"].artifact.short]
    ctx.store.close()
    assert files_with(root, MARK, USER) == []
    assert [one["state"] for one in erasures(ctx)] == ["done"]


def test_what_a_killed_gateway_left_is_erased_too(project: Any) -> None:
    ctx, root = project.context, project.context.workspace.root
    row = {
        "id": "chatcmpl-ahead00000000000001", "deployment": "colours", "release": "r",
        "rollout": None, "step": None, "arm": "stable", "user": USER, "key_name": None,
        "split": "train", "group_key": "g", "messages": [{"role": "user", "content": MARK}],
        "response": MARK, "finish_reason": "stop", "status": 200, "error": None,
        "latency_ms": 1.0, "first_token_ms": None, "prompt_tokens": 1, "completion_tokens": 1,
        "checks": {}, "at": utc_now(),
    }  # fmt: skip
    spill = Spill(ctx.workspace.logs / "ahead")
    spill.append(encode_row(row))
    spill._segments[0].handle.close()  # as a killed process leaves it
    assert files_with(root, USER)
    assert forget(ctx, USER).store["records"] == 1
    ctx.store.close()
    assert [name for name in files_with(root, USER) if "rows.csv" not in name] == []


def test_feedback_and_records_that_come_late_are_deleted(project: Any) -> None:
    ctx = project.context
    fill(project)
    forget(ctx, USER)
    key = load_split_key(ctx.workspace)
    output = ctx.config.output.format()
    late = read_feedback({"record_id": f"chatcmpl-{1:024x}", "comment": MARK}, output).rows
    other = read_feedback({"record_id": "chatcmpl-unknown", "comment": "early"}, output).rows
    with ctx.store.begin() as session:
        session.add_all(SignalRow(**row) for row in (*late, *other))
        session.add(HeldSignalRow(**late[0], id="held", deployments=["other"]))
        before = session.scalars(select(ErasureRow)).one().at
        template = session.scalars(select(RecordRow)).first()
        fields = {c.name: getattr(template, c.name) for c in RecordRow.__table__.columns}
        session.add(RecordRow(**{**fields, "id": "in-flight", "user": USER, "at": before}))
        session.add(RecordRow(**{**fields, "id": "came-back", "user": USER, "at": utc_now()}))
    assert sweep_late(ctx.store, key) == {"records": 1, "signals": 2}
    with ctx.store.session() as session:
        names = set(session.scalars(select(RecordRow.id)))
        assert "came-back" in names
        assert "in-flight" not in names
        assert [s.record for s in session.scalars(select(SignalRow)) if s.kind == "comment"
                and s.value["value"] == "early"] == ["chatcmpl-unknown"]  # fmt: skip
        assert len(list(session.scalars(select(ForgottenRow)))) == 5


def test_short_keys_and_common_texts_take_nobody_else_along() -> None:
    traces = Traces("ann", records={"a1"})
    traces.add_texts(["ok", "a text that is long enough to be recognised"])
    assert not traces.in_text("ann said ok to a1")
    assert traces.in_text("> a text that is long enough to be recognised <")
    assert traces.holds({"user": "ann"})
    assert traces.holds([{"record": "a1", "label": "warm"}])
    assert not traces.holds({"label": "ann", "text": "a1"})
    assert not Traces("user-0001").in_text("user-00012 and xuser-0001")
    assert Traces("user-0001").in_text("it was user-0001, who said so")


def test_the_command_asks_shows_and_refuses_in_one_sentence(project: Any) -> None:
    root = str(project.context.workspace.root)
    fill(project)
    run = CliRunner().invoke
    ran = run(app, ["privacy", "show", "-u", USER, "-p", root, "--json"])
    assert json.loads(ran.stdout)["store"]["records"] == 4
    ran = run(app, ["privacy", "forget", "-u", USER, "-p", root])
    assert ran.exit_code == 2
    assert "this can't be undone. Add --yes if you mean it" in ran.output
    ran = run(app, ["privacy", "forget", "-u", "nobody-at-all", "-y", "-p", root])
    assert "nothing is known of this user" in ran.output
    ran = run(app, ["privacy", "forget", "-u", " ", "-y", "-p", root])
    assert "the user's key is empty" in ran.output
    ran = run(app, ["privacy", "forget", "-u", USER, "-y", "-p", root])
    assert ran.exit_code == 0, ran.output
    ran = run(app, ["privacy", "report", "-p", root, "--json"])
    (one,) = json.loads(ran.stdout)["erasures"]
    assert one["report"]["store"]["records"] == 4
    assert content_hash(USER) not in ran.stdout


def test_erasing_twice_deletes_nothing_more(project: Any) -> None:
    ctx = project.context
    fill(project)
    traces = Traces(USER)
    tables.find_records(ctx.store, traces)
    key = load_split_key(ctx.workspace)
    assert tables.erase(ctx.store, traces, "one", key)["records"] == 4
    assert tables.erase(ctx.store, traces, "one", key) == {}


def test_a_user_behind_a_pseudonym_is_found_and_leaves_the_vault(
    make_project: Make, tmp_path: Path
) -> None:
    key = tmp_path / "keys" / "colours.key"
    config = CONFIG + f"  privacy: {{mode: redact, key: {key}}}\n"
    opened = tutelage.open(make_project({"rows.csv": table()}, config))
    ctx = opened.context
    step = privacy_steps(ctx, keep=True)[0]
    turns = (Message(role="user", content="what glows"), Message(role="assistant", content="warm"))
    row = Example(messages=turns, label="warm", group=USER)
    other = Example(messages=turns[:1] + turns[1:], label="cold", group="user-0001")
    redacted = step.run([row, other]).kept
    assert redacted[0].group != USER
    sides: Any = {"train": redacted, "validation": [], "test": []}
    draft = VersionDraft(sides, {row.id: row.id for row in redacted})
    version = write_version(ctx.workspace.artifacts / "datasets", draft)
    done = forget(ctx, USER)
    assert [(one["hash"], one["rows"]) for one in done.versions] == [
        (version.hash[:12], {"train": 1})
    ]
    assert pseudonyms_of(ctx, USER) == frozenset()
    assert len(pseudonyms_of(ctx, "user-0001") or ()) == 1
    key.unlink()
    assert any("the key of the pseudonyms is not here" in line
               for line in look_up(ctx, USER).remains)  # fmt: skip
    opened.close()


def test_old_feedback_whose_record_never_came_is_deleted(project: Any) -> None:
    ctx = project.context
    output = ctx.config.output.format()
    for name, days in (("old", 9), ("new", 1)):
        at = (utc_now() - timedelta(days=days)).isoformat()
        body = {"record_id": f"never-{name}", "rating": "up", "at": at}
        with ctx.store.begin() as session:
            session.add_all(SignalRow(**row) for row in read_feedback(body, output).rows)
    assert delete_orphans(ctx.store, utc_now() - timedelta(days=5)) == 1
    with ctx.store.session() as session:
        assert [s.record for s in session.scalars(select(SignalRow))] == ["never-new"]
