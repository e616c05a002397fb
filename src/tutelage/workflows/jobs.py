"""Long work in processes of their own: start it, watch it, stop it, read why it ended.

A job is a command of the CLI, detached from who started it: it goes on when that ends. Its row in
the store says how far it is; its folder in .tutelage/logs/jobs keeps what it said. What the
command does stands elsewhere; nothing here waits for it.
"""

from __future__ import annotations

import json
import os
import secrets
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal, get_args

import psutil
from sqlalchemy import select

from tutelage.core.artifact import utc_now
from tutelage.core.errors import Conflict, DataError
from tutelage.core.events import EVENTS_FILE, read_events
from tutelage.core.lines import lines_of
from tutelage.core.workspace import Workspace, atomic_write
from tutelage.store.artifacts import JobRow
from tutelage.workflows.context import Context

Kind = Literal["train", "evaluate", "improve", "curate", "search", "plan", "tokens", "prompt"]
RUNNING, STOPPING = "running", "stopping"
DONE, FAILED, STOPPED = "done", "failed", "interrupted"
_COMMANDS = {  # where it is not the kind's own name
    "curate": ("data", "split"),
    "plan": ("train", "--plan"),
    "tokens": ("data", "tokens"),
    "prompt": ("prompt", "test"),
}
_EVENTS, _OUT, _LOG, _NOTE = "events.jsonl", "result.json", "log.txt", "job.json"
_BIRTH = timedelta(seconds=60)  # in which a job's process must have its number
_LONGEST = 2_000  # characters of a message that is kept in the row


@dataclass(frozen=True)
class Job:
    """One long piece of work. `progress` is 0..1 of `stage`; `result` is the command's answer.

    `state` is running, stopping, done, failed or interrupted; `message` says where it stands or
    how it ended.
    """

    id: str
    kind: str
    state: str
    message: str
    progress: float
    started_at: datetime
    updated_at: datetime
    folder: Path
    by: str = ""
    arguments: tuple[str, ...] = ()
    stage: str = ""
    eta_s: float | None = None
    result: dict[str, Any] = field(default_factory=dict)

    @property
    def alive(self) -> bool:
        """Whether its process may still work."""
        return self.state in (RUNNING, STOPPING)

    @property
    def events(self) -> Path:
        """The file that its events are appended to (core/events.py reads it)."""
        return self.folder / _EVENTS


def start(ctx: Context, kind: Kind, *, by: str, arguments: Sequence[str] = ()) -> str:
    """Start `tutelage KIND ARGUMENTS` by itself and return the job's id; `by` is who asked.

    Raises Conflict if a job of this kind is at work, DataError for a kind that is none.
    """
    if kind not in get_args(Kind):
        raise DataError(
            f"{kind!r} is no kind of job", fix=f"Take one of {', '.join(get_args(Kind))}"
        )
    settle(ctx)
    name = f"{kind}-{secrets.token_hex(5)}"
    with ctx.store.begin() as session:
        busy = session.scalars(_at_work().where(JobRow.kind == kind)).first()
        if busy is not None:
            raise Conflict(
                f"job {busy.id} of the same kind is at work", fix="Wait for its end, or stop it"
            )
        session.add(JobRow(id=name, kind=kind, state=RUNNING, pid=None, message="starting"))
    try:
        _spawn(ctx, name, kind, by, tuple(arguments))
    except OSError as error:
        _end(ctx, name, FAILED, f"the process can't be started: {error.strerror}")
        raise
    return name


def jobs(ctx: Context, *, limit: int = 50) -> list[Job]:
    """Return the newest jobs first, as they stand now."""
    settle(ctx)
    with ctx.store.session() as session:
        query = select(JobRow).order_by(JobRow.started_at.desc(), JobRow.id).limit(limit)
        rows = session.scalars(query).all()
    return [_job(ctx.workspace, row) for row in rows]


def job(ctx: Context, id: str) -> Job:
    """Return one job as it stands now; raise DataError if there is none of this id."""
    settle(ctx)
    with ctx.store.session() as session:
        row = session.get(JobRow, id)
    if row is None:
        raise DataError("there is no such job", where=id[:40], fix="Look at the list of runs")
    return _job(ctx.workspace, row)


def running(ctx: Context, kind: str | None = None) -> list[Job]:
    """Return the jobs that are at work, the newest first."""
    return [each for each in jobs(ctx) if each.alive and kind in (None, each.kind)]


def stop(ctx: Context, id: str) -> Job:
    """Ask a job to end; asked again, it is ended at once. Started anew, its work goes on.

    Raises Conflict if it has ended already.
    """
    found = job(ctx, id)
    process = _process(found)
    if not found.alive or process is None:
        raise Conflict(f"job {id} has ended already", fix="Start a new one")
    _update(ctx, id, lambda row: setattr(row, "state", STOPPING))
    _signal(process, signal.SIGKILL if found.state == STOPPING else signal.SIGTERM)
    return job(ctx, id)


def tail(ctx: Context, id: str, lines: int = 50) -> list[str]:
    """Return the last lines that a job wrote to its log."""
    try:
        with (job(ctx, id).folder / _LOG).open("rb") as stream:
            stream.seek(max(0, os.fstat(stream.fileno()).st_size - 400 * lines))
            return stream.read().decode("utf-8", "replace").splitlines()[-lines:]
    except OSError:
        return []


def events(ctx: Context, id: str, offset: int = 0) -> tuple[list[dict[str, Any]], int]:
    """Return a job's events from a byte of its file on, and where to read on."""
    return read_events(job(ctx, id).events, offset)


def settle(ctx: Context) -> None:
    """Bring the rows of jobs at work to what their processes say, and end those that ended."""
    with ctx.store.session() as session:
        rows = session.scalars(_at_work()).all()
    for row in rows:
        found = _job(ctx.workspace, row)
        if _process(found) is not None:
            if (found.progress, found.message) != (row.progress, row.message):
                _update(ctx, row.id, _progress(found))
        elif row.pid is not None or utc_now() - row.started_at > _BIRTH:
            found = _job(ctx.workspace, row)  # its last words came before its end
            _end(ctx, row.id, *_ending(found, row.state == STOPPING))


def _at_work() -> Any:
    return select(JobRow).where(JobRow.state.in_((RUNNING, STOPPING)))


def _folder(workspace: Workspace, id: str) -> Path:
    return workspace.logs / "jobs" / id


def _spawn(ctx: Context, name: str, kind: str, by: str, arguments: tuple[str, ...]) -> None:
    """Start the process in a session of its own, and keep its number and its birth."""
    folder = _folder(ctx.workspace, name)
    folder.mkdir(parents=True)
    command = [
        sys.executable, "-m", "tutelage", *_COMMANDS.get(kind, (kind,)), *arguments,
        "--project", str(ctx.workspace.root), "--json",
    ]  # fmt: skip
    env = os.environ | {EVENTS_FILE: str(folder / _EVENTS)}
    with (folder / _OUT).open("wb") as out, (folder / _LOG).open("wb") as log:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=out, stderr=log, env=env,
            cwd=ctx.workspace.root, start_new_session=True,
        )  # fmt: skip
    note: dict[str, Any] = {"by": by, "arguments": list(arguments)}
    note |= {"pid": process.pid, "born": _birth(process.pid)}
    atomic_write(folder / _NOTE, json.dumps(note, ensure_ascii=False).encode())
    _update(ctx, name, lambda row: setattr(row, "pid", process.pid))
    threading.Thread(target=process.wait, name=f"wait {name}", daemon=True).start()


def _birth(pid: int) -> float | None:
    try:
        return float(psutil.Process(pid).create_time())
    except psutil.Error:
        return None


def _process(found: Job) -> psutil.Process | None:
    """Return the job's living process; another one may have its number by now."""
    note = _note(found.folder)
    if not note.get("pid") or note.get("born") is None:
        return None
    try:
        process = psutil.Process(note["pid"])
        same = abs(process.create_time() - note["born"]) < 1
        return process if same and process.status() != psutil.STATUS_ZOMBIE else None
    except psutil.Error:
        return None


def _signal(process: psutil.Process, number: int) -> None:
    try:
        if number == signal.SIGKILL:
            os.killpg(process.pid, number)
        else:
            process.send_signal(number)
    except (ProcessLookupError, psutil.NoSuchProcess):
        return


def _note(folder: Path) -> dict[str, Any]:
    try:
        note: dict[str, Any] = json.loads((folder / _NOTE).read_bytes())
    except (OSError, ValueError):
        return {}
    return note


def _job(workspace: Workspace, row: JobRow) -> Job:
    """Return a row with what its folder adds."""
    folder = _folder(workspace, row.id)
    note = _note(folder)
    last = _last(folder / _EVENTS)
    alive = row.state in (RUNNING, STOPPING)
    return Job(
        id=row.id,
        kind=row.kind,
        state=row.state,
        message=(last.get("message") or row.message) if alive else row.message,
        progress=_share(last) if alive else row.progress,
        started_at=row.started_at,
        updated_at=row.updated_at,
        folder=folder,
        by=str(note.get("by", "")),
        arguments=tuple(note.get("arguments", ())),
        stage=str(last.get("stage", "")),
        eta_s=last.get("data", {}).get("eta_s") if alive else None,
        result={} if alive else _answer(folder)[0],
    )


def _last(path: Path, size: int = 8_192) -> dict[str, Any]:
    """Return the newest event that says something, without reading the whole file."""
    try:
        start = max(0, path.stat().st_size - size)
    except OSError:
        return {}
    said = [each for each in read_events(path, start)[0] if each.get("message")]
    return said[-1] if said else {}


def _share(event: dict[str, Any]) -> float:
    done, total = event.get("done"), event.get("total")
    return min(1.0, done / total) if done and total else 0.0


def _answer(folder: Path) -> tuple[dict[str, Any], str]:
    """Return the command's answer and the sentence of what went wrong; either may be empty."""
    answer: dict[str, Any] = {}
    problem = ""
    try:
        lines = lines_of((folder / _OUT).read_text(encoding="utf-8"))
    except OSError:
        return {}, ""
    for line in lines:
        try:
            found = json.loads(line)
        except ValueError:
            continue
        if isinstance(found, dict) and {"error", "what"} <= found.keys():
            problem = _sentence(found)
        elif isinstance(found, dict):
            answer = found
    return answer, problem


def _sentence(error: dict[str, Any]) -> str:
    head = f"{error['where']}: " if error.get("where") else ""
    tail = f" {error['fix']}." if error.get("fix") else ""
    return f"{head}{error['what']}.{tail}"


def _ending(found: Job, asked: bool) -> tuple[str, str]:
    """Return the last state of a job whose process is gone, and why."""
    answer, problem = _answer(found.folder)
    if answer:
        return DONE, problem or found.message
    if problem:
        return FAILED, problem
    if asked:
        return STOPPED, f"stopped at: {found.message}. Started again, it goes on from there."
    said = f" at: {found.message}" if found.stage else ""
    return FAILED, f"the process ended before its time{said}. Its log says more."


def _progress(found: Job) -> Callable[[JobRow], None]:
    def put(row: JobRow) -> None:
        row.progress, row.message = found.progress, found.message[:_LONGEST]

    return put


def _end(ctx: Context, id: str, state: str, message: str) -> None:
    def put(row: JobRow) -> None:
        row.state, row.message = state, message[:_LONGEST]
        row.progress = 1.0 if state == DONE else row.progress

    _update(ctx, id, put)


def _update(ctx: Context, id: str, change: Callable[[JobRow], None]) -> None:
    """Change the row of a job that has not ended."""
    with ctx.store.begin() as session:
        row = session.get(JobRow, id)
        if row is not None and row.state in (RUNNING, STOPPING):
            change(row)
            row.updated_at = datetime.now(UTC)
