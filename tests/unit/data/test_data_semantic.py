"""Semantic duplicates: every close pair is found block by block, and clusters have a centre."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from tutelage.data.dedup import semantic
from tutelage.data.dedup.base import as_pairs
from tutelage.data.dedup.semantic import SemanticDuplicates, close_pairs, stars


def unit(rows: int, columns: int, seed: int) -> NDArray[np.float32]:
    values = np.random.default_rng(seed).standard_normal((rows, columns)).astype(np.float32)
    return values / np.linalg.norm(values, axis=1, keepdims=True)


@pytest.mark.parametrize("block", [1, 700, 1 << 22])
def test_close_pairs_are_all_pairs(monkeypatch: pytest.MonkeyPatch, block: int) -> None:
    monkeypatch.setattr(semantic, "_BLOCK", block)
    vectors = unit(90, 4, 1)
    told: list[tuple[int, int]] = []
    pairs, cosines = close_pairs(vectors, 0.8, on_block=lambda *done: told.append(done))
    every = vectors @ vectors.T
    i, j = np.nonzero(np.triu(every >= 0.8, 1))
    assert pairs.tolist() == np.stack([i, j], axis=1).tolist()
    assert cosines == pytest.approx(every[i, j], abs=1e-6)
    assert told[-1] == (90, 90)


def test_a_row_keeps_the_closest_of_too_many() -> None:
    vectors = unit(40, 3, 2)
    pairs, cosines = close_pairs(vectors, -1.0, most=2)
    first = cosines[pairs[:, 0] == 0]
    assert len(first) == 2
    assert first.min() >= np.sort((vectors @ vectors[0])[1:])[-2] - 1e-6


def test_no_text_and_one_text() -> None:
    assert close_pairs(np.zeros((0, 1), np.float32), 0.5)[0].shape == (0, 2)
    assert close_pairs(np.ones((1, 1), np.float32), 0.5)[0].shape == (0, 2)
    assert SemanticDuplicates(embedder="tfidf").pairs(["one text"]).shape == (0, 2)


def test_a_star_never_chains() -> None:
    chain = as_pairs([0, 1, 2, 3], [1, 2, 3, 4])
    found = stars(6, chain)
    assert found == [[1, 0, 2], [3, 4]]
    near = {tuple(pair) for pair in chain.tolist()}
    for centre, *members in found:
        assert all((min(centre, m), max(centre, m)) in near for m in members)


def test_other_words_for_the_same_are_found() -> None:
    texts = [
        "my card payment was declined, why is that",
        "why was my card payment declined",
        "how do I open an account for my child",
        "the weather is lovely in the mountains today",
    ]
    pairs = SemanticDuplicates(0.6, embedder="tfidf").pairs(texts).tolist()
    assert pairs == [[0, 1]]
