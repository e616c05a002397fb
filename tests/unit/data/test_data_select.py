"""The score of a row, and the best n: quotas, diversity, reasons, and nothing lost."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.fakes.quality_rows import relabel, row, space_of, topic_rows

from tutelage.core.config import Quality
from tutelage.data.findings import Finding
from tutelage.data.quality.assess import Assessment, assess, rank
from tutelage.data.quality.rank import Evidence, rank_rows
from tutelage.data.quality.select import _greedy, _quotas, select_best
from tutelage.inference.tfidf_embed import TfidfEmbedder


def assessed(rows: list, clusters: dict[str, str] | None = None) -> Assessment:
    vectors = TfidfEmbedder(64).embed([one.input_text for one in rows])
    return assess(rows, vectors, Quality(), embedder="tfidf", fitted=True, clusters=clusters or {})


def test_wrong_labels_and_strangers_rank_last() -> None:
    rows = [*relabel(topic_rows(240), [3, 50, 101]), row("zqxv wkjp mmnb", "card", 240)]
    found = rank(assessed(rows))
    assert set(found.order[-4:].tolist()) == {3, 50, 101, 240}
    assert found.weakest(3) == "the other rows doubt its label"
    assert found.weakest(240) == "it is unlike the other rows"
    assert found.weakest(int(found.order[0])) == "nothing speaks against it"
    assert ((found.scores > 0) & (found.scores <= 1)).all()


def test_each_piece_of_evidence_counts() -> None:
    rows = topic_rows(40)
    space = space_of(rows)
    ids = [one.id for one in rows]
    authored = [
        one.model_copy(update={"origin": one.origin.model_copy(update={"author": "ann"})})
        if i == 4
        else one
        for i, one in enumerate(rows)
    ]
    found = rank_rows(
        authored,
        space,
        Evidence(
            findings={ids[1]: ["D2-C02"]},
            judged={ids[2]: 0.1, ids[5]: 0.9},
            difficulty={ids[3]: 1.2, ids[6]: 0.4, ids[7]: 0.8},
            reliability={"ann": 0.3},
        ),
    )
    plain = found.scores[10]
    for index, words in (
        (1, "the checks found something"),
        (2, "the judge marked it low"),
        (3, "its answer does not follow from what is asked, or is known already"),
        (4, "its author agrees little with the others"),
    ):
        assert found.scores[index] < plain
        assert found.weakest(index) == words
    assert found.parts_of(7)["difficulty"] > found.parts_of(6)["difficulty"]
    assert "judge" not in found.parts_of(10)


def test_findings_that_have_parts_of_their_own_do_not_count_twice() -> None:
    rows = topic_rows(60)
    found = assessed(rows)
    noted = [Finding(kind, "", "", rows[0].id) for kind in ("D5-W01", "D12-L01", "D4-N01")]
    np.testing.assert_array_equal(rank(found).scores, rank(found, findings=noted).scores)


def test_refusals_rank_low() -> None:
    rows = topic_rows(60)
    scores = rank(assessed(rows), findings=[Finding("D2-C03", "", "", rows[0].id)]).scores
    assert scores[0] < 0.7 < scores[1]


def test_of_twins_the_best_is_fresh() -> None:
    rows = topic_rows(60)
    clusters = {rows[i].id: rows[0].id for i in (0, 4, 8)}
    found = rank(assessed(rows, clusters))
    fresh = found.parts["fresh"][[0, 4, 8]]
    assert sorted(fresh.tolist()) == [0.5, 0.5, 1.0]


def test_the_best_rows_are_kept_and_the_others_have_a_reason() -> None:
    rows = relabel(topic_rows(240), [3, 50, 101])
    found = assessed(rows)
    chosen = select_best(rows, 80, rank(found), found.space)
    assert len(chosen.kept) == 80
    assert chosen.kept == sorted(chosen.kept)
    kept = {rows[index].id for index in chosen.kept}
    left = {item.example.id for item in chosen.dropped}
    assert kept | left == {one.id for one in rows}
    assert not kept & left
    assert not {3, 50, 101} & set(chosen.kept)
    assert {item.finding_id for item in chosen.dropped} == {"D12-S01"}
    reasons = {item.example.id: item for item in chosen.dropped}
    assert "the other rows doubt its label" in reasons[rows[3].id].reason
    assert all(item.cause in kept for item in chosen.dropped)
    assert all("cosine" in item.reason for item in chosen.dropped)


def test_every_label_keeps_its_share() -> None:
    rows = topic_rows(200)
    rows += [row(f"what about the loan of month {i}", "loan", 200 + i) for i in range(12)]
    found = assessed(rows)
    chosen = select_best(rows, 100, rank(found), found.space)
    counts = Counter(rows[index].label for index in chosen.kept)
    assert counts["loan"] >= 10
    assert all(counts[label] >= 20 for label in ("card", "transfer", "refund", "rate"))


def test_copies_are_left_out_before_different_rows() -> None:
    rows = [one for one in topic_rows(400) if one.label == "card"][:30]
    copies = [row(rows[0].input_text + "!" * (i + 1), "card", 100 + i) for i in range(30)]
    every = [*rows, *copies]
    clusters = {one.id: rows[0].id for one in (rows[0], *copies)}
    found = assessed(every, clusters)
    chosen = select_best(every, 20, rank(found), found.space)
    assert sum(index >= 30 for index in chosen.kept) <= 2


def test_rows_without_labels_are_covered_by_topic() -> None:
    rows = [row(one.input_text, None, i) for i, one in enumerate(topic_rows(1000))]
    found = assessed(rows)
    chosen = select_best(rows, 60, rank(found), found.space)
    topics = Counter(index % 4 for index in chosen.kept)
    assert len(chosen.kept) == 60
    assert min(topics.values()) >= 8


@pytest.mark.parametrize("count", [60, 61, 1000])
def test_enough_room_keeps_everything(count: int) -> None:
    rows = topic_rows(60)
    found = assessed(rows)
    chosen = select_best(rows, count, rank(found), found.space)
    assert (chosen.kept, chosen.dropped) == (list(range(60)), [])


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.lists(st.floats(0.02, 1), min_size=1, max_size=40), min_size=1, max_size=12),
    st.integers(1, 200),
)
def test_quotas_sum_to_n_and_fit(groups: list[list[float]], count: int) -> None:
    total = sum(len(group) for group in groups)
    count = min(count, total)
    quotas = _quotas([np.array(group) for group in groups], count)
    assert sum(quotas) == count
    for quota, group in zip(quotas, groups, strict=True):
        assert 0 <= quota <= len(group)
        sound = sum(score >= 0.5 for score in group)
        assert quota >= min(sound, 10, count // len(groups))


@settings(max_examples=25, deadline=None)
@given(st.integers(2, 7), st.integers(1, 3), st.integers(0, 1000))
def test_greedy_reaches_its_bound(count: int, quota: int, seed: int) -> None:
    from itertools import combinations

    rng = np.random.default_rng(seed)
    vectors = rng.standard_normal((count, 3))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    cosines = np.maximum(vectors @ vectors.T, 0).astype(np.float32)
    quality = rng.uniform(0.02, 1, count)
    quota = min(quota, count)

    def value(chosen: tuple[int, ...]) -> float:
        cover = cosines[:, list(chosen)].max(axis=1)
        return float(quality @ cover + quality[list(chosen)].sum())

    taken = _greedy(cosines, quality, quota)
    best = max(value(chosen) for chosen in combinations(range(count), quota))
    assert len(set(taken)) == quota
    assert value(tuple(taken)) >= (1 - 1 / np.e) * best - 1e-6
