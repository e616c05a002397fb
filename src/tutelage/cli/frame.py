"""The frame around every command: errors as one sentence, `--json` as one document, exit codes.

Results go to stdout; progress, notes and errors to stderr. Nothing here decides anything.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tutelage.core.errors import EXIT_INTERRUPTED, EXIT_USER, TutelageError
from tutelage.core.events import EVENTS_FILE, Emit, Event, EventFile, fan_out

if TYPE_CHECKING:
    from rich.console import Console

ProjectOption = Annotated[
    Path, typer.Option("--project", "-p", help="The project's folder.", show_default="here")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout.")]
VerboseOption = Annotated[bool, typer.Option("-v", "--verbose", help="Show tracebacks and logs.")]
HERE = Path()


@dataclass
class Frame:
    """One command's way to talk: `emit` for progress, `result` for its answer."""

    as_json: bool
    verbose: bool
    emit: Emit
    close: Callable[[], None]
    told: bool = False  # the one JSON document is out

    @property
    def out(self) -> Console:
        """A rich console on stdout."""
        from rich.console import Console

        return Console(highlight=False)

    def result(self, data: Mapping[str, Any], show: Callable[[Console], None]) -> None:
        """Print the answer: `data` as JSON, or whatever `show` draws for a person."""
        self.close()
        if self.as_json:
            self.told = True
            sys.stdout.write(json.dumps(data, ensure_ascii=False, default=_plain) + "\n")
            sys.stdout.flush()
        else:
            show(self.out)

    def fail(self, sentence: str, data: Mapping[str, Any]) -> None:
        """Say what went wrong: on stderr, and as the JSON document unless the answer is out."""
        if self.as_json and not self.told:
            sys.stdout.write(json.dumps(data, ensure_ascii=False) + "\n")
        _say(sentence)


def _plain(value: object) -> str:
    """Return what JSON has no form for as text: times by ISO 8601, as over HTTP."""
    return value.isoformat() if isinstance(value, datetime) else str(value)


def _listener(as_json: bool, verbose: bool) -> tuple[Emit, Callable[[], None]]:
    """Return where events go, built on first use: most commands never need a terminal."""
    from tutelage.cli.live import Live

    live: list[Live] = []

    def emit(event: Event) -> None:
        if not live:
            live.append(Live(quiet=as_json, verbose=verbose))
        live[0](event)

    return _as_a_job(emit), lambda: live[0].close() if live else None


def _as_a_job(emit: Emit) -> Emit:
    """Keep the events too where this process is a job's."""
    path = os.environ.pop(EVENTS_FILE, None)  # its own children are no jobs
    return fan_out(emit, EventFile(Path(path))) if path else emit


@contextmanager
def _told_to_stop() -> Iterator[None]:
    """Let SIGTERM, which supervisors of services and jobs send, do what Ctrl-C does."""
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread may say what a signal does
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before or signal.SIG_DFL)


@contextmanager
def frame(as_json: bool, verbose: bool) -> Iterator[Frame]:
    """Run a command's body; turn what goes wrong into a sentence and an exit code."""
    emit, close = _listener(as_json, verbose)
    out = Frame(as_json, verbose, emit, close)
    try:
        with _told_to_stop():
            yield out
    except TutelageError as error:
        if verbose:
            raise
        out.fail(error.sentence(), error.as_dict())
        raise typer.Exit(error.exit_code) from error
    except KeyboardInterrupt as error:
        what, fix = "interrupted", "run the same command again to go on where it stopped"
        out.fail(f"{what}; {fix}", {"error": "Interrupted", "what": what, "fix": fix})
        raise typer.Exit(EXIT_INTERRUPTED) from error
    except OSError as error:
        if verbose:
            raise
        known = _from_os(error)
        out.fail(known.sentence(), known.as_dict())
        raise typer.Exit(known.exit_code) from error
    except Exception as error:
        if verbose or isinstance(error, typer.Exit):
            raise
        if (known_as := _from_store(error)) is not None:
            out.fail(known_as.sentence(), known_as.as_dict())
            raise typer.Exit(known_as.exit_code) from error
        text = f"an unexpected {type(error).__name__}: {_first_line(error)}"
        fix = "Run the command again with -v and report what it prints"
        out.fail(f"{text}. {fix}.", {"error": "Bug", "what": text, "fix": fix})
        raise typer.Exit(EXIT_USER) from error
    finally:
        close()


def _from_os(error: OSError) -> TutelageError:
    """Return the sentence for a problem of the machine."""
    from tutelage.core.errors import EnvironmentProblem
    from tutelage.core.workspace import disk_errors

    where = str(error.filename) if error.filename else None
    try:
        with disk_errors(Path(where or ".")):
            raise error
    except EnvironmentProblem as known:
        return known
    except OSError:
        reason = error.strerror or _first_line(error)
        return EnvironmentProblem(
            f"the machine said: {reason}", where=where, fix="Check the path and try again"
        )


def _from_store(error: Exception) -> TutelageError | None:
    """Return the sentence for a store that refuses; None where no store was used."""
    if "sqlalchemy" not in sys.modules:
        return None
    from tutelage.store.problems import problem_of

    return problem_of(error)


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or ["no message"])[0][:300]


def _say(sentence: str) -> None:
    if sys.stderr.isatty():
        folded = [_folded(line) for line in f"error {sentence}".splitlines()]
        shown = "\n".join(folded).removeprefix("error")
        sys.stderr.write(f"\n\x1b[1;31merror\x1b[0m{shown}\n")
    else:
        sys.stderr.write(f"error: {sentence}\n")


def _folded(line: str) -> str:
    """Return a line folded between words at the terminal's width; paths and ids stay whole."""
    width = shutil.get_terminal_size().columns
    return textwrap.fill(line, width, break_long_words=False, break_on_hyphens=False)
