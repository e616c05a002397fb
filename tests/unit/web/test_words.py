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
    assert words.percent(0.4567) == "45.7\u00a0%"
    assert words.milliseconds(1234.5) == "1,234\u00a0ms"
    assert words.count(1, "item") == "1 item"
    assert words.count(2500, "reply", "replies") == "2,500 replies"
    assert words.short("a\n  long text that goes on", 12) == "a long text…"


@pytest.mark.parametrize(
    ("said", "shown"),
    [("requests were slow", "Requests were slow"), ("a request fails", "A request fails"),
     ("refund, card: 22 %", "Refund, card: 22 %"), ("8 % fail", "8 % fail"),
     ("icd-coder-v3 answers", "icd-coder-v3 answers"), ("p95 is high", "p95 is high"),
     ("p, corrected", "p, corrected"), ("faq.jsonl", "faq.jsonl"),
     ("colours: stable", "colours: stable")],
)  # fmt: skip
def test_a_sentence_begins_with_a_capital_and_a_name_stays(said: str, shown: str) -> None:
    assert words.capital(said) == shown


def test_keys_are_written_as_on_a_keyboard() -> None:
    keys = ("ctrl+Enter", "ArrowLeft", "z", "+", "?")
    assert [words.key_name(key) for key in keys] == ["Ctrl Enter", "ArrowLeft", "z", "+", "?"]


@pytest.mark.parametrize(
    ("text", "number"),
    [("1,234", True), ("4e-06", True), ("45.7\u00a0%", True), ("–", True), ("−3", True),
     ("2026-11-26", False), ("400 and 360", False), ("3f2a", False), ("", False)],
)  # fmt: skip
def test_numbers_are_known_from_texts(text: str, number: bool) -> None:
    assert words.is_number(text) is number


def test_changes_are_whole_words_and_give_both_texts_back() -> None:
    old, new = "the cat sat on the mat.", "the dog sat on a mat!"
    found = changes(old, new)
    assert "".join(piece.text for piece in found if piece.kind != "inserted") == old
    assert "".join(piece.text for piece in found if piece.kind != "deleted") == new
    assert [piece.text for piece in found if piece.kind == "inserted"] == ["dog", "a", "!"]
    assert summary(old, new) == "2 words inserted, 2 deleted"
    assert summary("the cat.", "the cat!") == "only punctuation or spaces changed"
    assert summary("the old cat", "the cat") == "1 word deleted"
    assert summary(old, old) == "no change"


def test_very_long_texts_are_shown_whole() -> None:
    old, new = "a " * 15_000, "b " * 15_000
    assert [piece.kind for piece in changes(old, new)] == ["deleted", "inserted"]
