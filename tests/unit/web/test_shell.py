"""The shell in a real browser: navigation, looks, keys, missing pages, and text that stays."""

from __future__ import annotations

from typing import Any

import pytest
from tests.unit.web.conftest import Site, ready


def test_the_first_page_is_titled_and_named_after_the_project(page: Any) -> None:
    ready(page, "/")
    assert page.title() == "Home · Tutelage"
    assert page.locator("h1").count() == 1
    assert page.get_by_role("navigation", name="Pages").is_visible()
    assert page.locator(".tt-project").inner_text() == "help-desk"


def test_a_look_is_kept_over_a_reload(page: Any) -> None:
    ready(page, "/")
    page.get_by_role("button", name="Light or dark").click()
    page.get_by_text("Dark", exact=True).click()
    page.wait_for_selector("body.body--dark")
    ready(page, "/")
    assert "body--dark" in page.locator("body").get_attribute("class")


def test_a_missing_page_says_so_inside_the_frame(page: Any, allowed: list[str]) -> None:
    allowed.append("404")
    assert ready(page, "/no/such/page").status == 404
    assert page.locator("h1").inner_text() == "There is no such page"
    assert page.get_by_role("navigation", name="Pages").is_visible()


@pytest.mark.parametrize(
    ("path", "entry"), [("/", "Home"), ("/label/give", "Label"), ("/mining", "Traffic")]
)
def test_the_menu_marks_where_one_is(page: Any, path: str, entry: str) -> None:
    ready(page, path)
    marked = page.locator(".tt-nav [aria-current]")
    assert marked.locator("span").all_inner_texts() == [entry]


def test_on_a_phone_the_navigation_comes_by_its_button_and_goes_again(page: Any) -> None:
    page.set_viewport_size({"width": 390, "height": 844})
    ready(page, "/")
    drawer = page.locator(".tt-drawer")
    expect = pytest.importorskip("playwright.sync_api").expect
    expect(drawer).not_to_be_in_viewport()
    for _ in range(2):
        page.get_by_role("button", name="Navigation").click()
        expect(drawer).to_be_in_viewport()
        page.locator(".q-drawer__backdrop").click(position={"x": 350, "y": 500})
        expect(drawer).not_to_be_in_viewport()


def test_question_mark_shows_the_keys_and_g_h_goes_home(page: Any, allowed: list[str]) -> None:
    allowed.append("404")
    ready(page, "/no/such/page")
    page.keyboard.press("?")
    page.get_by_role("heading", name="Keys").wait_for()
    page.keyboard.press("Escape")
    page.locator(".q-dialog").wait_for(state="detached")
    page.keyboard.press("g")
    page.keyboard.press("h")
    page.wait_for_url("**/")


def test_the_page_ends_when_told_and_starts_again_at_the_same_address(
    page: Any, site: Site, allowed: list[str]
) -> None:
    allowed += ["ERR_CONNECTION_REFUSED", "WebSocket"]
    ready(page, "/")
    before = site.url
    page.evaluate("window.stale = true")
    site.stop()
    page.get_by_text("What you type is kept in this browser").wait_for()
    site.start()
    assert site.url == before
    page.wait_for_function("window.stale === undefined && window.did_handshake === true")
