"""What a person sees of a long run: a bar with the time left, or now and then a line in a log."""

from __future__ import annotations

import io
from dataclasses import replace

import pytest
from rich.console import Console

from tutelage.cli.live import Live
from tutelage.core.events import Event

STEP = Event(
    "train",
    "progress",
    "step 30 of 60",
    done=30,
    total=60,
    data={"loss": 0.5123, "validation_loss": 0.6, "tokens_per_s": 1234.5, "eta_s": 75.0},
)


def live(*, terminal: bool, width: int = 120) -> tuple[Live, io.StringIO]:
    made, written = Live(), io.StringIO()
    made.console = Console(file=written, force_terminal=terminal, width=width, color_system=None)
    return made, written


def test_the_bar_shows_loss_pace_and_the_time_left() -> None:
    shown, written = live(terminal=True)
    shown(STEP)
    shown.close()
    text = written.getvalue()
    for part in ("step 30 of 60", "loss 0.512", "validation 0.600", "1,234 tokens/s", "50%"):
        assert part in text
    assert "75 s" in text  # as the run says it


@pytest.mark.parametrize("message", ["step 30 of 60", "step 30 of 60 of a trial with a long name"])
def test_in_a_usual_terminal_the_words_give_way_and_never_the_time_left(message: str) -> None:
    shown, written = live(terminal=True, width=80)
    shown(replace(STEP, message=message))
    shown.close()
    (line,) = {line.rstrip() for line in written.getvalue().splitlines() if "step" in line}
    assert "step 30 of 60" in line
    assert line.endswith(" 50% left 75 s")


def test_a_log_gets_a_line_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr("tutelage.cli.live.time.monotonic", lambda: clock[0])
    shown, written = live(terminal=False)
    later = replace(STEP, data={name: STEP.data[name] for name in STEP.data if name[0] != "v"})
    for clock[0], event in ((1.0, STEP), (5.0, later), (20.0, later), (21.0, later)):
        shown(event)  # the newest validation loss is still said later
    shown.close()
    lines = [line for line in written.getvalue().splitlines() if "step" in line]
    assert lines == [
        "  · step 30 of 60  loss 0.512  validation 0.600  1,234 tokens/s   50%  75 s left"
    ]


SAID = Event("train", "note", "a long sentence about " + "the rows and " * 8 + "what they hold")


def test_a_long_sentence_goes_on_under_itself_in_a_terminal() -> None:
    shown, written = live(terminal=True, width=80)
    shown(SAID)
    first, second, *_ = [line for line in written.getvalue().splitlines() if "the rows" in line]
    assert first.startswith("  · a long sentence")
    assert second.startswith("    the rows")
    assert second[4] != " "


def test_a_log_keeps_a_sentence_on_one_line() -> None:
    shown, written = live(terminal=False, width=80)
    shown(SAID)
    assert f"  · {SAID.message}" in written.getvalue().splitlines()


def test_with_json_a_warning_is_one_line_of_a_log() -> None:
    shown, written = live(terminal=False, width=80)
    shown.quiet = True
    shown(replace(SAID, kind="warning"))
    shown(SAID)
    assert written.getvalue() == f"warning: {SAID.message}\n"


def test_what_belongs_to_no_stage_is_told_under_the_one_that_works() -> None:
    shown, written = live(terminal=False)
    shown(replace(SAID, message="it begins"))
    shown(Event("", "warning", "12:00:00 colours: the engine is slow"))
    shown(replace(SAID, message="it goes on"))
    text = written.getvalue()
    assert text.count("Train") == 1
    assert "  ! 12:00:00 colours: the engine is slow" in text
