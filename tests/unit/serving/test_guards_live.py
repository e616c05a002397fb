"""Checks and the watch over drift in a running gateway, seen from outside."""

from __future__ import annotations

import asyncio
import json
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import openai
import pytest
from tests.fakes.gateway import PROMPT, gateway_project, make_release
from tests.unit.serving.conftest import Running

from tutelage.core.artifact import describe
from tutelage.core.events import Event
from tutelage.core.example import SPLITS, Example, Message, Origin
from tutelage.core.output import OutputFormat
from tutelage.data.version import VersionDraft, write_version
from tutelage.release.bundle import create_release, manifest_of
from tutelage.release.routes import route
from tutelage.serving.guards.base import Surroundings
from tutelage.serving.guards.monitor import DriftMonitor, Sight
from tutelage.serving.guards.window import Window
from tutelage.serving.hooks import Ask, Outcome
from tutelage.serving.monitoring.events import EventLog, read_events
from tutelage.serving.monitoring.telemetry import Telemetry
from tutelage.workflows.context import Context, register
from tutelage.workflows.serving import guards
from tutelage.workflows.serving.guard_report import past_sights, report
from tutelage.workflows.serving.guards_desk import GuardsDesk

Start = Callable[..., Running]
OUTPUT = OutputFormat("family", ("warm", "cold"))
LONG = "It rains a lot over there and nobody minds it very much at all. " * 12


def ask(running: Running, text: str, **options: Any) -> Any:
    messages: Any = [{"role": "user", "content": text}]
    return running.client().chat.completions.create(model="colours", messages=messages, **options)


def test_identifiers_that_nobody_gave_are_held_back_and_the_record_says_why(gateway: Start) -> None:
    running = gateway(guards={"schema": "off", "content": {"answer": {"pii": "block"}}})
    running.script.by_model["*"] = {"text": "Write to jo@example.org"}
    with pytest.raises(openai.UnprocessableEntityError) as caught:
        ask(running, "Whom do I ask?")
    assert "e-mail addresses that nobody gave it" in caught.value.message
    assert "jo@" not in caught.value.message
    assert ask(running, "I am jo@example.org").choices[0].message.content
    first, second = running.records()
    assert first.checks["content"]["checks"] == ["pii"] and first.status == 422
    assert second.checks["content"]["ok"] is True


@pytest.mark.parametrize("stream", [False, True])
def test_what_a_call_of_a_tool_says_is_checked_behind_its_escapes(
    gateway: Start, stream: bool
) -> None:
    running = gateway(guards={"schema": "off", "content": {"answer": {"secrets": "block"}}})
    told = json.dumps({"notes": ["the key:\nsk-proj-" + "Ab1" * 10], "to": {"id": 7}})
    call = {"id": "c", "type": "function", "function": {"name": "note", "arguments": told}}
    running.script.by_model["*"] = {"text": "", "tool_calls": [call], "finish": "tool_calls"}
    tool: Any = {"type": "function", "function": {"name": "note"}}
    with pytest.raises(openai.UnprocessableEntityError, match="holds an API key"):
        ask(running, "Note it down.", tools=[tool], stream=stream)
    (record,) = running.records()
    assert (record.status, record.checks["content"]["checks"]) == (422, ["secrets"])


def test_a_blocked_request_never_reaches_the_engine(gateway: Start) -> None:
    running = gateway(guards={"schema": {"action": "block", "max_characters": 20}})
    with pytest.raises(openai.BadRequestError, match="has 30 characters, more than 20"):
        ask(running, "x" * 30)
    assert running.script.seen == []


def test_a_stream_under_a_blocking_check_comes_late_and_stops_before_what_is_blocked(
    gateway: Start,
) -> None:
    running = gateway(guards={"schema": "off", "content": {"answer": {"pii": "block"}}})
    running.script.by_model["*"] = {
        "text": LONG,
        "when": {"leak": {"text": LONG + "Ask jo.public@example.org. " + LONG}},
    }
    pieces = []
    with pytest.raises(openai.APIError, match="held back"):
        for chunk in ask(running, "leak", stream=True):
            pieces.append(chunk.choices[0].delta.content or "")
    sent = "".join(pieces)
    assert len(pieces) > 2 and LONG.startswith(sent.rstrip()) and "jo" not in sent
    whole = [c.choices[0].delta.content or "" for c in ask(running, "fine", stream=True)]
    assert "".join(whole) == LONG and len(whole) > 2


def window() -> Window:
    answers = ['{"family": "warm"}', '{"family": "cold"}'] * 100
    texts = [f"a thing of {'quite ' * (i % 5)}the usual length" for i in range(200)]
    return Window.of(texts, answers, OUTPUT)


def test_a_request_unlike_any_golden_row_is_flagged_in_its_record(
    gateway: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guards, "golden_window", lambda ctx, row: window())
    running = gateway(guards={"statistics": {"length": "flag"}})
    ask(running, "a thing of the usual length")
    ask(running, LONG * 20)
    with urllib.request.urlopen(f"{running.url}/admin/guards", timeout=60) as reply:
        (shown,) = json.load(reply)["data"]
    assert shown["guards"] == {"schema": "flag", "content": "flag", "statistics": "flag"}
    usual, odd = running.records()
    assert usual.checks["statistics.request"]["ok"] is True
    assert odd.checks["statistics.request"]["checks"] == ["length"]
    assert "golden rows have" in odd.checks["statistics.request"]["why"]


class Events:
    """Keeps what is told."""

    def __init__(self) -> None:
        self.told: list[Any] = []

    def tell(self, happening: Any) -> None:
        self.told.append(happening)


@pytest.fixture
def watched(tmp_path: Path) -> Iterator[tuple[Context, SimpleNamespace]]:
    """Yield a project and as much of a gateway's state as the watch needs."""
    ctx = gateway_project(tmp_path / "project", "http://127.0.0.1:9/v1")
    yield (
        ctx,
        SimpleNamespace(
            project=ctx.config,
            store=ctx.store,
            telemetry=Telemetry(),
            events=Events(),
            router=SimpleNamespace(
                entries={"colours": SimpleNamespace(route=route(ctx.store, "colours"))}
            ),
            around=lambda row: Surroundings(window=window()),
        ),
    )
    ctx.store.close()


def pass_by(monitor: DriftMonitor, ctx: Context, count: int, text: str, family: str) -> None:
    release = route(ctx.store, "colours").stable
    outcome = Outcome(200, None, f'{{"family": "{family}"}}', "stop", 1, 1, 1.0, None, {})
    for _ in range(count):
        asked = Ask(
            "rec", "colours", release, "stable", None, None, None, "admin", None, "g", False,
            (Message(role="user", content=text),), 9, dict, 0.0, {},
        )  # fmt: skip
        monitor.finished(asked, outcome)
    monitor.look()


def test_drift_becomes_an_event_and_a_metric(
    watched: tuple[Context, SimpleNamespace],
) -> None:
    ctx, state = watched
    monitor = DriftMonitor(state, every_s=100)  # type: ignore[arg-type]
    for family in ("warm", "cold") * 3:
        pass_by(monitor, ctx, 10, "a thing of quite quite the usual length", family)
    events: Events = state.events
    assert [e for e in events.told if e.subject.endswith("label")] == []
    pass_by(monitor, ctx, 300, "a thing of quite quite the usual length", "warm")
    (found,) = [e for e in events.told if e.subject.endswith("label")]
    assert (found.kind, found.level, found.deployment) == ("drift.found", "warning", "colours")
    assert "labels of answers differ from those of the rows" in found.message
    assert found.message.startswith("colours-base: ")
    metrics = state.telemetry.text().decode()
    assert 'series="label"} 1.0' in metrics and "usual length" not in metrics


def test_the_watch_looks_at_some_of_many_and_counts_the_rest(
    watched: tuple[Context, SimpleNamespace],
) -> None:
    ctx, state = watched
    monitor = DriftMonitor(state, every_s=0.2)  # type: ignore[arg-type]
    pass_by(monitor, ctx, 1200, "a thing of the usual length", "warm")
    assert monitor.skipped == 1200 - 10
    release = route(ctx.store, "colours").stable
    assert {drift.values for drift in monitor.states("colours", release)} == {10}
    assert "tutelage_drift_skipped_total 1190.0" in state.telemetry.text().decode()


def test_a_deployment_that_is_removed_is_watched_and_shown_no_more(
    watched: tuple[Context, SimpleNamespace],
) -> None:
    ctx, state = watched
    monitor = DriftMonitor(state, every_s=100)  # type: ignore[arg-type]
    pass_by(monitor, ctx, 3, "x", "warm")
    assert 'tutelage_drift_found{deployment="colours"' in state.telemetry.text().decode()
    state.router.entries = {}
    monitor.look()
    assert "colours" not in state.telemetry.text().decode()
    assert monitor.states("colours", route(ctx.store, "colours").stable) == ()


@pytest.mark.parametrize("restarted", [False, True])
def test_what_was_told_of_a_release_is_over_once_it_serves_no_more(
    watched: tuple[Context, SimpleNamespace], restarted: bool
) -> None:
    ctx, state = watched
    log = EventLog(ctx.store)
    log.start()
    state.events = log
    monitor = DriftMonitor(state, every_s=100)  # type: ignore[arg-type]
    pass_by(monitor, ctx, 300, "a thing of quite quite the usual length", "warm")
    if restarted:
        assert log.flush()
        state.telemetry = Telemetry()
        monitor = DriftMonitor(state, every_s=100)  # type: ignore[arg-type]
        monitor.look()
    promoted = replace(route(ctx.store, "colours"), stable="another")
    state.router.entries = {"colours": SimpleNamespace(route=promoted)}
    monitor.look()
    monitor.look()  # it is told once
    log.close()
    kinds = Counter(
        (event.kind, event.subject.partition(" ")[2])
        for event in read_events(ctx.store, kind="drift")
    )
    found = {series for kind, series in kinds if kind == "drift.found"}
    assert "label" in found
    assert {series for kind, series in kinds if kind == "drift.ended"} == found
    assert set(kinds.values()) == {1}
    (last, *_) = read_events(ctx.store, kind="drift.ended")
    assert last.message == "colours-base does not serve colours any more"


def test_the_watch_starts_and_ends_with_the_gateway(
    watched: tuple[Context, SimpleNamespace],
) -> None:
    ctx, state = watched
    monitor = DriftMonitor(state, every_s=100)  # type: ignore[arg-type]

    async def run() -> None:
        await monitor.start()
        pass_by(monitor, ctx, 3, "x", "warm")
        await monitor.close()

    asyncio.run(run())
    release = route(ctx.store, "colours").stable
    assert {drift.values for drift in monitor.states("colours", release)} == {3}


def test_after_a_restart_the_watch_knows_what_was_logged(
    gateway: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    running = gateway()
    running.script.by_model["*"] = {"text": '{"family": "warm"}'}
    for _ in range(3):
        ask(running, "the sun")
    running.records()
    ctx, release = running.ctx, route(running.ctx.store, "colours").stable
    sights = list(past_sights(ctx)("colours", release))
    assert sights == [Sight(7, "the sun", 18, '{"family": "warm"}')] * 3
    monkeypatch.setattr(guards, "golden_window", lambda ctx, row: window())
    (found,) = report(ctx)["releases"]
    assert (found["requests"], found["objected"]) == (3, 0)
    assert {d["series"]: d["values"] for d in found["drift"]}["label"] == 3


def test_the_report_counts_checks_and_leaves_redacted_texts_alone(gateway: Start) -> None:
    running = gateway(redact=True)
    running.script.by_model["*"] = {"text": "lukewarm"}
    ask(running, "the sun")
    running.records()
    (found,) = GuardsDesk(running.ctx).report()["releases"]
    checks = {check["check"]: check["requests"] for check in found["checks"]}
    assert checks == {"schema": 1} and found["drift"] == []
    release = route(running.ctx.store, "colours").stable
    assert list(past_sights(running.ctx)("colours", release)) == []


def test_golden_rows_come_from_the_dataset_and_the_evaluation_s_answers(tmp_path: Path) -> None:
    ctx = gateway_project(tmp_path / "project", "http://127.0.0.1:9/v1")
    row = make_release(ctx, PROMPT)
    assert guards.golden_window(ctx, row) is None
    splits = {name: [example(name, i) for i in range(20)] for name in SPLITS}
    splits["train"].append(example("train", 99, kind="augmented"))
    version = write_version(ctx.workspace.home / "versions", VersionDraft(splits, {}))
    dataset = describe("dataset", version.hash, ctx.workspace.relative(version.directory))
    register(ctx.store, dataset)
    manifest = manifest_of(row).model_copy(update={"name": "", "dataset": version.hash})
    tuned = create_release(ctx.store, ctx.workspace, manifest, project="colours")
    made = guards.golden_window(ctx, tuned)
    assert made is not None and made.rows == 60 and made.labels == {"warm": 30, "cold": 30}
    kept = list((ctx.workspace.home / "windows").iterdir())
    assert len(kept) == 1 and guards.golden_window(ctx, tuned) == made
    kept[0].write_text("{}")
    assert guards.golden_window(ctx, tuned) == made
    folder = ctx.workspace.home / "ev"
    folder.mkdir()
    answers = [{"candidate": "tuned", "text": '{"family": "cold"}'}] * 50
    rows = [*answers, {"candidate": "base", "text": "no"}]
    (folder / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    register(ctx.store, describe("evaluation", "e" * 64, "ev"))
    manifest = manifest.model_copy(update={"evaluation": "e" * 64})
    judged = create_release(ctx.store, ctx.workspace, manifest, project="colours")
    made = guards.golden_window(ctx, judged)
    assert made is not None and made.labels == {"cold": 50}
    (folder / "rows.jsonl").write_text("{}")
    for file in (ctx.workspace.home / "windows").iterdir():
        file.unlink()
    warned: list[Event] = []
    around = guards.surroundings(replace(ctx, emit=warned.append))
    assert around(judged).window is None
    assert "has no golden window: " in warned[0].message
    ctx.store.close()


def example(split: str, number: int, kind: Any = "imported") -> Example:
    family = ("warm", "cold")[number % 2]
    turns = (
        Message(role="user", content=f"{split} thing {number}"),
        Message(role="assistant", content=OUTPUT.render(family)),
    )
    return Example(messages=turns, label=family, origin=Origin(kind=kind))
