"""Rows unlike the others: the signals, the neighbours they rest on, reasons, findings, the map."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.fakes.quality_rows import row, space_of, topic_rows, unit

from tutelage.core.config import Quality
from tutelage.core.html import Html
from tutelage.core.html_plots import Point, heat_table, scatter
from tutelage.data.quality import neighbours
from tutelage.data.quality.assess import Assessment, assess, quality_findings
from tutelage.data.quality.neighbours import nearest, spherical_kmeans
from tutelage.data.quality.novelty import novelty
from tutelage.data.quality.outliers import find_outliers
from tutelage.data.quality.report import flatten, sections
from tutelage.data.quality.space import make_space
from tutelage.inference.tfidf_embed import TfidfEmbedder

STRANGERS = (
    "the glacier retreated two kilometres during the nineteenth century",
    "xkqz vvwpt mrrgh zzzz qqpl",
    "add flour slowly and knead dough until smooth and elastic",
)


@settings(max_examples=20, deadline=None)
@given(st.integers(2, 40), st.integers(1, 8), st.integers(0, 1000))
def test_neighbours_are_the_nearest_rows(count: int, wanted: int, seed: int) -> None:
    vectors = unit(np.random.default_rng(seed).standard_normal((count, 5)))
    found = nearest(vectors, wanted)
    cosines = vectors @ vectors.T
    np.fill_diagonal(cosines, -2)
    expected = -np.sort(-cosines, axis=1)[:, : min(wanted, count - 1)]
    np.testing.assert_allclose(found.cosines, expected, atol=1e-6)
    for index in range(count):
        assert index not in found.rows[index]


def test_many_rows_meet_only_near_cells_and_still_find_most_neighbours(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rng = np.random.default_rng(3)
    centres = rng.standard_normal((40, 16))
    vectors = unit(centres[rng.integers(40, size=2000)] + 0.4 * rng.standard_normal((2000, 16)))
    exact = nearest(vectors, 10)
    monkeypatch.setattr(neighbours, "_EXACT_ROWS", 100)
    quick = nearest(vectors, 10)
    shared = [len(set(a) & set(b)) for a, b in zip(exact.rows, quick.rows, strict=True)]
    assert np.mean(shared) > 9
    assert (quick.cosines[:, :-1] >= quick.cosines[:, 1:]).all()


def test_kmeans_gives_every_row_its_nearest_centre() -> None:
    vectors = unit(np.random.default_rng(0).standard_normal((300, 8)))
    centres, cell = spherical_kmeans(vectors, 7)
    np.testing.assert_array_equal(cell, np.argmax(vectors @ centres.T, axis=1))
    np.testing.assert_allclose(np.linalg.norm(centres, axis=1), 1, atol=1e-5)


def test_novelty_counts_sequences_of_other_texts_only() -> None:
    texts = ["abcdefgh", "abcdefgh!", "zzzzyyyyxxxx"]
    found = novelty(texts)
    assert found.unseen[2] == 1.0
    assert found.unseen[0] < 0.5
    assert found.rarity[2] > found.rarity[0]


def test_twins_do_not_vouch_for_each_other() -> None:
    usual = [f"my card number {i} does not work in the shop" for i in range(20)]
    noise = "qxzv wkjp mmnb trtr"
    texts = [*usual, noise, noise + " again"]
    alone = novelty(texts).unseen
    clusters = np.array([*range(20), 20, 20])
    together = novelty(texts, clusters).unseen
    assert alone[20] < 0.2
    assert together[20] == together[21] == 1.0


def test_novelty_is_the_same_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = [one.input_text for one in topic_rows(60)]
    clusters = np.arange(60) // 2
    whole = novelty(texts, clusters)
    monkeypatch.setattr("tutelage.data.quality.novelty._CHUNK", 300)
    parts = novelty(texts, clusters)
    np.testing.assert_allclose(whole.rarity, parts.rarity)
    np.testing.assert_allclose(whole.unseen, parts.unseen)


def test_strangers_come_first_and_say_why() -> None:
    rows = [*topic_rows(200), *(row(text, "card", 200 + i) for i, text in enumerate(STRANGERS))]
    found = find_outliers(space_of(rows))
    top = found.top(3)
    assert {one.index for one in top} == {200, 201, 202}
    assert all(one.flagged for one in top)
    glacier = next(one for one in top if one.index == 200)
    assert "of its letter sequences are in no other row" in glacier.reason
    assert "'glacier'" in glacier.reason
    assert found.flagged.sum() <= 6


def test_a_row_far_from_its_neighbours_is_found_by_meaning_alone() -> None:
    rng = np.random.default_rng(0)
    vectors = unit(np.ones(12) + 0.4 * rng.standard_normal((120, 12)))
    vectors[7] = unit(np.eye(12)[:1] - 0.3)[0]
    texts = ["the same words in every row"] * 120
    found = find_outliers(make_space(texts, vectors, fitted=False))
    (first,) = found.top(1)
    assert first.index == 7
    assert first.signal in ("neighbours", "topic")
    assert "cosine" in first.reason


def test_far_longer_rows_are_flagged_with_the_factor() -> None:
    rows = topic_rows(120)
    rows[5] = row(" ".join(one.input_text for one in rows[:40]), "card", 5)
    found = find_outliers(space_of(rows))
    told = {one.index: one.reason for one in found.far()}
    assert "× the median length" in told[5]


def test_free_answers_count_by_their_length() -> None:
    rows = [row(one.input_text, None, i) for i, one in enumerate(topic_rows(80))]
    answers = ["Let me look into that."] * 80
    answers[3] = "No. " * 400
    found = find_outliers(space_of(rows), answers=answers)
    assert {one.index for one in found.far() if one.signal == "answer length"} == {3}


def test_the_base_models_loss_is_a_signal_and_may_be_missing() -> None:
    rows = topic_rows(100)
    losses = np.random.default_rng(0).normal(3, 0.2, 100)
    losses[11], losses[12] = 9.0, np.nan
    found = find_outliers(space_of(rows), losses=losses)
    told = {one.index: one for one in found.far()}
    assert told[11].signal == "loss"
    assert "perplexity 8,103" in told[11].reason
    assert 12 not in told


@pytest.mark.parametrize("count", [0, 1, 2, 19])
def test_few_rows_are_never_unusual(count: int) -> None:
    rows = topic_rows(count)
    found = find_outliers(space_of(rows))
    assert not found.flagged.any()
    assert found.top(5) == []


def test_equal_rows_are_not_unusual() -> None:
    found = find_outliers(space_of([row("the very same text", "card", i) for i in range(30)]))
    assert not found.flagged.any()


def _assessed(rows: list, **settings: bool) -> Assessment:
    texts = [one.input_text for one in rows]
    vectors = TfidfEmbedder(64).embed(texts)
    return assess(rows, vectors, Quality(**settings), embedder="tfidf", fitted=True, clusters={})


def test_findings_name_the_row_and_the_summary_is_json() -> None:
    import json

    rows = [*topic_rows(120), *(row(text, "card", 120 + i) for i, text in enumerate(STRANGERS))]
    findings, summary = quality_findings(_assessed(rows))
    places = {f.where for f in findings if f.id == "D5-W01"}
    assert places >= {"data/rows.csv:122", "data/rows.csv:123", "data/rows.csv:124"}
    assert summary["outliers"]["flagged"] >= 3
    assert summary["outliers"]["top"][0]["id"] in {one.id for one in rows[120:]}
    json.dumps(summary)


def test_what_the_settings_turn_off_is_not_looked_for() -> None:
    findings, summary = quality_findings(
        _assessed(topic_rows(60), outliers=False, label_errors=False)
    )
    assert findings == []
    assert summary == {"embedder": "tfidf", "outliers": None, "label_errors": None}


def test_the_report_shows_a_map_and_escapes_the_rows_text() -> None:
    rows = [*topic_rows(100), row("<script>alert(1)</script> zqxw vkpt", "card", 100)]
    page = "".join(sections(_assessed(rows)))
    assert "<svg" in page
    assert "stands far out" in page
    assert "<script>" not in page
    assert "&lt;script&gt;" in page


def test_the_map_keeps_the_directions_in_which_rows_differ_most() -> None:
    rng = np.random.default_rng(1)
    flat = np.concatenate(
        [rng.standard_normal((50, 2)) * [5, 3], 0.01 * rng.standard_normal((50, 4))], axis=1
    )
    found = flatten(flat.astype(np.float32))
    assert np.var(found[:, 0]) == pytest.approx(np.var(flat[:, 0]), rel=0.2)
    assert flatten(np.zeros((2, 3), dtype=np.float32)).shape == (2, 2)


def test_plots_take_anything_and_mark_what_is_asked() -> None:
    points = [Point(0, 0, 0, "a"), Point(1, float("nan"), 1, "b"), Point(2, 1, 1, "<c>", True)]
    drawn = scatter(points, ["one", "two"], marked="odd")
    assert isinstance(drawn, Html)
    assert drawn.count("<title>") == 2
    assert "&lt;c&gt;" in drawn
    assert "nothing to show" in scatter([], [])
    table = heat_table(["a"], ["b", "c"], {("a", "b"): 3})
    assert "color-mix" in table
    assert "a → b: 3" in table
