"""The section `drift` of tutelage.yaml: what live traffic is held against, and how strictly.

Says what is allowed; compares nothing.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from tutelage.core.config_base import Ratio, Section
from tutelage.core.durations import Interval

Against = Literal["auto", "training", "golden"]
SegmentBy = Literal["key", "label", "language", "release"]


class Drift(Section):
    """Whether what is asked, answered and said of answers still is what it was."""

    # auto: the traffic accepted last, else all rows of the dataset; golden: its test rows
    against: Against = "auto"
    # chance that the watch ever raises an alarm while nothing changes, however often one looks
    false_alarms: float = Field(default=0.05, gt=0, lt=1)
    level: float = Field(default=0.01, gt=0, lt=0.5)  # of one comparison, over all of its tests
    notable: Ratio = 0.1  # stability index under which a change is too small to tell
    embedder: str = "tfidf"  # of requests: tfidf, minilm, a plug-in, or a folder with an encoder
    texts: int = Field(default=2000, ge=200, le=10_000)  # a side, whose wording is compared
    a_day: int = Field(default=1000, ge=100)  # requests of a day that the watch looks at, at most
    segments: list[SegmentBy] = ["key", "label"]  # parts of traffic that are compared by themselves
    every: Interval | None = "15m"  # how often `tutelage up` looks; null: only when asked
    seed: int = 7  # of everything that is drawn
