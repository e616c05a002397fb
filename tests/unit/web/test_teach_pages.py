"""Deciding, agreement, groups, the guideline and blind comparison, as people use them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select
from tests.fakes.web_teaching import ALIKE, DISPUTED, ITEMS, PAIRS, teaching_project
from tests.unit.web.conftest import Site, ready

from tutelage.core.errors import Conflict
from tutelage.store.annotations import AdjudicationRow
from tutelage.store.human import HumanJudgementRow
from tutelage.store.records import SignalRow
from tutelage.workflows.data.experts_people import guidelines
from tutelage.workflows.data.experts_review import adjudicate
from tutelage.workflows.evaluation.human_blind import reveal, standings
from tutelage.workflows.feedback.mine_similar import applied
from tutelage.workflows.people.kept import kept_text


@pytest.fixture(scope="module")
def project_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("teaching")
    teaching_project(root).store.close()
    return root


def sees(page: Any, text: str | re.Pattern[str]) -> None:
    page.get_by_text(text).first.wait_for()


def test_agreement_is_told_in_words_with_its_interval(site: Site, page: Any) -> None:
    ready(page, "/agreement")
    sees(page, re.compile("Your experts (dis)?agree"))
    sees(page, f"items with two answers, of {ITEMS}")
    sees(page, "Cohen's kappa")
    assert re.search(r"0\.\d+ \(0\.\d+ to [\d.]+\)", page.inner_text("main, .tt-page"))
    assert page.locator(".tt-page").inner_text().count("anna") >= 2


def test_a_third_person_decides_what_two_answered_differently(site: Site, page: Any) -> None:
    ready(page, "/review")
    sees(page, f"{DISPUTED} items wait for you")
    shown = page.locator(".tt-page").inner_text()
    assert "anna" not in shown and "ben" not in shown
    page.get_by_label("Why, for the others").fill("the guideline names it")
    page.get_by_role("heading", name="What was asked").click()
    page.keyboard.press("a")
    sees(page, f"{DISPUTED - 1} items wait for you")
    page.keyboard.press("n")
    sees(page, "anna")
    page.keyboard.press("2")
    sees(page, "1 item waits for you")
    page.keyboard.press("z")
    sees(page, re.compile("A new decision replaces it"))
    page.keyboard.press("s")
    page.keyboard.press("1")
    sees(page, "Nothing waits for a decision")
    ready(page, "/agreement")
    sees(page, "decided")
    with site.context.store.session() as session:
        kept = list(session.scalars(select(AdjudicationRow).order_by(AdjudicationRow.number)))
    assert len({row.item for row in kept}) == DISPUTED
    assert {row.author for row in kept} == {"local"}
    assert kept[0].why == "the guideline names it"


def test_a_decision_that_came_second_is_refused(site: Site, page: Any) -> None:
    """The first one was made on the page."""
    ctx = site.context
    with ctx.store.session() as session:
        row = session.scalars(select(AdjudicationRow)).first()
    assert row is not None
    with pytest.raises(Conflict, match="decided this item meanwhile"):
        adjudicate(ctx, row.item, by="carl", label="billing", seen=0)
    ctx.store.close()


def test_the_guideline_is_written_compared_and_restored(site: Site, page: Any) -> None:
    ready(page, "/guidelines")
    sees(page, "Version 2, in force")
    page.keyboard.press("e")
    editor = page.get_by_label("The guideline")
    editor.fill("Choose what the person wants.\nA late parcel is delivery, always.")
    sees(page, "Saved")
    page.reload()
    sees(page, "Your draft")
    assert "always" in page.get_by_label("The guideline").input_value()
    page.get_by_label("What changed, in a few words").fill("always")
    page.get_by_role("button", name="Publish").click()
    sees(page, "Version 3, in force")
    page.get_by_text("Version 1: no note").click()
    page.get_by_role("button", name="Use this text again").last.click()
    page.get_by_role("button", name="Publish").click()
    sees(page, "Version 4, in force")
    ctx = site.context
    found = guidelines(ctx)
    assert [one["version"] for one in found] == [4, 3, 2, 1]
    assert found[0]["text"] == found[3]["text"]
    assert found[1]["author"] == "local"
    assert kept_text(ctx, "local", "guideline:2") is None
    ctx.store.close()


def test_one_correction_is_seen_applied_to_all_alike_and_undone(site: Site, page: Any) -> None:
    ready(page, "/clusters")
    name = page.get_by_text(ALIKE[0]).first
    if not name.is_visible():
        page.locator(".tt-queue-entry").first.click()
    page.get_by_role("button", name=f"Correct the answer to {ALIKE[0]}").first.click()
    page.get_by_label("The right label").click()
    page.get_by_role("option", name="delivery").click()
    page.get_by_label("How alike, from 0.5 to 1").fill("0.6")
    page.get_by_role("button", name="Look for requests like it").click()
    sees(page, re.compile(r"2 requests would get this answer too"))
    assert not corrections(site)
    page.get_by_role("button", name="Correct this one and 2 like it").click()
    sees(page, "Corrections that were applied to many")
    assert len(corrections(site)) == 3
    page.get_by_role("button", name="Undo the correction of 2 requests").click()
    sees(page, re.compile(r"^undone$"))  # the note from before says "can be undone"
    assert len(corrections(site)) == 1
    ctx = site.context
    assert [one["undone"] for one in applied(ctx)] == [True]
    ctx.store.close()


def corrections(site: Site) -> list[str]:
    ctx = site.context
    with ctx.store.session() as session:
        found = [row.record for row in session.scalars(select(SignalRow)) if row.kind == "edit"]
    ctx.store.close()
    return found


def test_ten_pairs_are_judged_blind_and_end_in_a_verdict(site: Site, page: Any) -> None:
    ready(page, "/compare-blind")
    page.keyboard.press("n")
    page.get_by_role("button", name="Start").click()
    page.wait_for_url("**/compare-blind/*")
    sees(page, f"0 of {PAIRS} judged")
    ctx = site.context
    study = standings(ctx, "local")[0].study
    with pytest.raises(Conflict, match="10 judgements are still to come"):
        reveal(ctx, study)
    sides = set()
    for done in range(PAIRS):
        sees(page, f"{done} of {PAIRS} judged")
        shown = page.locator(".tt-page").inner_text()
        assert "preferred" not in shown
        left = "a good" in page.locator(".tt-pair .tt-card").first.inner_text()
        sides.add(left)
        page.keyboard.press("1" if left else "2")
    sees(page, "Everything is judged")
    page.keyboard.press("z")
    sees(page, f"{PAIRS - 1} of {PAIRS} judged")
    page.keyboard.press("3")
    sees(page, "Everything is judged")
    assert "preferred" not in page.locator(".tt-page").inner_text()
    page.keyboard.press("v")
    sees(page, "tuned is preferred over base")
    sees(page, re.compile(r"95% interval"))
    sees(page, "9 won, 1 tied, 0 lost")
    assert sides == {True, False}
    with ctx.store.session() as session:
        kinds = [row.kind for row in session.scalars(select(HumanJudgementRow))]
    assert kinds.count("answer") == PAIRS + 1 and kinds.count("undo") == 1
    assert reveal(ctx, study)["win_rates"][0]["decision"] == "first"
    ctx.store.close()


def test_answers_are_marked_by_a_rubric_with_keys(site: Site, page: Any) -> None:
    ready(page, "/compare-blind")
    page.keyboard.press("n")
    page.get_by_role("button", name="Each by itself, by marks").click()
    page.get_by_label("Name, such as correct").fill("correct")
    page.get_by_label("Question").fill("Is it right?")
    page.get_by_label("Levels: wrong, partly, right").fill("wrong, partly, right")
    page.get_by_label("At most").fill("2")
    page.get_by_role("button", name="Start").click()
    page.wait_for_url("**/compare-blind/*")
    for done in range(4):
        sees(page, f"{done} of 4 judged")
        good = "a good" in page.locator(".tt-page").inner_text()
        page.keyboard.press("3" if good else "1")
    sees(page, "Everything is judged")
    page.keyboard.press("v")
    sees(page, "Who is better")
    sees(page, re.compile(r"correct: tuned minus base \+1\.00"))
