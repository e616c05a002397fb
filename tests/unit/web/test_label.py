"""The labelling desk in a real browser: labels by key alone, undo, hidden words, two people."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select
from tests.fakes.web_projects import LABELS, labelling_project
from tests.unit.web.conftest import Site, ready

from tutelage.store.annotations import AdjudicationRow, AnnotationRow, AssignmentRow
from tutelage.workflows.context import Context
from tutelage.workflows.data.experts_items import Order, assign
from tutelage.workflows.data.experts_people import add_annotators
from tutelage.workflows.data.experts_queue import queue_of


@pytest.fixture(scope="module")
def project_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Items for one person, and others that two people share."""
    root = tmp_path_factory.mktemp("desk")
    ctx = labelling_project(root, items=26)
    add_annotators(ctx, ["anna", "ben"])
    shared = root / "shared.txt"
    shared.write_text("".join(f"shared text {number}\n" for number in range(6)))
    assign(ctx, Order(("anna", "ben"), source="file", file=shared, shared=True))
    ctx.store.close()
    return root


@pytest.fixture
def ctx(site: Site) -> Iterator[Context]:
    """The project as the store has it."""
    opened = site.context
    yield opened
    opened.store.close()


def asked(page: Any) -> str:
    """Return what the item on the desk asks."""
    return str(page.locator(".tt-item").inner_text())


def move(page: Any, key: str) -> None:
    """Press a key and return when the item is no longer there."""
    before = asked(page)
    page.keyboard.press(key)
    page.wait_for_function(
        "before => document.querySelector('.tt-item')?.innerText !== before", arg=before
    )


def press(page: Any, key: str) -> str:
    """Press a key and return what the next item asks."""
    move(page, key)
    return asked(page)


def answers(ctx: Context, name: str = "local") -> list[AnnotationRow]:
    with ctx.store.session() as session:
        rows = select(AnnotationRow).where(
            AnnotationRow.annotator == name, AnnotationRow.undone_at.is_(None)
        )
        return list(session.scalars(rows.order_by(AnnotationRow.number)))


def test_twenty_items_are_labelled_by_keyboard_alone(page: Any, ctx: Context) -> None:
    ready(page, "/")
    page.keyboard.press("g")
    page.keyboard.press("l")
    page.wait_for_url("**/label")
    page.wait_for_function("window.did_handshake === true")
    assert page.get_by_text("From the file wanted.jsonl that was given out.").is_visible()
    page.keyboard.press("c")
    page.keyboard.type("looks like two requests")
    page.keyboard.press("Escape")
    page.keyboard.press("u")
    seen = {asked(page)}
    keys = ["1", "Enter", "2", "s", "3", "4"] * 3 + ["1", "2"]
    for key in keys:
        seen.add(press(page, key))
    kept = answers(ctx)
    assert len(kept) == 20
    assert len(seen) == 21
    assert kept[0].comment == "looks like two requests"
    assert kept[0].flags == ["unsure"]
    assert [row.label for row in kept[2:6]] == ["delivery", None, "returns", "account"]
    assert kept[3].flags == ["skip"]
    assert kept[1].label in LABELS
    assert kept[1].edit_distance == 0
    assert page.get_by_text("17 answers · 3 skipped · 6 left for you").is_visible()


def test_undo_goes_back_several_steps(page: Any, ctx: Context) -> None:
    ready(page, "/label")
    first = asked(page)
    second = press(page, "1")
    press(page, "2")
    before = len(answers(ctx))
    assert press(page, "z") == second
    assert press(page, "z") == first
    assert len(answers(ctx)) == before - 2
    assert page.locator(".tt-label", has_text="you said").inner_text().startswith("billing")


def test_a_key_that_bounces_answers_once(page: Any, ctx: Context) -> None:
    ready(page, "/label")
    before, count = asked(page), len(answers(ctx))
    page.evaluate(
        "() => { for (let i = 0; i < 3; i++) "
        "document.dispatchEvent(new KeyboardEvent('keydown', {key: '1', bubbles: true})); }"
    )
    page.wait_for_function(
        "before => document.querySelector('.tt-item')?.innerText !== before", arg=before
    )
    press(page, "z")
    assert asked(page) == before
    assert len(answers(ctx)) == count


def test_marked_words_are_hidden_and_come_back(page: Any) -> None:
    ready(page, "/label")
    before = asked(page)
    page.evaluate(
        "() => { const box = document.querySelector('.tt-item .tt-passage');"
        "const text = box.firstChild; const range = document.createRange();"
        "range.setStart(text, 0); range.setEnd(text, text.data.indexOf(' '));"
        "getSelection().removeAllRanges(); getSelection().addRange(range); }"
    )
    word = before.splitlines()[-1].split()[0]
    page.keyboard.press("x")
    page.get_by_role("heading", name="Hide an identifier").wait_for()
    words = page.get_by_label("Words to hide")
    assert words.input_value() == word
    words.press("Enter")
    page.locator(".tt-item").get_by_text("[NAME]").wait_for()
    page.locator(".q-dialog").wait_for(state="detached")
    assert press(page, "z") == before


def test_two_people_at_once_get_different_items(browser: Any, site: Site, ctx: Context) -> None:
    tabs = []
    for name in ("anna", "ben"):
        context = browser.new_context(base_url=site.url)
        tabs.append(context.new_page())
        ready(tabs[-1], f"/label?as={name}")
    for _ in range(3):
        assert asked(tabs[0]) != asked(tabs[1])
        for tab in tabs:
            move(tab, "1")
    for tab in tabs:
        tab.get_by_text("That was the last one").wait_for()
    items = [row.item for name in ("anna", "ben") for row in answers(ctx, name)]
    assert len(items) == len(set(items)) == 6
    for tab in tabs:
        tab.context.close()


def test_two_experts_disagree_a_third_decides_and_agreement_shows(
    browser: Any, site: Site, page: Any, ctx: Context, tmp_path: Path
) -> None:
    both = tmp_path / "both.txt"
    both.write_text("".join(f"asked of both {number}\n" for number in range(3)))
    assign(ctx, Order(("anna", "ben"), source="file", file=both, overlap=2))
    for name, odd in (("anna", "1"), ("ben", "2")):
        tab = browser.new_context(base_url=site.url).new_page()
        ready(tab, f"/label?as={name}")
        for _ in range(3):
            move(tab, odd if "asked of both 2" in asked(tab) else "3")
        tab.context.close()
    ready(page, "/review")
    page.get_by_text("1 item waits for you").wait_for()
    assert page.get_by_text("asked of both 2").first.is_visible()
    page.keyboard.press("2")
    page.get_by_text("Nothing waits for a decision").first.wait_for()
    ready(page, "/agreement")
    page.get_by_text("items with two answers").wait_for()
    page.get_by_text("Agreement beyond chance").wait_for()
    with ctx.store.session() as session:
        kept = session.scalars(select(AdjudicationRow)).one()
    assert (kept.author, kept.label) == ("local", LABELS[1])


def test_items_are_given_out_from_a_file(page: Any, ctx: Context) -> None:
    ready(page, "/label/give")
    page.get_by_text("6", exact=True).first.wait_for()
    people = page.get_by_label("Who labels")
    people.fill("carla")
    people.press("Enter")
    page.locator("input[type=file]").set_input_files(
        files=[{"name": "more.txt", "mimeType": "text/plain", "buffer": b"one more\nand another\n"}]
    )
    page.get_by_text("more.txt is here, 21 bytes").wait_for()
    page.keyboard.press("Escape")
    page.get_by_role("button", name="Give out").click()
    page.get_by_text("2 items given out; 2 answers are wanted").wait_for()
    assert queue_of(ctx, "carla").anyone == 2
    with ctx.store.session() as session:
        assert session.scalars(select(AssignmentRow).where(AssignmentRow.shared.is_(True))).all()
