"""The frame around commands: what a signal does to one."""

from __future__ import annotations

import json
import signal

import pytest
import typer

from tutelage.cli.frame import frame
from tutelage.core.errors import EXIT_INTERRUPTED


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_command_that_is_told_to_stop_says_how_to_go_on(
    number: signal.Signals, capsys: pytest.CaptureFixture[str]
) -> None:
    before = signal.getsignal(signal.SIGTERM)
    if number == signal.SIGINT:  # a shell's background jobs are started with it ignored
        signal.signal(number, signal.default_int_handler)

    with pytest.raises(typer.Exit) as ended, frame(True, False):
        signal.raise_signal(number)

    said = capsys.readouterr()
    assert ended.value.exit_code == EXIT_INTERRUPTED
    assert json.loads(said.out)["error"] == "Interrupted"
    assert "run the same command again" in said.err
    assert signal.getsignal(signal.SIGTERM) == before
