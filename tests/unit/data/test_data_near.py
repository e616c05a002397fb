"""Near-duplicates: what is found, what is kept apart, and what a project can do with them."""

from __future__ import annotations

import importlib
import random
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rapidfuzz.distance import OSA, Levenshtein
from tests.planted import plant, read_banking77, vary

from tutelage.core import plugins
from tutelage.core.config import Dedup
from tutelage.core.errors import ConfigError
from tutelage.core.example import Example, Message, Origin, normalise
from tutelage.data.dedup.base import as_pairs, load_finder
from tutelage.data.dedup.exact import ExactDuplicates
from tutelage.data.dedup.facts import facts, same_facts
from tutelage.data.dedup.minhash import candidates, signatures
from tutelage.data.dedup.near import NearDuplicates, clusters
from tutelage.data.dedup.thin import NearStep
from tutelage.data.dedup.wording import same_words, words_in_order

SAME = [
    ("How do I freeze my card?", "how do i freeze my crad?"),
    ("How do I freeze my card?", "HOW DO I FREEZE MY CARD"),
    ("I want to freeze my card", "I want freeze to my card"),
    ("my top-up was reverted", "my top up was reverted"),
    ("my top up was reverted", "my topup was reverted"),
    ("is it received in the app", "is it recieved in the app"),
    ("I can not see the transfer", "I can nnot see the transfer"),
    ("it should arrive in three days", "it should arrive in threee days"),
    ("The dose is 1,000 mg a day", "The dose is 1000mg a day."),
    ("why can’t I top up my card", "why can't I top up my card"),
]
APART = [
    ("take 5 mg of it every day", "take 50 mg of it every day"),
    ("take 5 mg of it every day", "take 5 ml of it every day"),
    ("it is in the room over there", "it is not in the room over there"),
    ("I can see the transfer in the app", "I can't see the transfer in the app"),
    ("it arrives in two days or so", "it arrives in three days or so"),
    ("it fell to -5 degrees at night", "it fell to 5 degrees at night"),
    ("from 10 to 5 in the afternoon", "from 5 to 10 in the afternoon"),
    ("I can not see the transfer", "I can now see the transfer"),
    ("there are four doses left for you", "there are for doses left for you"),
    ("was my last transfer declined by you", "was my last payment declined by you"),
    ("the dog sleeps in the old house", "the cat sleeps in the old house"),
    ("what is the weather", "how do I freeze my card"),
]
WORDS = ["one", "sentence", "of", "several", "words", "changes", "slowly", "until", "nothing"]


def found(texts: list[str], **options: bool) -> set[tuple[int, int]]:
    return {(i, j) for i, j in NearDuplicates(**options).pairs(texts).tolist()}


@pytest.mark.parametrize(("one", "two"), SAME)
def test_small_changes_are_near(one: str, two: str) -> None:
    assert found([one, "something else altogether here", two]) == {(0, 2)}
    assert NearDuplicates().like(one, ["another thing", two]) == [1]


@pytest.mark.parametrize(("one", "two"), APART)
def test_what_means_something_else_is_not(one: str, two: str) -> None:
    assert found([one, two]) == set()


def test_without_the_guard_numbers_are_letters() -> None:
    texts = ["take 5 mg of it every day", "take 50 mg of it every day"]
    assert found(texts, guard=False) == {(0, 1)}


def test_facts_read_numbers_units_and_negations() -> None:
    assert facts("take 1,500 mg twice, not 3 days") == (("1500mg", "3day"), ("twice",), 1)
    assert facts("no, i don't and can't") == ((), (), 3)
    assert facts("the bassoon enters") == ((), (), 0)
    assert same_facts("there are threee of them", "there are three of them")
    assert not same_facts("i am now here", "i am not here")


def test_a_word_for_another_is_told_from_a_word_more() -> None:
    assert same_words("where is my card", "where is my new card")
    assert same_words("the quick fox", "the quik fox")
    assert same_words("can I have it", "could you have it")
    assert not same_words("the quick fox", "the lazy fox")


def test_many_copies_make_few_pairs() -> None:
    pairs = NearDuplicates().pairs(["the same sentence again and again"] * 3000)
    assert len(pairs) < 10 * 3000
    assert set(clusters(3000, pairs)) == {0}


@pytest.mark.parametrize("texts", [[], ["one"], ["", ""], ["?", "!"], ["", "a", "日本語", "👍"]])
def test_tiny_and_odd_texts(texts: list[str]) -> None:
    pairs = NearDuplicates().pairs(texts)
    assert pairs.shape[1] == 2
    assert all(i < j for i, j in pairs.tolist())


def test_other_scripts_and_long_texts() -> None:
    russian = ["как мне заблокировать мою карту", "как мне заблокироваь мою карту"]
    long = ["word" + " and then another sentence of it" * 400]
    assert found([*russian, long[0], long[0] + " end"]) == {(0, 1), (2, 3)}


def test_the_result_depends_on_the_texts_alone() -> None:
    rng = random.Random(3)
    base = [" ".join(rng.choices(WORDS, k=9)) for _ in range(400)]
    texts = [*base, *(vary(text, rng) for text in base[:200])]
    first, again = NearDuplicates().pairs(texts), NearDuplicates().pairs(texts)
    assert np.array_equal(first, again)
    assert np.array_equal(first, as_pairs(first[:, 1].tolist(), first[:, 0].tolist()))


def test_signatures_estimate_the_jaccard_similarity() -> None:
    one = "alpha beta gamma delta epsilon zeta eta theta"
    two = "alpha beta gamma delta epsilon zeta eta iota"
    values = signatures([one, two, one.upper().lower()], 4096)
    sets = [_grams(text) for text in (one, two)]
    expected = len(sets[0] & sets[1]) / len(sets[0] | sets[1])
    assert (values[:, 0] == values[:, 1]).mean() == pytest.approx(expected, abs=0.03)
    assert np.array_equal(values[:, 0], values[:, 2])


def _grams(text: str) -> set[str]:
    padded = [f" {word} " for word in text.split()]
    return {word[i : i + 3] for word in padded for i in range(len(word) - 2)}


def test_the_order_of_words_does_not_change_a_signature() -> None:
    values = signatures(["where is my new card", "new card my is where"], 128)
    assert np.array_equal(values[:, 0], values[:, 1])


@settings(max_examples=60, deadline=None)
@given(st.lists(st.text(max_size=40), min_size=2, max_size=12), st.sampled_from([60.0, 80.0, 95.0]))
def test_every_pair_meets_the_threshold(texts: list[str], threshold: float) -> None:
    clean = [normalise(text) for text in texts]
    for i, j in NearDuplicates(threshold, guard=False).pairs(texts).tolist():
        ordered = [words_in_order(clean[k]) for k in (i, j)]
        assert i < j
        assert (
            max(OSA.normalized_similarity(clean[i], clean[j]), OSA.normalized_similarity(*ordered))
            >= threshold / 100 - 1e-6
        )


def test_punctuation_alone_is_no_duplicate_of_other_punctuation() -> None:
    texts = ["?", ".", "...", "???", "(a card)", "a card?", "a", "the"]
    for guard in (False, True):
        assert NearDuplicates(60.0, guard=guard).pairs(texts).tolist() == [[4, 5]]


def test_candidates_find_what_all_pairs_find(shared_data: Path) -> None:
    rng = random.Random(11)
    base = [normalise(text) for text, _ in read_banking77(shared_data)[:600]]
    texts = [*base, *(normalise(vary(text, rng)) for text in base[:300])]
    pairs = {(i, j) for i, j in candidates(texts, 80.0).tolist()}
    close = {
        (i, j)
        for i in range(len(texts))
        for j in range(i + 1, len(texts))
        if OSA.normalized_similarity(texts[i], texts[j], score_cutoff=0.85) > 0
    }
    assert len(close) > 200
    assert len(close & pairs) / len(close) > 0.99


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_planted_near_duplicates_of_banking77(shared_data: Path, seed: int) -> None:
    """A pair that was not planted is right if Levenshtein or the words' Jaccard reaches 0.8."""
    planted = plant(read_banking77(shared_data), seed)
    texts = [text for text, _ in planted.rows]
    pairs = found(texts)
    near = {(min(pair), max(pair)) for pair in planted.near.items()}
    assert {(min(pair), max(pair)) for pair in planted.exact.items()} <= pairs
    assert len(pairs & near) / len(near) >= 0.95
    right = sum(pair in near or _alike(texts[pair[0]], texts[pair[1]]) for pair in pairs)
    assert right / len(pairs) >= 0.95


def _alike(one: str, two: str) -> bool:
    one, two = normalise(one), normalise(two)
    left, right = ({w.strip(".,?!'\"") for w in text.split()} for text in (one, two))
    return Levenshtein.normalized_similarity(one, two) >= 0.8 or len(left & right) >= 0.8 * len(
        left | right
    )


def test_the_bench_corpus_is_found_and_its_hard_negatives_are_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).resolve().parents[3] / "bench"))
    bench = importlib.import_module("dedup")
    corpus = bench.make_corpus(2000, 5)
    result = bench.judge(corpus, found(corpus.texts))
    assert result["recall"] >= 0.95
    assert result["precision"] >= 0.94
    assert result["hard_negatives"] == 0.0


def test_clusters_name_their_lowest_member() -> None:
    assert clusters(6, [(3, 1), (5, 3)]) == [0, 1, 2, 1, 4, 1]
    assert clusters(3, np.empty((0, 2), dtype=np.int64)) == [0, 1, 2]
    assert clusters(0, []) == []


@pytest.mark.parametrize("name", sorted(plugins.available("dedup")))
def test_every_finder_keeps_the_protocol(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run on any author's plug-in: pairs in order, the same text found, no text with itself."""
    monkeypatch.setattr("tutelage.inference.embed.AUTO_ROWS", -1)  # no neural model for four texts
    texts = ["how do I freeze my card", "what is the weather", "how do I freeze my card", ""]
    finder = load_finder(name)
    pairs = finder.pairs(texts)
    assert pairs.dtype == np.int64
    assert pairs.shape[1] == 2
    assert [0, 2] in pairs.tolist()
    assert [0, 1] not in pairs.tolist()
    assert np.array_equal(pairs, as_pairs(pairs[:, 0].tolist(), pairs[:, 1].tolist()))
    assert finder.pairs([]).shape == (0, 2)


def test_an_unknown_finder_lists_the_known_ones() -> None:
    with pytest.raises(ConfigError, match="Did you mean 'near'"):
        load_finder("neer")


def test_exact_finder_pairs_with_the_first() -> None:
    assert ExactDuplicates().pairs(["A b", "c", "a  B", "a b"]).tolist() == [[0, 2], [0, 3]]


def row(text: str, label: str | None, line: int, answer: str | None = None) -> Example:
    turns = (
        Message(role="user", content=text),
        Message(role="assistant", content=answer or label or ""),
    )
    return Example(messages=turns, label=label, origin=Origin(source=f"rows.csv:{line}"))


def test_dropping_keeps_one_of_each_label_and_says_why() -> None:
    rows = [
        row("How do I freeze my card?", "freeze", 2),
        row("how do I freeze my crad?", "freeze", 3),
        row("how do I freeze my card", "lost", 4),
        row("what is the weather like", "other", 5),
    ]
    result = NearStep("drop").run(rows)
    assert [r.origin.source for r in result.kept] == ["rows.csv:2", "rows.csv:4", "rows.csv:5"]
    [lost] = result.dropped
    assert (lost.finding_id, lost.cause) == ("D4-N02", rows[0].id)
    assert lost.reason == "nearly the same as rows.csv:2 [D4-N02]"
    kept = NearStep("keep").run(rows)
    assert kept.kept == rows
    assert {finding.id for finding in kept.findings} == {"D4-N01"}


def test_a_test_row_stays_and_the_new_one_goes() -> None:
    rows = [
        row("How do I freeze my card?", "freeze", 2),
        row("how do I freeze my crad?", "freeze", 3),
    ]
    result = NearStep("drop", frozen={rows[1].id: "test", rows[0].id: "train"}).run(rows)
    assert result.kept == [rows[1]]


def test_free_answers_must_be_near_too() -> None:
    rows = [
        row("How do I freeze my card?", None, 2, "Tap Freeze in the app."),
        row("how do I freeze my crad?", None, 3, "Call us at once and we will help you."),
        row("how do I freeze my cardd?", None, 4, "Tap freeze in the app"),
    ]
    assert [r.origin.source[-1] for r in NearStep("drop").run(rows).kept] == ["2", "3"]


def test_every_dropped_row_is_near_a_kept_one() -> None:
    """A chain of small changes is not one cluster: the end may be far from the beginning."""
    rows = []
    for step in range(20):
        text = " ".join(WORDS) + " and so on" * step
        rows.append(row(text, "a", step + 2))
    result = NearStep("drop").run(rows)
    kept = {r.id: r for r in result.kept}
    assert 1 < len(kept) < len(rows)
    for lost in result.dropped:
        assert lost.cause is not None
        assert NearDuplicates().like(lost.example.input_text, [kept[lost.cause].input_text]) == [0]


@pytest.mark.parametrize(("value", "meaning"), [(True, "keep"), (False, "keep"), ("drop", "drop")])
def test_the_setting_reads_its_older_form(value: object, meaning: str) -> None:
    assert Dedup.model_validate({"near": value}).near == meaning
