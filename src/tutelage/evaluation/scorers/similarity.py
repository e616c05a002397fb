"""Semantic similarity: the cosine between the embeddings of answer and reference.

It sees that two texts are about the same, not that they say the same: "is safe" and "is not
safe" are close.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from tutelage.core import plugins
from tutelage.core.config_base import Section
from tutelage.core.config_deploy import Endpoint
from tutelage.core.example import Example
from tutelage.evaluation.rows import RowResult
from tutelage.evaluation.scorers.base import HERE, NO_REFERENCE, Place, Score
from tutelage.inference.base import Embedder
from tutelage.inference.embed import load_embedder, resolve


class SimilarityOptions(Section):
    """Which embedder, and from where on texts count as the same."""

    embedder: str = "auto"  # minilm, tfidf, openai, a plug-in, or a folder with an encoder
    endpoint: Endpoint | None = None  # the server of the embedder openai
    threshold: float | None = Field(default=None, gt=0, le=1)  # set: 1 from this cosine on, else 0


class Similarity:
    """Cosine of the embeddings of answer and reference, 0..1; negative ones are 0."""

    Options = SimilarityOptions
    rule = True

    def __init__(self, options: SimilarityOptions, place: Place = HERE) -> None:
        """Check that there is such an embedder; it is loaded when it is first needed."""
        self._options, self._root = options, place.root
        self._name = resolve(options.embedder, 0)
        folder = (place.root / self._name).is_dir() if place.root else False
        if self._name not in plugins.available("embedders") and not folder:
            known = ", ".join(sorted(plugins.available("embedders")))
            raise place.wrong(f"similarity: there is no embedder {self._name!r}", f"Known: {known}")
        self._vectors: dict[str, NDArray[np.float32]] = {}

    @cached_property
    def _embedder(self) -> Embedder:
        return load_embedder(self._name, endpoint=self._options.endpoint, root=self._root)

    def prepare(self, pairs: Sequence[tuple[Example, RowResult]]) -> None:
        """Embed all texts at once, where vectors of different calls can be compared."""
        if self._embedder.fingerprint is None:
            return
        texts = [t for row, answer in pairs if row.answer for t in (answer.text, row.answer)]
        fresh = [text for text in dict.fromkeys(texts) if text not in self._vectors]
        self._vectors.update(zip(fresh, self._embedder.embed(fresh), strict=True))

    def score(self, row: Example, text: str) -> Score:
        """Give the cosine and the embedder that it is by."""
        if row.answer is None:
            return NO_REFERENCE
        pair = [self._vectors.get(t) for t in (text, row.answer)]
        if pair[0] is None or pair[1] is None:
            left, right = self._embedder.embed([text, row.answer])
        else:
            left, right = pair[0], pair[1]
        cosine = round(float(left @ right), 6)
        evidence = {"cosine": cosine, "embedder": self._embedder.fingerprint or self._name}
        if self._options.threshold is None:
            return Score(min(max(cosine, 0.0), 1.0), evidence)
        return Score(float(cosine >= self._options.threshold), evidence)
