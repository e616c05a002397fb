"""What mining found: the ranked rows with their reasons, the clusters, and what was left out.

Plain data: it neither reads the store nor decides anything.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from tutelage.core.example import SplitName

Kind = Literal[
    "failure", "low_score", "disagreement", "uncertainty", "novelty", "random", "held_out"
]
KINDS: tuple[Kind, ...] = (
    "failure", "low_score", "disagreement", "uncertainty", "novelty", "random", "held_out",
)  # fmt: skip


@dataclass(frozen=True)
class Reason:
    """Why a row is wanted: the kind, how strongly (0..1), and the words for a person."""

    kind: Kind
    strength: float
    words: str


@dataclass(frozen=True)
class MinedRow:
    """One request to look at. `rank` counts from 1; the first reason is the strongest.

    `score` is the chance that the answer is wrong, as far as the signals tell (0..1). `times`
    counts the requests with the same text. A row whose `split` is not train is labelled to judge
    models and never trained on.
    """

    record: str
    rank: int
    score: float
    reasons: tuple[Reason, ...]
    cluster: str
    split: SplitName
    text: str
    answer: str
    release: str
    times: int
    item: str = ""  # its id in the label queue, once known

    def as_dict(self) -> dict[str, Any]:
        """Return plain data."""
        return asdict(self)


@dataclass(frozen=True)
class Cluster:
    """Wanted rows that lie together. `name` is made of their most telling words.

    `texts` are different texts, `requests` counts how often they were asked, `share` is that of
    all requests looked at (0..1), `score` the mean chance of a wrong answer, `kinds` how many
    texts have each kind of reason, `examples` some of the texts, the most typical first.
    """

    name: str
    texts: int
    requests: int
    share: float
    score: float
    kinds: Mapping[str, int]
    examples: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """Return plain data."""
        return asdict(self)


@dataclass(frozen=True)
class Mined:
    """One look at production. `rows` are ranked, at most the budget; `run` names it in the store.

    `records` were read, `texts` are the different texts among them, `wanted` those with a reason.
    `left_out` counts texts by why they are not asked for. `batch` is set once they are given out.
    """

    run: str
    rows: tuple[MinedRow, ...]
    clusters: tuple[Cluster, ...]
    records: int
    texts: int
    wanted: int
    left_out: Mapping[str, int] = field(default_factory=dict)
    known: int = 0  # rows of the dataset that the traffic was compared with
    since: str | None = None  # ISO 8601
    until: str | None = None
    batch: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return plain data, as `--json` prints it."""
        return asdict(self)
