"""Faults planted in real rows are found: strangers, flipped labels, and what selection leaves."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from tests.planted import Planted, plant, read_banking77

from tutelage.core.config import Quality
from tutelage.core.example import Example, Message, Origin
from tutelage.data.assign import cluster_rows
from tutelage.data.dedup.exact import ExactDuplicates
from tutelage.data.quality.assess import Assessment, assess, rank
from tutelage.data.quality.select import select_best
from tutelage.data.quality.softmax import fit
from tutelage.inference.tfidf_embed import TfidfEmbedder


@dataclass
class Case:
    """Planted rows without exact copies, assessed; `kinds` says what was planted where."""

    rows: list[Example]
    kinds: list[str]
    found: Assessment


def make_case(folder: Path, seed: int) -> Case:
    strangers = (folder / "general" / "wiki_sentences.txt").read_text("utf-8").splitlines()
    planted = plant(read_banking77(folder), seed, strangers)
    everything = [
        Example(
            messages=(Message(role="user", content=text), Message(role="assistant", content=label)),
            label=label,
            origin=Origin(source=str(index)),
        )
        for index, (text, label) in enumerate(planted.rows)
    ]
    rows = ExactDuplicates().run(everything).kept
    vectors = TfidfEmbedder().embed([row.input_text for row in rows])
    found = assess(
        rows, vectors, Quality(), embedder="tfidf", fitted=True, clusters=cluster_rows(rows)
    )
    return Case(rows, [_kind(planted, int(row.origin.source)) for row in rows], found)


def _kind(planted: Planted, index: int) -> str:
    if index in planted.flips:
        return "flip"
    return "outlier" if index in planted.outliers else ""


@pytest.fixture(scope="module")
def cases() -> dict[int, Case]:
    return {}


@pytest.fixture(params=[1, 2])
def case(request: pytest.FixtureRequest, shared_data: Path, cases: dict[int, Case]) -> Case:
    if request.param not in cases:
        cases[request.param] = make_case(shared_data, request.param)
    return cases[request.param]


def test_strangers_are_among_the_most_unusual_rows(case: Case) -> None:
    assert case.found.outliers is not None
    top = case.found.outliers.top(100)
    assert sum(case.kinds[one.index] == "outlier" for one in top) >= 40  # of 50
    flagged = np.flatnonzero(case.found.outliers.flagged)
    assert len(flagged) <= 150  # of more than 10,000 rows
    assert sum(case.kinds[index] == "outlier" for index in flagged) >= 40


def test_flipped_labels_are_among_the_most_doubtful(case: Case) -> None:
    assert case.found.labels is not None
    top = case.found.labels.doubts[:150]
    assert sum(case.kinds[doubt.index] == "flip" for doubt in top) >= 75  # of 100
    assert sum(case.kinds[doubt.index] == "outlier" for doubt in top) <= 5


def test_the_best_rows_hold_hardly_a_planted_fault_and_teach_more_than_random_ones(
    case: Case, shared_data: Path
) -> None:
    rows = case.rows
    chosen = select_best(rows, 1500, rank(case.found), case.found.space)
    assert sum(case.kinds[index] in ("flip", "outlier") for index in chosen.kept) <= 3
    with (shared_data / "banking77" / "test.csv").open(newline="", encoding="utf-8") as stream:
        test = [(row["text"], row["category"]) for row in csv.DictReader(stream)]
    names = sorted({row.label or "" for row in rows})
    number = {label: index for index, label in enumerate(names)}
    classes = np.array([number[row.label or ""] for row in rows])
    texts = [row.input_text for row in rows]
    vectors = TfidfEmbedder().embed([*texts, *(text for text, _ in test)])
    expected = np.array([number[label] for _, label in test])

    def accuracy(places: np.ndarray[tuple[int], np.dtype[np.int64]]) -> float:
        model = fit(vectors[places], classes[places], len(names), 12, 0)
        return float((model.predict(vectors[len(rows) :]).argmax(axis=1) == expected).mean())

    random = np.random.default_rng(0).choice(len(rows), 1500, replace=False)
    assert accuracy(np.array(chosen.kept)) > accuracy(random) + 0.02
