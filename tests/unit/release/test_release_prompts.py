"""Prompt versions: recorded once, tested, published by one, restored and compared like commits."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from sqlalchemy import select
from tests.unit.release.conftest import Home

from tutelage.core.errors import Conflict, DataError, ReleaseRefused
from tutelage.release import prompt_moves as moves
from tutelage.release import prompts
from tutelage.release.prompt_history import history
from tutelage.store.releases import PromptRow


def with_test(home: Home, text: str, outcome: str = "improved") -> PromptRow:
    """Return a version with a test against the published one attached."""
    row = prompts.record(home.store, text, author="ann")
    public = prompts.published(home.store)
    evidence: dict[str, Any] = {
        "artifact": "a" * 64, "outcome": outcome, "sentence": "2 must-pass rows fail",
        "against": public.hash if public else None,
    }  # fmt: skip
    return moves.attach_test(home.store, row.hash, evidence, author="ann")


def test_the_same_text_is_one_version(home: Home) -> None:
    first = prompts.record(home.store, "Name the colour.\n", note="first")
    again = prompts.record(home.store, "  Name the colour.", note="second")
    assert (again.number, again.hash, again.note) == (1, first.hash, "first")
    assert prompts.record(home.store, "Name the shape.").number == 2


def test_one_version_is_published(home: Home) -> None:
    one = moves.record_published(home.store, "one")
    assert moves.record_published(home.store, "one").hash == one.hash
    two = with_test(home, "two")
    assert (two.state, two.parent) == ("review", one.hash)
    moves.publish(home.store, "2", author="ann", note="better on the golden set")
    listed = [(p["number"], p["state"], p["note"]) for p in prompts.listing(home.store)]
    assert listed == [
        (2, "published", "better on the golden set"),
        (1, "retired", "from tutelage.yaml"),
    ]
    found = prompts.published(home.store)
    assert found is not None and found.text == "two"


def test_an_earlier_version_is_restored(home: Home) -> None:
    moves.record_published(home.store, "one")
    moves.record_published(home.store, "two")
    assert moves.restore(home.store, "1", author="bob", note="two was rude").state == "published"
    with pytest.raises(Conflict, match="version 1 of the prompt is published already"):
        moves.restore(home.store, "1")
    prompts.record(home.store, "three")
    with pytest.raises(DataError, match="version 3 of the prompt was never published"):
        moves.restore(home.store, "3")


def test_the_journal_keeps_who_when_why_and_on_which_evidence(home: Home) -> None:
    moves.record_published(home.store, "one", author="ann")
    with_test(home, "two")
    moves.review(home.store, "2", approve=True, author="bob", note="reads well")
    moves.publish(home.store, "2", author="ann", note="for the new forms")
    moves.restore(home.store, "1", author="eve", note="complaints")
    told = [(e["number"], e["action"], e["by"], e["note"]) for e in reversed(history(home.store))]
    assert told == [
        (1, "drafted", "ann", "from tutelage.yaml"),
        (1, "published", "ann", "from tutelage.yaml"),
        (2, "drafted", "ann", ""),
        (2, "tested", "ann", ""),
        (2, "approved", "bob", "reads well"),
        (2, "published", "ann", "for the new forms"),
        (1, "restored", "eve", "complaints"),
    ]
    assert prompts.show(home.store, "2")["events"][-1]["evidence"]["test"] == "a" * 64


def test_without_a_test_that_held_nothing_is_published(home: Home) -> None:
    moves.record_published(home.store, "one")
    prompts.record(home.store, "two")
    with pytest.raises(ReleaseRefused, match="version 2 of the prompt has not been tested") as no:
        moves.publish(home.store, "2")
    assert no.value.exit_code == 3
    with_test(home, "three", "regressed")
    with pytest.raises(ReleaseRefused, match="regressed: 2 must-pass rows fail") as no:
        moves.publish(home.store, "3")
    assert no.value.exit_code == 1
    assert moves.publish(home.store, "3", force=True).state == "published"
    assert history(home.store)[0]["evidence"]["forced"] is True


def test_a_rejection_stands_in_the_way(home: Home) -> None:
    moves.record_published(home.store, "one")
    with_test(home, "two")
    assert moves.review(home.store, "2", approve=False, author="bob").state == "rejected"
    with pytest.raises(ReleaseRefused, match="was rejected in review"):
        moves.publish(home.store, "2")
    prompts.record(home.store, "three")
    with pytest.raises(ReleaseRefused, match="version 3 of the prompt has not been tested"):
        moves.review(home.store, "3", approve=True, author="bob")
    with pytest.raises(Conflict, match="version 1 of the prompt is published"):
        moves.review(home.store, "1", approve=False, author="bob")


def test_a_test_against_another_version_proves_nothing(home: Home) -> None:
    moves.record_published(home.store, "one")
    with_test(home, "two")
    with_test(home, "three")
    moves.publish(home.store, "2")
    with pytest.raises(Conflict, match="tested against another version than the published 2"):
        moves.publish(home.store, "3")


def test_of_two_publishers_one_gets_a_conflict(home: Home) -> None:
    """Both saw version 1 published when they decided."""
    one = moves.record_published(home.store, "one")
    for text in ("two", "three"):
        with_test(home, text)
    gate, results = threading.Barrier(2), []

    def publish(version: str) -> None:
        gate.wait()
        try:
            moves.publish(home.store, version, force=True, seen=one.hash)
            results.append("published")
        except Conflict as error:
            results.append(error.what)

    threads = [threading.Thread(target=publish, args=(v,)) for v in ("2", "3")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(results)[0] == "published"
    assert sorted(results)[1].startswith("somebody else moved the published prompt meanwhile")
    with home.store.session() as session:
        states = session.scalars(select(PromptRow.state).order_by(PromptRow.number)).all()
    assert sorted(states) == ["published", "retired", "review"]


def test_the_database_itself_holds_one_published_version(home: Home) -> None:
    """What protects a store without SQLite's write lock."""
    moves.record_published(home.store, "one")
    prompts.record(home.store, "two")
    with pytest.raises(Conflict, match="at the same moment"), moves._one_winner(home.store) as s:
        s.scalars(select(PromptRow).where(PromptRow.number == 2)).one().state = "published"


def test_the_prompt_in_force(home: Home) -> None:
    """The file until something is published; then the store, unless the file is new."""
    assert prompts.in_force(home.store, "one").text == "one"
    moves.record_published(home.store, "one")
    assert prompts.in_force(home.store, "one\n").told == ""
    prompts.record(home.store, "draft")
    assert prompts.in_force(home.store, "draft").text == "one"
    moves.record_published(home.store, "two")
    found = prompts.in_force(home.store, "one")
    assert (found.text, found.number) == ("two", 3)
    assert found.told == (
        "version 3 of the prompt is used, the published one; tutelage.yaml holds version 1 "
        "(`tutelage prompt restore 1` puts it in force)"
    )
    assert prompts.in_force(home.store, "").text == "two"
    fresh = prompts.in_force(home.store, "by hand")
    assert (fresh.text, fresh.number) == ("by hand", None)
    assert fresh.told.startswith("the prompt in tutelage.yaml is new and is used; version 3")


def test_an_empty_prompt_is_no_version(home: Home) -> None:
    with pytest.raises(DataError, match="the prompt is empty"):
        prompts.record(home.store, " \n")


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
