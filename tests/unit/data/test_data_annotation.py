"""Plans, keys, votes, consensus, reliability and drafts: what needs no store."""

from __future__ import annotations

from collections import Counter
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tutelage.core.config import Columns
from tutelage.core.errors import DataError
from tutelage.core.example import Example, Message
from tutelage.core.output import OutputFormat
from tutelage.data.annotation.card import sections
from tutelage.data.annotation.consensus import choose_model, dawid_skene, majority
from tutelage.data.annotation.drafts import (
    edit_distance,
    instructions,
    most_tokens,
    read_draft,
    request,
    told_hash,
)
from tutelage.data.annotation.items import Item, from_example, from_text, item_id, read_items
from tutelage.data.annotation.keys import read_press
from tutelage.data.annotation.plan import plan, plan_shared
from tutelage.data.annotation.reliability import findings, reliability
from tutelage.data.annotation.votes import Decision, Vote, Voted, decide, disputes
from tutelage.data.quality.agreement import agreement
from tutelage.data.quality.ratings import encode

PEOPLE = ("anna", "ben", "carl", "dora", "eva")


@given(st.integers(1, 60), st.integers(1, 5), st.integers(1, 5), st.integers(0, 1000))
@settings(max_examples=60, deadline=None)
def test_a_plan_is_balanced_and_asks_nobody_twice(
    items: int, people: int, overlap: int, seed: int
) -> None:
    names = PEOPLE[:people]
    overlap = min(overlap, people)
    slots = plan([f"i{n}" for n in range(items)], names, overlap, seed=seed)
    assert len(slots) == items * overlap
    assert len({(slot.item, slot.annotator) for slot in slots}) == len(slots)
    load = Counter(slot.annotator for slot in slots)
    assert max(load.values()) - min(load[name] for name in names) <= 1
    assert slots == plan([f"i{n}" for n in range(items)], names, overlap, seed=seed)


def test_every_two_people_share_about_as_many_items() -> None:
    slots = plan([f"i{n}" for n in range(100)], PEOPLE, 2, seed=3)
    by_item: dict[str, list[str]] = {}
    for slot in slots:
        by_item.setdefault(slot.item, []).append(str(slot.annotator))
    met = Counter(frozenset(pair) for names in by_item.values() for pair in combinations(names, 2))
    assert len(met) == 10
    assert max(met.values()) - min(met.values()) <= 2


def test_who_has_an_item_is_not_asked_again() -> None:
    slots = plan(["i", "j"], ("anna", "ben"), 2, seed=1, taken={"i": {"anna"}})
    assert [(s.item, s.annotator) for s in slots if s.item == "i"] == [("i", "ben")]
    assert {s.annotator for s in slots if s.item == "j"} == {"anna", "ben"}


@pytest.mark.parametrize(
    ("people", "overlap", "words"),
    [((), 1, "nobody"), (("anna",), 2, "1 person"), (("anna", "anna"), 1, "named twice")],
)
def test_impossible_plans_are_refused(people: tuple[str, ...], overlap: int, words: str) -> None:
    with pytest.raises(DataError, match=words):
        plan(["i"], people, overlap, seed=1)
    with pytest.raises(DataError, match=words):
        plan_shared(["i"], people, overlap)


LABELS = ("card_arrival", "card_linking", "exchange_rate")


@pytest.mark.parametrize(
    ("typed", "kind", "text"),
    [
        ("2", "label", "card_linking"),
        (" 3\n", "label", "exchange_rate"),
        ("exchange_rate", "label", "exchange_rate"),
        ("EXCH", "label", "exchange_rate"),
        ("", "accept", ""),
        ("s", "skip", ""),
        ("U", "unsure", ""),
        ("?", "guideline", ""),
        ("q", "quit", ""),
        ("b", "back", ""),
        ("4", "odd", ""),
        ("card", "odd", ""),
        ("exchange_rtae", "odd", ""),
    ],
)
def test_keys_mean_one_thing(typed: str, kind: str, text: str) -> None:
    press = read_press(typed, LABELS, has_draft=True)
    assert (press.kind, press.text) == (kind, text)


def test_odd_keys_say_why() -> None:
    assert "starts 2 labels" in read_press("card", LABELS, has_draft=False).why
    assert "from 1 to 3" in read_press("9", LABELS, has_draft=False).why
    assert "'exchange_rate'" in read_press("exchange_rtae", LABELS, has_draft=False).why
    assert "no draft" in read_press("", LABELS, has_draft=False).why
    assert read_press("It is fine.", (), has_draft=False).text == "It is fine."
    assert read_press("s", ("s", "t"), has_draft=False).kind == "label"


def voted(
    text: str, *labels: str | None, waiting: int = 0, flags: str = "", by: Decision | None = None
) -> Voted:
    """An item with one vote a label, by anna, ben, …; None is a skip, flags holds u per vote."""
    votes = tuple(
        Vote(
            PEOPLE[i],
            label,
            flags=("skip",) if label is None else ("unsure",) if flags[i : i + 1] == "u" else (),
            seconds=5.0,
        )
        for i, label in enumerate(labels)
    )
    return Voted(from_text(text, "t:1"), votes, waiting, by)


@pytest.mark.parametrize(
    ("item", "state"),
    [
        (voted("a"), "open"),
        (voted("a", "x", waiting=1), "open"),
        (voted("a", "x", "x"), "agreed"),
        (voted("a", "x"), "agreed"),
        (voted("a", "x", "x", flags="u"), "agreed"),
        (voted("a", "x", flags="u"), "unsure"),
        (voted("a", "x", "y"), "disputed"),
        (voted("a", "x", "y", waiting=1), "disputed"),
        (voted("a", "x", None), "agreed"),
        (voted("a", None), "skipped"),
        (voted("a", "x", "y", by=Decision("y", None, "adjudicated", ("zoe",))), "decided"),
    ],
)
def test_states(item: Voted, state: str) -> None:
    assert item.state == state


def test_decisions_name_who_they_rest_on() -> None:
    agreed = decide(voted("a", "x", "x", None))
    assert agreed is not None
    assert (agreed.label, agreed.kind, agreed.by) == ("x", "agreed", ("anna", "ben"))
    split = voted("a", "x", "y", "x")
    assert decide(split) is None
    most = decide(split, "majority")
    assert most is not None
    assert (most.label, most.by, most.why) == ("x", ("anna", "carl"), "2 of 3 answers")
    assert decide(voted("a", "x", "y"), "majority") is None
    assert decide(voted("a", "x", "x", "y", waiting=1), "majority") is None


def test_texts_agree_apart_from_case_and_space() -> None:
    one = Vote("anna", None, "Take  two tablets.")
    two = Vote("ben", None, "take two tablets.")
    item = Voted(from_text("dose?", "t:1"), (one, two))
    assert item.state == "agreed"
    other = Voted(item.item, (one, Vote("ben", None, "Ask a doctor.")))
    assert other.state == "disputed" and 0.3 < other.distance < 1


def test_the_most_disagreed_comes_first_then_what_is_confused_most() -> None:
    items = [
        voted("two to one", "a", "a", "b"),
        voted("three ways", "a", "b", "c"),
        voted("even, rare pair", "b", "c"),
        voted("even, common pair", "a", "b"),
        voted("even, doubted", "b", "d", flags="u"),
        voted("agreed", "a", "a"),
        voted("unsure", "a", flags="u"),
    ]
    order = [one.voted.item.text for one in disputes(items)]
    assert order == [
        "three ways", "even, doubted", "even, common pair", "even, rare pair", "two to one",
        "unsure",
    ]  # fmt: skip


def crowd(seed: int, k: int, items: int, hits: list[float]) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, k, items)
    codes = np.stack(
        [np.where(rng.random(items) < hit, truth, rng.integers(0, k, items)) for hit in hits]
    )
    codes[rng.random(codes.shape) < 0.2] = -1
    return truth, codes


@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize("model", ["full", "one-coin"])
def test_dawid_skene_beats_the_majority_where_people_differ(seed: int, model: str) -> None:
    truth, codes = crowd(seed, 4, 600, [0.95, 0.9, 0.6, 0.4, 0.4])
    most, _ = majority(codes, 4)
    found = dawid_skene(codes, 4, model)  # type: ignore[arg-type]
    ours = (found.probabilities.argmax(axis=1) == truth).mean()
    assert ours > (most == truth).mean() + 0.02
    assert (np.diff(found.accuracy())[:3] < 0).all()  # the better people are told apart
    assert found.probabilities.sum(axis=1) == pytest.approx(1)


def test_dawid_skene_is_em_as_it_was_written() -> None:
    """A plain loop over items, people and labels, from the paper's equations 2.3 to 2.5."""
    _, codes = crowd(5, 3, 40, [0.9, 0.8, 0.5])
    people, items = codes.shape
    belief = np.array([[np.mean(row[row >= 0] == k) if (row >= 0).any() else 1 / 3
                        for k in range(3)] for row in codes.T])  # fmt: skip
    for _ in range(dawid_skene(codes, 3, "full").rounds + 1):
        shares = belief[(codes >= 0).any(axis=0)].sum(axis=0) + 0.01
        shares /= shares.sum()
        errors = np.zeros((people, 3, 3))
        for r, true, said in np.ndindex(people, 3, 3):
            errors[r, true, said] = 0.01 + sum(
                belief[i, true] for i in range(items) if codes[r, i] == said
            )
        errors /= errors.sum(axis=2, keepdims=True)
        previous = belief
        belief = np.zeros_like(belief)
        for i, true in np.ndindex(items, 3):
            belief[i, true] = shares[true] * np.prod(
                [errors[r, true, codes[r, i]] for r in range(people) if codes[r, i] >= 0]
            )
        belief /= belief.sum(axis=1, keepdims=True)
    assert np.abs(previous - dawid_skene(codes, 3, "full").probabilities).max() < 1e-9


def test_few_answers_a_label_mean_one_accuracy_a_person() -> None:
    assert choose_model(crowd(1, 20, 50, [0.9, 0.8])[1], 20) == "one-coin"
    assert choose_model(crowd(1, 3, 400, [0.9, 0.8])[1], 3) == "full"
    nobody = dawid_skene(np.full((2, 3), -1), 2)
    assert nobody.probabilities == pytest.approx(0.5)


def test_a_tie_has_no_majority() -> None:
    codes = np.array([[0, 0, -1, 1], [0, 1, -1, 1], [1, -1, -1, 1]])
    most, share = majority(codes, 2)
    assert most.tolist() == [0, -1, -1, 1]
    assert share[0] == pytest.approx(2 / 3)


def test_reliability_leaves_the_own_vote_out() -> None:
    items = [voted(f"t{n}", "a", "a", "b") for n in range(12)]
    items.append(voted("judged", "a", "a", "b", by=Decision("b", None, "adjudicated", ("zoe",))))
    by_name = {one.name: one for one in reliability(items)}
    assert by_name["anna"].with_others.n == 0  # ben and carl never agree: no majority
    carl = by_name["carl"]
    assert (carl.with_others.hits, carl.with_others.n, carl.with_others.rate) == (0, 13, 0.0)
    assert carl.with_others.high == pytest.approx(0.228, abs=1e-3)  # Wilson
    assert (carl.with_adjudicated.hits, carl.with_adjudicated.n) == (1, 1)
    assert carl.mixes_up[0][:2] == ("a", "b")
    assert [f.id for f in findings(list(by_name.values()))] == ["D8-A02"]


def test_who_reads_too_fast_or_edits_nothing_is_named() -> None:
    long = "word " * 400
    quick = [
        Voted(
            from_text(f"{n} {long}", "t:1"),
            (Vote("anna", "a", seconds=1.0, draft=1, edit_distance=0),),
        )
        for n in range(12)
    ]
    (anna,) = reliability(quick)
    assert (anna.hurried, anna.drafts, anna.accepted) == (12, 12, 12)
    assert [f.id for f in findings([anna])] == ["D8-A03", "D8-A04"]


def test_an_item_is_named_by_what_is_asked() -> None:
    asked = Message(role="user", content="Where is my card?")
    one = Example(messages=(asked, Message(role="assistant", content="arrival")), label="arrival")
    other = one.model_copy(update={"label": "linking"})
    assert from_example(one, "dataset").id == from_example(other, "dataset").id
    assert from_example(one, "dataset").id == from_text(" where is  MY card?", "t:1").id
    assert from_example(one, "dataset").example.answer is None
    assert item_id((asked,)) != item_id((Message(role="system", content="x"), asked))


def test_files_of_texts_are_read_and_bad_lines_named(tmp_path: Path) -> None:
    (tmp_path / "t.txt").write_text("first text\n\nsecond text\nFirst  text\n")
    found = read_items(tmp_path / "t.txt", Columns())
    assert [item.text for item in found.items] == ["first text", "second text"]
    assert [(f.id, f.where) for f in found.findings] == [("D8-F02", "t.txt:4")]
    (tmp_path / "t.csv").write_text("utterance,patient\nhello,7\n,8\nbye,\n")
    found = read_items(tmp_path / "t.csv", Columns(group="patient"))
    assert [(item.text, item.example.group) for item in found.items] == [("hello", "7")]
    assert [f.id for f in found.findings] == ["D2-S06", "D1-R05"]
    chat = (
        '{"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "x"}]}'
    )
    (tmp_path / "t.jsonl").write_text(chat + '\n{"odd": 1}\nhalf {\n')
    found = read_items(tmp_path / "t.jsonl", Columns())
    assert [(item.text, item.answer) for item in found.items] == [("hi", "x")]
    assert [f.id for f in found.findings] == ["D8-F01", "D1-R01"]
    with pytest.raises(DataError, match=r"no reader for \.pdf"):
        (tmp_path / "t.pdf").write_text("x")
        read_items(tmp_path / "t.pdf", Columns())


JSON = OutputFormat("family", ("warm", "very_cold"))
PLAIN = OutputFormat(None, ("warm", "very_cold"))


@pytest.mark.parametrize(
    ("output", "text", "label"),
    [
        (JSON, '{"family": "warm"}', "warm"),
        (JSON, '```json\n{"family": "warm"}\n```', "warm"),
        (JSON, '{"family": "Very Cold"}', "very_cold"),
        (JSON, "Warm.", "warm"),
        (PLAIN, " warm\n", "warm"),
        (PLAIN, '"Very cold".', "very_cold"),
        (PLAIN, "lukewarm", None),
        (PLAIN, "", None),
    ],
)
def test_what_a_teacher_writes_is_read_with_care(
    output: OutputFormat, text: str, label: str | None
) -> None:
    draft = read_draft(text, output)
    assert draft.label == label
    assert (draft.problem is None) == (label is not None)
    if label is not None:
        assert draft.text == output.render(label)


def test_free_drafts_keep_their_text_and_cut_ones_say_so() -> None:
    assert read_draft("Take two.", OutputFormat()).problem is None
    assert "cut off" in str(read_draft("Take tw", OutputFormat(), "length").problem)
    assert edit_distance("Take two.", "Take three.") == 4
    assert edit_distance("same", "same") == 0


def test_the_request_holds_task_guideline_labels_and_the_row() -> None:
    told = instructions("Name the family.", JSON, "Red is warm.")
    for part in ("Name the family.", "Red is warm.", "warm; very_cold", '{"family": "warm"}'):
        assert part in told
    row = Example(
        messages=(
            Message(role="system", content="Short."),
            Message(role="user", content="fire <|im_end|>"),
        )
    )
    prompt = request(row, told, 64)
    assert [turn.role for turn in prompt.messages] == ["system", "user"]
    assert prompt.messages[0].content.endswith("Short.")
    assert "<|im_end|>" not in prompt.messages[1].content
    assert most_tokens(prompt) > 64
    assert told_hash(told) != told_hash(instructions("Name the family.", JSON, "Red is cold."))


def test_the_report_names_people_and_shows_the_disputes() -> None:
    items = [voted(f"t{n}", "a", "a", "b" if n % 3 else "a") for n in range(12)]
    items.append(voted("<b>odd</b>", "a", "b", "c"))
    ratings = encode(
        {name: [one.votes[i].label for one in items] for i, name in enumerate(PEOPLE[:3])}
    )
    parts = "".join(sections(agreement(ratings, resamples=50), reliability(items), disputes(items)))
    for text in ("anna", "Annotators", "Most disputed", "items wait", "&lt;b&gt;odd"):
        assert text in parts
    assert "<b>odd" not in parts
    alone = [voted("t", "a")]
    assert len(sections(None, reliability(alone), [])) == 1


def test_items_keep_what_the_row_said(tmp_path: Path) -> None:
    row = Example(
        messages=(
            Message(role="user", content="fire"),
            Message(role="assistant", content="warm"),
        ),
        label="warm",
        group="g1",
        meta={"page": 3},
    )
    item = from_example(row, "dataset", "test")
    assert item == Item(item.id, item.example, "dataset", row.id, "test", "warm", "warm")
    assert (item.example.group, item.example.meta) == ("g1", {"page": 3})
