"""The page in a real browser: no network, no foreign script, accessible, of use without a mouse."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import html5lib
import pytest
from tests.fakes.web_process import CHROMIUM
from tests.unit.evaluation.report_documents import LABELS, attacked, classification, graded

from tutelage.evaluation import report_html

LOOKS = [  # (page, colour scheme, width)
    ("labels", "light", 1280),
    ("labels", "dark", 1280),
    ("graded", "light", 390),
    ("graded", "dark", 390),
]
ODD = {"rows": 3, "task": "text", "name": "bare", "notes": [], "candidates": [], "primary": {
    "metric": "accuracy", "difference": None}, "verdict": {
    "outcome": "not_enough_evidence", "sentence": "Nothing yet.", "criteria": []}}  # fmt: skip


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    if CHROMIUM is None:
        pytest.skip("needs Chromium")
    api = pytest.importorskip("playwright.sync_api", reason="needs playwright")
    with api.sync_playwright() as driver:
        found = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield found
        found.close()


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    small = classification()
    documents = {
        "large": classification(1000, LABELS),
        "labels": classification(62, LABELS[:31]),
        "graded": graded(small),
        "attacked": attacked(small),
        "attacked_graded": attacked(graded(small)),
    }
    folder = tmp_path_factory.mktemp("pages")
    found = {}
    for name, document in documents.items():
        found[name] = folder / f"{name}.html"
        found[name].write_text(report_html.as_html(document), encoding="utf-8")
    return found


class Visit:
    """One page opened without a network, and all that it did."""

    def __init__(self, browser: Any, path: Path, **options: Any) -> None:
        self.context = browser.new_context(offline=True, **options)
        self.page = self.context.new_page()
        self.said: list[str] = []
        self.asked: list[str] = []
        self.page.on("console", lambda message: self.said.append(message.text))
        self.page.on("pageerror", lambda error: self.said.append(str(error)))
        self.page.on("dialog", lambda box: (self.said.append(box.message), box.dismiss()))
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.goto(path.as_uri())

    def __enter__(self) -> Visit:
        return self

    def __exit__(self, *_: object) -> None:
        self.context.close()

    def sees(self, selector: str) -> int:
        return int(self.page.locator(f"{selector} >> visible=true").count())


def test_every_page_parses_without_an_error(pages: dict[str, Path]) -> None:
    for path in pages.values():
        html5lib.HTMLParser(strict=True).parse(path.read_text(encoding="utf-8"))


def test_a_thousand_rows_of_77_labels_stay_under_two_megabytes(pages: dict[str, Path]) -> None:
    assert pages["large"].stat().st_size < 2_000_000
    page = pages["large"].read_text(encoding="utf-8")
    assert "The 20 weakest of 77" in page and "Of 77 labels the 24" in page
    assert " shown)" in page


def test_keys_that_are_not_there_are_left_out() -> None:
    page = report_html.as_html(ODD)
    html5lib.HTMLParser(strict=True).parse(page)
    assert "Nothing yet." in page and "Row by row" not in page
    full = classification()
    for key in ("comparisons", "forgetting", "changed", "notes", "method", "seconds", "lineage"):
        page = report_html.as_html({k: v for k, v in full.items() if k != key})
        assert "Who scores what" in page


def test_it_opens_alone(browser: Any, pages: dict[str, Path]) -> None:
    for path in pages.values():
        with Visit(browser, path) as visit:
            assert visit.asked == [path.as_uri()]
            assert visit.said == []
            assert visit.sees("h1") == 1


@pytest.mark.parametrize("name", ["attacked", "attacked_graded"])
def test_no_text_becomes_a_script(browser: Any, pages: dict[str, Path], name: str) -> None:
    with Visit(browser, pages[name]) as visit:
        page = visit.page
        page.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
        for element in page.locator(".row, .chart tr").all()[:12]:
            element.hover(force=True)
        assert page.evaluate("window.pwned") is None
        assert page.evaluate("document.scripts.length") == 1
        assert page.evaluate("document.querySelectorAll('img,iframe,link,base,object').length") == 0
        attributes = "[...document.querySelectorAll('*')].flatMap(e => e.getAttributeNames())"
        names = set(page.evaluate(attributes))
        assert not [n for n in names if n.startswith("on")]
        assert page.evaluate("document.querySelectorAll('a[href]').length") == 0
        assert visit.said == [] and visit.asked == [pages[name].as_uri()]


def test_a_script_that_slipped_in_would_not_run(
    browser: Any, pages: dict[str, Path], tmp_path: Path
) -> None:
    path = tmp_path / "page.html"
    slipped = "<script>window.pwned=1</script><img src=x onerror='window.pwned=1'><main>"
    path.write_text(pages["graded"].read_text("utf-8").replace("<main>", slipped), "utf-8")
    with Visit(browser, path) as visit:
        assert visit.page.evaluate("window.pwned") is None
        assert len([line for line in visit.said if "Content Security Policy" in line]) >= 2


@pytest.mark.parametrize(("name", "scheme", "width"), LOOKS)
def test_axe_finds_no_barrier(
    browser: Any, pages: dict[str, Path], name: str, scheme: str, width: int
) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="needs axe")
    look = {"color_scheme": scheme, "viewport": {"width": width, "height": 900}}
    with Visit(browser, pages[name], bypass_csp=True, **look) as visit:
        visit.page.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
        found = axe.Axe().run(visit.page).response["violations"]
    worst = [
        (v["id"], v["impact"], v["nodes"][0]["html"][:160], v["nodes"][0]["failureSummary"][:200])
        for v in found
        if v["impact"] in ("serious", "critical")
    ]
    assert worst == []


def test_rows_can_be_searched_and_narrowed(browser: Any, pages: dict[str, Path]) -> None:
    with Visit(browser, pages["labels"]) as visit:
        page = visit.page
        total = page.locator("div.row").count()
        assert page.locator("#row-count").inner_text() == f"{total} of {total} rows"
        page.locator("#row-kind").select_option("fixed")
        fixed = page.locator("div.row[data-kind=fixed]").count()
        assert page.locator("#row-count").inner_text() == f"{fixed} of {total} rows"
        assert visit.sees("div.row") == fixed
        page.locator("#row-find").fill("no such text anywhere")
        assert page.locator("#row-count").inner_text() == f"0 of {total} rows"
        page.locator("#row-find").fill("")
        page.locator("#row-kind").select_option("")
        assert visit.sees("div.row") == page.locator("details[open] div.row").count()


def test_without_javascript_all_rows_are_there(browser: Any, pages: dict[str, Path]) -> None:
    with Visit(browser, pages["labels"], java_script_enabled=False) as visit:
        assert visit.sees(".tools") == 0
        closed = visit.page.locator("details.rows:not([open]) > summary").first
        before = visit.sees("div.row")
        closed.click()
        assert visit.sees("div.row") > before > 0


def test_the_keyboard_reaches_the_rows(browser: Any, pages: dict[str, Path]) -> None:
    with Visit(browser, pages["labels"]) as visit:
        page, reached = visit.page, set()
        for _ in range(30):
            page.keyboard.press("Tab")
            reached.add(
                page.evaluate("document.activeElement.id || document.activeElement.tagName")
            )
        assert {"row-find", "row-kind", "SUMMARY"} <= reached
        page.locator("details.rows:not([open]) > summary").first.focus()
        opened = page.locator("details[open]").count()
        page.keyboard.press("Enter")
        assert page.locator("details[open]").count() == opened + 1


@pytest.mark.parametrize("width", [640, 320])  # 1280 at 200 % and at 400 %
def test_nothing_runs_off_a_magnified_page(
    browser: Any, pages: dict[str, Path], width: int
) -> None:
    for path in pages.values():
        with Visit(browser, path, viewport={"width": width, "height": 512}) as visit:
            wide = visit.page.evaluate("document.documentElement.scrollWidth")
            assert wide <= width


def test_print_shows_paper(browser: Any, pages: dict[str, Path]) -> None:
    with Visit(browser, pages["graded"], color_scheme="dark") as visit:
        visit.page.emulate_media(media="print")
        colour = "getComputedStyle(document.body).backgroundColor"
        assert visit.page.evaluate(colour) == "rgb(255, 255, 255)"
        assert visit.sees(".tools") == 0
