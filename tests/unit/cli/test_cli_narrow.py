"""On a narrow terminal ids and names stay whole: what a person copies is what the store has."""

from __future__ import annotations

import io

import pytest
from rich.console import Console, RenderableType

from tutelage.cli.ab import _show_list
from tutelage.cli.rollout_view import history_view
from tutelage.cli.screens import clock, indented, simple_table

ID = "0123456789abcdef"
WHY = "rolled back: p90 latency of the candidate is worse than 1.2 times the baseline's"


def drawn(content: RenderableType, width: int = 80) -> str:
    out = io.StringIO()
    Console(file=out, width=width).print(content)
    assert all(len(line) <= width for line in out.getvalue().splitlines())
    return out.getvalue()


def trial(number: int) -> dict[str, object]:
    return {
        "rollout": f"{ID[:-1]}{number}", "deployment": "help-desk-at-night",
        "stable": "help-desk-base", "candidate": "help-desk-base-v12", "split": 0.5,
        "state": "rolled back", "began": "2026-11-27T14:02:00",
    }  # fmt: skip


@pytest.mark.parametrize("width", [60, 80, 100, 140])
def test_lists_of_trials_and_rollouts_break_no_id(width: int) -> None:
    out = io.StringIO()
    _show_list(Console(file=out, width=width), [trial(1), trial(2)])
    for name in (f"{ID[:-1]}1", f"{ID[:-1]}2", "help-desk-at-night", "help-desk-base-v12"):
        assert name in out.getvalue()
    row = {
        "id": ID, "strategy": "blue_green", "candidate": "help-desk-base-v2", "state": "promoted",
        "deployment": "help-desk", "started_at": "2026-11-27T14:02:00", "why": WHY,
    }  # fmt: skip
    text = drawn(history_view([row]), width)
    assert ID in text and "help-desk-base-v2" in text


def test_texts_are_folded_first_and_between_words() -> None:
    rows = [(ID, "blue-green", WHY), ("f" * 16, "canary", "under way")]
    text = drawn(indented(simple_table(("id", "strategy", "why"), rows)), 60)
    assert text.splitlines()[1].strip().startswith(f"{ID}  blue-green  rolled back: p90")
    assert " ".join(WHY.split()[-2:]) in " ".join(text.split())
    wide = drawn(simple_table(("id", "strategy", "why"), rows), 140)
    assert [line.rstrip() for line in wide.splitlines()] == [
        "id                strategy    why",
        f"{ID}  blue-green  {WHY}",
        f"{'f' * 16}  canary      under way",
    ]


def test_where_names_do_not_fit_side_by_side_each_row_is_a_block() -> None:
    rows = [("a" * 64, "b" * 30, ""), ("c" * 64, "d" * 30, "late")]
    text = drawn(simple_table(("hash", "name", "note"), rows))
    assert [line.rstrip() for line in text.splitlines()] == [
        f"hash  {'a' * 64}",
        f"name  {'b' * 30}",
        "",
        f"hash  {'c' * 64}",
        f"name  {'d' * 30}",
        "note  late",
    ]


def test_an_id_within_a_text_stays_whole_and_what_is_longer_than_any_is_folded() -> None:
    rows = [("x", f"see {ID}", "y" * 300, "a long text that goes on and on")] * 2
    text = drawn(simple_table(("a", "b", "c", "d"), rows), 50)
    assert ID in text


def test_a_moment_stays_on_one_line() -> None:
    rows = [(clock("2026-11-27T14:03:51+00:00", seconds=True), f"rec_{ID}{ID[:8]}", "rating", WHY)]
    text = drawn(simple_table(("at (UTC)", "record", "signal", "value"), rows))
    assert "2026-11-27 14:03:51  rec_" in text


def test_an_empty_table_is_its_headers() -> None:
    assert drawn(simple_table(("id", "what"), [])).strip() == "id  what"
