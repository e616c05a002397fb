"""Free text on the desk in a real browser: the draft corrected, and nothing typed that is lost."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select
from tests.fakes.web_projects import labelling_project
from tests.unit.web.conftest import Site, ready

from tutelage.store.annotations import AnnotationRow

DRAFT = "It is sent within two days."


@pytest.fixture(scope="module")
def project_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Texts with a teacher's drafts."""
    root = tmp_path_factory.mktemp("texts")
    labelling_project(root, items=8, free_text=True).store.close()
    return root


def editor(page: Any) -> Any:
    return page.get_by_label("The right answer")


def until(page: Any, text: str) -> None:
    """Wait until this stands in the editor."""
    page.wait_for_function(
        "text => document.querySelector('textarea[data-tt-draft$=answer]')?.value === text",
        arg=text,
    )


def newest(site: Site) -> AnnotationRow:
    ctx = site.context
    with ctx.store.session() as session:
        row = session.scalars(
            select(AnnotationRow)
            .where(AnnotationRow.undone_at.is_(None))
            .order_by(AnnotationRow.number.desc())
        ).first()
    ctx.store.close()
    assert row is not None
    return row


def test_a_corrected_draft_is_the_answer_and_undo_brings_it_back(page: Any, site: Site) -> None:
    ready(page, "/label")
    until(page, DRAFT)
    page.keyboard.press("e")
    editor(page).fill(DRAFT.replace("two", "three"))
    page.get_by_text("Against the draft: 1 word inserted, 1 deleted").wait_for()
    assert page.locator(".tt-diff ins").inner_text().endswith("three")
    assert page.locator(".tt-diff del").inner_text().endswith("two")
    page.keyboard.press("Control+Enter")
    page.get_by_text("1 answer · 7 left for you").wait_for()
    assert newest(site).answer == "It is sent within three days."
    assert newest(site).edit_distance == 4
    until(page, DRAFT)
    page.locator("h1").click()
    page.keyboard.press("z")
    until(page, "It is sent within three days.")


def test_what_is_typed_right_after_a_key_is_text(page: Any) -> None:
    ready(page, "/label")
    page.evaluate(
        "() => { document.dispatchEvent(new KeyboardEvent('keydown', {key: 'c', bubbles: true}));"
        "document.activeElement.dispatchEvent("
        "new KeyboardEvent('keydown', {key: 's', bubbles: true})); }"
    )
    page.keyboard.type("skip nothing")
    page.get_by_text("Saved", exact=True).first.wait_for()
    assert page.get_by_label("Comment").input_value() == "skip nothing"
    assert page.get_by_text("0 answers · 8 left for you").is_visible()


def test_what_was_typed_last_is_in_the_answer(page: Any, site: Site) -> None:
    ready(page, "/label")
    editor(page).fill("typed and saved at once")
    page.keyboard.press("Control+Enter")
    page.get_by_text("1 answer · 7 left for you").wait_for()
    assert newest(site).answer == "typed and saved at once"
    page.keyboard.press("z")
    until(page, "typed and saved at once")


def test_what_is_typed_survives_a_reload(page: Any) -> None:
    ready(page, "/label")
    editor(page).fill("half a sen")
    page.get_by_label("Comment").fill("not sure about the")
    page.get_by_text("Saved", exact=True).nth(1).wait_for()
    ready(page, "/label")
    until(page, "half a sen")
    assert page.get_by_label("Comment").input_value() == "not sure about the"


def test_a_reload_before_the_server_has_the_text_loses_none(page: Any) -> None:
    ready(page, "/label")
    editor(page).fill("typed just n")
    page.reload()
    until(page, "typed just n")


def test_typing_without_a_connection_arrives_when_it_is_back(
    page: Any, site: Site, allowed: list[str]
) -> None:
    allowed += ["ERR_INTERNET_DISCONNECTED", "WebSocket", "ERR_NETWORK"]
    ready(page, "/label")
    page.context.set_offline(True)
    editor(page).fill("written on a train")
    page.context.set_offline(False)
    page.get_by_text("Saved", exact=True).first.wait_for()
    ready(page, "/label")
    until(page, "written on a train")


def test_a_restart_of_the_server_in_the_middle_of_an_edit_loses_no_text(
    page: Any, site: Site, allowed: list[str]
) -> None:
    allowed += ["ERR_CONNECTION_REFUSED", "WebSocket", "ERR_EMPTY_RESPONSE", "ERR_CONNECTION_RESET"]
    ready(page, "/label")
    page.evaluate("window.stale = true")
    editor(page).fill("kept by the server")
    page.get_by_text("Saved", exact=True).first.wait_for()
    site.stop(kill=True)
    editor(page).fill("kept by the server, and this by the browser")
    site.start()
    page.wait_for_function("window.stale === undefined && window.did_handshake === true")
    until(page, "kept by the server, and this by the browser")
    page.get_by_text("Saved", exact=True).first.wait_for()
    page.keyboard.press("Control+Enter")
    page.get_by_text("1 answer").first.wait_for()
    assert newest(site).answer == "kept by the server, and this by the browser"
