"""The page frame and charts: safe, self-contained, well-formed."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET

from tutelage.core import html

EVIL = "<script>alert('x')</script>&\""


def parse(markup: str) -> ET.Element:
    return ET.fromstring(f"<root>{markup}</root>")


def test_text_from_rows_can_not_become_markup() -> None:
    text = html.page(
        EVIL,
        [
            html.section(EVIL, html.quote(EVIL), lead=EVIL),
            html.table([EVIL], [[EVIL]]),
            html.bars([(EVIL, 3)]),
            html.intervals([(EVIL, 0.1, 0.2, 0.3)]),
            html.lines({EVIL: [(0, 1), (1, 2)], "b": [(0, 1)]}, y_label=EVIL),
            html.verdict("good", EVIL, EVIL),
            html.stats([(EVIL, EVIL, EVIL)]),
            html.details(EVIL, EVIL),
        ],
        subtitle=EVIL,
    )
    assert "<script" not in text
    assert "&lt;script&gt;" in text


def test_page_needs_nothing_from_outside() -> None:
    text = html.page("Report", [html.bars([("a", 1)])])
    assert not re.search(r"(src|href)=|https?://|@import|url\(", text)
    assert "prefers-color-scheme: dark" in text


def test_bars_are_proportional_and_labelled() -> None:
    root = parse(html.bars([("circulatory", 20), ("eye", 10)]))
    first, second = (float(r.get("width", 0)) for r in root.iter("rect"))
    assert abs(first / second - 2) < 0.02
    shown = "".join(root.itertext())
    assert "circulatory" in shown
    assert "20" in shown


def test_histogram_counts_every_value() -> None:
    root = parse(html.histogram([1, 1, 2, 900], x_label="characters"))
    tips = [t.text or "" for t in root.iter("title")]
    assert sum(int(tip.rsplit(": ", 1)[1]) for tip in tips) == 4


def test_intervals_show_their_numbers() -> None:
    markup = html.intervals([("tuned", 0.6, 0.7, 0.8)], reference=0.5, percent=True)
    assert "70.0 %  (60.0 % to 80.0 %)" in markup


def test_charts_hold_with_nothing_or_one_point() -> None:
    for markup in (
        html.bars([]),
        html.histogram([]),
        html.histogram([5]),
        html.lines({}),
        html.lines({"a": [(1, 1)]}),
        html.lines({"a": [(1, float("nan")), (2, 3)]}),
        html.intervals([]),
    ):
        parse(markup)


def test_numbers_stand_right_and_read_well() -> None:
    markup = html.table(["name", "rows"], [["a", 12345], ["b", 7]])
    assert "<td class=n>12,345</td>" in markup
    assert html.figure(0.12345) == "0.123"
