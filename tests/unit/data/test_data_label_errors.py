"""Labels in doubt: the held-out regression, the confident joint, the rank, who is not judged."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.fakes.quality_rows import relabel, row, space_of, topic_rows, unit

from tutelage.core.config import Quality
from tutelage.data.quality import label_errors
from tutelage.data.quality.assess import assess, quality_findings
from tutelage.data.quality.label_errors import find_label_errors
from tutelage.data.quality.report import sections
from tutelage.data.quality.softmax import fit, grouped_folds, held_out
from tutelage.inference.tfidf_embed import TfidfEmbedder


def test_wrong_labels_come_first_with_the_right_suggestion() -> None:
    clean = topic_rows(240)
    wrong = [3, 50, 101, 166, 203]
    rows = relabel(clean, wrong)
    found = find_label_errors(space_of(rows), [one.label for one in rows])
    assert found is not None
    assert {doubt.index for doubt in found.doubts[:5]} == set(wrong)
    for doubt in found.doubts[:5]:
        assert doubt.given == rows[doubt.index].label
        assert doubt.suggested == clean[doubt.index].label
        assert doubt.flagged
        assert f"of its {doubt.voters} nearest rows say {doubt.suggested!r}" in doubt.reason
    assert found.judged == 240
    assert found.flagged <= 10
    assert found.accuracy > 0.95


def test_the_result_repeats_and_takes_a_seed() -> None:
    rows = relabel(topic_rows(120), [5, 9])
    space, labels = space_of(rows), [one.label for one in rows]
    one, two = (find_label_errors(space, labels, seed=3) for _ in range(2))
    assert one is not None
    assert two is not None
    assert one.doubts == two.doubts


def test_labels_with_few_rows_are_not_judged_and_are_named() -> None:
    rows = topic_rows(80)
    rows += [row(f"what about the loan of month {i}", "loan", 80 + i) for i in range(9)]
    found = find_label_errors(space_of(rows), [one.label for one in rows])
    assert found is not None
    assert found.too_few == {"loan": 9}
    assert found.judged == 80
    assert np.isnan(found.quality[80:]).all()
    assert all(doubt.index < 80 and doubt.suggested != "loan" for doubt in found.doubts)


@pytest.mark.parametrize(
    "labels",
    [[], [None] * 30, ["only"] * 30, ["a"] * 9 + ["b"] * 9, ["a"] * 25 + ["b"] * 9],
)
def test_nothing_is_said_where_nothing_can_be(labels: list[str | None]) -> None:
    rows = [row(f"text number {i} of many", label, i) for i, label in enumerate(labels)]
    assert find_label_errors(space_of(rows), labels) is None


def test_rows_to_skip_are_neither_judged_nor_asked() -> None:
    rows = relabel(topic_rows(160), [4])
    skip = np.zeros(160, dtype=bool)
    skip[[4, 8]] = True
    found = find_label_errors(space_of(rows), [one.label for one in rows], skip=skip)
    assert found is not None
    assert found.judged == 158
    assert not {4, 8} & {doubt.index for doubt in found.doubts}


def test_a_copied_mistake_does_not_confirm_itself() -> None:
    rows = topic_rows(200)
    text = "my pin does not work with the chip of the card"
    rows += [row(f"{text}{'!' * i}", "refund", 200 + i) for i in range(4)]
    clusters = [str(i) for i in range(200)] + ["twins"] * 4
    found = find_label_errors(space_of(rows, clusters), [one.label for one in rows])
    assert found is not None
    assert {doubt.index for doubt in found.doubts[:4]} == {200, 201, 202, 203}
    assert all(doubt.suggested == "card" for doubt in found.doubts[:4])


def test_all_flagged_rows_are_given_however_few_are_shown() -> None:
    rows = relabel(topic_rows(240), [3, 50, 101, 166])
    found = find_label_errors(space_of(rows), [one.label for one in rows], shown=2)
    assert found is not None
    assert found.flagged >= 4
    assert sum(doubt.flagged for doubt in found.doubts) == found.flagged


@settings(max_examples=40, deadline=None)
@given(st.integers(2, 4), st.integers(5, 60), st.integers(0, 10_000))
def test_the_flags_are_the_off_diagonal_of_the_confident_joint(
    classes: int, count: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    chance = rng.dirichlet(np.full(classes, 0.5), count)
    labels = rng.integers(classes, size=count)
    best = np.argsort(-chance, axis=1, kind="stable")
    opinion = label_errors._Opinion(
        chance[np.arange(count), labels], best, np.take_along_axis(chance, best, 1)
    )
    flagged, suggested, _ = label_errors._confident(opinion, labels, classes)
    threshold = [
        min(chance[labels == k, k].mean(), 0.75) if (labels == k).any() else 0.0
        for k in range(classes)
    ]
    for i in range(count):
        reached = [k for k in range(classes) if chance[i, k] >= threshold[k]]
        put = max(reached, key=lambda k: chance[i, k]) if reached else labels[i]
        assert flagged[i] == (put != labels[i])
        if flagged[i]:
            assert suggested[i] == put
        else:
            assert suggested[i] != labels[i]


def test_the_regression_is_as_good_as_a_full_solver() -> None:
    from sklearn.linear_model import LogisticRegression

    rng = np.random.default_rng(0)
    centres = rng.standard_normal((6, 20))
    classes = rng.integers(6, size=900)
    vectors = unit(centres[classes] + 1.1 * rng.standard_normal((900, 20)))
    ours = fit(vectors[:600], classes[:600], 6, 12, 0).predict(vectors[600:])
    reference = LogisticRegression(C=5, max_iter=500).fit(5 * vectors[:600], classes[:600])
    accuracy = (ours.argmax(axis=1) == classes[600:]).mean()
    assert accuracy >= reference.score(5 * vectors[600:], classes[600:]) - 0.02
    np.testing.assert_allclose(ours.sum(axis=1), 1, atol=1e-5)


def test_held_out_models_have_not_seen_their_fold() -> None:
    rng = np.random.default_rng(0)
    vectors = unit(rng.standard_normal((60, 59)))  # no structure: only memory could be right
    classes = rng.integers(2, size=60)
    folds = np.arange(60) % 5
    right = [
        (model.predict(vectors[part]).argmax(axis=1) == classes[part]).mean()
        for part, model in held_out(vectors, classes, folds, 0)
    ]
    assert np.mean(right) < 0.75


@settings(max_examples=30, deadline=None)
@given(st.integers(5, 80), st.integers(1, 6), st.integers(0, 1000))
def test_folds_keep_groups_whole_and_spread_classes(count: int, size: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    groups = rng.integers(max(1, count // size), size=count)
    classes = rng.integers(3, size=count)
    folds = grouped_folds(classes, groups, 5, seed)
    for group in np.unique(groups):
        assert len(set(folds[groups == group])) == 1
    alone = grouped_folds(classes, np.arange(count), 5, seed)
    for label in range(3):
        sizes = np.bincount(alone[classes == label], minlength=5)
        assert sizes.max() - sizes.min() <= 1


def test_findings_say_what_speaks_against_a_label() -> None:
    rows = relabel(topic_rows(240), [3, 50])
    rows += [row(f"what about the loan of month {i}", "loan", 240 + i) for i in range(3)]
    rows += [row(f"tell me more about {i}", "I cannot answer that.", 250 + i) for i in range(12)]
    vectors = TfidfEmbedder(64).embed([one.input_text for one in rows])
    found = assess(rows, vectors, Quality(), embedder="tfidf", fitted=True, clusters={})
    findings, summary = quality_findings(found)
    wrong = {f.where: f.detail for f in findings if f.id == "D12-L01"}
    assert {"data/rows.csv:5", "data/rows.csv:52"} <= set(wrong)
    assert f"labelled {rows[3].label!r}, but" in wrong["data/rows.csv:5"]
    assert [f.detail for f in findings if f.id == "D12-L02"] == ["'loan' has 3 rows"]
    assert summary["label_errors"]["judged"] <= 240
    page = "".join(sections(found))
    assert "Labels in doubt" in page
    assert "Labels that are taken for each other" in page
    assert "Not judged, with fewer than 10 rows each: 1 label (loan)" in page


def test_rows_that_are_all_one_cluster_vouch_for_nobody() -> None:
    rows = topic_rows(60)
    space = space_of(rows, ["one"] * 60)
    assert find_label_errors(space, [one.label for one in rows]) is None
