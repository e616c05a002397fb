"""Clusters as a person sees them, and one decision for all rows of a cluster."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.planted import plant, read_banking77
from typer.testing import CliRunner

from tutelage.cli.main import app
from tutelage.core.errors import DataError
from tutelage.core.example import Example, Message, normalise
from tutelage.data.dedup import page, view
from tutelage.data.dedup.base import as_pairs
from tutelage.data.dedup.view import Member
from tutelage.workflows.context import Context, open_context
from tutelage.workflows.curate import curate
from tutelage.workflows.data import duplicates
from tutelage.workflows.data.duplicates import Decision

MakeProject = Callable[..., Path]
CONFIG = """\
name: cards
task: classification
model: demo
prompt: Name the intent.
output: {field: intent, labels: [freeze, fee, rate]}
data:
  sources: [data/*.csv]
  columns: {input: text, output: label}
  quality: {embedder: tfidf}
"""
THINGS = (
    "flight",
    "hotel",
    "rent",
    "salary",
    "taxi",
    "museum",
    "school",
    "garden",
    "piano",
    "boat",
)
PLAIN = [
    (f"{opening} the {thing} {ending}", label)
    for thing in THINGS
    for opening, ending, label in (
        ("please block my card after", "was robbed on a Sunday", "freeze"),
        ("what did you charge me for", "payment in Norway, and why", "fee"),
        ("which rate was used when", "money came from abroad", "rate"),
    )
]
TWINS = [
    ("How do I freeze my card?", "freeze"),
    ("how do i freeze my crad?", "freeze"),
    ("How do I freeze  my card?", "freeze"),
    ("HOW DO I FREEZE MY CARD?", "fee"),
    ("Is there a fee in 2 days from now?", "fee"),
    ("Is there a fee in 3 days from now?", "fee"),
]


def call(*arguments: str) -> tuple[int, str, str]:
    done = CliRunner().invoke(app, list(arguments))
    return done.exit_code, done.stdout, " ".join(done.stderr.split())


@pytest.fixture
def root(make_project: MakeProject) -> Path:
    lines = [f'"{text}",{label}' for text, label in [*TWINS, *PLAIN]]
    root = make_project({"rows.csv": "\n".join(["text,label", *lines]) + "\n"}, CONFIG)
    assert call("data", "split", "--project", str(root))[0] == 0
    return root


@pytest.fixture
def ctx(root: Path) -> Iterator[Context]:
    context = open_context(root)
    yield context
    context.store.close()


def listing(root: Path, *options: str) -> dict[str, Any]:
    code, out, err = call("data", "dedup", "--project", str(root), "--json", *options)
    assert code == 0, (out, err)
    loaded: dict[str, Any] = json.loads(out)
    return loaded


def example(text: str, label: str | None = None, answer: str = "") -> Example:
    turns = (Message(role="user", content=text), Message(role="assistant", content=answer))
    return Example(messages=turns, label=label)


def test_contradictions_come_first_with_all_their_rows(root: Path) -> None:
    first, second, *_ = listing(root)["clusters"]
    assert (first["kind"], first["contradictory"], first["rows"]) == ("exact", True, 3)
    assert first["labels"] == {"freeze": 1, "fee": 1}
    [kept] = [m for m in first["members"] if m["label"] == "freeze"]
    assert kept["source"] == "data/rows.csv:2"
    assert kept["copies"] == ["data/rows.csv:4"]
    assert (second["kind"], second["contradictory"]) == ("near", True)
    assert {m["source"] for m in second["members"]} == {f"data/rows.csv:{n}" for n in (2, 3, 5)}


def test_another_number_is_no_duplicate_but_similar(root: Path) -> None:
    numbers = {"data/rows.csv:6", "data/rows.csv:7"}
    near = listing(root, "--kind", "near", "--show", "100")["clusters"]
    assert not any(numbers <= {m["source"] for m in c["members"]} for c in near)
    similar = listing(root, "--kind", "semantic", "--show", "100")["clusters"]
    assert any(numbers <= {m["source"] for m in c["members"]} for c in similar)


def test_a_second_look_reads_what_was_kept(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = listing(root, "--kind", "near")
    monkeypatch.setattr(duplicates, "_near", lambda *_: pytest.fail("found again"))
    assert listing(root, "--kind", "near") == before
    kept = next((root / ".tutelage" / "cache").glob("near-*.json"))
    kept.write_text("[[1]", encoding="utf-8")
    monkeypatch.undo()
    assert listing(root, "--kind", "near") == before


def test_one_cluster_shows_every_row(root: Path) -> None:
    name = listing(root)["clusters"][0]["id"]
    code, out, _ = call("data", "dedup", "--project", str(root), "--cluster", name)
    assert code == 0
    assert f"cluster {name}" in out
    assert "exact, 3 rows" in out
    assert "data/rows.csv:2 + 1 copy" in out


def test_a_label_for_the_whole_cluster_and_back(root: Path) -> None:
    before = listing(root)
    name = before["clusters"][1]["id"]
    seen = listing(root, "--cluster", name, "--label", "freeze")
    assert (seen["applied"], seen["batch"]) == (False, None)
    assert [change["action"] for change in seen["repairs"]] == ["label"]
    done = listing(root, "--cluster", name, "--label", "freeze", "--yes")
    assert done["applied"]
    assert call("data", "split", "--project", str(root))[0] == 0
    after = listing(root)
    assert after["contradictions"] == 0
    code, out, _ = call("data", "repairs", "--project", str(root), "--undo", done["batch"])
    assert code == 0
    assert "1 change" in out
    assert call("data", "split", "--project", str(root))[0] == 0
    assert listing(root)["contradictions"] == before["contradictions"]


@pytest.mark.parametrize(("keep", "line"), [("first", 2), ("longest", 2)])
def test_keeping_one_drops_the_others(ctx: Context, keep: str, line: int) -> None:
    near = duplicates.find(ctx, "near")[0]
    planned = duplicates.plan_repairs(ctx, near, Decision(keep=keep))
    dropped = {repair.example_id for repair in planned}
    [kept] = [m.example for m in near.members if m.example.id not in dropped]
    assert kept.origin.source == f"data/rows.csv:{line}"
    assert {repair.action for repair in planned} == {"drop"}
    assert all(near.id in repair.reason for repair in planned)
    assert duplicates.apply(ctx, near, Decision(keep=keep)) is not None
    after = curate(ctx)
    assert dropped.isdisjoint(row.id for row in _rows(ctx, after.artifact))


def _rows(ctx: Context, artifact: Any) -> list[Example]:
    from tutelage.data.version import load_version

    return load_version(ctx.path_of(artifact)).all_rows()


def test_keeping_a_row_by_its_id_and_giving_it_a_label(ctx: Context) -> None:
    near = duplicates.find(ctx, "near")[0]
    chosen = next(m.example for m in near.members if m.example.label == "fee")
    planned = duplicates.plan_repairs(ctx, near, Decision(keep=chosen.id[:10], label="freeze"))
    assert [(r.action, r.value) for r in planned if r.example_id == chosen.id] == [
        ("label", "freeze")
    ]
    assert sorted(r.action for r in planned) == ["drop", "drop", "label"]


def test_nothing_to_do_is_no_batch(ctx: Context) -> None:
    same = next(c for c in duplicates.find(ctx, "semantic") if c.labels.keys() == {"fee"})
    assert duplicates.apply(ctx, same, Decision(label="fee")) is None


def test_similar_rows_of_one_row(root: Path) -> None:
    start = listing(root, "--kind", "near")["clusters"][0]["members"][0]["id"]
    found = listing(root, "--similar-to", start[:12])
    assert found["members"][0]["id"] == start
    assert {m["source"] for m in found["members"]} >= {f"data/rows.csv:{n}" for n in (2, 3, 5)}
    more = listing(root, "--similar-to", start, "--threshold", "0")
    assert len(more["members"]) > len(found["members"])
    done = listing(root, "--similar-to", start, "--drop", "--yes", "--reason", "out of scope")
    assert len(done["repairs"]) == len(found["members"])
    listed = json.loads(call("data", "repairs", "--project", str(root), "--json")[1])
    assert listed["batches"][0]["reason"] == "out of scope"


PROBLEMS = {
    "unknown kind": (("--kind", "fuzzy"), ("'fuzzy'", "exact, near, semantic")),
    "no cluster named": (("--drop",), ("--cluster",)),
    "two clusters": (("--cluster", "n1", "--similar-to", "ab"), ("--similar-to",)),
    "unknown cluster": (("--cluster", "n12345678"), ("n12345678", "tutelage data dedup")),
    "no kind has that letter": (("--cluster", "x1"), ("x1",)),
    "unknown row": (("--similar-to", "zzz"), ("there is no row 'zzz'",)),
    "too short an id": (("--similar-to", ""), ("no cluster was named", "--similar-to")),
}


@pytest.mark.parametrize("name", [name for name in PROBLEMS if name != "too short an id"])
def test_a_wrong_wish_is_one_sentence(root: Path, name: str) -> None:
    options, fragments = PROBLEMS[name]
    code, out, err = call("data", "dedup", "--project", str(root), *options)
    assert code == 2, out
    assert "Traceback" not in out + err
    for fragment in fragments:
        assert fragment in err


WRONG = {
    "nothing": (Decision(), "nothing was decided"),
    "drop and label": (Decision(drop=True, label="fee"), "--drop removes every row"),
    "label and answer": (Decision(label="fee", answer="fee"), "not both"),
    "unknown label": (Decision(label="frezze"), "Did you mean 'freeze'?"),
    "an answer that is no label": (Decision(answer="hello"), "not JSON"),
    "a row of another cluster": (Decision(keep="zzz"), "there is no row 'zzz'"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_decision_changes_nothing(ctx: Context, name: str) -> None:
    decision, sentence = WRONG[name]
    near = duplicates.find(ctx, "near")[0]
    with pytest.raises(DataError, match=re.escape(sentence)):
        duplicates.apply(ctx, near, decision)


def test_before_a_version_the_command_is_named(make_project: MakeProject) -> None:
    code, _, err = call("data", "dedup", "--project", str(make_project()))
    assert code == 2
    assert "tutelage data split" in err


def test_the_page_marks_what_differs(root: Path) -> None:
    code, out, _ = call("data", "dedup", "--project", str(root), "--html", "--show", "2")
    assert code == 0
    path = Path("".join(out.split("\n")[-3:]).strip())
    text = (root / ".tutelage" / "reports" / "duplicates.html").read_text(encoding="utf-8")
    assert path.name.endswith(".html") or "duplicates.html" in out
    assert "2 clusters with different labels" in text
    assert "<del>card</del><mark>crad</mark>" in text or "<del>crad</del><mark>card</mark>" in text
    assert "<details>" in text


def test_the_difference_is_by_words_and_escaped() -> None:
    assert page.difference("take <b> now", "take <i> now") == (
        "take &lt;<del>b</del><mark>i</mark>&gt; now"
    )
    assert page.difference("Same words", "same  words") == "same  words"
    assert page.difference("", "new") == "<mark>new</mark>"


def test_a_report_has_a_section_of_duplicates() -> None:
    members = [Member(example("a b c", "x"), "train"), Member(example("a b c", "y"), "test")]
    [section] = page.sections(view.exact_clusters(members))
    assert "Duplicates" in section
    assert "x × 1, y × 1" in section
    assert "No two rows" in page.sections([])[0]


def test_a_report_needs_no_project() -> None:
    rows = [
        example("How do I freeze my card?", "freeze"),
        example("how do i freeze my crad", "fee"),
    ]
    copy = {"finding": "D4-E01", "cause": rows[0].id, "row": rows[0].model_dump(mode="json")}
    members = view.members_of(rows, {rows[0].id: "train", rows[1].id: "test"}, [copy])
    near, exact = view.exact_and_near(members)
    assert (near.kind, near.contradictory, near.sides) == ("near", True, {"train": 1, "test": 1})
    assert (exact.kind, exact.rows) == ("exact", 2)


def test_free_answers_contradict_only_on_one_input() -> None:
    one = [
        Member(example("a b", answer="yes"), "train"),
        Member(example("a b", answer="no"), "train"),
    ]
    assert view.exact_clusters(one)[0].contradictory
    two = [
        Member(example("a b", answer="yes"), "train"),
        Member(example("a c", answer="no"), "train"),
    ]
    assert not view.near_clusters(two, as_pairs([0], [1]))[0].contradictory


def test_a_cluster_has_another_id_when_its_rows_change() -> None:
    rows = [Member(example(text, "x"), "train") for text in ("a b", "a c", "a d")]
    first = view.near_clusters(rows, as_pairs([0, 0], [1, 2]))[0]
    again = view.near_clusters(rows[::-1], as_pairs([0, 1], [2, 2]))[0]
    fewer = view.near_clusters(rows, as_pairs([0], [1]))[0]
    assert first.id == again.id != fewer.id


def test_dropping_near_duplicates_is_a_setting(root: Path) -> None:
    text = (root / "tutelage.yaml").read_text() + "  dedup: {near: drop}\n"
    (root / "tutelage.yaml").write_text(text)
    code, out, err = call("data", "split", "--project", str(root), "--json")
    assert code == 0, err
    folder = Path(json.loads(out)["path"])
    dropped = [json.loads(line) for line in (folder / "dropped.jsonl").read_text().splitlines()]
    assert [(d["finding"], d["line"]) for d in dropped if d["finding"] == "D4-N02"] == [
        ("D4-N02", 3)
    ]
    near = listing(root, "--kind", "near")["clusters"][0]
    assert near["sides"]["left out"] == 1


def test_planted_rows_of_banking77_are_in_clusters(
    make_project: MakeProject, shared_data: Path
) -> None:
    planted = plant(read_banking77(shared_data)[::6], 4)
    root = make_project(
        {},
        CONFIG.replace("output: {field: intent, labels: [freeze, fee, rate]}\n", "").replace(
            "label}", "category}"
        ),
    )
    planted.write_csv(root / "data" / "rows.csv")
    assert call("data", "split", "--project", str(root))[0] == 0
    context = open_context(root)
    found = duplicates.find(context, "near") + duplicates.find(context, "exact")
    context.store.close()
    together = [{normalise(m.example.input_text) for m in cluster.members} for cluster in found]
    texts = [normalise(text) for text, _ in planted.rows]
    near = [{texts[copy], texts[original]} for copy, original in planted.near.items()]
    exact = {texts[copy] for copy in planted.exact}
    assert sum(any(pair <= held for held in together) for pair in near) >= 0.9 * len(near)
    copied = {normalise(c.members[0].example.input_text) for c in found if c.kind == "exact"}
    assert exact <= copied
