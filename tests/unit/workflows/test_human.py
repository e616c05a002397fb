"""A human evaluation from a study to scores: sheets out and in, leases, undo, the score table."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from sqlalchemy import func, select
from tests.conftest import BASIC_CONFIG
from tests.unit.evaluation.evaluation_rows import examples
from typer.testing import CliRunner

from tutelage.cli.main import app
from tutelage.core.artifact import describe, utc_now
from tutelage.core.errors import Conflict, DataError
from tutelage.data.version import VersionDraft, write_version
from tutelage.evaluation.rows import RowResult
from tutelage.store.artifacts import StageRow
from tutelage.store.human import HumanAssignmentRow, HumanJudgementRow, HumanTaskRow
from tutelage.store.scores import ScoreRow
from tutelage.workflows.context import Context, open_context, register
from tutelage.workflows.evaluation.human import Order, new_study
from tutelage.workflows.evaluation.human_answer import Given, next_task, submit, undo
from tutelage.workflows.evaluation.human_results import results, status
from tutelage.workflows.evaluation.human_scores import human_metrics, human_scores
from tutelage.workflows.evaluation.human_sheets import export, import_sheet
from tutelage.workflows.project import Project

ROWS = 40
SAME = 10  # of them both candidates answer alike
TEST = examples("new", ROWS)
PEOPLE = ("anna", "ben", "cleo")


def call(*arguments: str) -> tuple[int, str, str]:
    """Run `tutelage human …`; return exit code, stdout, and stderr on one line."""
    done = CliRunner().invoke(app, ["human", *arguments])
    return done.exit_code, done.stdout, " ".join(done.stderr.split())


def texts(candidate: str) -> dict[str, str]:
    return {
        row.id: "the same" if n < SAME else f"{candidate} says {n}" for n, row in enumerate(TEST)
    }


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project whose evaluation has a tuned model, a base and one with examples."""
    root = tmp_path_factory.mktemp("human") / "project"
    root.mkdir()
    (root / "tutelage.yaml").write_text(BASIC_CONFIG)
    opened = open_context(root)
    splits: dict[Any, Any] = {
        "train": examples("old", 4), "validation": examples("middle", 2), "test": TEST,
    }  # fmt: skip
    clusters = {row.id: row.id for rows in splits.values() for row in rows}
    version = write_version(opened.workspace.artifacts / "datasets", VersionDraft(splits, clusters))
    dataset = register(
        opened.store,
        describe("dataset", version.hash, opened.workspace.relative(version.directory)),
    )
    folder = opened.workspace.artifacts / "evaluations" / "eee"
    folder.mkdir(parents=True)
    lines = [
        {"candidate": name, "item": item, "text": text, "finish": "stop", "sample": 0}
        for name in ("tuned", "base", "few_shot")
        for item, text in texts(name).items()
    ]
    (folder / "rows.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    evaluation = register(
        opened.store,
        describe(
            "evaluation", "e" * 64, opened.workspace.relative(folder), parents=[dataset.hash],
            meta={"primary": {"against": "base"}},
        ),
    )  # fmt: skip
    with opened.store.begin() as session:
        session.merge(
            StageRow(stage="evaluate", input_hash="x", output=evaluation.hash, seconds=1.0)
        )
    opened.store.close()
    return root


@pytest.fixture
def ctx(template: Path, tmp_path: Path) -> Iterator[Context]:
    shutil.copytree(template, tmp_path / "project")
    opened = open_context(tmp_path / "project")
    yield opened
    opened.store.close()


def read_rows(path: str | Path) -> list[dict[str, str]]:
    with Path(path).open(encoding="utf-8-sig", newline="") as stream:
        return list(csv.DictReader(stream))


def write_rows(path: str | Path, rows: list[dict[str, str]]) -> None:
    with Path(path).open("w", encoding="utf-8-sig", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def fill(path: str | Path, chance: float, rng: np.random.Generator) -> None:
    """Judge a sheet as one who prefers the tuned answer with this chance, and ties now and then."""
    rows = read_rows(path)
    for row in rows:
        tuned = "A" if row["A"].startswith("tuned") else "B"
        other = "B" if tuned == "A" else "A"
        row["better"] = "tie" if rng.random() < 0.1 else tuned if rng.random() < chance else other
        row["seconds"] = "12"
    write_rows(path, rows)


def scores(ctx: Context, metric: str = "human_win") -> dict[tuple[str, str], float | None]:
    with ctx.store.session() as session:
        rows = session.scalars(select(ScoreRow).where(ScoreRow.metric == metric)).all()
    assert all(row.source == "human" and row.evaluation == "e" * 64 for row in rows)
    found = {(row.candidate, row.item): row.value for row in rows}
    assert len(found) == len(rows)
    return found


def test_three_raters_thirty_pairs_and_the_known_preference_comes_back(
    ctx: Context, tmp_path: Path
) -> None:
    where = ("-p", str(ctx.workspace.root))
    code, out, err = call("new", "--to", "anna,ben,cleo", "--overlap", "3", *where, "--json")
    assert code == 0, err
    made = json.loads(out)
    assert made["candidates"] == ["tuned", "base"] and made["people"] == dict.fromkeys(PEOPLE, 30)
    assert made["sample"] == {"how": "differ", "rows": 30, "of": 40, "differ": 30,
                              "reference": False}  # fmt: skip
    code, out, err = call("export", str(tmp_path / "s.csv"), *where, "--json")
    files = {one["rater"]: one["path"] for one in json.loads(out)["files"]}
    assert sorted(Path(path).name for path in files.values()) == [
        "s-anna.csv", "s-ben.csv", "s-cleo.csv",
    ]  # fmt: skip
    rng = np.random.default_rng(1)
    for name in PEOPLE:
        blind = Path(files[name]).read_text(encoding="utf-8-sig")
        assert made["study"] not in blind and "few_shot" not in blind
        fill(files[name], 0.8, rng)
    code, out, err = call("import", *files.values(), *where, "--json")
    assert code == 0, err
    assert [one["kept"] for one in json.loads(out)["files"]] == [30, 30, 30]
    code, out, _ = call("results", *where, "--json")
    found = json.loads(out)
    (rate,) = found["win_rates"]
    assert rate["low"] < 0.77 < rate["high"] and rate["decision"] == "first"  # 0.8 · 0.9 + 0.05
    assert rate["overall"] == pytest.approx(0.5 + (rate["rate"] - 0.5) * 30 / 40)
    assert found["judgements"] == 90 and found["rows"] == 30
    assert found["agreement"]["rows"] == 30 and len(found["raters"]) == 3
    assert all(rater["left"] + rater["right"] + rater["ties"] == 30 for rater in found["raters"])
    code, out, _ = call("results", *where)
    assert code == 0 and "tuned over base" in out and "tuned is preferred" in out
    code, out, _ = call("status", *where)
    assert "90 of 90 judged" in out
    given = scores(ctx)
    assert len(given) == 60  # 30 rows, two candidates
    assert np.mean([v for (c, _), v in given.items() if c == "tuned"]) == pytest.approx(
        rate["rate"]
    )


def test_sides_are_shuffled_and_each_rater_has_an_order_of_their_own(
    ctx: Context, tmp_path: Path
) -> None:
    new_study(ctx, Order(people=PEOPLE, overlap=3))
    made = export(ctx, tmp_path / "s.csv")
    sheets = [read_rows(one["path"]) for one in made["files"]]
    left = [row["A"].startswith("tuned") for rows in sheets for row in rows]
    assert 25 < sum(left) < 65  # of 90
    orders = [[row["input"] for row in rows] for rows in sheets]
    assert orders[0] != orders[1] and sorted(orders[0]) == sorted(orders[1])
    names = {row["row"] for rows in sheets for row in rows}
    assert len(names) == 90
    with pytest.raises(DataError, match="someone may have filled it"):
        export(ctx, tmp_path / "s.csv")
    assert export(ctx, tmp_path / "s.csv", force=True)["files"] == made["files"]


def test_good_rows_go_on_and_bad_ones_are_told_and_set_aside(ctx: Context, tmp_path: Path) -> None:
    new_study(ctx, Order(people=("anna",), rows=4))
    path = tmp_path / "s.csv"
    export(ctx, path)
    rows = read_rows(path)
    rows[0]["better"], rows[1]["better"], rows[2]["better"] = "A", "the first", "tie"
    rows[2]["row"] = "0123456789abcdef"
    write_rows(path, rows)
    where = ("-p", str(ctx.workspace.root))
    code, out, err = call("import", str(path), *where)
    assert code == 0 and "1 kept, 1 empty" in out, err
    flat = " ".join(out.split())
    assert "s.csv:3: better is 'the first', not A, B or tie" in flat
    assert "s.csv:4: '0123456789abcdef' is a row of no study" in flat
    set_aside = ctx.workspace.home / "human-quarantine" / "s.csv"
    assert [row["line"] for row in read_rows(set_aside)] == ["3", "4"]
    rows[1]["better"] = "B"
    write_rows(path, [rows[0], rows[1]])
    again = import_sheet(ctx, path)
    assert (again["kept"], again["unchanged"], again["problems"]) == (1, 1, [])
    assert not set_aside.exists()


def test_reading_a_sheet_twice_changes_nothing_and_a_correction_is_a_new_row(
    ctx: Context, tmp_path: Path
) -> None:
    new_study(ctx, Order(people=("anna",), rows=5))
    path = tmp_path / "s.csv"
    export(ctx, path)
    fill(path, 1.0, np.random.default_rng(0))
    assert import_sheet(ctx, path)["kept"] == 5
    assert import_sheet(ctx, path)["unchanged"] == 5
    rows = read_rows(path)
    first = rows[0]["better"]
    for better, counted in (("tie", "corrected"), (first, "corrected"), (first, "unchanged")):
        rows[0]["better"] = better if better != first or first != "tie" else "A"
        write_rows(path, rows)
        assert import_sheet(ctx, path)[counted] >= 1
    with ctx.store.session() as session:
        assert session.scalar(select(func.count()).select_from(HumanJudgementRow)) == 7
        chain = session.scalars(
            select(HumanJudgementRow)
            .where(HumanJudgementRow.assignment == rows[0]["row"][:16])
            .order_by(HumanJudgementRow.number)
        ).all()
    assert [row.supersedes for row in chain] == [None, chain[0].number, chain[1].number]
    assert len(scores(ctx)) == 10


def test_a_page_gets_the_next_one_keeps_it_once_and_can_undo(ctx: Context) -> None:
    new_study(ctx, Order(people=("anna",), rows=3, reference=True))
    shown = next_task(ctx, "anna")
    assert shown is not None and (shown.done, shown.total) == (0, 3)
    assert shown.reference is not None and shown.messages[0]["role"] == "user"
    assert "tuned" not in json.dumps({k: v for k, v in shown.as_dict().items()
                                      if k not in ("left", "right")})  # fmt: skip
    assert next_task(ctx, "anna") == shown  # what was begun comes first
    given = Given(shown.assignment, "anna", "left", comment=" clearer ", seconds=9.5, key="k1")
    kept = submit(ctx, given)
    assert submit(ctx, given).repeated and submit(ctx, given).number == kept.number
    after = scores(ctx)
    winner = "tuned" if shown.left.startswith("tuned") else "base"
    assert sorted(after.values()) == [0.0, 1.0]
    assert next(v for (c, _), v in after.items() if c == winner) == 1.0
    assert results(ctx)["comments"][0]["comment"] == "clearer"
    assert undo(ctx, "anna") == shown.assignment and scores(ctx) == {}
    assert next_task(ctx, "anna") is not None
    assert next_task(ctx, "anna").assignment == shown.assignment
    assert undo(ctx, "anna") is None
    submit(ctx, Given(shown.assignment, "anna", skip=True))
    assert scores(ctx) == {} and status(ctx)[0]["skipped"] == 1
    with ctx.store.session() as session:
        kinds = session.scalars(select(HumanJudgementRow.kind).order_by(HumanJudgementRow.number))
        assert list(kinds) == ["answer", "undo", "skip"]


def test_two_people_never_get_the_same_of_a_shared_study_and_leases_end(ctx: Context) -> None:
    new_study(ctx, Order(people=("anna", "ben"), shared=True, rows=2))
    now = utc_now()
    one, two = (next_task(ctx, name, now=now) for name in ("anna", "ben"))
    assert one is not None and two is not None and one.assignment != two.assignment
    submit(ctx, Given(two.assignment, "ben", "tie"), now=now)
    assert next_task(ctx, "ben", now=now) is None
    with pytest.raises(Conflict, match="another rater's"):
        submit(ctx, Given(one.assignment, "ben", "left"), now=now)
    later = now + timedelta(hours=1)
    back = next_task(ctx, "ben", now=later)
    assert back is not None and back.assignment == one.assignment
    with pytest.raises(Conflict, match="another rater's"):
        submit(ctx, Given(one.assignment, "anna", "left"), now=later)


def test_overlap_in_a_shared_study_gives_a_row_to_different_people(ctx: Context) -> None:
    new_study(ctx, Order(people=PEOPLE, shared=True, rows=4, overlap=2))
    done: list[tuple[str, str]] = []
    while True:
        shown = [(name, next_task(ctx, name)) for name in PEOPLE]
        if not any(one for _, one in shown):
            break
        for name, one in shown:
            if one is not None:
                submit(ctx, Given(one.assignment, name, "right"))
                done.append((name, one.assignment))
    assert len(done) == 8
    with ctx.store.session() as session:
        pairs = session.execute(select(HumanAssignmentRow.task, HumanAssignmentRow.rater)).all()
    assert len({tuple(pair) for pair in pairs}) == 8
    assert export_nothing(ctx)


def export_nothing(ctx: Context) -> bool:
    with pytest.raises(DataError, match="everything is judged"):
        export(ctx, ctx.workspace.root / "none.csv")
    return not list(ctx.workspace.root.glob("none*"))


def test_a_shared_study_is_dealt_out_over_sheets(ctx: Context, tmp_path: Path) -> None:
    new_study(ctx, Order(people=("anna", "ben"), shared=True))
    made = export(ctx, tmp_path / "s.csv")
    assert [one["rows"] for one in made["files"]] == [15, 15]
    inputs = [{row["input"] for row in read_rows(one["path"])} for one in made["files"]]
    assert not inputs[0] & inputs[1]


def test_a_sheet_that_comes_back_late_is_never_another_persons(
    ctx: Context, tmp_path: Path
) -> None:
    new_study(ctx, Order(people=("anna", "ben"), shared=True, rows=2))
    export(ctx, tmp_path / "s.csv", raters=["anna"], rows=1)
    fill(tmp_path / "s.csv", 1.0, np.random.default_rng(0))
    late = utc_now() + timedelta(days=15)
    for _ in range(2):
        shown = next_task(ctx, "ben", now=late)
        assert shown is not None
        submit(ctx, Given(shown.assignment, "ben", "tie"), now=late)
    read = import_sheet(ctx, tmp_path / "s.csv")
    assert (read["kept"], read["corrected"]) == (0, 0)
    assert "not a row of this sheet's rater any more" in read["problems"][0]["why"]
    assert results(ctx)["win_rates"][0]["ties"] == 2


def test_equal_texts_tie_without_being_asked(ctx: Context, tmp_path: Path) -> None:
    made = new_study(ctx, Order(people=("anna",), sample="all"))
    assert (made["tasks"], made["asked"]) == (40, 30)
    with pytest.raises(DataError, match="nobody has judged"):
        results(ctx)
    export(ctx, tmp_path / "s.csv")
    fill(tmp_path / "s.csv", 1.0, np.random.default_rng(0))
    import_sheet(ctx, tmp_path / "s.csv")
    (rate,) = results(ctx)["win_rates"]
    assert (rate["same"], rate["rows"], rate["overall"]) == (10, 40, None)


def test_several_candidates_stand_on_one_scale(ctx: Context, tmp_path: Path) -> None:
    names = ("tuned", "few_shot", "base")
    made = new_study(ctx, Order(people=("anna", "ben"), candidates=names, rows=10))
    assert made["tasks"] == 30 and made["people"] == {"anna": 15, "ben": 15}
    rank = {name: place for place, name in enumerate(names)}
    for one in export(ctx, tmp_path / "s.csv")["files"]:
        rows = read_rows(one["path"])
        for row in rows:
            a, b = (rank[row[side].split()[0]] for side in "AB")
            row["better"] = "A" if a < b else "B"
        write_rows(one["path"], rows)
        import_sheet(ctx, Path(one["path"]))
    found = results(ctx)
    assert [s["candidate"] for s in found["scale"]["strengths"]] == list(names)
    given = scores(ctx)
    means = [np.mean([v for (c, _), v in given.items() if c == name]) for name in names]
    assert means == [1.0, 0.5, 0.0]
    code, out, err = call("results", "-p", str(ctx.workspace.root))
    assert code == 0 and "one scale" in out and "few_shot" in out, err


RUBRIC = """\
- name: correct
  question: Is it right?
  levels: [wrong, partly, right]
- name: clear
  levels: [no, yes]
"""


def test_a_rubric_marks_each_answer_by_itself(ctx: Context, tmp_path: Path) -> None:
    rubric = tmp_path / "rubric.yaml"
    rubric.write_text(RUBRIC)
    where = ("-p", str(ctx.workspace.root))
    code, out, err = call("new", "--to", "anna,ben", "--rubric", str(rubric), "--rows", "6",
                          "--overlap", "2", *where, "--json")  # fmt: skip
    assert code == 0, err
    assert json.loads(out)["people"] == {"anna": 12, "ben": 12}
    for one in export(ctx, tmp_path / "s.csv")["files"]:
        rows = read_rows(one["path"])
        assert list(rows[0]) == ["row", "input", "answer", "correct", "clear", "comment", "seconds"]
        for row in rows:
            tuned = row["answer"].startswith("tuned")
            row["correct"], row["clear"] = ("right" if tuned else "partly"), "2"
        write_rows(one["path"], rows)
        assert import_sheet(ctx, Path(one["path"]))["kept"] == 12
    found = results(ctx)
    table = {(m["criterion"], m["candidate"]): m["estimate"] for m in found["means"]}
    assert table["clear", "base"] == 1.0 and table["correct", "base"] <= 0.5
    assert found["agreement"]["correct"]["rows"] == 12
    assert max(value or 0.0 for value in scores(ctx, "human_correct").values()) == 1.0
    assert human_metrics(ctx) == ["human_clear", "human_correct"]
    code, out, err = call("results", *where)
    assert code == 0 and "correct: tuned minus base" in out, err


def test_what_people_said_of_a_text_counts_in_the_next_evaluation(ctx: Context) -> None:
    new_study(ctx, Order(people=("anna",)))
    for _ in range(30):
        shown = next_task(ctx, "anna")
        assert shown is not None
        side = "left" if shown.left.startswith("tuned") else "right"
        submit(ctx, Given(shown.assignment, "anna", side))  # type: ignore[arg-type]
    later = {name: texts(name) for name in ("tuned", "base")}
    changed = TEST[20].id
    later["tuned"][changed] = "another text"
    answers = {
        name: {item: RowResult(name, item, text, "stop") for item, text in given.items()}
        for name, given in later.items()
    }
    job: Any = SimpleNamespace(ctx=ctx)
    task: Any = None
    found = human_scores(job, task, answers)
    assert set(found) == {"tuned", "base"} and len(found["tuned"]["human_win"]) == 29
    assert changed not in found["base"]["human_win"]
    one = found["tuned"]["human_win"][TEST[25].id]
    assert one.value == 1.0 and one.evidence == {"source": "human", "judgements": 1, "said": [1.0]}
    assert human_metrics(ctx) == ["human_win"]


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (("--to", "anna", "--overlap", "2"), "2 answers an item can't come from 1 person"),
        (("--to", "anna", "--candidates", "tuned,bse"), "Did you mean 'base'?"),
        (("--to", "anna", "--candidates", "tuned"), "can't be compared"),
        (("--to", "anna", "--sample", "randon"), "did you mean random?"),
        (("--to", "anna", "--rows", "0"), "0 rows can't be judged"),
        (("--to", "anna", "--evaluation", "abcdef"), "there is no evaluation 'abcdef'"),
        (("--to", "anna", "--rubric", "none.yaml"), "the rubric can't be read"),
        (("--to", " , "), "nobody is named"),
    ],
)
def test_a_study_that_can_not_be_is_one_sentence(
    ctx: Context, options: tuple[str, ...], why: str
) -> None:
    code, _, err = call("new", *options, "-p", str(ctx.workspace.root))
    assert code == 2 and why in err and "Traceback" not in err
    with ctx.store.session() as session:
        assert session.scalar(select(func.count()).select_from(HumanTaskRow)) == 0


def test_what_is_asked_of_no_study_or_nobody_is_one_sentence(ctx: Context, tmp_path: Path) -> None:
    where = ("-p", str(ctx.workspace.root))
    for arguments, why in (
        (("results",), "there is no study yet"),
        (("export", "s.csv"), "there is no study yet"),
        (("import", str(tmp_path / "none.csv")), "there is no study yet"),
    ):
        code, _, err = call(*arguments, *where)
        assert code == 2 and why in err, err
    new_study(ctx, Order(people=("anna",)))
    for arguments, why in (
        (("export", "s.csv", "--rater", "ana"), "Did you mean 'anna'?"),
        (("results", "--study", "zzzz"), "there is no study 'zzzz'"),
        (("import", str(tmp_path / "none.csv")), "there is no such file"),
        (("undo", "--rater", "ben"), "'ben' is no rater of the study"),
    ):
        code, _, err = call(*arguments, *where)
        assert code == 2 and why in err, err


def test_python_does_what_the_commands_do(ctx: Context, tmp_path: Path) -> None:
    desk = Project(ctx).human
    desk.new(Order(people=("anna",), rows=3))
    shown = desk.next("anna")
    assert shown is not None
    desk.submit(Given(shown.assignment, "anna", "tie"))
    assert desk.undo("anna") == shown.assignment
    made = desk.export(tmp_path / "s.csv")
    fill(made["files"][0]["path"], 1.0, np.random.default_rng(2))
    assert desk.read(tmp_path / "s.csv")["kept"] == 3
    assert desk.status()[0]["done"] == 3 and desk.results()["rows"] == 3
