"""The parts in a real browser: texts stay texts, tables come in pages, drafts are kept."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.fakes.web_parts import HOSTILE, MANY
from tests.unit.web.conftest import Site, ready

from tutelage.web.parts.editor import fingerprint
from tutelage.workflows.people.kept import keep_text, kept_text

OF_UNITS = """(bytes) => {
  const units = [];
  for (let i = 0; i < bytes.length; i += 2) units.push(bytes[i] + 256 * bytes[i + 1]);
  return tutelage.fingerprint(String.fromCharCode(...units));
}"""
DROPPED = ["ERR_", "WebSocket", "Failed to load"]


@pytest.fixture(scope="module")
def site(project_dir: Path) -> Iterator[Site]:
    """The page process with a page of every part."""
    made = Site(project_dir, program="tests.fakes.web_parts")
    made.start()
    yield made
    made.stop()


def _saved(page: Any, text: str) -> None:
    page.get_by_label("Answer").fill(text)
    page.get_by_text("Saved", exact=True).wait_for()


def _slots(page: Any) -> int:
    """How many texts the browser keeps because the server has not said that it has them."""
    found = page.evaluate("Object.keys(localStorage).filter((key) => key.startsWith('tt:')).length")
    return int(found)


def test_no_part_makes_markup_of_a_text(page: Any) -> None:
    ready(page, "/parts")
    page.get_by_text("inserted:").first.wait_for(state="attached")
    assert page.evaluate("window.harmed") is None
    assert page.locator("img").count() == 0
    assert page.get_by_text(HOSTILE).count() >= 8


def test_a_table_is_paged_and_sorted_by_the_server(page: Any) -> None:
    ready(page, "/parts")
    rows = page.locator("tr[data-row]")
    assert rows.count() == 25
    page.get_by_role("button", name="Later rows").click()
    page.get_by_text(f"26–50 of {MANY}").wait_for()
    page.get_by_role("button", name="Size").click()
    page.get_by_text(f"1–25 of {MANY}").wait_for()
    page.get_by_role("button", name="Size").click()
    page.locator("th[aria-sort=descending]").wait_for()
    assert rows.first.get_attribute("data-row") == f"a/{MANY - 1}"
    assert rows.first.locator("a").get_attribute("href") == f"/parts?row=a%2F{MANY - 1}"


def test_keys_act_one_at_a_time_in_their_order_and_not_while_one_types(page: Any) -> None:
    ready(page, "/parts")
    for key in ("1", "2", "1"):
        page.keyboard.press(key)
    page.get_by_text("1 2 1", exact=True).wait_for()
    page.get_by_label("Answer").press("2")
    page.get_by_label("Answer").press("Control+Enter")
    page.get_by_text("1 2 1 2", exact=True).wait_for()


def test_an_error_is_one_sentence_and_a_bug_no_traceback(page: Any, site: Site) -> None:
    ready(page, "/parts")
    page.get_by_role("button", name="Fail").click()
    page.get_by_text(f"no such row {HOSTILE}. Choose another.").wait_for()
    page.get_by_role("button", name="Break").click()
    page.get_by_text("Something went wrong here (AssertionError)").wait_for()
    assert "a bug" in site.log


def test_a_page_that_breaks_says_so_inside_the_frame(page: Any, allowed: list[str]) -> None:
    allowed.append("500")
    assert ready(page, "/broken").status == 500
    assert page.locator("h1").inner_text() == "This can't be shown"
    assert page.get_by_role("navigation", name="Pages").is_visible()
    assert "Traceback" not in page.content()


def test_a_question_can_be_denied(page: Any) -> None:
    ready(page, "/parts")
    page.get_by_role("button", name="Ask").click()
    page.get_by_role("button", name="Cancel").click()
    page.get_by_text("no", exact=True).wait_for()


def test_plots_say_in_words_what_they_draw(page: Any) -> None:
    ready(page, "/parts")
    told = page.get_by_role("img").first.get_attribute("aria-label")
    assert told == f"Loss: {HOSTILE} from 2 to 3 nats; b from 1 to 1 nats"
    page.get_by_text("80.0 % (70.0 to 90.0)").wait_for()
    assert page.locator(".tt-scale span").all_inner_texts() == ["70\u00a0%", "90\u00a0%"]
    page.get_by_text("As a table: Loss", exact=True).wait_for()


def test_a_draft_is_kept_on_the_server_and_then_no_more_in_the_browser(
    page: Any, site: Site
) -> None:
    ready(page, "/parts")
    _saved(page, "half a sen")
    page.wait_for_function("Object.keys(localStorage).every((key) => !key.startsWith('tt:'))")
    kept = kept_text(site.context, "local", "parts:1")
    assert kept is not None and kept.text == "half a sen"
    ready(page, "/parts")
    assert page.get_by_label("Answer").input_value() == "half a sen"
    page.get_by_role("button", name="Send").click()
    page.get_by_text("sent half a sen").wait_for()
    ready(page, "/parts")
    assert page.get_by_label("Answer").input_value() == "from the model"


def test_a_reload_right_after_a_keystroke_loses_nothing(page: Any) -> None:
    ready(page, "/parts")
    page.get_by_label("Answer").fill("typed and gone at once")
    ready(page, "/parts")
    assert page.get_by_label("Answer").input_value() == "typed and gone at once"


def test_text_typed_without_a_connection_arrives_with_the_next(
    page: Any, site: Site, allowed: list[str]
) -> None:
    allowed += DROPPED
    ready(page, "/parts")
    page.context.set_offline(True)
    page.evaluate("window.socket.io.engine.close()")
    page.get_by_text("What you type is kept in this browser").wait_for()
    page.get_by_label("Answer").fill("written in a tunnel")
    assert _slots(page) == 1
    page.context.set_offline(False)
    page.wait_for_function("Object.keys(localStorage).every((key) => !key.startsWith('tt:'))")
    kept = kept_text(site.context, "local", "parts:1")
    assert kept is not None and kept.text == "written in a tunnel"


def test_a_server_killed_in_the_middle_of_an_edit_loses_nothing(
    page: Any, site: Site, allowed: list[str]
) -> None:
    allowed += DROPPED
    ready(page, "/parts")
    _saved(page, "the beginning")
    page.evaluate("window.stale = true")
    site.stop(kill=True)
    page.get_by_label("Answer").fill("the beginning and the end")
    site.start()
    page.wait_for_function("window.stale === undefined && window.did_handshake === true")
    page.get_by_text("Saved", exact=True).wait_for()
    assert page.get_by_label("Answer").input_value() == "the beginning and the end"
    kept = kept_text(site.context, "local", "parts:1")
    assert kept is not None and kept.text == "the beginning and the end"


def test_a_text_that_was_changed_elsewhere_is_not_overwritten_and_both_are_offered(
    page: Any, site: Site
) -> None:
    ready(page, "/parts")
    entry = {"text": "of this browser", "steps": [1, 2]}
    page.evaluate(
        "(entry) => localStorage.setItem('tt:local:parts:1', JSON.stringify(entry))", entry
    )
    keep_text(site.context, "local", "parts:1", "of another browser")
    ready(page, "/parts")
    assert page.get_by_label("Answer").input_value() == "of another browser"
    page.get_by_role("button", name="Use the other text").click()
    assert page.get_by_label("Answer").input_value() == "of this browser"
    page.get_by_text("Saved", exact=True).wait_for()
    assert page.get_by_text("kept another text").count() == 0


@pytest.mark.parametrize("text", ["", "abc", "ä😀\n", "\ud83d"])
def test_both_halves_know_a_text_by_the_same_number(page: Any, text: str) -> None:
    ready(page, "/")
    units = list(text.encode("utf-16-le", "surrogatepass"))
    assert page.evaluate(OF_UNITS, units) == fingerprint(text)
