"""Jobs of their own: they outlive who started them, say how they ended, and can be stopped."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tutelage.core.errors import Conflict, DataError
from tutelage.core.events import Event, EventFile, read_events
from tutelage.workflows import jobs
from tutelage.workflows.context import Context, last_output, open_context

ROWS = "".join(
    json.dumps({"text": f"a {shade} {thing}", "label": label}) + "\n"
    for label, shades in (("warm", ("red", "orange", "amber")), ("cold", ("blue", "teal", "grey")))
    for shade in shades
    for thing in ("apple", "kettle", "scarf", "lamp", "bicycle", "tent")
)


@pytest.fixture
def ctx(make_project: Callable[..., Path]) -> Iterator[Context]:
    context = open_context(make_project({"rows.jsonl": ROWS}))
    yield context
    for job in jobs.running(context):
        os.killpg(json.loads((job.folder / "job.json").read_text())["pid"], signal.SIGKILL)
    context.store.close()


def ended(ctx: Context, name: str) -> jobs.Job:
    deadline = time.monotonic() + 60
    while (found := jobs.job(ctx, name)).alive:
        assert time.monotonic() < deadline, found
        time.sleep(0.02)
    return found


def held(ctx: Context, name: str) -> int:
    """Stop the process in its tracks, so that it can't end by itself; return its number."""
    pid = int(json.loads((jobs.job(ctx, name).folder / "job.json").read_text())["pid"])
    os.kill(pid, signal.SIGSTOP)
    return pid


def test_a_job_does_its_work_and_keeps_the_answer(ctx: Context) -> None:
    name = jobs.start(ctx, "curate", by="ada")
    found = ended(ctx, name)
    assert (found.state, found.by, found.progress) == (jobs.DONE, "ada", 1.0)
    made = last_output(ctx, "curate")
    assert made is not None and found.result["dataset"] == made.short
    assert "dataset" in found.message
    told, offset = jobs.events(ctx, name)
    assert [each["stage"] for each in told][-1] == "curate"
    assert jobs.events(ctx, name, offset) == ([], offset)


def test_a_job_that_fails_says_the_sentence(ctx: Context) -> None:
    (ctx.workspace.root / "data" / "rows.jsonl").write_text("{}\n", encoding="utf-8")
    found = ended(ctx, jobs.start(ctx, "curate", by="ada"))
    assert found.state == jobs.FAILED
    assert "Traceback" not in found.message and len(found.message) > 20
    assert any(line.startswith("error:") for line in jobs.tail(ctx, found.id))


def test_one_job_of_a_kind_at_a_time_and_it_can_be_stopped(ctx: Context) -> None:
    name = jobs.start(ctx, "curate", by="ada")
    pid = held(ctx, name)
    with pytest.raises(Conflict, match=name):
        jobs.start(ctx, "curate", by="bo")
    assert jobs.stop(ctx, name).state == jobs.STOPPING
    os.kill(pid, signal.SIGCONT)
    found = ended(ctx, name)
    assert found.state == jobs.STOPPED and "goes on from there" in found.message
    with pytest.raises(Conflict, match="ended already"):
        jobs.stop(ctx, name)
    assert ended(ctx, jobs.start(ctx, "curate", by="bo")).state == jobs.DONE


def test_a_job_that_does_not_listen_is_ended_when_asked_again(ctx: Context) -> None:
    name = jobs.start(ctx, "curate", by="ada")
    held(ctx, name)
    jobs.stop(ctx, name)
    jobs.stop(ctx, name)
    assert ended(ctx, name).state == jobs.STOPPED


def test_a_killed_job_is_a_failed_one_and_another_page_sees_it(ctx: Context) -> None:
    name = jobs.start(ctx, "curate", by="ada")
    os.kill(held(ctx, name), signal.SIGKILL)
    other = open_context(ctx.workspace.root)
    try:
        found = ended(other, name)
    finally:
        other.store.close()
    assert found.state == jobs.FAILED and "before its time" in found.message
    assert [each.id for each in jobs.jobs(ctx)] == [name]


def test_there_is_no_job_by_another_name(ctx: Context) -> None:
    with pytest.raises(DataError, match="no such job"):
        jobs.job(ctx, "../../etc")
    with pytest.raises(DataError, match="no kind"):
        jobs.start(ctx, "rm", by="ada")  # type: ignore[arg-type]


def test_an_event_file_keeps_what_matters_and_skips_half_lines(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    tell = EventFile(path)
    for step in range(1, 101):
        tell(Event("train", "progress", f"step {step}", done=step, total=100))
    tell(Event("train", "metric", data={"validation_loss": 0.5}))
    whole, offset = read_events(path)
    assert len(whole) < 100 and [each["done"] for each in whole][-2:] == [100, None]
    with path.open("a", encoding="utf-8") as stream:
        stream.write('{"stage": "tr')
    assert read_events(path, offset) == ([], offset)
    tell(Event("train", "note", "on again"))
    assert read_events(path, offset)[0] == []
    tell(Event("train", "note", "and on"))
    assert [each["message"] for each in read_events(path, offset)[0]] == ["and on"]
