"""`tutelage data outliers`, `label-errors`, `rank`, `select` as a person runs them."""

from __future__ import annotations

import csv
import io
import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.fakes.openai_backend import FakeBackend
from tests.fakes.quality_rows import relabel, row, topic_rows
from typer.testing import CliRunner

from tutelage.cli.main import app
from tutelage.core.errors import DataError, ModelError
from tutelage.core.example import Example
from tutelage.data.version import load_version
from tutelage.workflows.context import Context, open_context
from tutelage.workflows.data import quality, row_scores
from tutelage.workflows.outputs import require_output

MakeProject = Callable[..., Path]
CONFIG = """\
name: topics
task: classification
model: demo
data:
  sources: [data/rows.csv]
  columns: {input: text, output: label}
  quality: {embedder: tfidf}
"""
WRONG = (5, 50)


def table(rows: Sequence[Example]) -> str:
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerow(("text", "label"))
    writer.writerows((one.input_text, one.label) for one in rows)
    return out.getvalue()


def call(*arguments: str) -> tuple[int, str, str]:
    """Run the CLI in this process; return exit code, stdout, stderr, each on one line."""
    done = CliRunner().invoke(app, list(arguments))
    return done.exit_code, " ".join(done.stdout.split()), " ".join(done.stderr.split())


def answer(*arguments: str) -> dict[str, Any]:
    """Run a command with --json and return its document."""
    done = CliRunner().invoke(app, [*arguments, "--json"])
    assert done.exit_code == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.fixture(scope="module")
def curated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A curated project with two wrong labels and one stranger: copy it, do not change it."""
    folder = tmp_path_factory.mktemp("curated") / "project"
    (folder / "data").mkdir(parents=True)
    rows = [*relabel(topic_rows(160), WRONG), row("zqxv wkjp mmnb trtr", "card", 160)]
    (folder / "data" / "rows.csv").write_text(table(rows), encoding="utf-8")
    (folder / "tutelage.yaml").write_text(CONFIG, encoding="utf-8")
    assert call("data", "split", "--project", str(folder))[0] == 0
    return folder


@pytest.fixture
def root(curated: Path, tmp_path: Path) -> Path:
    """The curated project, a copy of its own."""
    return Path(shutil.copytree(curated, tmp_path / "project"))


@pytest.fixture
def ctx(root: Path) -> Iterator[Context]:
    opened = open_context(root)
    yield opened
    opened.store.close()


def version_rows(root: Path) -> list[Example]:
    opened = open_context(root)
    rows = load_version(opened.path_of(require_output(opened, "curate"))).all_rows()
    opened.store.close()
    return rows


def test_outliers_are_listed_with_place_and_reason(root: Path) -> None:
    code, out, err = call("data", "outliers", "--top", "1", "--project", str(root))
    assert code == 0, err
    assert "data/rows.csv:162" in out
    assert "zqxv wkjp mmnb trtr" in out
    assert "of its letter sequences are in no other row" in out
    found = answer("data", "outliers", "--project", str(root))
    assert found["outliers"][0]["text"] == "zqxv wkjp mmnb trtr"
    assert found["rows"] == 161


def test_outliers_of_one_split_and_no_such_split(root: Path) -> None:
    found = answer("data", "outliers", "--split", "validation", "--project", str(root))
    assert found["rows"] < 60
    code, _, err = call("data", "outliers", "--split", "trian", "--project", str(root))
    assert code == 2
    assert "Use train, validation, test" in err


def test_doubtful_labels_are_listed_and_a_correction_reaches_the_next_version(root: Path) -> None:
    place = ("--project", str(root))
    found = answer("data", "label-errors", "--top", "2", *place)
    doubts = {one["where"]: one for one in found["label_errors"]}
    assert set(doubts) == {"data/rows.csv:7", "data/rows.csv:52"}
    one = doubts["data/rows.csv:7"]
    fixes = [
        f"{one['id'][:10]}={one['suggested']}",
        f"data/rows.csv:52={doubts['data/rows.csv:52']['suggested']}",
    ]
    asked = [word for fix in fixes for word in ("--fix", fix)]
    code, out, err = call("data", "label-errors", *asked, "--by", "ann", *place)
    assert code == 0, err
    assert f"data/rows.csv:7: {one['label']} → {one['suggested']}" in out
    assert "2 labels corrected" in out
    assert "`tutelage data split` makes the next version" in out
    assert call("data", "split", *place)[0] == 0
    labels = {r.origin.source: r.label for r in version_rows(root)}
    assert labels["data/rows.csv:7"] == one["suggested"]
    again = answer("data", "label-errors", "--top", "2", *place)
    assert not {"data/rows.csv:7", "data/rows.csv:52"} & {
        one["where"] for one in again["label_errors"] if one["flagged"]
    }


def test_the_same_label_again_changes_nothing(root: Path) -> None:
    one = version_rows(root)[0]
    code, out, _ = call(
        "data", "label-errors", "--fix", f"{one.id}={one.label}", "--project", str(root)
    )
    assert code == 0
    assert "have these labels already" in out


@pytest.mark.parametrize(
    ("fix", "words"),
    [
        ("nonsense", "Write it as --fix ID=LABEL"),
        ("=card", "Write it as --fix ID=LABEL"),
        ("ffffffffffff=card", "there is no row 'ffffffffffff'"),
        ("abc=card", "there is no row 'abc'"),
        ("data/rows.csv:7=crad", "Did you mean 'card'?"),
        ("data/rows.csv:9999=card", "there is no row"),
    ],
)
def test_corrections_that_can_not_be_are_refused(root: Path, fix: str, words: str) -> None:
    code, _, err = call("data", "label-errors", "--fix", fix, "--project", str(root))
    assert code == 2
    assert words in err
    assert "Traceback" not in err


def test_too_little_to_judge_labels_ends_with_3(make_project: MakeProject) -> None:
    folder = make_project({"rows.csv": table(topic_rows(30))}, CONFIG)
    assert call("data", "split", "--project", str(folder))[0] == 0
    code, out, _ = call("data", "label-errors", "--project", str(folder))
    assert code == 3
    assert "at least two labels need 10 rows" in out


def test_rows_without_labels_have_none_to_doubt(make_project: MakeProject) -> None:
    lines = "".join(
        json.dumps({"messages": [{"role": "user", "content": one.input_text},
                                 {"role": "assistant", "content": f"Answer {i}."}]}) + "\n"
        for i, one in enumerate(topic_rows(60))
    )  # fmt: skip
    config = "name: chat\ntask: generation\nmodel: demo\ndata: {quality: {embedder: tfidf}}\n"
    folder = make_project({"rows.jsonl": lines}, config)
    assert call("data", "split", "--project", str(folder))[0] == 0
    code, _, err = call("data", "label-errors", "--project", str(folder))
    assert code == 2
    assert "no row has a label" in err
    assert answer("data", "outliers", "--project", str(folder))["rows"] == 60
    assert len(answer("data", "rank", "--project", str(folder))["best"]) == 10


def test_without_a_version_the_next_command_is_named(make_project: MakeProject) -> None:
    folder = make_project({"rows.csv": table(topic_rows(30))}, CONFIG)
    for command in (["outliers"], ["label-errors"], ["rank"], ["select", "--best", "10"]):
        code, _, err = call("data", *command, "--project", str(folder))
        assert code == 2
        assert "Run `tutelage data split`" in err


def test_rank_shows_the_worst_train_rows_and_what_speaks_against_them(root: Path) -> None:
    found = answer("data", "rank", "--top", "3", "--project", str(root))
    worst = found["worst"][0]
    assert worst["score"] < 0.7
    assert worst["reason"] in ("the other rows doubt its label", "it is unlike the other rows")
    assert set(worst["parts"]) >= {"typical", "fresh", "findings"}
    assert found["best"][0]["reason"] == "nothing speaks against it"
    code, out, _ = call("data", "rank", "--project", str(root))
    assert code == 0
    assert "worst of" in out


def test_select_shows_and_changes_nothing(root: Path) -> None:
    place = ("--project", str(root))
    before = answer("data", "report", *place)["dataset"]
    found = answer("data", "select", "--best", "40", *place)
    assert found["kept"] == 40
    assert found["kept"] + found["left_out"] == found["train"]
    assert len(found["stay"]) == 40
    assert all(one["reason"].endswith("[D12-S01]") for one in found["left"])
    code, out, _ = call("data", "select", "--best", "40", *place)
    assert code == 0
    assert "data: {quality: {best: 40}}" in out
    assert answer("data", "report", *place)["dataset"] == before


def test_the_best_train_rows_go_to_curation(ctx: Context) -> None:
    version = load_version(ctx.path_of(require_output(ctx, "curate")))
    train = version.rows("train")
    assert quality.best_train_rows(ctx, train, version.clusters) == (train, [])
    kept, dropped = quality.best_train_rows(ctx, train, version.clusters, count=50)
    assert len(kept) == 50
    assert {r.id for r in kept} | {item.example.id for item in dropped} == {r.id for r in train}
    assert [r.id for r in kept] == [r.id for r in train if r.id in {one.id for one in kept}]


def test_ids_for_experts(ctx: Context) -> None:
    by_id = {r.id: r.origin.source for r in version_rows(ctx.workspace.root)}
    assert by_id[quality.outlier_ids(ctx, 1)[0]] == "data/rows.csv:162"
    doubtful = {by_id[key] for key in quality.doubtful_ids(ctx, 2)}
    assert doubtful == {"data/rows.csv:7", "data/rows.csv:52"}


def test_a_row_of_the_teacher_can_not_be_relabelled(
    ctx: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = topic_rows(1)[0]
    made = made.model_copy(update={"origin": made.origin.model_copy(update={"kind": "augmented"})})

    class Version:
        def all_rows(self) -> list[Example]:
            return [made, *topic_rows(8)[1:]]

    monkeypatch.setattr(quality, "_version", lambda ctx: Version())
    with pytest.raises(DataError, match="written by a teacher"):
        quality.fix_labels(ctx, {made.id: "rate"})


def test_the_page_holds_both_looks(root: Path) -> None:
    found = answer("data", "label-errors", "--html", "--project", str(root))
    page = Path(found["page"]).read_text(encoding="utf-8")
    assert "Rows unlike the others" in page
    assert "Labels in doubt" in page


class Engine:
    """A base model that finds texts with a q hard, and fails after some calls."""

    specials: tuple[str, ...] = ()

    def __init__(self, calls: int = 1 << 30) -> None:
        self.left = calls
        self.asked = 0

    def mean_nll(self, texts: Sequence[str]) -> list[tuple[float, int]]:
        if self.left <= 0:
            raise KeyboardInterrupt
        self.left -= 1
        self.asked += len(texts)
        return [(9.0 if "q" in text else 3.0, 1) for text in texts]

    def score_labels(self, prompts: Sequence[Any], answers: Sequence[str]) -> Any:
        self.asked += 1
        asked = prompts[0].messages[-1].content
        return np.array([[-2.0 if asked else -4.0]])

    def close(self) -> None:
        """Nothing is open."""


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> Callable[[Engine], Engine]:
    """Put an engine in the base model's place."""
    from tutelage.workflows.evaluation import evaluate

    def put(made: Engine) -> Engine:
        loaded = evaluate.LoadedEngine(made, len)  # type: ignore[arg-type]
        monkeypatch.setattr(evaluate, "open_transformers", lambda source, size: loaded)
        return made

    monkeypatch.setattr(row_scores, "_source", lambda ctx, kind: "a model")
    monkeypatch.setattr("tutelage.inference.models.locate_model", lambda *_: None)
    return put


def test_losses_are_kept_and_an_interrupted_reading_goes_on(
    ctx: Context, engine: Callable[[Engine], Engine]
) -> None:
    rows = topic_rows(40)
    engine(Engine(calls=2))
    with pytest.raises(KeyboardInterrupt):
        row_scores.losses(ctx, rows)
    rest = engine(Engine())
    found = row_scores.losses(ctx, rows)
    assert len(found) == 40
    assert rest.asked == 40 - 2 * 16
    with (ctx.workspace.home / "quality" / "scores.jsonl").open("ab") as stream:
        stream.write(b'{"kind": "loss", "sou')
    assert row_scores.losses(ctx, rows) == found


def test_the_base_models_loss_joins_the_outliers(
    ctx: Context, engine: Callable[[Engine], Engine]
) -> None:
    engine(Engine())
    found = quality.outliers(ctx, 1, loss=True)
    assert "perplexity 8,103" in found["outliers"][0]["reason"]


def test_difficulty_is_the_loss_with_the_request_over_that_without(
    ctx: Context, engine: Callable[[Engine], Engine]
) -> None:
    engine(Engine())
    before = row_scores.fingerprint(ctx)
    found = quality.ranking(ctx, 2, loss=True)
    assert set(row_scores.kept_scores(ctx, "difficulty").values()) == {0.5}
    assert "difficulty" in found["best"][0]["parts"]
    assert row_scores.fingerprint(ctx) != before


def test_the_judges_marks_are_kept_and_count(root: Path) -> None:
    with FakeBackend() as backend:
        backend.script.by_model["*"] = {
            "text": '{"score": 0.9}', "when": {"chip": {"text": '{"score": 0.1}'}},
        }  # fmt: skip
        config = CONFIG + f"judge: {{base_url: {backend.url}/v1, model: base}}\n"
        (root / "tutelage.yaml").write_text(config)
        found = answer("data", "rank", "--judge", "--top", "5", "--project", str(root))
        asked = len(backend.script.seen)
        assert found["best"][0]["parts"]["judge"] == 0.9
        again = answer("data", "rank", "--judge", "--top", "5", "--project", str(root))
        assert len(backend.script.seen) == asked
        assert again == found
    worst = {one["reason"] for one in found["worst"]}
    assert "the judge marked it low" in worst


def test_no_judge_and_a_judge_that_is_down_are_sentences(root: Path) -> None:
    code, _, err = call("data", "rank", "--judge", "--project", str(root))
    assert code == 2
    assert "names no judge" in err
    with FakeBackend() as backend:
        backend.script.by_model["*"] = {"text": "no idea"}
        config = CONFIG + f"judge: {{base_url: {backend.url}/v1, model: base}}\n"
        (root / "tutelage.yaml").write_text(config)
        opened = open_context(root)
        with pytest.raises(ModelError, match="marked none of"):
            row_scores.judge_marks(opened, topic_rows(3))
        opened.store.close()
