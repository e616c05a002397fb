"""The frame around commands: what a signal does to one."""

from __future__ import annotations

import json
import signal
import sqlite3
import sys

import pytest
import typer
from sqlalchemy.exc import OperationalError

from tutelage.cli.frame import frame
from tutelage.core.errors import EXIT_INTERRUPTED, EXIT_USER, DataError


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


def test_a_store_that_refuses_is_a_sentence_and_no_bug(
    capsys: pytest.CaptureFixture[str],
) -> None:
    for refused, name in (
        (sqlite3.OperationalError("database or disk is full"), "EnvironmentProblem"),
        (sqlite3.OperationalError("no such column: colour"), "Bug"),
    ):
        with pytest.raises(typer.Exit) as ended, frame(True, False):
            raise OperationalError("UPDATE keys", {}, refused)
        said = capsys.readouterr()
        assert ended.value.exit_code == EXIT_USER
        assert json.loads(said.out)["error"] == name
        assert ("the store can't be used now (database or disk is full)" in said.err) is (
            name != "Bug"
        )


def test_what_goes_wrong_after_the_answer_makes_no_second_json_document(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(typer.Exit) as ended, frame(True, False) as out:
        out.result({"rows": 1}, lambda console: None)
        raise DataError("2 rows can't be used", fix="Mend them")
    said = capsys.readouterr()
    assert (ended.value.exit_code, json.loads(said.out)) == (DataError("").exit_code, {"rows": 1})
    assert said.err == "error: 2 rows can't be used. Mend them.\n"


def test_an_error_is_folded_between_words_in_a_terminal_and_one_line_in_a_log(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = "/a/path/" + "of/many/folders/" * 6 + "rows.jsonl"
    sentence = f"{path}: " + "it has no rows that can be read " * 4
    monkeypatch.setenv("COLUMNS", "60")
    for terminal in (True, False):
        monkeypatch.setattr(sys.stderr, "isatty", lambda there=terminal: there)
        with pytest.raises(typer.Exit), frame(False, False):
            raise DataError(sentence.strip(), fix="Look at the file")
        lines = capsys.readouterr().err.strip().splitlines()
        assert any(path in line for line in lines)
        assert (len(lines) > 2) is terminal
        assert all(len(line) <= 60 for line in lines if path not in line) or not terminal
