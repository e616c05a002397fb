"""The demo's engineering: versions of the prompt with their tests, turns of the loop, past jobs.

The tests of a prompt run for real, but the answers are a script's: no model is loaded for them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from tutelage.core.workspace import atomic_write
from tutelage.inference.base import Prompt
from tutelage.inference.models import ModelSource
from tutelage.inference.replay import ReplayGenerator
from tutelage.store.artifacts import JobRow
from tutelage.workflows.demo.demo_cast import EARLIER, RULE, Cast
from tutelage.workflows.evaluation.evaluate import evaluate_named
from tutelage.workflows.evaluation.evaluate_engines import LoadedEngine, OpenEngine
from tutelage.workflows.feedback import mine_queue
from tutelage.workflows.improve import improve_turns
from tutelage.workflows.improve.improve import BY_HAND
from tutelage.workflows.outputs import require_output
from tutelage.workflows.release import prompt, prompt_trial


class _Script(ReplayGenerator):
    """Answers as the script says: `say(prompt, tuned)`, the same every time."""

    def __init__(self, say: Callable[[Prompt, bool], str]) -> None:
        self._say, self._tuned = say, False
        self._said: dict[tuple[str, bool], str] = {}
        super().__init__(self._known)

    def set_adapter(self, path: Path | None) -> None:
        """Note whether the tuned model is asked."""
        self._tuned = path is not None

    def mean_nll(self, texts: Sequence[str]) -> list[tuple[float, int]]:
        """Return (nats, tokens) a text: the tuned model finds plain text a little less likely."""
        worse = 1.01 if self._tuned else 1.0
        return [(3.1 * worse * len(text.split()), len(text.split())) for text in texts]

    def _known(self, asked: Prompt) -> str:
        key = "\n".join(message.content for message in asked.messages), self._tuned
        if key not in self._said:
            self._said[key] = self._say(asked, self._tuned)
        return self._said[key]


def fill_evaluation(cast: Cast) -> None:
    """Evaluate the stable release's model once more, against the bare base alone."""

    def say(asked: Prompt, tuned: bool) -> str:
        return cast.answer(asked.messages[-1].content, 0.88 if tuned else 0.5)

    adapter = require_output(cast.ctx, "train")
    evaluate_named(cast.ctx, [adapter.short], against=["base"], open_engine=_opens(say))


def fill_prompts(cast: Cast) -> None:
    """Publish a version and go back from it, leave one in review and one as a draft."""
    ctx = cast.ctx
    text = ctx.config.prompt.rstrip()
    first = prompt.adopt(ctx, by="anna")
    earlier = prompt.draft(ctx, f"{text}\n{EARLIER}\n", by="anna", note="no free text")
    _test(cast, str(earlier["number"]), EARLIER)
    prompt.review(ctx, str(earlier["number"]), approve=True, by="ben", note="Reads well.")
    prompt.publish(ctx, str(earlier["number"]), note="fewer answers in free text", by="anna")
    if first is not None:
        note = "complaints about the new sentence"
        prompt.restore(ctx, str(first.number), note=note, by="chloe")
    wanted = prompt.draft(ctx, f"{text}\n{RULE}\n", by="chloe", note="as in the guideline")
    _test(cast, str(wanted["number"]), RULE)
    prompt.draft(ctx, f"{text}\n{RULE}\nAnswer in lower case.\n", by="ben", note="not tested yet")


def _test(cast: Cast, version: str, rule: str) -> None:
    """Test a version on 24 rows; with `rule` in the prompt every answer is right."""

    def say(asked: Prompt, tuned: bool) -> str:
        told = any(rule in message.content for message in asked.messages)
        return cast.answer(asked.messages[-1].content, 1.0 if told else 0.8)

    prompt_trial.trial(cast.ctx, version, rows=24, by="anna", open_engine=_opens(say))


def _opens(say: Callable[[Prompt, bool], str]) -> OpenEngine:
    def opened(source: ModelSource, batch_size: int) -> LoadedEngine:
        return LoadedEngine(_Script(say), lambda text: len(text.split()))

    return opened


def fill_turns(cast: Cast) -> None:
    """Write a turn of the loop that released, one that kept what there was, one that waits."""
    _turn(cast, cast.ago(days=40), BY_HAND, (
        ("review", "24 requests are worth a label", {"batch": "b1", "rows": 24}),
        ("dataset", "24 of 24 rows are answered", {"answered": 24}),
        ("start", "a version with 22 new rows", {"new": {"train": 18, "validation": 2, "test": 2}}),
        ("train", "the base model: no adapter of this project serves yet", {}),
        ("gate", "trained for 3 epochs in 214 s", {}),
        ("release", "better on new rows, not worse on old ones", {"verdict": "pass"}),
        ("canary", "the release was made", {}),
        ("done", "every step of the canary held every limit", {}),
    ))  # fmt: skip
    _turn(cast, cast.ago(days=12), BY_HAND, (
        ("review", "20 requests are worth a label", {"batch": "b2", "rows": 20}),
        ("dataset", "20 of 20 rows are answered", {"answered": 20}),
        ("start", "a version with 19 new rows", {"new": {"train": 15, "validation": 2, "test": 2}}),
        ("train", "the adapter is ahead of the base after 24 steps", {}),
        ("gate", "trained for 2 epochs in 139 s", {}),
        ("kept", "not enough evidence that it is better; what serves stays", {"verdict": "fail"}),
    ))  # fmt: skip
    _waiting_turn(cast)


def _waiting_turn(cast: Cast) -> None:
    """Write a turn that waits for the answers to what was mined."""
    look = next(iter(mine_queue.looks(cast.ctx)), None)
    if look is None or not look["batch"]:
        return
    told = f"{look['rows']} requests are worth a label"
    facts = {"batch": look["batch"], "rows": look["rows"]}
    begun = _turn(cast, cast.ago(hours=1), BY_HAND, (("review", told, facts),))
    step = improve_turns.Move(
        "review",
        f"{look['rows'] - look['answered']} answers are awaited",
        waits="experts answer what was given out (`tutelage data label todo NAME`); "
        "`tutelage improve resume --accept` goes on without them",
    )
    improve_turns.move(cast.ctx.store, begun, step, seconds=0.2, now=cast.ago(minutes=20))


def _turn(
    cast: Cast, at: datetime, why: str, steps: Sequence[tuple[str, str, dict[str, Any]]]
) -> improve_turns.Turn:
    store = cast.ctx.store
    turn = improve_turns.begin(store, cast.ctx.config.name, why, now=at)
    for to, reason, facts in steps:
        at += timedelta(minutes=cast.dice.uniform(2, 30))
        step = improve_turns.Move(to, reason, facts=facts, evidence=facts)
        turn = improve_turns.move(
            store, turn, step, seconds=round(cast.dice.uniform(1, 90), 1), now=at
        )
    return turn


def fill_jobs(cast: Cast) -> None:
    """Write three pieces of long work that have ended: done, stopped, and failed."""
    lines = ("epoch 1 of 3", "epoch 2 of 3", "epoch 3 of 3")
    stopped = "stopped at: epoch 2 of 3. Started again, it goes on from there."
    full = "the disk is full. Free some space and start it again; finished work is kept."
    _job(cast, "train", "done", "trained", 1.0, cast.ago(hours=6), lines)
    _job(cast, "train", "interrupted", stopped, 0.4, cast.ago(days=2), lines[:2])
    _job(cast, "evaluate", "failed", full, 0.7, cast.ago(days=3), ("asking the base model",))


def _job(
    cast: Cast, kind: str, state: str, message: str, progress: float, at: datetime,
    said: Sequence[str],
) -> None:  # fmt: skip
    name = f"{kind}-{cast.dice.getrandbits(40):010x}"
    folder = cast.ctx.workspace.logs / "jobs" / name
    note: dict[str, object] = {"by": "anna", "arguments": [], "pid": None, "born": None}
    events = [
        {"stage": kind, "kind": "progress", "message": text, "done": place + 1, "total": len(said)}
        for place, text in enumerate(said)
    ]
    atomic_write(folder / "job.json", json.dumps(note).encode())
    atomic_write(folder / "log.txt", "\n".join(said).encode())
    atomic_write(folder / "events.jsonl", "".join(json.dumps(e) + "\n" for e in events).encode())
    with cast.ctx.store.begin() as session:
        session.add(
            JobRow(
                id=name, kind=kind, state=state, pid=1, progress=progress, message=message,
                started_at=at, updated_at=at + timedelta(minutes=4),
            )
        )  # fmt: skip
