"""What changed between versions, their lineage, and the story of one row."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from tutelage.cli.main import app
from tutelage.core.errors import DataError
from tutelage.core.example import Example, Message, Origin, SplitName
from tutelage.data import diff_page
from tutelage.data.diff import GONE, compare
from tutelage.data.repairs import Repair
from tutelage.data.version import DatasetVersion, VersionDraft, load_version, write_version
from tutelage.store.annotations import AnnotationRow, AnnotatorRow, ItemRow
from tutelage.workflows.context import Context, open_context
from tutelage.workflows.curate import curate
from tutelage.workflows.data import repairs, versions

MakeProject = Callable[..., Path]
CONFIG = """\
name: colours
task: classification
model: demo
data: {columns: {input: text, output: label}}
"""


def row(text: str, label: str = "a", **fields: object) -> Example:
    turns = (Message(role="user", content=text), Message(role="assistant", content=label))
    return Example(messages=turns, label=label, **fields)  # type: ignore[arg-type]


def words(seed: int) -> str:
    rng = random.Random(seed)
    return " ".join("".join(rng.choices("abcdefghijklmnop", k=7)) for _ in range(6))


def frozen(
    folder: Path, rows: dict[str, list[Example]], dropped: list[dict[str, Any]] | None = None
) -> DatasetVersion:
    splits: dict[SplitName, list[Example]] = {"train": [], "validation": [], "test": []}
    for side, held in rows.items():
        splits[side] = held  # type: ignore[index]
    finding = {"id": "D4-E01", "severity": "note", "what": "Exact duplicates left out"}
    meta = {"findings": [{**finding, "count": len(dropped or ())}] if dropped else []}
    return write_version(folder, VersionDraft(splits, {}, dropped or [], [], meta))


def test_rows_are_told_apart_by_what_happened_to_them(tmp_path: Path) -> None:
    stays, gone, wrong, typo, rejected = (row(words(i)) for i in range(5))
    fixed = row(wrong.input_text, "b", origin=Origin(source="f:3", parents=(wrong.id,)))
    retyped = row(typo.input_text[:-1] + "x")
    relabelled = row(rejected.input_text + " z", "b")
    fresh = row(words(9), "c")
    before = frozen(tmp_path, {"train": [stays, gone, wrong], "test": [typo, rejected]})
    lost = {"id": gone.id, "finding": "D4-E01", "reason": "the same as f:1 [D4-E01]"}
    after = frozen(
        tmp_path, {"train": [stays, fixed, fresh], "test": [retyped, relabelled]}, [lost]
    )
    found = compare(before, after)
    assert found.counts() == {"added": 1, "removed": 1, "changed": 3, "moved": 0, "same": 1}
    assert found.added[0].row.id == fresh.id
    assert found.removed[0].why == "the same as f:1 [D4-E01]"
    how = {item.before.row.id: item.after.why for item in found.changed}
    assert how == {wrong.id: "repaired", typo.id: "edited", rejected.id: "edited"}
    assert found.labels == {"a": (5, 2), "b": (0, 2), "c": (0, 1)}
    assert found.findings == (
        {
            "id": "D4-E01",
            "severity": "note",
            "what": "Exact duplicates left out",
            "before": 0,
            "after": 1,
        },
    )


def test_a_row_on_another_side_is_a_moved_row(tmp_path: Path) -> None:
    one, two = row(words(1)), row(words(2))
    before = frozen(tmp_path, {"train": [one, two]})
    after = frozen(tmp_path, {"train": [one], "test": [two]})
    found = compare(before, after)
    assert [(item.before.side, item.after.side) for item in found.moved] == [("train", "test")]
    assert found.same == 1
    assert "1 rows changed their side" in diff_page.sentence(found)
    assert "Rows changed their side" in diff_page.page(found, project="p")
    same = compare(before, before)
    assert same.empty
    assert diff_page.sentence(same) == "the same 2 rows on the same sides"


def test_drifted_lengths_are_said(tmp_path: Path) -> None:
    short, long = [row(f"a {i}") for i in range(200)], [row(words(i) * 3) for i in range(200)]
    found = compare(frozen(tmp_path, {"train": short}), frozen(tmp_path, {"train": long}))
    inputs, answers = found.lengths
    assert inputs.drifted
    assert not answers.drifted
    assert "drifted" in diff_page.text(found)
    json.dumps(found.as_dict())


def test_the_page_escapes_what_rows_say(tmp_path: Path) -> None:
    before = frozen(tmp_path, {"train": [row("plain")]})
    after = frozen(tmp_path, {"train": [row("plain"), row("<script>alert(1)</script>")]})
    page = diff_page.page(compare(before, after), project="p")
    assert "<script>" not in page
    assert "&lt;script&gt;" in page


# --- in a project


def lines(rows: list[tuple[str, str]]) -> str:
    return "".join(json.dumps({"text": text, "label": label}) + "\n" for text, label in rows)


ROWS = [(words(i), ("warm", "cold")[i % 2]) for i in range(80)]


@pytest.fixture
def project(make_project: MakeProject) -> Context:
    return open_context(make_project({"rows.jsonl": lines(ROWS)}, CONFIG))


def rewrite(ctx: Context, rows: list[tuple[str, str]]) -> None:
    (ctx.workspace.root / "data" / "rows.jsonl").write_text(lines(rows))


def test_a_version_names_its_parent_its_files_and_its_repairs(project: Context) -> None:
    first = curate(project).artifact
    rows = load_version(project.path_of(first)).rows("train")
    victim = next(r for r in rows if r.label == "warm")
    batch = repairs.record(project, [Repair(victim.id, "label", "cold", "checked", "ann")])
    second = curate(project).artifact
    assert second.parents == (first.hash,)
    manifest = load_version(project.path_of(second)).manifest
    assert manifest["parents"] == [first.hash]
    assert manifest["repairs"] == [batch]
    assert list(manifest["sources"]) == ["data/rows.jsonl"]
    newest, older = versions.versions(project)
    assert (newest["hash"], newest["parents"], newest["current"]) == (
        second.short,
        [first.short],
        True,
    )
    assert (older["hash"], older["parents"], older["current"]) == (first.short, [], False)
    assert newest["repairs"] == [batch]


def test_the_last_two_versions_are_compared(project: Context) -> None:
    with pytest.raises(DataError, match="has not run yet"):
        versions.diff(project)
    curate(project)
    with pytest.raises(DataError, match="only one dataset version"):
        versions.diff(project)
    rewrite(project, [*ROWS[2:], (words(500), "warm")])
    curate(project)
    found = versions.diff(project)
    assert found.counts() == {"added": 1, "removed": 2, "changed": 0, "moved": 0, "same": 78}
    assert {item.why for item in found.removed} == {GONE}
    back = versions.diff(project, str(found.after["hash"])[:8], str(found.before["hash"])[:8])
    assert back.counts()["added"] == 2
    path = versions.write_diff(project, found)
    assert "No row changed its side" in path.read_text()


def test_going_back_to_the_old_rows_gives_the_old_version(project: Context) -> None:
    first = curate(project).artifact
    rewrite(project, ROWS[:-1])
    second = curate(project).artifact
    rewrite(project, ROWS)
    assert curate(project).artifact.hash == first.hash
    newest, other = versions.versions(project)
    assert (newest["hash"], newest["current"]) == (first.short, True)
    assert other["hash"] == second.short
    assert versions.diff(project).counts()["added"] == 1


def test_unknown_and_ambiguous_names_are_refused(project: Context) -> None:
    short = curate(project).artifact.short
    with pytest.raises(DataError, match="no dataset version 'ffff0000'"):
        versions.diff(project, "ffff0000")
    wrong = short[:-1] + ("0" if short[-1] != "0" else "1")
    with pytest.raises(DataError, match=f"Did you mean {short}"):
        versions.diff(project, wrong)
    with pytest.raises(DataError, match="no dataset version has a row 'abcdef'"):
        versions.show(project, "abcdef")
    with pytest.raises(DataError, match="too short"):
        versions.show(project, "a")


def test_a_corrected_test_row_stays_a_test_row(project: Context) -> None:
    first = load_version(project.path_of(curate(project).artifact))
    tested = {r.input_text for r in first.rows("test")}
    edited = [(text, "warm" if text in tested else label) for text, label in ROWS]
    rewrite(project, edited)
    second = load_version(project.path_of(curate(project).artifact))
    assert {r.input_text for r in second.rows("test")} == tested
    found = versions.diff(project)
    assert found.counts()["moved"] == 0
    assert {(c.before.side, c.after.side) for c in found.changed} == {("test", "test")}


def test_the_story_of_a_row(project: Context) -> None:
    rewrite(project, [*ROWS, (ROWS[0][0] + " x", ROWS[0][1])])
    first = load_version(project.path_of(curate(project).artifact))
    target = next(r for r in first.all_rows() if r.input_text == ROWS[0][0])
    batch = repairs.record(project, [Repair(target.id, "label", "cold", "checked", "ann")])
    with project.store.begin() as session:
        session.add(AnnotatorRow(name="ann"))
        session.flush()
        asked = Example(messages=target.context).model_dump(mode="json")
        item = ItemRow(id="i1", example=asked, source="dataset", example_id=target.id)
        session.add(item)
        session.flush()
        session.add(
            AnnotationRow(
                item="i1", annotator="ann", label="cold", flags=["unsure"], extra={}, key="k"
            )
        )
    curate(project)
    old = versions.show(project, target.id[:10])
    assert old["versions"][-1]["side"] == old["side"]
    assert old["cluster"]["rows"] == 2
    assert old["repairs"][0]["batch"] == batch
    assert old["annotations"][0]["annotator"] == "ann"
    assert old["origin"]["source"] == "data/rows.jsonl:1"
    near = next(r for r in first.all_rows() if r.input_text == ROWS[0][0] + " x")
    assert any(entry["id"] == "D4-N01" for entry in versions.show(project, near.id)["findings"])
    (new,) = versions.diff(project).changed
    said = versions.show(project, new.after.row.id)
    assert said["label"] == "cold"
    assert said["side"] == old["side"]
    assert said["repairs"] == old["repairs"]
    rejected = load_version(project.path_of(curate(project).artifact)).rows("train")[3]
    repairs.record(project, [Repair(rejected.id, "drop", reason="nonsense", author="ann")])
    curate(project)
    lost = versions.show(project, rejected.id)
    assert lost["side"] == "train"  # in the version before
    assert lost["versions"][0]["side"] is None
    assert "nonsense" in lost["versions"][0]["reason"]


def test_the_commands(project: Context) -> None:
    root = str(project.workspace.root)

    def call(*arguments: str) -> tuple[int, str, str]:
        done = CliRunner().invoke(app, ["data", *arguments, "--project", root])
        return done.exit_code, done.stdout, " ".join(done.stderr.split())

    assert "no dataset version yet" in call("versions")[1]
    code, _, err = call("diff")
    assert code == 2
    assert "tutelage data split" in err
    curate(project)
    rewrite(project, [*ROWS[1:], (words(700), "cold")])
    curate(project)
    code, out, _ = call("versions")
    assert code == 0
    assert out.count("1 file") == 2
    code, out, _ = call("diff", "--html")
    assert code == 0
    assert "1 added, 1 removed" in " ".join(out.split())
    code, out, _ = call("diff", "--json")
    found = json.loads(out)
    assert found["counts"]["same"] == 79
    example = found["rows"]["added"][0]["id"]
    code, out, _ = call("show", example)
    assert code == 0
    assert words(700) in " ".join(out.split())
    assert json.loads(call("show", example[:9], "--json")[1])["id"] == example
    code, _, err = call("show", "ffffffffff")
    assert code == 2
    assert "no dataset version has a row" in err
    code, _, err = call("diff", "nonsense")
    assert code == 2
    assert "tutelage data versions" in err


def test_a_version_that_is_gone_from_the_disk_is_listed_as_such(project: Context) -> None:
    first = curate(project).artifact
    rewrite(project, ROWS[:-1])
    curate(project)
    shutil.rmtree(project.path_of(first))
    newest, older = versions.versions(project)
    assert (newest["on_disk"], older["on_disk"]) == (True, False)
    with pytest.raises(DataError, match="not a dataset version"):
        versions.diff(project)


def test_a_run_cut_off_before_its_sides_are_kept_is_taken_up(
    project: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cut(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("tutelage.workflows.curate.freeze", cut)
        with pytest.raises(KeyboardInterrupt):
            curate(project)
    assert versions.versions(project) == []
    made = curate(project).artifact
    folders = [path.name for path in project.path_of(made).parent.iterdir()]
    assert folders == [made.short]
    assert versions.versions(project)[0]["hash"] == made.short
