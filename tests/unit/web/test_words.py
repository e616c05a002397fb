"""Numbers, times and changes as people read them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from tutelage.web.parts import words
from tutelage.web.parts.diff import changes, summary

NOW = datetime(2026, 11, 26, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("before", "said"),
    [
        (timedelta(seconds=2), "just now"),
        (timedelta(seconds=59), "59 seconds ago"),
        (timedelta(minutes=1), "1 minute ago"),
        (timedelta(hours=23), "23 hours ago"),
        (timedelta(days=13), "13 days ago"),
        (timedelta(days=21), "3 weeks ago"),
        (timedelta(days=100), "2026-08-18"),
        (timedelta(days=-2), "in 2 days"),
    ],
)
def test_ago(before: timedelta, said: str) -> None:
    assert words.ago(NOW - before, NOW) == said


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0.42, "0.4 s"), (45, "45 s"), (200, "3 min 20 s"), (7500, "2 h 5 min"), (7200, "2 h"),
     (273_600, "3 d 4 h"), (None, "–"), (float("nan"), "–")],
)  # fmt: skip
def test_duration(seconds: float | None, said: str) -> None:
    assert words.duration(seconds) == said


def test_numbers() -> None:
    assert [words.number(value) for value in (1234, 0.12345, 1234.56, None, float("nan"))] == [
        "1,234", "0.123", "1,234.6", "–", "–",
    ]  # fmt: skip
    assert words.percent(0.4567) == "45.7 %"
    assert words.count(1, "item") == "1 item"
    assert words.count(2500, "reply", "replies") == "2,500 replies"
    assert words.short("a\n  long text that goes on", 12) == "a long text…"


def test_changes_are_whole_words_and_give_both_texts_back() -> None:
    old, new = "the cat sat on the mat.", "the dog sat on a mat!"
    found = changes(old, new)
    assert "".join(piece.text for piece in found if piece.kind != "inserted") == old
    assert "".join(piece.text for piece in found if piece.kind != "deleted") == new
    assert [piece.text for piece in found if piece.kind == "inserted"] == ["dog", "a", "!"]
    assert summary(old, new) == "3 words inserted, 3 deleted"
    assert summary(old, old) == "no change"


def test_very_long_texts_are_shown_whole() -> None:
    old, new = "a " * 15_000, "b " * 15_000
    assert [piece.kind for piece in changes(old, new)] == ["deleted", "inserted"]
