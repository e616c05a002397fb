"""Small rows with labels for tests of quality: four topics, each said in many ways."""

from __future__ import annotations

import random
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from tutelage.core.example import Example, Message, Origin
from tutelage.data.quality.space import Space, make_space
from tutelage.inference.tfidf_embed import TfidfEmbedder

_TOPICS = {
    "card": ("card", "pin", "chip", "plastic", "wallet", "contactless"),
    "transfer": ("transfer", "payee", "account", "iban", "recipient", "bank"),
    "refund": ("refund", "merchant", "return", "purchase", "shop", "receipt"),
    "rate": ("rate", "exchange", "currency", "euro", "dollar", "abroad"),
}
_WAYS = (
    "what is wrong with the {a} of my {b}",
    "can you tell me about the {a} and the {b}",
    "my {a} does not work with the {b} today",
    "how long does the {a} take for a {b}",
    "please help me with the {b}, the {a} is missing",
    "why was my {a} changed when I used the {b}",
)


def topic_rows(count: int, seed: int = 0) -> list[Example]:
    """Return `count` rows, the topics in turn; no two rows are the same."""
    rng = random.Random(seed)
    rows: list[Example] = []
    for number in range(count):
        label = list(_TOPICS)[number % len(_TOPICS)]
        a, b = rng.sample(_TOPICS[label], 2)
        text = f"{rng.choice(_WAYS).format(a=a, b=b)}, since day {rng.randrange(40)}"
        rows.append(row(text, label, number))
    return rows


def row(text: str, label: str | None, number: int = 0) -> Example:
    """Return a labelled row; without a label the answer is free text."""
    return Example(
        messages=(
            Message(role="user", content=text),
            Message(role="assistant", content=label or "Let me look into that for you."),
        ),
        label=label,
        origin=Origin(source=f"data/rows.csv:{number + 2}"),
    )


def space_of(rows: Sequence[Example], clusters: Sequence[str] | None = None) -> Space:
    """Return the rows as points of the tf-idf embedder."""
    texts = [one.input_text for one in rows]
    return make_space(texts, TfidfEmbedder(64).embed(texts), fitted=True, clusters=clusters)


def relabel(rows: Sequence[Example], places: Sequence[int], seed: int = 1) -> list[Example]:
    """Return the rows with another label at the given places."""
    rng = random.Random(seed)
    changed = list(rows)
    for place in places:
        others = [label for label in _TOPICS if label != rows[place].label]
        changed[place] = row(rows[place].input_text, rng.choice(others), place)
    return changed


def unit(vectors: NDArray[np.float64]) -> NDArray[np.float32]:
    """Return the rows with length 1."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return (vectors / np.maximum(lengths, 1e-12)).astype(np.float32)
