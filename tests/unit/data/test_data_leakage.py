"""Leak certificates and benchmarks: what is found, on real data and against plain computations."""

from __future__ import annotations

import csv
import json
import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import insert
from typer.testing import CliRunner

import tutelage
from tutelage.cli.main import app
from tutelage.core.artifact import utc_now
from tutelage.core.errors import DataError
from tutelage.core.example import SPLITS, Example, Message, Origin, SplitName, normalise
from tutelage.data import leak_page
from tutelage.data.benchmarks import find_matches, read_benchmark, read_benchmarks
from tutelage.data.certify import certify
from tutelage.data.dedup.cosine import similar_pairs
from tutelage.data.dedup.near import clusters
from tutelage.data.dedup.tfidf import count_grams, vectorise, weigh
from tutelage.store.records import RecordRow
from tutelage.workflows.context import open_context
from tutelage.workflows.curate import curate
from tutelage.workflows.data import leaks
from tutelage.workflows.data.sides import arrived_sides

MakeProject = Callable[..., Path]


def banking(folder: Path, name: str) -> list[str]:
    with (folder / "banking77" / name).open(newline="", encoding="utf-8") as stream:
        return [line["text"] for line in csv.DictReader(stream)]


def row(text: str, answer: str = "yes", **fields: object) -> Example:
    turns = (Message(role="user", content=text), Message(role="assistant", content=answer))
    return Example(messages=turns, **fields)  # type: ignore[arg-type]


def test_the_official_split_of_banking77_leaks_as_it_is_known_to(shared_data: Path) -> None:
    train, test = banking(shared_data, "train.csv"), banking(shared_data, "test.csv")
    found = tutelage.leak_certificate(train=train, test=test)
    assert 440 <= found.near <= 450
    known = {normalise(text) for text in train}
    assert found.exact == sum(normalise(text) in known for text in test)
    assert len(found.pairs) == found.near
    assert found.pairs[0].cosine == 1.0
    assert found.semantic is None


def test_our_own_split_of_the_same_rows_does_not(
    shared_data: Path, make_project: MakeProject
) -> None:
    files = {
        name: (shared_data / "banking77" / name).read_bytes() for name in ("train.csv", "test.csv")
    }
    config = "name: bank\ntask: classification\nmodel: demo\n"
    root = make_project(files, config + "data: {columns: {input: text, output: category}}\n")
    dataset = tutelage.open(root).curate()
    assert set(dataset.meta["leaks"]) == {"train-test", "train-validation", "validation-test"}
    for leak in dataset.meta["leaks"].values():
        assert leak["exact"] == leak["near"] == 0
    texts = {side: [r.input_text for r in dataset.rows(side)] for side in SPLITS}
    assert sum(map(len, texts.values())) > 13_000
    again = tutelage.leak_certificate(train=texts["train"], test=texts["test"])
    assert (again.exact, again.near) == (0, 0)
    shares = {side: len(texts[side]) / sum(map(len, texts.values())) for side in SPLITS}
    assert abs(shares["test"] - 0.15) < 0.01


def test_vectors_are_those_of_scikit_learn() -> None:
    from sklearn.feature_extraction.text import TfidfVectorizer

    fit = ["Hello  world", "über den Fluss", "hello there, WORLD!", "a", "12 34", "Hello world"]
    other = ["hello worlds", "new words only", "", "a b"]
    peer = TfidfVectorizer(analyzer="char_wb", ngram_range=(3, 5))
    one = peer.fit_transform(fit)
    two = peer.transform(other)
    ours = vectorise(fit, other)
    np.testing.assert_allclose((ours[0] @ ours[0].T).toarray(), (one @ one.T).toarray(), atol=1e-6)
    np.testing.assert_allclose((ours[0] @ ours[1].T).toarray(), (one @ two.T).toarray(), atol=1e-6)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.text(alphabet="abc ", max_size=14), max_size=25),
    st.lists(st.text(alphabet="abc ", max_size=14), max_size=25),
    st.sampled_from([0.5, 0.7, 0.85, 0.9, 1.0]),
)
def test_every_pair_above_the_threshold_is_found(
    left: list[str], right: list[str], threshold: float
) -> None:
    one, two = vectorise(left, right)
    dense = (one @ two.T).toarray()
    i, j, cosines = similar_pairs(one, two, threshold)
    found = dict(zip(zip(i.tolist(), j.tolist(), strict=True), cosines.tolist(), strict=True))
    for place in np.argwhere(dense >= threshold + 1e-5).tolist():
        assert tuple(place) in found
    for (a, b), cosine in found.items():
        assert cosine == pytest.approx(dense[a, b], abs=1e-5)
        assert dense[a, b] >= threshold - 1e-5
    same_i, same_j, _ = similar_pairs(one, one, threshold)
    wanted = np.argwhere(np.triu((one @ one.T).toarray() >= threshold + 1e-5, 1)).tolist()
    assert {(a, b) for a, b in wanted} <= set(zip(same_i.tolist(), same_j.tolist(), strict=True))
    assert (same_i < same_j).all()


def test_counts_share_their_columns_and_unseen_grams_can_stay() -> None:
    one, two = count_grams(["abc"], ["abc xyz"])
    assert one.shape[1] == two.shape[1]
    assert one.sum() == 3 + 2 + 1  # " abc " has 3 trigrams, 2 of four and 1 of five characters
    without = weigh(one, two)[1]
    assert without.nnz == 6
    assert weigh(one, two, unseen=True)[1].nnz == 12


def test_texts_without_letters_are_compared_as_they_are() -> None:
    found = tutelage.leak_certificate(train=["", "?", "yes"], test=["", "?", "no"])
    assert (found.exact, found.near) == (2, 2)
    assert tutelage.leak_certificate(train=[], test=["a"]).clean
    assert tutelage.leak_certificate(train=["a"], test=[]).clean


def test_twins_by_meaning_are_counted_on_request() -> None:
    train = ["where is my card", "how do I close the account", "the app is slow"]
    test = ["WHERE  is my card", "a new question about fees"]
    found = tutelage.leak_certificate(train=train, test=test, semantic="tfidf")
    assert found.semantic == 1
    assert found.embedder == "tfidf"
    (pair,) = found.semantic_pairs
    assert (pair.train, pair.test) == (0, 0)
    assert "1 semantic (tfidf, cosine ≥ 0.95)" in found.text()
    with pytest.raises(tutelage.core.errors.ConfigError, match="tfidd"):
        tutelage.leak_certificate(train=train, test=test, semantic="tfidd")


def test_the_lower_side_gives_way_until_nothing_leaks() -> None:
    twin = "could you please tell me when the new card arrives at my address"
    sides: dict[SplitName, list[Example]] = {
        "train": [row(f"question {i} about another thing {i * i}") for i in range(20)]
        + [row(twin + " now"), row(twin + " today")],
        "validation": [row(twin + "?"), row("something else entirely here")],
        "test": [row(twin), row("and one more test question")],
    }
    done = certify(sides)
    assert [len(done.sides[side]) for side in SPLITS] == [20, 1, 2]
    assert all(leak.clean for leak in done.leaks.values())
    assert done.leaks["train-test"].train_rows == 20
    assert done.leaks["validation-test"].train_rows == 1
    assert {item.finding_id for item in done.dropped} == {"D10-X01"}
    assert all("in test" in item.reason for item in done.dropped)


# --- benchmarks

LONG = "the quick brown fox jumps over the lazy dog while seven wizards brew potent purple potions"


def test_a_benchmark_is_read_in_each_of_its_forms(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("first text\n\nsecond text\n")
    (tmp_path / "b.jsonl").write_text(
        json.dumps({"question": "what is it?", "answer": LONG})
        + "\n"
        + json.dumps({"premise": "no known field", "hypothesis": "at all", "n": 3})
        + "\nbroken\n"
    )
    (tmp_path / "c.csv").write_text("text,label\nsome text,x\n")
    found = {(item.place, item.text) for item in read_benchmarks(tmp_path, ["*"])}
    assert found == {
        ("a.txt:1", "first text"),
        ("a.txt:3", "second text"),
        ("b.jsonl:1", "what is it?"),
        ("b.jsonl:1", LONG),
        ("b.jsonl:2", "no known field"),
        ("b.jsonl:2", "at all"),
        ("c.csv:2", "some text"),
    }


def test_a_benchmark_without_text_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "empty.txt").write_text("\n \n")
    with pytest.raises(DataError, match="holds no text"):
        read_benchmark(tmp_path / "empty.txt")
    with pytest.raises(DataError, match="no such file"):
        read_benchmark(tmp_path / "none.jsonl")
    with pytest.raises(DataError, match="no file matches 'missing/"):
        read_benchmarks(tmp_path, ["missing/*"])


def test_exact_near_and_overlapping_rows_are_told_apart(tmp_path: Path) -> None:
    words = LONG.split()
    (tmp_path / "b.txt").write_text(
        "Is my card lost?\nHow long does a transfer to another bank usually take?\n"
        f"{LONG}\nthis short text of exactly eight words here\n"
    )
    rows = [
        row("is my  CARD lost?"),
        row("How long does a transfer to another bank usually takes?"),
        row("Complete: " + " ".join(words[:13]) + " and so on"),
        row("Complete: " + " ".join(words[:12]) + " and so on"),
        row("What?", "this short text of exactly eight words, here!"),
        row("nothing of the kind"),
    ]
    found = find_matches(rows, read_benchmark(tmp_path / "b.txt", "b.txt"))
    assert [(match.row, match.how, match.place) for match in found] == [
        (0, "exact", "b.txt:1"),
        (1, "near", "b.txt:2"),
        (2, "overlap", "b.txt:3"),
        (4, "overlap", "b.txt:4"),
    ]


def test_boilerplate_that_many_rows_share_is_no_overlap(tmp_path: Path) -> None:
    (tmp_path / "b.txt").write_text(f"{LONG} question one?\n")
    rng = random.Random(1)
    made = [row(f"{LONG} {' '.join(rng.choices('abcdefghij', k=40))}") for _ in range(11)]
    texts = read_benchmark(tmp_path / "b.txt")
    assert find_matches(made, texts) == []
    assert len(find_matches(made[:10], texts)) == 10


CONFIG = """\
name: colours
task: classification
model: demo
data:
  columns: {input: text, output: label}
  benchmarks: [bench/*.txt]
  splits: {semantic: tfidf}
"""


def colours(count: int = 80) -> list[dict[str, str]]:
    rng = random.Random(3)
    texts = [
        " ".join("".join(rng.choices("abcdefghijklmnop", k=7)) for _ in range(5))
        for _ in range(count)
    ]
    return [{"text": text, "label": ("warm", "cold")[i % 2]} for i, text in enumerate(texts)]


def test_rows_of_a_benchmark_are_left_out_of_train_alone(make_project: MakeProject) -> None:
    rows = colours()
    text = "".join(json.dumps(r) + "\n" for r in rows)
    root = make_project({"rows.jsonl": text}, CONFIG)
    (root / "bench").mkdir()
    (root / "bench" / "public.txt").write_text("\n".join(r["text"] for r in rows[:40]))
    dataset = tutelage.open(root).curate()
    kept = {side: {r.input_text for r in dataset.rows(side)} for side in SPLITS}
    held = {r["text"] for r in rows[:40]}
    assert not kept["train"] & held
    assert kept["test"] & held
    lost = [json.loads(line) for line in (dataset.path / "dropped.jsonl").open()]
    assert {entry["finding"] for entry in lost} == {"D10-B01"}
    assert all("the same as bench/public.txt:" in entry["reason"] for entry in lost)
    manifest = json.loads((dataset.path / "manifest.json").read_text())
    said = {entry["id"]: entry["count"] for entry in manifest["findings"]}
    assert said["D10-B01"] == len(lost) == 80 - sum(map(len, kept.values()))
    assert manifest["leaks"]["train-test"]["semantic"] == 0
    assert manifest["leaks"]["train-test"]["embedder"] == "tfidf"


def test_leaks_from_the_command_line(make_project: MakeProject, tmp_path: Path) -> None:
    rows = colours()
    text = "".join(json.dumps(r) + "\n" for r in rows)
    root = make_project({"rows.jsonl": text}, CONFIG.replace("  benchmarks: [bench/*.txt]\n", ""))
    asked = tmp_path / "public.txt"
    asked.write_text("\n".join(r["text"] for r in rows[:40]))

    def call(*arguments: str) -> tuple[int, str, str]:
        done = CliRunner().invoke(app, ["data", "leaks", *arguments])
        return done.exit_code, done.stdout, done.stderr

    code, _, err = call("--project", str(root))
    assert code == 2
    assert "tutelage data split" in err
    curate(open_context(root))
    code, out, _ = call("--project", str(root))
    assert code == 0
    assert "validation and test" in out
    code, out, _ = call("--project", str(root), "--benchmark", str(asked), "--json")
    assert code == 1
    found = json.loads(out)
    assert found["exact"] == found["matches"] > 10
    assert found["found"][0]["benchmark"].startswith(str(asked))
    code, out, _ = call(str(asked), "--benchmark", str(asked))
    assert code == 1
    assert "40 training rows against 40 benchmark texts: 40 exact" in out
    other = tmp_path / "other.txt"
    other.write_text(rows[0]["text"].upper() + "\nnothing like it\n")
    code, out, _ = call(str(asked), str(other), "--semantic", "tfidf", "--json")
    assert code == 1
    assert json.loads(out) == {
        "exact": 1,
        "near": 1,
        "semantic": 1,
        "train_rows": 40,
        "test_rows": 2,
        "threshold": 0.9,
        "embedder": "tfidf",
    }
    assert call(str(asked))[0] == 2
    assert call(str(tmp_path / "none.txt"), str(other))[0] == 2
    assert call("--semantic", "tfidf", "--project", str(root))[0] == 2
    assert call(str(asked), str(other), "--benchmark", str(asked))[0] == 2


def test_what_a_project_holds_can_be_asked_from_python(make_project: MakeProject) -> None:
    text = "".join(json.dumps(r) + "\n" for r in colours())
    root = make_project({"rows.jsonl": text}, CONFIG.replace("  benchmarks: [bench/*.txt]\n", ""))
    ctx = open_context(root)
    curate(ctx)
    found = leaks.of_version(ctx)
    assert found["leaks"]["train-validation"]["near"] == 0
    train = root / "data" / "rows.jsonl"
    assert leaks.benchmarks([train], ctx=ctx)["exact"] == found["leaks"]["train-test"]["train_rows"]
    with pytest.raises(DataError, match="no training rows"):
        leaks.benchmarks([train])


# --- production rows


def test_production_rows_keep_the_side_they_arrived_with(make_project: MakeProject) -> None:
    ctx = open_context(make_project())
    made = {
        "r1": "test", "r2": "train", "r3": "validation",
    }  # fmt: skip
    with ctx.store.begin() as session:
        session.execute(
            insert(RecordRow),
            [
                {
                    "id": name, "deployment": "d", "release": "v1", "arm": "stable", "split": side,
                    "group_key": "g", "messages": [], "response": "", "finish_reason": "stop",
                    "status": 200, "latency_ms": 1.0, "prompt_tokens": 1, "completion_tokens": 1,
                    "checks": {}, "at": utc_now(),
                }
                for name, side in made.items()
            ],
        )  # fmt: skip
    rows = [
        row("one", origin=Origin(kind="production", source="r1")),
        row("two", origin=Origin(kind="production", source="rows.jsonl:2"), meta={"record": "r3"}),
        row("same", origin=Origin(kind="production", source="r2")),
        row("same", origin=Origin(kind="production", source="r3")),
        row("three", origin=Origin(source="r1")),
    ]
    sides = arrived_sides(ctx.store, rows)
    assert sides == {rows[0].id: "test", rows[1].id: "validation", rows[2].id: "validation"}


def test_the_cards_of_a_report() -> None:
    leak = {
        "exact": 0, "near": 0, "semantic": None, "train_rows": 7000, "test_rows": 1500,
        "threshold": 0.9, "embedder": None,
    }  # fmt: skip
    (card,) = leak_page.certificates({"leaks": {"train-test": leak}})
    assert "train and test" in card
    assert "7,000 and 1,500" in card
    assert "by meaning" not in card
    told = {**leak, "near": 3, "semantic": 4, "embedder": "minilm"}
    (card,) = leak_page.certificates({"leaks": {"validation-test": told}})
    assert "leaks" in card
    assert "(minilm)" in card
    made = {"sources": {"data/<x>.csv": "ab" * 32}, "parents": ["cd" * 32], "repairs": ["b1"]}
    (card,) = leak_page.lineage(made)
    assert "data/&lt;x&gt;.csv" in card
    assert "It came after cdcdcdcdcdcd. Batches of repairs in it: 1." in card
    assert leak_page.certificates({}) == leak_page.lineage({}) == []


def test_pairs_between_clusters_join_what_all_pairs_join(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tutelage.data.dedup.cosine._BLOCK_PAIRS", 500)
    rng = random.Random(5)
    words = ["alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta", "theta"]
    base = [" ".join(rng.choices(words, k=4)) for _ in range(60)]
    texts = [*base, *(text + " so" for text in base)]
    (matrix,) = vectorise(texts)
    i, j, _ = similar_pairs(matrix, matrix, 0.8)
    few_i, few_j, _ = similar_pairs(matrix, matrix, 0.8, list(range(len(texts))))
    assert len(few_i) < len(i)
    every = clusters(len(texts), np.stack([i, j], axis=1))
    assert clusters(len(texts), np.stack([few_i, few_j], axis=1)) == every
    known = similar_pairs(matrix, matrix, 0.8, every)
    assert len(known[0]) == 0


def test_thousands_of_equal_texts_are_compared_once() -> None:
    found = tutelage.leak_certificate(train=["yes"] * 20_000 + ["no"], test=["Yes "] * 20_000)
    assert (found.exact, found.near) == (20_000, 20_000)
    assert {pair.train for pair in found.pairs} == {0}


def test_of_two_files_of_rows_the_inputs_are_compared(tmp_path: Path) -> None:
    one, two = tmp_path / "one.jsonl", tmp_path / "two.jsonl"
    one.write_text(json.dumps({"prompt": "what is it?", "completion": LONG}) + "\n")
    two.write_text(json.dumps({"prompt": "something else", "completion": LONG}) + "\n")
    found = leaks.between_files(one, two)
    assert (found.train_rows, found.test_rows, found.near) == (1, 1, 0)
