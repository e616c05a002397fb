"""The page of a comparison: charts, rows, hostile text, and documents with little in them."""

from __future__ import annotations

from typing import Any

import html5lib
import pytest

from tutelage.evaluation.comparison_html import as_html


def gain(metric: str, a: float, b: float, spread: float, outcome: str, **more: Any) -> Any:
    """Return one metric's entry as comparison.py makes it."""
    return {
        "metric": metric, "a": a, "b": b, "estimate": a - b, "low": a - b - spread,
        "high": a - b + spread, "p": 0.01, "p_holm": 0.02, "n": 60, "wins": 14, "losses": 3,
        "outcome": outcome, "detectable": spread, "sentence": metric,
    } | more  # fmt: skip


def row(number: int, mine: str, other: str, score: float) -> dict[str, Any]:
    return {
        "id": f"{number:032x}", "input": f"where is card {number}?", "expected": mine,
        "a": mine, "b": other, "score_a": score, "score_b": 1 - score,
    }  # fmt: skip


DOCUMENT: dict[str, Any] = {
    "a": "tuned", "b": "base", "primary": "accuracy", "rows": 60, "clusters": 60,
    "confidence": 0.95, "sentence": "accuracy: tuned 84.0 % vs base 65.0 %",
    "metrics": [
        gain("accuracy", 0.84, 0.65, 0.09, "a is better"),
        gain("valid_output", 0.99, 0.97, 0.04, "no difference seen"),
        gain("refusals", 0.01, 0.03, 0.03, "no difference seen"),
        gain("tokens", 7.2, 31.0, 4.0, "a is better", estimate=23.8, low=19.8, high=27.8),
    ],
    "changed": {
        "a_better": [row(n, "the card arrives late", "the card was lost", 1.0) for n in range(60)],
        "b_better": [row(n, "arrival", "delivery", 0.0) for n in range(60, 63)],
    },
}  # fmt: skip


def test_the_page_shows_every_metric_and_the_rows() -> None:
    page = as_html(DOCUMENT, "cards")
    html5lib.HTMLParser(strict=True).parse(page)
    for text in (
        "tuned is better on accuracy", "+19.0 points", "+10.0 to +28.0",
        "Better in tuned (60, 50 shown)", "Better in base (3)", "<del>", "<ins>", "7.2",
    ):  # fmt: skip
        assert text in page, text
    assert page.count("class='row'") == 53
    assert page.index("What both reach") < page.index("Is the difference real?")


def test_nothing_changed() -> None:
    bare = DOCUMENT | {"metrics": [], "changed": {"a_better": [], "b_better": []}}
    page = as_html(bare, "cards")
    html5lib.HTMLParser(strict=True).parse(page)
    assert "No difference can be seen on accuracy" in page
    assert "row-tools" not in page.split("</style>")[1].split("<script>")[0]


@pytest.mark.parametrize("key", ["a", "b", "input", "expected"])
def test_hostile_text_stays_text(key: str) -> None:
    bad = "<script>alert(1)</script>"
    changed = {"a_better": [row(1, "x", "y", 1.0) | {key: bad}], "b_better": []}
    page = as_html(DOCUMENT | {"changed": changed}, bad)
    assert bad not in page and "&lt;script&gt;" in page
