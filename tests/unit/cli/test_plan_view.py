"""What a person sees of a plan: every name and reason whole, however long a value is."""

from __future__ import annotations

import io
from typing import Any

from rich.console import Console

from tutelage.cli.live import Live
from tutelage.cli.plan_view import plan_view
from tutelage.core.config import Cloze
from tutelage.core.events import Event
from tutelage.workflows.training.plan_words import shown

CLOZE: dict[str, Any] = {
    "patterns": [
        {"ask": "{text}"},
        {"ask": "Customer: {text}\n\nWhat is this about?", "answer": "It is about {label}."},
    ],
    "verbalisers": {"card_arrival": ["a card that has not come", "a late card"]},
    "calibrate": "always",
}


def plan(**more: Any) -> dict[str, Any]:
    choices = [
        {"name": "learning_rate", "value": 0.001, "reason": "small models", "source": "a paper"},
        {"name": "cloze", "value": Cloze(**CLOZE).model_dump(), "reason": "your setting"},
        {"name": "target_modules", "value": "x" * 60, "reason": "your setting"},
    ]
    return {"seconds": 5, "choices": choices, **more}


def test_a_long_value_takes_no_room_from_names_and_reasons() -> None:
    written = io.StringIO()
    Console(file=written, width=110).print(plan_view(plan()))
    text = written.getvalue()
    assert "learning_rate" in text
    assert "small models  [a paper]" in text
    assert "2 patterns, 1 verbaliser," in text
    assert "calibrate always" in text
    assert "{" not in text
    assert text.count("x") == 60  # folded, not cut


def test_values_read_as_words() -> None:
    assert shown({"use_rslora": True, "r": 4, "nothing": {}}) == "use_rslora yes, r 4"
    assert shown(["q_proj", "v_proj"]) == "q_proj, v_proj"
    assert shown({}) == "none"


def test_a_refusal_is_in_the_plan_and_left_to_the_error_of_a_run() -> None:
    refused = plan(refusal="too few rows")
    written = io.StringIO()
    Console(file=written, width=110).print(plan_view(refused))
    assert "✗ too few rows" in written.getvalue()
    live, said = Live(), io.StringIO()
    live.console = Console(file=said, width=110)
    live(Event("plan", "note", data={"plan": refused}))
    live.close()
    assert "learning_rate" in said.getvalue()
    assert "too few rows" not in said.getvalue()
