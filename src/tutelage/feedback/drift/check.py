"""Compare recent traffic with a reference: requests, answers and verdicts, whole and by segment.

One comparison, made once: its `level` is the chance of saying that anything moved when nothing
did, over all of its tests together (Holm 1979). For looking again and again there is watch.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from tutelage.feedback.drift.distance import kernel_test
from tutelage.feedback.drift.parts import (
    label_part,
    length_part,
    same_words_part,
    score_part,
    topic_parts,
    wording_part,
)
from tutelage.feedback.drift.report import DriftReport, Part
from tutelage.feedback.drift.sample import Sample
from tutelage.feedback.drift.words import headline

LEAST = 50  # rows of a side, and of a segment of it, before it is compared
_SEGMENTS = 8  # of one kind, the largest ones

Embed = Callable[[Sequence[str]], NDArray[np.float32]]


@dataclass(frozen=True)
class CheckSettings:
    """How a comparison is made. `embed` turns texts into unit rows; None: no kernel test."""

    level: float = 0.01
    notable: float = 0.1  # stability index under which a change is too small to tell
    seed: int = 7
    embed: Embed | None = None
    against: str = "before"  # what sentences call the reference


def check(
    reference: Sample, recent: Sample, *, settings: CheckSettings = CheckSettings()
) -> DriftReport:
    """Return what moved from the reference to recent traffic, in figures and in words."""
    from threadpoolctl import threadpool_limits

    rows = len(reference), len(recent)
    if min(rows) < LEAST:
        short = (
            f"{rows[1]:,} requests are too few to compare"
            if rows[1] < LEAST
            else f"the reference has {rows[0]:,} rows, too few to compare with"
        )
        return DriftReport(False, f"{short}: it takes {LEAST}", "too_few", rows=rows,
                           level=settings.level)  # fmt: skip
    with threadpool_limits(1):  # threads that wait for a busy core cost tenfold
        each = [*_whole(reference, recent, settings), *_by_segment(reference, recent, settings)]
    found = _corrected(each, settings.level)
    found.sort(key=lambda part: (not part.moved, part.segment is not None, part.corrected, part.p))
    moved = any(part.moved for part in found)
    return DriftReport(
        moved,
        headline(found),
        "moved" if moved else "as_before",
        tuple(found),
        rows=rows,
        level=settings.level,
    )


def _whole(reference: Sample, recent: Sample, settings: CheckSettings) -> Iterator[Part]:
    """Yield the tests of all traffic. `moved` says only whether it is large enough to matter."""
    apart = same_words_part(reference, recent, settings.seed, side="requests")
    topics = topic_parts(reference, recent, settings.seed, settings.against)
    large = apart.moved or any(topic.moved for topic in topics)
    yield apart
    yield from topics
    if settings.embed is not None:
        yield wording_part(reference, recent, settings.embed, kernel_test, settings.seed, large)
    yield from _figures(reference, recent, settings)
    if not recent.label.names and any(reference.answers) and any(recent.answers):
        yield same_words_part(reference, recent, settings.seed, side="answers")


def _figures(
    reference: Sample, recent: Sample, settings: CheckSettings, segment: str | None = None
) -> Iterator[Part]:
    """Yield the tests of lengths, labels and verdicts that have enough of both sides."""
    makers: tuple[Callable[[], Part | None], ...] = (
        lambda: length_part("request length", reference, recent, settings),
        lambda: length_part("answer length", reference, recent, settings),
        lambda: label_part(reference, recent, settings),
        lambda: score_part(reference, recent, settings),
    )
    for make in makers:
        part = make()
        if part is not None and part.name == "answer length" and recent.label.names:
            continue  # it says what the labels say
        if part is not None and min(part.reference, part.recent) >= LEAST:
            yield replace(part, segment=segment) if segment else part


def _by_segment(reference: Sample, recent: Sample, settings: CheckSettings) -> Iterator[Part]:
    for kind, codes in recent.segments.items():
        before = reference.segments.get(kind)
        if before is None:
            continue
        sizes = sorted(codes.counts().items(), key=lambda pair: (-pair[1], pair[0]))
        for name, size in sizes[:_SEGMENTS]:
            one, two = part_of(reference, before.are(name)), part_of(recent, codes.are(name))
            if size < LEAST or len(one) < LEAST or size == len(recent):
                continue
            for part in _figures(one, two, settings, f"{kind}: {name}"):
                if not (kind == "label" and part.name == "label"):
                    yield part
            if min(len(one.texts), len(two.texts)) >= LEAST:
                apart = same_words_part(one, two, settings.seed, side="requests")
                yield replace(apart, segment=f"{kind}: {name}")


def part_of(sample: Sample, rows: NDArray[np.bool_]) -> Sample:
    """Return the sample of some of the rows, given as which, shape (N,)."""
    kept = np.flatnonzero(rows[sample.places]) if len(sample.places) else sample.places
    moved = np.cumsum(rows) - 1
    return Sample(
        sample.request_length[rows],
        sample.answer_length[rows],
        replace(sample.label, values=sample.label.values[rows]),
        sample.score[rows],
        {},
        moved[sample.places[kept]],
        tuple(sample.ids[i] for i in kept),
        tuple(sample.texts[i] for i in kept),
        tuple(sample.answers[i] for i in kept),
    )


def _corrected(parts: list[Part], level: float) -> list[Part]:
    """Return the parts with p corrected for their number (Holm), and what has moved of them."""
    order = sorted(range(len(parts)), key=lambda i: parts[i].p)
    corrected, floor = list(parts), 0.0
    for rank, index in enumerate(order):
        floor = max(floor, min(1.0, parts[index].p * (len(parts) - rank)))
        part = parts[index]
        moved = part.moved and floor < level
        corrected[index] = replace(
            part, corrected=floor, moved=moved, sentence=part.sentence if moved else ""
        )
    return corrected
