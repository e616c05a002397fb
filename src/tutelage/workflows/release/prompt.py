"""The prompt's versions from outside: draft, review, publish, restore; plain data in and out.

Testing a draft is workflows/release/prompt_trial.py.
"""

from __future__ import annotations

import getpass
import json
from pathlib import Path
from typing import Any

from tutelage.core.config_file import load_config
from tutelage.core.errors import DataError
from tutelage.release import prompt_moves, prompts
from tutelage.release.prompt_history import history
from tutelage.release.prompts import FROM_CONFIG
from tutelage.store.releases import PromptRow
from tutelage.workflows.context import Context

LONGEST = 200_000  # characters of a prompt; more is a file given by mistake
NOW = "now"  # what is published at this moment, whoever put it there


def draft(ctx: Context, text: str, *, by: str | None = None, note: str = "") -> dict[str, Any]:
    """Keep `text` as a new draft and return it; `new` says whether it was not there before.

    The prompt in force is recorded first, so that the draft has a parent. Raises DataError for
    an empty text or one that is no prompt.
    """
    _check_text(text)
    adopt(ctx, by=by)
    known = {row["hash"] for row in prompts.listing(ctx.store)}
    row = prompts.record(ctx.store, text, author=by or whoami(), note=note)
    return prompts.show(ctx.store, row.hash) | {"new": row.hash not in known}


def read_text(path: Path) -> str:
    """Return a prompt file's text. Raises DataError if it can't be read as UTF-8 text."""
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise DataError(
            "the file is not UTF-8 text", where=str(path), fix="Save the prompt as plain text"
        ) from error
    except (FileNotFoundError, IsADirectoryError) as error:
        raise DataError(
            "there is no such file", where=str(path),
            fix="Name a text file, or - to read from stdin, or use --edit",
        ) from error  # fmt: skip


def adopt(ctx: Context, *, by: str | None = None) -> PromptRow | None:
    """Record and publish tutelage.yaml's prompt if it is in force and no version yet."""
    text = ctx.config.prompt
    if not text.strip():
        return None
    return prompt_moves.record_published(ctx.store, text, author=by or whoami(), note=FROM_CONFIG)


def review(ctx: Context, version: str, *, approve: bool, by: str, note: str = "") -> dict[str, Any]:
    """Approve or reject a version in the name of `by`."""
    if not by.strip():
        raise DataError("a review needs a name", fix="Say who reviewed with --by NAME")
    row = prompt_moves.review(ctx.store, version, approve=approve, author=by, note=note)
    return prompts.show(ctx.store, row.hash)


def publish(
    ctx: Context,
    version: str,
    *,
    note: str,
    by: str | None = None,
    force: bool = False,
    seen: str | None = NOW,
) -> dict[str, Any]:
    """Publish a tested version; `before` in the answer is the number of the one it replaces.

    `seen` is the hash of the version that was published when the person decided (None: there was
    none; unset: what is published now). Raises ReleaseRefused without a test that did not regress,
    Conflict if somebody else moved the published prompt.
    """
    if not note.strip():
        raise DataError("publishing needs a note", fix='Say why with --note "..."')
    adopt(ctx, by=by)
    before = prompts.published(ctx.store)
    row = prompt_moves.publish(
        ctx.store, version, author=by or whoami(), note=note, force=force,
        seen=_seen(before, seen),
    )  # fmt: skip
    return _moved(ctx, row, before)


def restore(
    ctx: Context,
    version: str,
    *,
    note: str = "",
    by: str | None = None,
    seen: str | None = NOW,
) -> dict[str, Any]:
    """Publish again a version that was published before; `seen` as for `publish`."""
    before = prompts.published(ctx.store)
    row = prompt_moves.restore(
        ctx.store, version, author=by or whoami(), note=note, seen=_seen(before, seen)
    )
    return _moved(ctx, row, before)


def standing(ctx: Context) -> dict[str, Any]:
    """Return every version, newest first, the number in force now, and what to say about it.

    tutelage.yaml is read again, so that an edit since the project was opened counts.
    """
    force = prompts.in_force(ctx.store, load_config(ctx.workspace.config_path).prompt)
    return {
        "versions": prompts.listing(ctx.store),
        "in_force": force.number,
        "told": force.told,
        "text": force.text,
    }


def trial_of(ctx: Context, version: str) -> dict[str, Any] | None:
    """Return the document of a version's last test, or None if it has none or the file is gone."""
    test = prompts.show(ctx.store, version)["test"]
    if not test or not test.get("path"):
        return None
    try:
        text = (ctx.workspace.home / str(test["path"]) / "test.json").read_text(encoding="utf-8")
        found: dict[str, Any] = json.loads(text)
    except (OSError, ValueError):
        return None
    return found


def log(ctx: Context) -> list[dict[str, Any]]:
    """Return everything that happened to the prompt, newest first."""
    return history(ctx.store)


def whoami() -> str:
    """Return this machine's user, the author where none is named."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return ""


def _check_text(text: str) -> None:
    if len(text) > LONGEST:
        raise DataError(
            f"the prompt has {len(text):,} characters, {LONGEST:,} are allowed",
            fix="Name the file that holds the prompt alone",
        )
    if "\x00" in text:
        raise DataError("the prompt holds a null character", fix="Name a plain text file")


def _seen(before: PromptRow | None, seen: str | None) -> str | None:
    if seen != NOW:
        return seen
    return before.hash if before else None


def _moved(ctx: Context, row: PromptRow, before: PromptRow | None) -> dict[str, Any]:
    data = prompts.show(ctx.store, row.hash)
    return data | {"before": before.number if before else None}
