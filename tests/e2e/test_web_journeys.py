"""From the first link to an aborted rollout: one admin's morning on the page, and its audit log."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.fakes.web_demo import filled
from tests.fakes.web_process import CHROMIUM, opened
from tests.unit.web.conftest import Site

from tutelage.workflows.data.experts_items import Order, assign
from tutelage.workflows.data.experts_queue import queue_of
from tutelage.workflows.release import prompt
from tutelage.workflows.release import rollout as rollouts

PASSWORD = "seven lamps by the river"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    root = tmp_path_factory.mktemp("journeys") / "project"
    filled(root).store.close()
    config = root / "tutelage.yaml"
    config.write_text(config.read_text() + "web: {auth: on}\n")
    made = Site(root)
    made.start()
    yield made
    made.stop()


@pytest.fixture
def tab(site: Site) -> Iterator[Any]:
    if CHROMIUM is None:
        pytest.skip("needs Chromium")
    api = pytest.importorskip("playwright.sync_api", reason="needs playwright")
    with api.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page()
        page.set_default_timeout(60_000)
        yield page
        browser.close()


def enter(site: Site, tab: Any) -> None:
    """Come in by the one-time link that the first start printed."""
    link = re.search(r"https?://\S+/welcome/\S+", "\n".join(site.notes))
    assert link is not None, site.notes
    tab.goto(link.group())
    tab.get_by_label("Name").fill("dana")
    for field in tab.locator("input[type=password]").all():
        field.fill(PASSWORD)
    tab.get_by_role("button", name="Save and sign in").click()
    tab.wait_for_url(f"{site.url}/")


def label_three(site: Site, tab: Any) -> None:
    ctx = site.context
    opened(tab, f"{site.url}/label")  # joins the annotators
    assign(ctx, Order(people=("dana",), count=5, seed=29, again=True))
    opened(tab, f"{site.url}/label")
    for number in range(3):
        tab.get_by_text(re.compile(rf"^Item {number + 1} of")).wait_for()
        tab.keyboard.press("1")
    tab.get_by_text(re.compile(r"^Item 4 of")).wait_for()
    assert queue_of(ctx, "dana").done == 3
    ctx.store.close()


def abort_the_rollout(site: Site, tab: Any) -> None:
    opened(tab, f"{site.url}/rollout")
    tab.get_by_role("button", name="Abort").click()
    tab.get_by_role("dialog").get_by_role("button", name="Abort").click()
    tab.get_by_text("aborted").first.wait_for()
    ctx = site.context
    assert rollouts.status(ctx)["rollout"]["state"] == "aborted"
    ctx.store.close()


def look_at_the_log(site: Site, tab: Any) -> None:
    opened(tab, f"{site.url}/audit")
    main = tab.locator("main")
    main.get_by_text("rollout.abort").first.wait_for()
    assert main.get_by_text("dana").count() > 0


def test_a_morning_on_the_page(site: Site, tab: Any) -> None:
    answer = tab.goto(f"{site.url}/rollout")
    assert "/login" in tab.url and answer.status == 200, "nobody comes in without an account"
    enter(site, tab)
    label_three(site, tab)
    site.restart(kill=True)
    opened(tab, f"{site.url}/label")
    tab.get_by_text(re.compile(r"^Item 4 of")).wait_for()
    abort_the_rollout(site, tab)
    look_at_the_log(site, tab)
    ctx = site.context
    assert prompt.log(ctx)[0]["action"] == "drafted", "nothing else was changed"
    ctx.store.close()
    assert "Traceback" not in site.log, Path(site.directory, ".tutelage/logs/web.log")
