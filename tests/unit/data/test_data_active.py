"""Which rows are suggested for labelling, and why, on clouds of points with known labels."""

from __future__ import annotations

import re

import numpy as np
import pytest
from numpy.typing import NDArray

from tutelage.core.errors import DataError
from tutelage.data.active import Known, Pool, Strategy, suggest_rows, warm
from tutelage.data.groups import TOO_NEAR, covered_groups, typical
from tutelage.data.linear import fit_linear

CLOUDS, EACH, WIDTH = 6, 40, 16
Vectors = NDArray[np.float32]
NOTHING = Known(np.zeros((0, WIDTH), np.float32), [])


def unit(vectors: NDArray[np.float64]) -> Vectors:
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


@pytest.fixture
def clouds() -> tuple[Vectors, list[str]]:
    """Six clouds on the sphere and their labels a to f."""
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(CLOUDS, WIDTH))
    names = np.repeat(np.arange(CLOUDS), EACH)
    points = centres[names] + 0.6 * rng.normal(size=(len(names), WIDTH))
    return unit(points), ["abcdef"[k] for k in names]


def test_a_cold_start_takes_one_typical_row_of_every_cloud(
    clouds: tuple[Vectors, list[str]],
) -> None:
    vectors, labels = clouds
    found = suggest_rows(Pool(vectors), NOTHING, CLOUDS)
    assert found.strategy == "diversity"
    assert sorted(labels[pick.index] for pick in found.picks) == list("abcdef")
    centre = {name: vectors[[k for k, x in enumerate(labels) if x == name]].mean(0)
              for name in "abcdef"}  # fmt: skip
    for pick in found.picks:
        own = [k for k, name in enumerate(labels) if name == labels[pick.index]]
        closeness = vectors[own] @ centre[labels[pick.index]]
        assert (closeness > vectors[pick.index] @ centre[labels[pick.index]]).mean() < 0.35
        assert re.fullmatch(r"typical of \d+ other rows, none labelled", pick.reason)


def test_groups_that_have_a_label_already_wait(clouds: tuple[Vectors, list[str]]) -> None:
    vectors, labels = clouds
    have = [k for k, name in enumerate(labels) if name in "ab"][:60:20]
    rest = [k for k in range(len(labels)) if k not in have]
    known = Known(vectors[have], [labels[k] for k in have])
    found = suggest_rows(Pool(vectors[rest]), known, 4, "diversity")
    assert {labels[rest[pick.index]] for pick in found.picks} >= set("cdef") - {"x"}


def test_doubtful_rows_lie_between_two_labels(clouds: tuple[Vectors, list[str]]) -> None:
    vectors, labels = clouds
    have = [k for k in range(len(labels)) if k % EACH < 4]
    known = Known(vectors[have], [labels[k] for k in have])
    rng = np.random.default_rng(1)
    between = unit(vectors[0:5] + vectors[EACH : EACH + 5] + 0.01 * rng.normal(size=(5, WIDTH)))
    rest = [k for k in range(len(labels)) if k % EACH >= 4]
    pool = np.concatenate([vectors[rest], between])
    found = suggest_rows(Pool(pool), known, 3)
    assert found.strategy == "uncertainty"
    assert any(pick.index >= len(rest) for pick in found.picks)
    model = fit_linear(known.vectors, [labels[k] for k in have])
    two = np.sort(model.probabilities(pool), axis=1)[:, -2:]
    margin = two[:, 1] - two[:, 0]
    chosen = margin[[pick.index for pick in found.picks]]
    assert chosen.mean() < np.quantile(margin, 0.35)
    for pick in found.picks:
        assert re.match(r"between '[a-f]' \(\d+%\) and '[a-f]' \(\d+%\)", pick.reason)
    assert [p.score for p in found.picks] == sorted((p.score for p in found.picks), reverse=True)


@pytest.mark.parametrize("strategy", ["auto", "uncertainty", "diversity", "disagreement", "random"])
def test_no_row_comes_twice_and_the_seed_decides(
    clouds: tuple[Vectors, list[str]], strategy: Strategy
) -> None:
    vectors, labels = clouds
    known = Known(vectors[::20], labels[::20])
    one = suggest_rows(Pool(vectors), known, 30, strategy, seed=3)
    again = suggest_rows(Pool(vectors), known, 30, strategy, seed=3)
    assert one == again
    indices = [pick.index for pick in one.picks]
    assert len(set(indices)) == len(indices) == 30
    assert all(pick.reason for pick in one.picks)


def test_near_copies_of_labelled_or_picked_rows_are_passed_over(
    clouds: tuple[Vectors, list[str]],
) -> None:
    vectors, labels = clouds
    rng = np.random.default_rng(2)
    copies = unit(np.repeat(vectors[:3], 30, axis=0) + 0.01 * rng.normal(size=(90, WIDTH)))
    known = Known(vectors[[0, 1, EACH, EACH + 1]], [labels[k] for k in (0, 1, EACH, EACH + 1)])
    for strategy in ("diversity", "uncertainty", "disagreement"):
        pool = np.concatenate([copies, vectors[2 * EACH :]])
        found = suggest_rows(Pool(pool), known, 20, strategy)  # type: ignore[arg-type]
        picked = pool[[pick.index for pick in found.picks]]
        cosines = picked @ picked.T - 2 * np.eye(len(picked), dtype=np.float32)
        assert cosines.max() < TOO_NEAR
        assert (picked @ known.vectors.T).max() < TOO_NEAR
        assert sum(pick.index < 90 for pick in found.picks) <= 1  # rows 0 and 1 are labelled


def test_failures_go_first_and_the_rest_is_chosen_as_usual(
    clouds: tuple[Vectors, list[str]],
) -> None:
    vectors, _ = clouds
    failure = np.zeros(len(vectors))
    failure[[5, 90, 170]] = (1.0, 0.5, 0.8)
    why = ["" if f == 0 else f"rated {1 - f:.0%}" for f in failure]
    found = suggest_rows(Pool(vectors, failure, None, why), NOTHING, 5, "failure")
    assert [p.index for p in found.picks[:3]] == [5, 170, 90]
    assert [p.reason for p in found.picks[:3]] == ["rated 0%", "rated 20%", "rated 50%"]
    assert [p.strategy for p in found.picks] == ["failure"] * 3 + ["diversity"] * 2


def test_auto_gives_half_to_known_failures(clouds: tuple[Vectors, list[str]]) -> None:
    vectors, labels = clouds
    known = Known(vectors[::10], labels[::10])
    rest = np.array([k for k in range(len(labels)) if k % 10])
    failure = np.zeros(len(rest))
    failure[[17, 60, 90, 120, 150, 180, 210]] = 1.0
    pool = Pool(vectors[rest], failure, None, ["" if f == 0 else "rated down" for f in failure])
    found = suggest_rows(pool, known, 8)
    assert found.strategy == "uncertainty"
    assert [p.strategy for p in found.picks] == ["failure"] * 4 + ["uncertainty"] * 4
    assert all(failure[p.index] == 1 and p.reason.startswith("rated down") for p in found.picks[:4])


def test_disagreement_of_people_goes_before_that_of_classifiers(
    clouds: tuple[Vectors, list[str]],
) -> None:
    vectors, labels = clouds
    known = Known(vectors[::10], labels[::10])
    told = np.zeros(len(vectors))
    told[33] = 0.7
    found = suggest_rows(Pool(vectors, None, told), known, 4, "disagreement")
    assert (found.picks[0].index, found.picks[0].reason) == (33, "the answers of people differ")
    assert all(re.match(r"5 classifiers (vote|say) '", pick.reason) for pick in found.picks[1:])


@pytest.mark.parametrize(
    ("strategy", "labels", "what"),
    [
        ("failure", ["a", "b"], "no row of the pool is known to have failed"),
        ("uncertainty", [], "uncertainty needs labelled rows of two labels, there are 0"),
        ("uncertainty", ["a", "a"], "uncertainty needs labelled rows of two labels, there are 1"),
        ("disagreement", ["a", None], "disagreement needs labelled rows of two labels"),
    ],
)
def test_what_a_strategy_lacks_is_said(
    clouds: tuple[Vectors, list[str]], strategy: Strategy, labels: list[str | None], what: str
) -> None:
    vectors, _ = clouds
    with pytest.raises(DataError) as caught:
        suggest_rows(Pool(vectors), Known(vectors[: len(labels)], labels), 3, strategy)
    assert what in caught.value.what


def test_auto_asks_the_classifier_once_labels_were_seen_twice() -> None:
    vectors = np.eye(8, dtype=np.float32)
    assert not warm(Known(vectors[:3], ["a", "b", "a"]))
    assert warm(Known(vectors[:4], ["a", "b", "a", "b"]))
    assert not warm(Known(vectors[:4], ["a"] * 4))
    assert not warm(Known(vectors[:4], [None] * 4))


def test_edges_of_the_pool() -> None:
    vectors = np.eye(4, dtype=np.float32)
    none = Known(np.zeros((0, 4), np.float32), [])
    assert suggest_rows(Pool(vectors[:0]), none, 5).picks == []
    assert len(suggest_rows(Pool(vectors), none, 99).picks) == 4
    zeros = np.zeros((5, 4), np.float32)  # texts without a word
    assert suggest_rows(Pool(zeros), none, 3).picks
    same = np.repeat(vectors[:1], 9, axis=0)
    assert len(suggest_rows(Pool(same), none, 3).picks) == 1


def test_typical_rows_lie_in_the_dense_part() -> None:
    rng = np.random.default_rng(4)
    centre = np.ones((1, WIDTH))
    dense = unit(centre + 0.1 * rng.normal(size=(30, WIDTH)))
    loose = unit(centre + 0.9 * rng.normal(size=(10, WIDTH)))
    order = typical(np.concatenate([loose, dense]), np.arange(40))
    assert min(order[:25]) >= 10


def test_every_pool_row_is_in_one_group(clouds: tuple[Vectors, list[str]]) -> None:
    vectors, _ = clouds
    groups = covered_groups(vectors[10:], vectors[:10], 8, np.random.default_rng(0))
    members = np.sort(np.concatenate([group.members for group in groups]))
    assert members.tolist() == list(range(len(vectors) - 10))
    assert sum(group.labelled for group in groups) <= 10
    assert [g.labelled for g in groups] == sorted(g.labelled for g in groups)


def test_the_classifier_is_scikit_learns(clouds: tuple[Vectors, list[str]]) -> None:
    from sklearn.linear_model import LogisticRegression

    vectors, labels = clouds
    for kept in (range(len(labels)), range(2 * EACH)):  # six labels, and two
        names = [labels[k] for k in kept]
        ours = fit_linear(vectors[list(kept)], names)
        theirs = LogisticRegression(C=30.0, max_iter=200, tol=1e-4)
        theirs.fit(vectors[list(kept)].astype(np.float64), names)
        wanted = theirs.predict_proba(vectors.astype(np.float64))
        assert np.abs(ours.probabilities(vectors) - wanted).max() < 1e-6
        assert ours.predict(vectors) == theirs.predict(vectors.astype(np.float64)).tolist()
    only = fit_linear(vectors[:3], ["a"] * 3)
    assert only.predict(vectors[:2]) == ["a", "a"]
    assert only.probabilities(vectors[:2]).tolist() == [[1.0], [1.0]]
