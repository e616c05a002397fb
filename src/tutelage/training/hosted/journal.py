"""What is known of one job, kept in its run folder so that a crash at any moment loses nothing.

A field is written before the call it announces (`sending`) and after the answer. It decides
nothing: steps.py does.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from tutelage.core.artifact import utc_now
from tutelage.core.errors import Conflict, EnvironmentProblem
from tutelage.core.lock import sole
from tutelage.core.workspace import atomic_write

JOURNAL = "journal.json"
PREFIX = "hosted-"
FileName = Literal["train", "validation"]


class SentFile(BaseModel):
    """One file of rows. Its name holds its hash, so it is found again at the service."""

    model_config = ConfigDict(extra="forbid")

    name: str
    sha256: str
    bytes: int
    rows: int
    sending: bool = False
    id: str | None = None  # the service's
    ready: bool = False  # the service has read it


class Attempt(BaseModel):
    """One job at the service. `key` is written into its metadata where the service takes some."""

    model_config = ConfigDict(extra="forbid")

    number: int
    key: str
    sending: bool = False
    job: str | None = None  # the service's id
    status: str = "not started"
    problem: str | None = None  # why it failed
    last_event: str | None = None  # id of the newest event that was told
    step: int = 0
    steps: int = 0  # 0: not known yet
    tuned: str | None = None  # the tuned model's name


class Record(BaseModel):
    """All of one job: what was asked for, what was sent, what came of it."""

    model_config = ConfigDict(extra="forbid")

    version: Literal[1] = 1
    fingerprint: str  # 64 hex digits of everything that is sent
    project: str
    kind: str
    base_url: str
    model: str  # the base model
    dataset: str  # hash of the dataset version
    settings: dict[str, Any]  # the hosted section
    seed: int
    estimate: dict[str, Any]
    rejected: dict[str, str] = {}
    files: dict[FileName, SentFile]
    attempts: list[Attempt] = Field(min_length=1)
    callable_as: str | None = None  # the name that completions ask for
    created_at: datetime = Field(default_factory=utc_now)

    @property
    def attempt(self) -> Attempt:
        """The newest attempt: the others failed or were cancelled."""
        return self.attempts[-1]

    @property
    def short(self) -> str:
        """12 hex digits, the form people type."""
        return self.fingerprint[:12]

    def as_dict(self) -> dict[str, Any]:
        """Return what a person asks for first."""
        attempt = self.attempt
        return {
            "name": self.short,
            "kind": self.kind,
            "base_url": self.base_url,
            "model": self.model,
            "dataset": self.dataset[:12],
            "job": attempt.job,
            "status": attempt.status,
            "problem": attempt.problem,
            "step": attempt.step,
            "steps": attempt.steps,
            "tuned": attempt.tuned,
            "callable_as": self.callable_as,
            "estimate": self.estimate,
            "created_at": self.created_at.isoformat(timespec="seconds"),
        }


class Journal:
    """The record of one run folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @property
    def path(self) -> Path:
        """The file."""
        return self.folder / JOURNAL

    def load(self) -> Record | None:
        """Return the record, or None if there is none; raise EnvironmentProblem if it is broken."""
        try:
            return Record.model_validate_json(self.path.read_bytes())
        except FileNotFoundError:
            return None
        except ValidationError as error:
            raise EnvironmentProblem(
                "the journal of a hosted job can't be read",
                where=str(self.path),
                fix="Look the job up with `tutelage hosted list --all` before you delete the file",
            ) from error

    def save(self, record: Record) -> None:
        """Write the record, whole and durable."""
        atomic_write(self.path, record.model_dump_json(indent=1).encode())

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the job for this process; raise Conflict if another one holds it.

        The lock goes with the process, however it ends.
        """
        taken = Conflict(
            "another command is at this hosted job",
            where=str(self.folder),
            fix="Let it go on, or end it first; `tutelage hosted status` works meanwhile",
        )
        with sole(self.folder / ".lock", taken):
            yield


def records(runs: Path) -> list[Record]:
    """Return the records under a project's runs, the newest first."""
    found = [Journal(path.parent).load() for path in runs.glob(f"{PREFIX}*/{JOURNAL}")]
    known = [record for record in found if record is not None]
    return sorted(known, key=lambda record: record.created_at, reverse=True)


def folder_of(runs: Path, fingerprint: str) -> Path:
    """Return the run folder of a job."""
    return runs / f"{PREFIX}{fingerprint[:12]}"
