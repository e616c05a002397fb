"""Take a text from a file, from stdin, or from the user's editor."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

from tutelage.core.errors import DataError, EnvironmentProblem


def given_text(file: str | None, edit: bool, begin: str) -> str:
    """Return the text that the user gave; `begin` is what the editor opens with.

    Raises DataError unless exactly one source is named, or if the editor changed nothing.
    """
    if (file is not None) == edit:
        raise DataError(
            "a draft comes from one place", fix="Name a file, or - for stdin, or use --edit"
        )
    if edit:
        return edited(begin)
    if file == "-":
        try:
            return sys.stdin.buffer.read().decode("utf-8")
        except UnicodeDecodeError as error:
            raise DataError("stdin is not UTF-8 text", fix="Send plain text") from error
    from tutelage.workflows.release.prompt import read_text

    return read_text(Path(str(file)).expanduser())


def edited(begin: str) -> str:
    """Return what is left of `begin` when the user's editor closes.

    Raises EnvironmentProblem without a usable $VISUAL or $EDITOR, DataError for no change.
    """
    command = os.environ.get("VISUAL") or os.environ.get("EDITOR")
    if not command:
        raise EnvironmentProblem(
            "neither $VISUAL nor $EDITOR is set", fix="Set one, or name a file instead of --edit"
        )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "prompt.txt"
        path.write_text(begin, encoding="utf-8")
        try:
            done = subprocess.run([*shlex.split(command), str(path)], check=False)
        except (OSError, ValueError) as error:
            raise EnvironmentProblem(
                f"the editor {command!r} can't be started", fix="Correct $EDITOR, or name a file"
            ) from error
        if done.returncode != 0:
            raise DataError(
                f"the editor ended with status {done.returncode}", fix="Nothing was kept; try again"
            )
        text = path.read_text(encoding="utf-8")
    if text.strip() == begin.strip():
        raise DataError("the text was not changed", fix="Nothing was kept")
    return text
