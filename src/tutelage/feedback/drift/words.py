"""What moved, in sentences a person reads. It decides nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tutelage.data.quality.two_sample import OTHER, Topic
from tutelage.feedback.drift.report import Part

AS_BEFORE = "Requests, answers and users' verdicts are as before"
_SAID = 3  # parts of the headline
_SHORT = 90  # characters of an example inside a sentence


def headline(parts: Sequence[Part]) -> str:
    """Return one sentence over all parts, what moved most first."""
    moved = [part for part in parts if part.moved and part.sentence]
    if not moved:
        return AS_BEFORE
    whole = [part for part in moved if part.segment is None]
    told = whole or moved
    plain = [part for part in told if part.test != "auc"] or told
    said = [
        f"for {_segment(part.segment)}, {part.sentence}" if part.segment else part.sentence
        for part in plain[:_SAID]
    ]
    more = len({(part.name, part.segment) for part in moved}) - len(said)
    tail = f" (and {more} more)" if more > 0 else ""
    return _capital("; ".join(said)) + tail


def topic_words(topic: Topic, against: str) -> str:
    """Return how a topic's share changed."""
    about = "about none of the usual topics" if topic.words == OTHER else _about(topic.words)
    return f"requests {about} are {percent(topic.second)}, {percent(topic.first)} {against}"


def length_words(
    side: str, reference: Sequence[float], recent: Sequence[float], against: str
) -> str:
    """Return how a length changed; quantiles are those of 10, 25, 50, 75 and 90 %."""
    word = "longer" if recent[2] > reference[2] else "shorter"
    if recent[2] == reference[2]:
        word = "more varied" if recent[4] - recent[0] > reference[4] - reference[0] else "more even"
    return (
        f"{side} are {word}: a median of {recent[2]:,.0f} characters (80% have {recent[0]:,.0f} to "
        f"{recent[4]:,.0f}), {reference[2]:,.0f} {against} ({reference[0]:,.0f} to "
        f"{reference[4]:,.0f})"
    )


def label_words(labels: Sequence[Mapping[str, Any]], against: str) -> str:
    """Return which labels gained and lost most; they come the largest change first."""
    told = [
        f"{one['label']!r} {percent(one['recent'])}, {percent(one['reference'])} {against}"
        for one in labels[:2]
    ]
    return f"answers spread otherwise over the labels: {'; '.join(told)}"


def score_words(reference: float, recent: float, against: str) -> str:
    """Return how users' verdicts changed, as means from 0 to 1."""
    word = "better" if recent > reference else "worse"
    return f"users judge answers {word}: {recent:.2f} of 1 on average, {reference:.2f} {against}"


def percent(share: float) -> str:
    """Return a share in percent, with a decimal where it is small."""
    return f"{share:.1%}" if 0 < share < 0.1 else f"{share:.0%}"


def short(text: str) -> str:
    """Return the beginning of a text on one line."""
    line = " ".join(text.split())
    return line if len(line) <= _SHORT else line[: _SHORT - 1] + "…"


def _about(words: Sequence[str]) -> str:
    return f"about {', '.join(words)}"


def _segment(name: str | None) -> str:
    kind, _, value = (name or "").partition(": ")
    return f"the {kind} {value!r}"


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
