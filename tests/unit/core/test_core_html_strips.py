"""Charts that are tables, the page's policy, and characters that no page may hold."""

from __future__ import annotations

import base64
import hashlib
import re
import xml.etree.ElementTree as ET

import pytest

from tutelage.core import html
from tutelage.core.html_policy import content_security_policy, source_hash
from tutelage.core.html_strips import (
    Line,
    bar,
    bins,
    chart,
    columns,
    dot,
    interval,
    scale_over,
    shares,
    strip,
    zone,
)


def parse(markup: str) -> ET.Element:
    return ET.fromstring(f"<root>{markup}</root>")


def test_a_scale_ends_on_round_numbers_and_holds_every_value() -> None:
    scale = scale_over([-0.034, 0.171], references=[0.25])
    assert scale.ticks[0] <= -0.034 and scale.ticks[-1] >= 0.25 and 0.0 in scale.ticks
    steps = {round(b - a, 9) for a, b in zip(scale.ticks, scale.ticks[1:], strict=False)}
    assert len(steps) == 1
    assert scale_over([0, 3], whole=True).ticks == (0, 1, 2, 3)
    assert scale_over([]).ticks[0] < scale_over([]).ticks[-1]
    assert scale_over([5.0, 5.0]).ticks[0] <= 5.0 <= scale_over([5.0, 5.0]).ticks[-1]
    assert scale_over([float("nan"), 1.0]).ticks[-1] >= 1.0


def test_marks_stand_where_their_values_are() -> None:
    scale = shares()
    assert (scale.x(0.0), scale.x(0.5), scale.x(1.0)) == (0.0, 500.0, 1000.0)
    assert scale.x(7.0) == 1000.0
    assert "x='0.0'" in bar(scale, 0.25)[0] and "width='250.0'" in bar(scale, 0.25)[0]
    losses = scale_over([-4.0, 4.0])
    middle = losses.x(0.0)
    assert f"x='{losses.x(-2.0):.1f}'" in bar(losses, -2.0)[0]
    assert f"width='{middle - losses.x(-2.0):.1f}'" in bar(losses, -2.0)[0]
    assert "M250.0 12H750.0" in interval(scale, 0.25, 0.5, 0.75)[0]
    assert "M500.0 12h0" in dot(scale, 0.5)[0]
    assert "width='500.0'" in zone(scale, 1.0, 0.5)[0]


def test_a_histogram_counts_every_value() -> None:
    scale = scale_over([0, 100])
    found = bins(scale, [0, 1, 50, 100, 100], 10)
    assert sum(found) == 5 and found[0] == 2 and found[-1] == 2
    drawn = parse(strip(columns(scale, found), scale))
    assert len(list(drawn.iter("rect"))) == sum(n > 0 for n in found)


def test_a_chart_is_a_table_that_can_be_read_aloud() -> None:
    scale = shares(references=[0.5])
    lines = [Line(("<b>", "70 %"), bar(scale, 0.7), strong=True), Line(("b", "1 %"), [])]
    table = parse(chart("scores", ["who", "score"], lines, scale)).find("table")
    assert table is not None and table.findtext("caption") == "scores"
    assert [th.get("scope") for th in table.iter("th")] == ["col", "col", "row", "row"]
    assert all(svg.get("aria-hidden") == "true" for svg in table.iter("svg"))
    assert "<b>" in [th.text for th in table.iter("th")]
    assert "nothing to show" in chart("empty", ["a"], [], scale)


def test_a_line_with_a_cell_too_few_is_an_error() -> None:
    with pytest.raises(ValueError, match="zip"):
        chart("scores", ["who", "score"], [Line(("a",), [])], shares())


def test_the_policy_names_the_pages_own_style_and_script_only() -> None:
    page = html.page("t", [], style=".x{}", script="let a = 1;")
    policy = re.search(r'Content-Security-Policy\' content="([^"]*)"', page)
    style = re.search(r"<style>(.*?)</style>", page, re.S)
    assert policy and style
    digest = base64.b64encode(hashlib.sha256(style[1].encode()).digest()).decode()
    assert f"style-src 'sha256-{digest}'" in policy[1]
    assert f"script-src {source_hash('let a = 1;')}" in policy[1]
    assert "default-src 'none'" in policy[1] and "unsafe-eval" not in policy[1]
    assert "script-src" not in content_security_policy(".x{}")
    assert "<script" not in html.page("t", [])


def test_characters_that_no_page_may_hold_become_pictures() -> None:
    assert html.esc("a\x1b[31m\x00") == "a␛[31m␀"
    assert html.esc("\x85\ud800\ufffe\U0001ffff") == "����"
    assert html.esc("tab\tline\n😀é") == "tab\tline\n😀é"
