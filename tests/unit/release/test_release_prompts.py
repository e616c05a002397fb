"""Prompt versions: recorded once, one published, restored and compared like commits."""

from __future__ import annotations

import pytest
from tests.unit.release.conftest import Home

from tutelage.core.errors import Conflict, DataError
from tutelage.release import prompts


def test_the_same_text_is_one_version(home: Home) -> None:
    first = prompts.record(home.store, "Name the colour.\n", note="first")
    again = prompts.record(home.store, "  Name the colour.", note="second")
    assert (again.number, again.hash, again.note) == (1, first.hash, "first")
    assert prompts.record(home.store, "Name the shape.").number == 2


def test_one_version_is_published(home: Home) -> None:
    one = prompts.record_published(home.store, "one")
    assert prompts.record_published(home.store, "one").hash == one.hash
    two = prompts.record(home.store, "two")
    assert (two.state, two.parent) == ("draft", one.hash)
    prompts.publish(home.store, "2", note="better on the golden set")
    listed = [(p["number"], p["state"], p["note"]) for p in prompts.listing(home.store)]
    assert listed == [(2, "published", "better on the golden set"), (1, "retired", "")]
    found = prompts.published(home.store)
    assert found is not None and found.text == "two"


def test_an_earlier_version_is_restored(home: Home) -> None:
    prompts.record_published(home.store, "one")
    prompts.record_published(home.store, "two")
    restored = prompts.restore(home.store, "1")
    assert (restored.state, restored.note) == ("published", "restored version 1")
    with pytest.raises(Conflict, match="version 1 of the prompt is published already"):
        prompts.restore(home.store, "1")


def test_versions_are_found_by_number_and_by_hash(home: Home) -> None:
    row = prompts.record(home.store, "one")
    assert prompts.show(home.store, "1")["text"] == "one"
    assert prompts.show(home.store, row.hash[:8])["number"] == 1
    with pytest.raises(DataError, match=r"no version '7' of the prompt\. `tutelage prompt list`"):
        prompts.show(home.store, "7")


def test_the_difference_is_shown_word_by_word(home: Home) -> None:
    prompts.record(home.store, "Name the colour of the thing.\nBe brief.")
    prompts.record(home.store, "Name the shape of the thing.\nBe brief, please.")
    assert prompts.diff(home.store, "1", "2") == (
        "Name the [-colour-]{+shape+} of the thing.\nBe [-brief.-]{+brief, please.+}"
    )
    assert prompts.diff(home.store, "1", "1") == "Name the colour of the thing.\nBe brief."
