"""What a comparison of traffic found: parts with their figures, and one sentence a person reads.

Plain data; it tests nothing and reads no store. Texts are held while a report is shown, and
`as_dict` leaves them out: what is kept names records and the words of topics, which `forgotten`
takes out too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

Side = Literal["requests", "answers", "scores"]
Verdict = Literal["moved", "as_before", "too_few"]


@dataclass(frozen=True)
class Shown:
    """One request that shows what moved: the record it is (a row's id in the reference), its text.

    `where` is `recent` or `reference`.
    """

    record: str
    where: Literal["recent", "reference"]
    text: str = ""

    def as_dict(self, *, texts: bool = False) -> dict[str, Any]:
        """Return plain JSON."""
        found: dict[str, Any] = {"record": self.record, "where": self.where}
        return found | ({"text": self.text} if texts else {})


@dataclass(frozen=True)
class Part:
    """One test of one property of one segment.

    `statistic` is what `test` measures, `p` its p-value, `corrected` the same after all tests of
    the report (Holm 1979). `moved`: it is corrected below the level, and large enough to matter.
    """

    name: str  # request wording, request length, label, score, ...
    side: Side
    test: str  # mmd, auc, psi, topic, rank
    statistic: float
    p: float
    corrected: float
    moved: bool
    reference: int  # values compared, on either side
    recent: int
    segment: str | None = None  # such as "key: shop"; None: all traffic
    sentence: str = ""  # what moved, in words; empty where nothing did
    examples: tuple[Shown, ...] = ()
    figures: Mapping[str, Any] = field(default_factory=dict)  # shares, medians: for plots

    def as_dict(self, *, texts: bool = False) -> dict[str, Any]:
        """Return plain JSON."""
        return {
            "name": self.name, "side": self.side, "test": self.test, "segment": self.segment,
            "statistic": self.statistic, "p": self.p, "corrected": self.corrected,
            "moved": self.moved, "reference": self.reference, "recent": self.recent,
            "sentence": self.sentence,
            "examples": [shown.as_dict(texts=texts) for shown in self.examples],
            "figures": dict(self.figures) if texts else _without_texts(self.figures),
        }  # fmt: skip


@dataclass(frozen=True)
class DriftReport:
    """Everything one comparison found. `parts` come in the order of how far they moved."""

    moved: bool
    sentence: str
    verdict: Verdict
    parts: tuple[Part, ...] = ()
    reference: str = ""  # in words: "the 812 rows of dataset 3f2a"
    recent: str = ""
    rows: tuple[int, int] = (0, 0)  # of the reference, of recent traffic
    level: float = 0.01
    watch: Mapping[str, Any] = field(default_factory=dict)  # evidence of the sequential watch

    def as_dict(self, *, texts: bool = False) -> dict[str, Any]:
        """Return plain JSON; `texts` adds examples' texts and words, for showing only."""
        return {
            "moved": self.moved,
            "verdict": self.verdict,
            "sentence": self.sentence,
            "reference": {"what": self.reference, "rows": self.rows[0]},
            "recent": {"what": self.recent, "rows": self.rows[1]},
            "level": self.level,
            "parts": [part.as_dict(texts=texts) for part in self.parts],
            "watch": dict(self.watch),
        }

    def of(self, side: Side) -> tuple[Part, ...]:
        """Return the parts about requests, answers or scores."""
        return tuple(part for part in self.parts if part.side == side)


def forgotten(report: Mapping[str, Any]) -> dict[str, Any]:
    """Return a kept report without anything that people wrote: words, examples, sentences."""
    parts = []
    for part in report["parts"]:
        figures = dict(part["figures"])
        figures.pop("topics", None)
        plain = f"{part['name']} has moved" if part["moved"] else ""
        parts.append({**part, "examples": [], "figures": figures, "sentence": plain})
    return {**report, "parts": parts, "sentence": plain_sentence(parts)}


def plain_sentence(parts: Sequence[Mapping[str, Any]]) -> str:
    """Return what moved by its name alone, without a word that anybody wrote."""
    names = dict.fromkeys(str(part["name"]) for part in parts if part["moved"])
    return f"Moved: {', '.join(names)}" if names else "Nothing moved"


def _without_texts(figures: Mapping[str, Any]) -> dict[str, Any]:
    kept = dict(figures)
    if "topics" in kept:
        kept["topics"] = [
            {name: value for name, value in topic.items() if name != "example"}
            for topic in kept["topics"]
        ]
    return kept
