"""The parts of mining: what speaks against an answer, what comes first, how groups are named."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tutelage.core.output import OutputFormat
from tutelage.feedback.mining.clusters import Wanted, group
from tutelage.feedback.mining.failure import Forms, failure_of
from tutelage.feedback.mining.known import Knowledge
from tutelage.feedback.mining.pick import candidates, drawn, interleave, spread
from tutelage.feedback.mining.scan import Traffic, text_key
from tutelage.feedback.mining.served import fade, serving
from tutelage.feedback.mining.strengths import Strengths, from_answers, from_scores
from tutelage.inference.word_space import fit_word_space

FORMS = Forms(OutputFormat("family", ("warm", "cold")), labelled=True)


def unit(rows: NDArray[Any]) -> NDArray[np.float32]:
    found: NDArray[np.float32] = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(
        np.float32
    )
    return found


def record(**changed: Any) -> Any:
    row = {"status": 200, "finish_reason": "stop", "checks": {}, "response": '{"family": "warm"}'}
    return SimpleNamespace(**(row | changed))


@pytest.mark.parametrize(
    ("changed", "strength", "words"),
    [
        ({}, 0.0, ""),
        ({"status": 500}, 0.3, "the request ended with 500"),
        ({"status": 422}, 1.0, "a check held the answer back"),
        ({"status": 499}, 0.2, "the client left before the answer was whole"),
        ({"finish_reason": "length"}, 0.5, "the answer was cut off at its longest"),
        ({"response": " "}, 1.0, "the answer can't be used: it is empty"),
        ({"response": "warm"}, 1.0, "the answer can't be used: not JSON"),
        ({"checks": {"content": {"ok": False, "why": "an address"}}}, 0.5,
         "the check 'content' flagged it: an address"),
        ({"checks": {"content": {"ok": True, "why": ""}}}, 0.0, ""),
    ],
)  # fmt: skip
def test_a_record_tells_of_its_failure(
    changed: dict[str, Any], strength: float, words: str
) -> None:
    assert failure_of(record(**changed), FORMS.problem) == (strength, words)


def test_free_answers_have_no_form_to_miss() -> None:
    free = Forms(OutputFormat(), labelled=False)
    assert failure_of(record(response="any words"), free.problem) == (0.0, "")
    assert free.same_as("Any  Words") == free.same_as("any words")


def answers(*given: tuple[int, int, str]) -> Traffic:
    """Return traffic of (text, release, answer)."""
    traffic = Traffic()
    for number, (text, release, answer) in enumerate(given):
        traffic.ids.append(f"rec_{number}")
        traffic.text.append(text)
        traffic.release.append(release)
        traffic.answer.append(text_key(answer) if answer else 0)
    traffic.keys = {text: text for text in {text for text, _, _ in given}}
    return traffic


def test_releases_that_differ_are_told_from_one_that_wavers() -> None:
    traffic = answers(
        (0, 0, "warm"), (0, 0, "warm"), (0, 1, "cold"),  # the releases differ
        (1, 0, "warm"), (1, 0, "cold"),  # one release differs with itself
        (2, 0, "warm"), (2, 1, "warm"), (2, 1, ""),  # no answer is no difference
        (3, 0, "warm"), (3, 0, "warm"), (3, 0, "warm"), (3, 0, "cold"),
    )  # fmt: skip
    apart, varies = from_answers(traffic, np.ones(len(traffic.ids), bool))
    assert apart.tolist() == [1, 0, 0, 0]
    assert varies.tolist() == [0, 1, 0, 0.5]


def test_answers_of_releases_that_serve_no_more_count_a_quarter() -> None:
    traffic = answers(
        (0, 0, "warm"), (0, 1, "cold"),  # the one that serves differs with the one before
        (1, 1, "warm"), (1, 1, "cold"),  # the one that serves wavers
        (2, 0, "warm"), (2, 0, "cold"),  # the one before wavered
    )  # fmt: skip
    traffic.releases = ["before", "now"]
    served = serving(traffic, {"now", "next"})
    assert served.tolist() == [False, True, True, True, False, False]
    apart, varies = from_answers(traffic, served)
    assert apart.tolist() == [0.25, 0, 0]
    assert varies.tolist() == [0, 1, 0.25]
    strength = np.array([0.8, 0.8, 0.8], np.float32)
    fade(strength, np.array([0, 2, -1]), served)
    assert strength.tolist() == pytest.approx([0.2, 0.8, 0.8])
    assert serving(traffic, {"of another log"}).all(), "nothing tells old answers from new ones"
    assert serving(traffic, ()).all()


def test_the_lowest_score_of_a_text_counts() -> None:
    traffic = answers((0, 0, "a"), (0, 0, "a"), (1, 0, "a"))
    low, whose = from_scores(traffic, {"rec_0": 0.5, "rec_1": 0.1, "rec_2": 1.0, "other": 0.0})
    assert low.tolist() == pytest.approx([0.8, 0])
    assert whose.tolist() == [1, -1]


def test_signals_come_together_as_independent_chances() -> None:
    strengths = Strengths({
        "failed": np.array([1.0, 0.0], np.float32), "novel": np.array([0.5, 0.0], np.float32)
    })  # fmt: skip
    assert strengths.score().tolist() == pytest.approx([1 - (1 - 0.8) * (1 - 0.4 * 0.5), 0.0])
    assert strengths.reasons_of(0) == [("failed", 1.0), ("novel", 0.5)]


def test_a_text_far_from_every_row_is_novel_and_a_row_itself_is_not() -> None:
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(200, 16)) * 0.3
    rows[:100, 0] += 3
    rows[100:, 1] += 3
    known = Knowledge([f"row {i}" for i in range(200)], ["a"] * 100 + ["b"] * 100, unit(rows))
    strange = np.zeros((1, 16))
    strange[0, 5] = 1
    look = known.look(unit(np.concatenate([rows[:1], rows[150:151], strange])))
    assert look.novelty[:2].tolist() == [0, 0]
    assert look.novelty[2] > 0.9
    assert [known.labels[i] for i in look.top[:2]] == ["a", "b"]
    assert known.nearer_rows(float(look.cosine[2])) == 1.0
    own = known.look(unit(rows[:2]), ["a", "unheard"]).own
    assert own[0] > 0.9
    assert np.isnan(own[1])


def test_novelty_is_calibrated_on_rows_of_the_same_kind() -> None:
    rng = np.random.default_rng(1)
    rows = unit(rng.normal(size=(1500, 12)))
    known = Knowledge([""] * 1000, [None] * 1000, rows[:1000])
    novelty = known.look(rows[1000:]).novelty
    assert 0.14 < float((novelty > 0).mean()) < 0.26  # a fifth, as FAR says
    assert known.model is None


def test_lazy_choice_is_the_plain_greedy_one() -> None:
    rng = np.random.default_rng(5)
    vectors, values = unit(rng.normal(size=(60, 6))), rng.random(60).astype(np.float32)
    cosines = np.maximum(vectors @ vectors.T, 0) ** 2
    cover, plain = np.zeros(60), []
    for _ in range(8):
        gains = np.maximum(cosines - cover, 0) @ values + values
        gains[plain] = -1
        plain.append(int(gains.argmax()))
        cover = np.maximum(cover, cosines[plain[-1]])
    assert spread(values, vectors, 8) == plain


def test_a_near_repetition_is_not_asked_for_twice() -> None:
    vectors = unit(np.array([[1, 0, 0], [1, 0.01, 0], [0, 1, 0], [0, 0, 1.0]]))
    chosen = spread(np.array([0.9, 0.9, 0.2, 0.1], np.float32), vectors, 4)
    assert len(chosen) == 3
    assert not {0, 1} <= set(chosen)
    assert spread(np.zeros(0, np.float32), np.zeros((0, 3), np.float32), 4) == []


def test_candidates_are_the_strongest_and_a_draw_of_the_rest() -> None:
    values = np.concatenate([np.full(300, 0.9), np.full(5000, 0.2), np.zeros(10)])
    eligible = np.ones(len(values), bool)
    eligible[0] = False
    found = candidates(values.astype(np.float32), eligible, 10, 3)
    assert len(found) == 500
    assert 0 not in found
    assert set(range(1, 251)) & set(found.tolist())
    assert found.max() < 5300  # nothing speaks against the last ten
    assert (found >= 300).sum() > 100


def test_a_random_draw_follows_how_often_texts_are_asked() -> None:
    counts = np.array([1, 50, 0, 50], np.float32)
    taken = [int(drawn(counts, np.ones(4, bool), 1, seed)[0]) for seed in range(60)]
    assert taken.count(0) < 6
    assert 2 not in taken
    assert interleave([1, 2, 3, 4], [9, 8]) == [1, 9, 2, 3, 8, 4]


def test_clusters_are_named_by_what_tells_them_apart_and_by_no_single_text() -> None:
    one = [f"my card was swallowed by the machine number {i}" for i in range(12)]
    two = [f"please close the account of client {name}" for name in "abcdefghijkl"]
    texts = [*one, *two]
    space = fit_word_space(texts, 8)
    vectors = space.project(texts)
    wanted = Wanted(
        texts, vectors, np.ones(24, np.int32), np.full(24, 0.5, np.float32),
        [["novelty"]] * 12 + [["failure", "novelty"]] * 12,
    )  # fmt: skip
    found = group(wanted, [], seed=1)
    assert sum(one.texts for one in found.clusters) == 24
    words = " ".join(one.name for one in found.clusters if one.texts > 1)
    assert "swallowed" in words or "machine" in words
    assert not set("abcdefghijkl") & set(words.split())
    assert len(found.names) == 24
    alone = group(
        Wanted(["secret words"], vectors[:1], np.ones(1, np.int32), np.ones(1, np.float32), [[]]),
        texts, seed=1,
    )  # fmt: skip
    assert alone.names == ("a text unlike the others",)


def test_a_word_space_takes_texts_of_any_call_and_unknown_words_by_their_letters() -> None:
    sample = [f"the {thing} is {state}" for thing in ("kettle", "garden", "harbour", "candle")
              for state in ("open", "closed", "burning", "quiet")]  # fmt: skip
    space = fit_word_space(sample, 16)
    apart = np.concatenate([space.project(sample[:3]), space.project(sample[3:])])
    assert np.allclose(apart, space.project(sample), atol=1e-6)
    assert np.allclose(np.linalg.norm(apart, axis=1), 1, atol=1e-5)
    typo, right, other = space.project(
        ["the kettles is open", "the kettle is open", "the harbour is quiet"]
    )
    assert typo @ right > typo @ other
    assert space.project([""]).tolist() == [[0.0] * space.dimensions]
