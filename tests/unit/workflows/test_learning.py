"""Suggesting, valuing and extrapolating on whole projects: what people see, and what is kept."""

from __future__ import annotations

import csv
import json
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from tests.fakes.tiny_llama import build_tiny_model
from typer.testing import CliRunner

from tutelage.cli.main import app
from tutelage.core.artifact import utc_now
from tutelage.core.errors import ConfigError, DataError
from tutelage.core.events import Event
from tutelage.store.records import RecordRow, SignalRow
from tutelage.workflows.context import Context, open_context
from tutelage.workflows.curate import curate
from tutelage.workflows.data import curve_points, gradients
from tutelage.workflows.data.learning import curve, suggest, value, write_page
from tutelage.workflows.training.train import train

MakeProject = Callable[..., Path]
CONFIG = """\
name: colours
task: classification
model: %s
prompt: Name the colour family of the thing.
output: {field: family, labels: [warm, cold]}
train: {tracker: none, epochs: 1, rank: 2}
data:
  sources: [data/rows.jsonl]
  columns: {input: text, output: label}
  quality: {embedder: tfidf, outliers: false, label_errors: false}
"""
WARM = ("fire", "ember", "sunset", "lava", "amber", "desert", "candle", "chili")
COLD = ("ice", "snow", "glacier", "frost", "sea", "fjord", "hail", "steel")
PLACES = ("hill", "lake", "town", "road", "field", "harbour", "valley", "garden", "roof", "wall")


def things(count: int) -> list[dict[str, str]]:
    rng = np.random.default_rng(3)
    rows = []
    for index in range(count):
        label, words = ("warm", WARM) if index % 2 else ("cold", COLD)
        one, two = rng.choice(words, 2, replace=False)
        here, there = rng.choice(PLACES, 2, replace=False)
        text = f"{one} on the {here} and {two} near the {there} {index:03d}"
        rows.append({"text": text, "label": label})
    return rows


def lines(rows: list[dict[str, str]]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


@pytest.fixture
def opened(make_project: MakeProject) -> Callable[..., Context]:
    def make(count: int = 120) -> Context:
        root = make_project({"rows.jsonl": lines(things(count))}, CONFIG % "demo")
        ctx = open_context(root)
        curate(ctx)
        return ctx

    return make


def call(*arguments: str) -> tuple[int, str, str]:
    done = CliRunner().invoke(app, list(arguments))
    return done.exit_code, done.stdout, " ".join(done.stderr.split())


def test_texts_of_a_file_are_suggested_and_can_be_given_out(
    opened: Callable[..., Context], tmp_path: Path
) -> None:
    ctx = opened()
    root = ctx.workspace.root
    known = things(120)[5]["text"]
    texts = [row["text"].replace(" and ", " or ") for row in things(60)]
    (root / "pool.txt").write_text("\n".join([known, *texts, texts[0], ""]))
    code, out, _ = call("data", "suggest", "--pool", str(root / "pool.txt"), "-n", "10",
                        "--json", "--project", str(root))  # fmt: skip
    assert code == 0
    found = json.loads(out)
    assert len(found["rows"]) == 10
    assert found["strategy"] == "uncertainty"
    assert found["left_out"]["a row of the dataset already"] == 1
    assert found["pool"] == 60
    assert all(row["reason"].startswith("between ") for row in found["rows"])
    written = [json.loads(line) for line in (root / "to-label.jsonl").read_text().splitlines()]
    assert [row["id"] for row in written] == [row["id"] for row in found["rows"]]
    assert {"id", "text", "reason", "where"} == set(written[0])
    code, _, _ = call("data", "label", "people", "--add", "anna", "--project", str(root))
    made = str(root / "to-label.jsonl")
    given = ("--to", "anna", "--file", made, "--json", "--project", str(root))
    code, out, err = call("data", "label", "assign", *given)
    assert code == 0, err
    assert json.loads(out)["items"] == 10
    again = suggest(ctx, str(root / "pool.txt"), 60)
    assert again.left_out["given to experts already"] == 10
    assert not {row.id for row in again.rows} & {row["id"] for row in found["rows"]}
    code, _, err = call("data", "suggest", "--pool", str(root / "pool.txt"), "--project", str(root))
    assert code == 2
    assert "to-label.jsonl: the file is there already" in err


def test_a_table_to_label_has_an_empty_column(opened: Callable[..., Context]) -> None:
    ctx = opened()
    root = ctx.workspace.root
    (root / "pool.csv").write_text('text,ticket\n"a red thing, hot",17\nblue waves,18\n')
    suggest(ctx, str(root / "pool.csv"), 5, output=root / "next.csv")
    with (root / "next.csv").open(encoding="utf-8-sig", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert {row["text"] for row in rows} == {"a red thing, hot", "blue waves"}
    assert {row["label"] for row in rows} == {""}
    assert all(row["reason"] and row["id"] for row in rows)


def test_production_is_a_pool_and_its_failures_go_first(opened: Callable[..., Context]) -> None:
    ctx = opened()
    texts = [f"production {row['text']}" for row in things(40)]
    with ctx.store.begin() as session:
        for number, text in enumerate(texts):
            session.add(record(f"r{number}", text))
        session.add_all([signal("r3", "rating", 0.0), signal("r7", "escalated", True),
                         signal("r9", "rating", 1.0), signal("r11", "edit", "warm")])  # fmt: skip
    found = suggest(ctx, "production", 6)
    first = {row.text: row.reason for row in found.rows[:2]}
    assert first == {texts[3]: "rated 0", texts[7]: "a person had to take over"}
    assert [row.strategy for row in found.rows] == ["failure"] * 2 + ["uncertainty"] * 4
    assert found.left_out == {"corrected by a person already": 1}
    assert found.pool == 39
    only = suggest(ctx, "production", 6, strategy="failure")
    assert {row.text for row in only.rows[:2]} == {texts[3], texts[7]}


def record(name: str, text: str) -> RecordRow:
    return RecordRow(
        id=name, deployment="d", release="v1", arm="stable", split="train", group_key=name,
        messages=[{"role": "user", "content": text}], response="{}", finish_reason="stop",
        status=200, latency_ms=1.0, prompt_tokens=1, completion_tokens=1, checks={},
    )  # fmt: skip


def signal(name: str, kind: str, value: object) -> SignalRow:
    return SignalRow(key=f"{name}{kind}", record=name, kind=kind, explicit=True,
                     value={"value": value}, author=None, at=utc_now())  # fmt: skip


def test_rows_in_quarantine_are_a_pool(make_project: MakeProject) -> None:
    bad = [{"text": "an unlabelled ember", "label": ""}, {"text": "a tepid pond", "label": "wram"}]
    root = make_project({"rows.jsonl": lines([*things(60), *bad])}, CONFIG % "demo")
    ctx = open_context(root)
    curate(ctx)
    found = suggest(ctx, "quarantine", 5)
    assert {row.text for row in found.rows} == {"an unlabelled ember", "a tepid pond"}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--pool", "no-such.txt"), ("no-such.txt", "there is no such file")),
        (("--pool", "production"), ("nothing to label", "--pool FILE")),
        (("--pool", "bad.jsonl"), ("bad.jsonl:2", "'score' is 'low', not a number from 0 to 1")),
        (("--pool", "known.txt"), ("nothing to label", "1 a row of the dataset already")),
        (("--pool", "empty.txt"), ("empty.txt", "nothing to label")),
        (("--pool", "ok.txt", "--strategy", "best"), ("'best' is no strategy", "uncertainty")),
        (("--pool", "ok.txt", "--strategy", "failure"), ("no row of the pool is known to have",)),
    ],
)
def test_bad_pools_are_refused_in_one_sentence(
    opened: Callable[..., Context], arguments: tuple[str, ...], said: tuple[str, ...]
) -> None:
    root = opened(60).workspace.root
    (root / "bad.jsonl").write_text('{"text": "x y", "score": 0.2}\n{"text": "z", "score": "low"}')
    (root / "known.txt").write_text(things(60)[0]["text"])
    (root / "empty.txt").write_text("\n\n")
    (root / "ok.txt").write_text("a new thing\n")
    pool = arguments[1] if arguments[1] == "production" else str(root / arguments[1])
    code, out, err = call("data", "suggest", "--pool", pool, *arguments[2:], "--project", str(root))
    assert code == 2, out
    for fragment in said:
        assert fragment in err
    assert not (root / "to-label.jsonl").exists()


def test_the_curve_is_measured_once(
    opened: Callable[..., Context], monkeypatch: pytest.MonkeyPatch
) -> None:
    ctx = opened(240)
    found = curve(ctx, repeats=3)
    assert found.curve.points[-1].rows > 100
    assert found.curve.enough
    assert "rows instead of" in found.curve.sentence
    assert "(tfidf)" in found.measured_on
    page = write_page(ctx, found).read_text()
    assert "Learning curve" in page
    monkeypatch.setattr(curve_points, "fit_linear", None)  # nothing is trained again
    assert curve(ctx, repeats=3) == found
    root = str(ctx.workspace.root)
    code, out, _ = call("data", "curve", "--repeats", "3", "--json", "--project", root)
    assert code == 0
    assert json.loads(out)["doubled"]["rows"] == 2 * found.curve.points[-1].rows


def test_a_damaged_point_is_measured_anew(opened: Callable[..., Context]) -> None:
    ctx = opened(120)
    found = curve(ctx, repeats=2)
    kept = sorted((ctx.workspace.home / "cache" / "curve").glob("*.json"))
    kept[0].write_text("[1.0,")
    kept[1].write_text("[0.0]")
    assert curve(ctx, repeats=2) == found
    assert len(json.loads(kept[1].read_text())) > 1


@pytest.mark.parametrize(
    ("rows", "said"),
    [(40, "17 training rows are too few for a learning curve"), (70, "too few rows to say")],
)
def test_few_rows_end_with_exit_code_3(make_project: MakeProject, rows: int, said: str) -> None:
    root = make_project({"rows.jsonl": lines(things(rows))}, CONFIG % "demo")
    curate(open_context(root))
    code, out, err = call("data", "curve", "--repeats", "2", "--project", str(root))
    assert code == 3
    assert said in " ".join(out.split()).lower() + err


def test_groups_are_scored_whole() -> None:
    folds = curve_points._folds(["a", "a", "b", "b", "b", "c"], 3, seed=1)
    assert len({folds[0], folds[2], folds[5]}) == 3
    assert folds[0] == folds[1]
    assert folds[2] == folds[3] == folds[4]


def test_planted_wrong_labels_are_listed_as_harmful(make_project: MakeProject) -> None:
    rows = things(200)
    wrong = {row["text"] for row in rows[20:200:20]}
    for row in rows:
        if row["text"] in wrong:
            row["label"] = "cold" if row["label"] == "warm" else "warm"
    root = make_project({"rows.jsonl": lines(rows)}, CONFIG % "demo")
    ctx = open_context(root)
    curate(ctx)
    found = value(ctx, neighbours=5)
    trained = {row.text for row in found.rows} & wrong
    worst = {row.text for row in found.rows[-len(trained) :]}
    assert len(trained & worst) >= 0.6 * len(trained)
    code, out, _ = call("data", "value", "--show", "2", "--html", "--project", str(root))
    assert code == 0
    assert "most harmful" in out
    assert (root / ".tutelage" / "reports" / "value-knn.html").exists()


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Context:
    """A project whose tiny model was trained."""
    root = tmp_path_factory.mktemp("trained")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        build_tiny_model(root / "tiny")
    (root / "data").mkdir()
    (root / "data" / "rows.jsonl").write_text(lines(things(110)))
    (root / "tutelage.yaml").write_text(CONFIG % "tiny")
    ctx = open_context(root)
    train(ctx, curate(ctx).artifact)
    return ctx


def test_gradients_are_made_once_and_a_killed_command_goes_on(
    trained: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[Event] = []
    ctx = Context(trained.workspace, trained.config, trained.store, told.append)
    real = gradients._read
    calls = 0

    def killed(path: Path, expected: int) -> object:
        nonlocal calls
        calls += 1
        if calls > 3:
            raise KeyboardInterrupt
        return real(path, expected)

    monkeypatch.setattr(gradients, "_read", killed)
    with pytest.raises(KeyboardInterrupt):
        value(ctx, method="gradient")
    folder = ctx.workspace.home / "cache" / "gradients"
    assert len(list(folder.rglob("*.npy"))) == 3
    monkeypatch.setattr(gradients, "_read", real)
    found = value(ctx, method="gradient")
    assert found.method == "gradient"
    assert len(found.rows) > 60
    assert all(-1 <= row.value <= 1 for row in found.rows)
    assert "of the validation rows; most it" in found.rows[0].reason
    monkeypatch.setattr("tutelage.training.influence.open_gradients", None)
    assert value(ctx, method="gradient") == found
    assert told[-1].kind == "done"


def test_the_models_own_curve_goes_on_where_it_was_killed(
    trained: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = curve_points._ModelScore.__call__
    sizes: list[int] = []

    def counted(self: object, part: range) -> list[float]:
        sizes.append(len(part))
        if len(sizes) == 3:
            raise KeyboardInterrupt
        return real(self, part)  # type: ignore[arg-type]

    monkeypatch.setattr(curve_points._ModelScore, "__call__", counted)
    with pytest.raises(KeyboardInterrupt):
        curve(trained, model=True)
    found = curve(trained, model=True)
    assert sizes[2] == sizes[3]
    assert len(found.curve.points) == len(set(sizes)) == 5
    assert found.source == "model"
    assert "LoRA" in found.measured_on
    assert list(trained.workspace.runs.glob("curve-*")) == []


def test_what_is_missing_is_said(opened: Callable[..., Context], make_project: MakeProject) -> None:
    ctx = opened(60)
    with pytest.raises(DataError, match="'train' has not run yet"):
        value(ctx, method="gradient")
    with pytest.raises(ConfigError, match="'shapley' is no method"):
        value(ctx, method="shapley")
    root = make_project({"rows.jsonl": lines(things(60))}, CONFIG % "demo" + "# another\n")
    (root / ".tutelage" / "store.db").unlink()
    with pytest.raises(DataError, match="'curate' has not run yet"):
        curve(open_context(root))
