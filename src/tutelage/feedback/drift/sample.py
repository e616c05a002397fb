"""One side of a comparison: figures of all its rows, and the texts of some of them.

Built row by row, so that a million rows take some tens of MB. Which rows' texts are kept is drawn
by a keyed hash of their ids, whatever order they come in. It compares nothing.
"""

from __future__ import annotations

import hashlib
import heapq
from array import array
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

NONE = -1  # a length or label that is not known
_LONGEST = 4_000  # characters of a text that are kept

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Row:
    """One request with its answer. None: not known."""

    id: str
    request: str
    answer: str | None = None
    label: str | None = None
    score: float | None = None  # 0 (bad) to 1 (good)
    segments: Mapping[str, str] = field(default_factory=dict)  # such as {"key": "shop"}


@dataclass(frozen=True)
class Codes:
    """A word a row, as its place in `names`; NONE where there is none."""

    names: tuple[str, ...]
    values: Ints

    def counts(self, rows: NDArray[np.bool_] | None = None) -> dict[str, int]:
        """Return how many rows have each word, of all or of some rows."""
        values = self.values if rows is None else self.values[rows]
        found = np.bincount(values[values != NONE], minlength=len(self.names))
        return {name: int(n) for name, n in zip(self.names, found, strict=True) if n}

    def are(self, name: str) -> NDArray[np.bool_]:
        """Return which rows have the word, shape (N,)."""
        place = self.names.index(name) if name in self.names else len(self.names)
        return np.asarray(self.values == place)


@dataclass(frozen=True)
class Sample:
    """Arrays of all N rows, and texts of those at `places`. Lengths in characters."""

    request_length: Ints
    answer_length: Ints
    label: Codes
    score: NDArray[np.float64]  # NaN where nobody said anything
    segments: Mapping[str, Codes]
    places: Ints
    ids: tuple[str, ...]
    texts: tuple[str, ...]
    answers: tuple[str, ...]  # empty where there is none

    def __len__(self) -> int:
        return len(self.request_length)

    @classmethod
    def of(cls, rows: Iterable[Row], *, texts: int = 2_000, seed: int = 7) -> Sample:
        """Return the sample of some rows, with the texts of at most `texts` of them."""
        builder = SampleBuilder(texts, seed)
        for row in rows:
            builder.add(row)
        return builder.sample()


class _Words:
    """Grows a Codes."""

    def __init__(self) -> None:
        self.places: dict[str, int] = {}
        self.values = array("q")

    def add(self, word: str | None) -> None:
        code = NONE if word is None else self.places.setdefault(word, len(self.places))
        self.values.append(code)

    def codes(self) -> Codes:
        return Codes(tuple(self.places), _numbers(self.values))


class SampleBuilder:
    """Takes rows one by one."""

    def __init__(self, texts: int = 2_000, seed: int = 7) -> None:
        self._most, self._key = texts, seed.to_bytes(8, "little", signed=True)
        self._requests, self._answers = array("q"), array("q")
        self._scores = array("d")
        self._labels = _Words()
        self._segments: dict[str, _Words] = {}
        self._kept: list[tuple[int, int, str, str, str]] = []  # a heap: the largest draw on top

    def add(self, row: Row) -> None:
        """Take a row."""
        place = len(self._requests)
        self._requests.append(len(row.request))
        self._answers.append(NONE if row.answer is None else len(row.answer))
        self._scores.append(float("nan") if row.score is None else row.score)
        self._labels.add(row.label)
        for name, value in row.segments.items():
            words = self._segments.setdefault(name, _Words())
            words.values.extend([NONE] * (place - len(words.values)))
            words.add(value)
        self._draw(place, row)

    def sample(self) -> Sample:
        """Return what was taken."""
        total = len(self._requests)
        for words in self._segments.values():
            words.values.extend([NONE] * (total - len(words.values)))
        kept = sorted(self._kept, key=lambda one: one[1])
        return Sample(
            request_length=_numbers(self._requests),
            answer_length=_numbers(self._answers),
            label=self._labels.codes(),
            score=np.array(self._scores, dtype=np.float64),
            segments={name: words.codes() for name, words in self._segments.items()},
            places=np.array([one[1] for one in kept], dtype=np.int64),
            ids=tuple(one[2] for one in kept),
            texts=tuple(one[3] for one in kept),
            answers=tuple(one[4] for one in kept),
        )

    def _draw(self, place: int, row: Row) -> None:
        digest = hashlib.blake2b(row.id.encode(), digest_size=8, key=self._key).digest()
        draw = -int.from_bytes(digest, "little")
        if len(self._kept) >= self._most and draw <= self._kept[0][0]:
            return
        entry = (draw, place, row.id, row.request[:_LONGEST], (row.answer or "")[:_LONGEST])
        if len(self._kept) < self._most:
            heapq.heappush(self._kept, entry)
        else:
            heapq.heapreplace(self._kept, entry)


def _numbers(values: Sequence[int]) -> Ints:
    return np.array(values, dtype=np.int64)
