"""A simulated year on Banking77: the loop turns itself, beside a frozen model and a random retrain.

The machinery is the product's own: records and signals in the store, the watch over drift, mining
into the label queue, `improve` with its journal, the gate on old and new test rows, rollouts judged
from the log. Only the model is small (a linear head on MiniLM's vectors), users are simulated, and
an oracle answers for the expert, 40 labels a month. `--quick` is one seed, without it three.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
from sqlalchemy import insert, update

sys.path.insert(0, str(Path(__file__).resolve().parent))
import common
import common_loop_world
from common_loop_model import Heads, parts
from tutelage.core.artifact import content_hash
from tutelage.core.errors import DataError
from tutelage.data.linear import fit_linear
from tutelage.data.split import load_split_key, side_of
from tutelage.data.version import load_version
from tutelage.release.deployments import active_rollout, apply_transition, route, state_of
from tutelage.release.evidence import count, read_evidence
from tutelage.release.rollback import judge
from tutelage.release.rollout import advance, begin
from tutelage.store.artifacts import ArtifactRow, SplitRow
from tutelage.store.feedback import SideMoveRow
from tutelage.store.records import RecordRow, SignalRow
from tutelage.workflows.context import Context, open_context
from tutelage.workflows.curate import curate
from tutelage.workflows.data.experts import Given, submit, todo
from tutelage.workflows.data.experts_people import add_annotators
from tutelage.workflows.feedback import drift_watch
from tutelage.workflows.improve import improve_turns as turns
from tutelage.workflows.improve import schedule

DATA = Path(__file__).resolve().parents[2] / "shared" / "data" / "banking77"
YEAR = timedelta(days=360)
BEGIN = datetime(2024, 1, 1, tzinfo=UTC)
CHUNK = 50  # requests between two looks at rollouts, drift and the schedule
LABELS = 40  # of the oracle, a month
DRAWS = 5  # random retrains that ours is held against: one differs from the next by a point
CONFIG = """\
name: banking
task: classification
model: demo
prompt: Name the intent of the customer's question.
output: {{field: intent, labels: [{labels}]}}
data: {{sources: [data/*.jsonl], quality: {{embedder: minilm}}}}
drift: {{embedder: minilm}}
deploy: {{canary: [20, 50, 100], min_requests: 40, min_total: 160, limits: {{score_requests: 0}}}}
improve:
  every: 15d
  on_drift: true
  new_rows: 10
  unsure: canary
  review: {{count: 20, wait: 20d}}
"""


@dataclass
class Year:
    """What happened: right answers by request, alarms, what each promotion did, turns."""

    right: list[bool] = field(default_factory=list)
    alarms: list[int] = field(default_factory=list)  # the request after which each came
    promoted: list[dict[str, Any]] = field(default_factory=list)
    labels: Counter[int] = field(default_factory=Counter)  # the oracle's, by month


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print one JSON object alone")
    parser.add_argument("--quick", action="store_true", help="one seed, not three")
    parser.add_argument("--requests", type=int, default=20_000)
    parser.add_argument("--cache", type=Path, help="folder that keeps the vectors")
    options = parser.parse_args()
    if not DATA.is_dir():
        raise SystemExit("Banking77 is not at ../shared/data/banking77")
    texts = common_loop_world.read_texts(DATA, options.cache)
    seeds = range(1) if options.quick else range(3)
    rows = [measure(texts, options.requests, seed) for seed in seeds]
    report = {"name": "loop", "machine": common.machine(), "rows": rows, "headline": head(rows)}
    if options.json:
        print(json.dumps(report))
        return
    shown = [{k: v for k, v in row.items() if not isinstance(v, (list, dict))} for row in rows]
    print(common.table(shown))
    for row in rows:
        for name in ("months", "promotions", "turns"):
            print(name, json.dumps(row[name]))
    print(report["headline"])


def head(rows: list[dict[str, Any]]) -> dict[str, float]:
    """Return the worst of all seeds."""
    return {
        "gain_vs_frozen": min(row["ours"] - row["frozen"] for row in rows),
        "gain_vs_random": min(row["ours"] - row["random"] for row in rows),
        "false_alarms": max(row["false_alarms"] for row in rows),
        "alarm_delay": max(max(row["delay_new"], row["delay_shift"]) for row in rows),
        "test_rows_trained": max(row["test_rows_trained"] for row in rows),
        "worse_promoted": max(row["worse_promoted"] for row in rows),
    }


def measure(texts: common_loop_world.Texts, requests: int, seed: int) -> dict[str, Any]:
    """Return one row of the table; accuracies are of the last month's requests, in percent."""
    world = common_loop_world.make_world(texts, requests, seed)
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        loop = Loop(world, Path(folder), seed)
        year = loop.live()
        trained = test_rows_trained(loop.ctx)
        journal = [
            {k: turn[k] for k in ("why", "state", "ended")} for turn in reversed(_history(loop.ctx))
        ]
        loop.ctx.store.close()
    last = world.month == 12
    frozen = frozen_year(world)
    random = np.array([random_year(world, seed + 100 * draw) for draw in range(DRAWS)])
    ours = np.array(year.right)
    delays = [_delay(year.alarms, at) for at in (world.arrives, world.shifts)]
    answered = sum(d <= requests for d in delays)
    return {
        "seed": seed,
        "ours": _percent(ours[last]),
        "frozen": _percent(frozen[last]),
        "random": _percent(random[:, last]),
        "random_draws": sorted(_percent(one[last]) for one in random),
        "ours_year": _percent(ours),
        "random_year": _percent(random),
        "delay_new": delays[0],
        "delay_shift": delays[1],
        "false_alarms": len(year.alarms) - answered,
        "alarms": list(year.alarms),
        "test_rows_trained": trained,
        "releases": len(year.promoted),
        "worse_promoted": sum(one["worse"] for one in year.promoted),
        "labels_most": max(year.labels.values(), default=0),
        "seconds": round(time.monotonic() - started),
        "months": {
            name: [_percent(found[..., world.month == m]) for m in range(1, 13)]
            for name, found in (("ours", ours), ("random", random), ("frozen", frozen))
        },
        "promotions": year.promoted,
        "turns": journal,
    }


def _history(ctx: Context) -> list[dict[str, Any]]:
    from tutelage.workflows.improve.improve import history

    return history(ctx, 1000)


def _percent(values: Any) -> float:
    return round(100 * float(np.mean(values)), 1)


def _delay(alarms: list[int], at: int) -> int:
    """Return the requests from a planted change to the first alarm after it."""
    return next((alarm - at for alarm in alarms if alarm > at), 10**9)


def frozen_year(world: common_loop_world.World) -> Any:
    """Return which requests the first model would have answered rightly."""
    t = world.texts
    model = fit_linear(t.vectors[world.start], [t.names[i] for i in t.intent[world.start]])
    return _right(world, model, np.arange(len(world.asked)))


def _right(world: common_loop_world.World, model: Any, which: Any) -> Any:
    t, asked = world.texts, world.asked[which]
    found = model.predict(t.vectors[asked])
    return np.array([name == t.names[i] for name, i in zip(found, t.intent[asked], strict=True)])


def random_year(world: common_loop_world.World, seed: int) -> Any:
    """Return the same for a retrain a month on 40 random requests of it, labelled by the oracle."""
    t, rng = world.texts, np.random.default_rng(10_000 + seed)
    have = world.start.tolist()
    right = []
    for m in range(1, 13):
        here = np.flatnonzero(world.month == m)
        model = fit_linear(t.vectors[have], [t.names[i] for i in t.intent[have]])
        right.append(_right(world, model, here))
        fresh = [i for i in dict.fromkeys(world.asked[here].tolist()) if i not in set(have)]
        have += rng.permutation(fresh)[:LABELS].tolist()
    return np.concatenate(right)


class Loop:
    """The project that lives through the year."""

    def __init__(self, world: common_loop_world.World, folder: Path, seed: int) -> None:
        self.world, self.rng = world, np.random.default_rng(20_000 + seed)
        names = world.texts.names
        (folder / "data").mkdir()
        rows = [
            {"input": world.texts.texts[i], "label": names[world.texts.intent[i]]}
            for i in world.start
        ]
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / "data" / "start.jsonl").write_text(lines)
        (folder / "tutelage.yaml").write_text(CONFIG.format(labels=", ".join(names)))
        self.ctx = open_context(folder)
        self.where = {text: i for i, text in enumerate(world.texts.texts)}
        first = curate(self.ctx).artifact
        with self.ctx.store.begin() as session:  # the year begins long ago
            session.execute(update(ArtifactRow).values(created_at=BEGIN))
        self.heads = Heads(self.ctx, world.texts.vectors, self.where)
        self.heads.first(first)
        add_annotators(self.ctx, ["oracle"])
        self.key = load_split_key(self.ctx.workspace)
        self.year = Year()
        self.now = BEGIN
        self.sent = 0
        self._told: set[str] = set()  # alarms

    def live(self) -> Year:
        """Let the year go by."""
        total = len(self.world.asked)
        work = parts(self.heads, lambda: self.now)
        for start in range(0, total, CHUNK):
            self._answer(np.arange(start, min(start + CHUNK, total)), total)
            for _ in range(6):
                if not self._roll_out():
                    break
            standing = drift_watch.look(self.ctx, now=self.now + timedelta(minutes=2))[0]
            if standing["moved"] and standing["alarm"]["id"] not in self._told:
                self._told.add(standing["alarm"]["id"])
                self.year.alarms.append(self.sent)
            self._label()
            schedule.act(self.ctx, lambda: self.now, parts=work)
        return self.year

    def _answer(self, which: Any, total: int) -> None:
        """Answer requests by whoever the route says, and keep them with what users say."""
        store, world = self.ctx.store, self.world
        way = route(store, "banking")
        records, signals = [], []
        for i in which:
            at = BEGIN + YEAR * (int(i) / total)
            row = int(world.asked[i])
            text, truth = world.texts.texts[row], world.texts.names[world.texts.intent[row]]
            user = f"u{world.user[i]}"
            bucket = int(hashlib.sha256(f"{way.salt}{user}".encode()).hexdigest()[:8], 16) / 2**32
            canary = way.canary is not None and bucket * 100 < way.weight
            release = way.canary if canary and way.canary else way.stable
            label = self.heads.predict(release, row)
            name = f"r{i}"
            group = content_hash(text)[:32]
            records.append({
                "id": name, "deployment": "banking", "release": release,
                "rollout": way.rollout, "step": way.step, "arm": "canary" if canary else "stable",
                "user": user, "split": side_of(self.key, group, self.ctx.config.data.splits),
                "group_key": group, "messages": [{"role": "user", "content": text}],
                "response": json.dumps({"intent": label}), "finish_reason": "stop",
                "status": 200, "latency_ms": float(self.rng.gamma(9.0, 2.0)),
                "prompt_tokens": 20, "completion_tokens": 6, "checks": {}, "at": at,
            })  # fmt: skip
            signals += self._said(name, user, label, truth, at)
            self.year.right.append(label == truth)
            self.now = at
        with store.begin() as session:
            session.execute(insert(RecordRow), records)
            if signals:
                session.execute(insert(SignalRow), signals)
        self.sent += len(records)

    def _said(
        self, record: str, user: str, label: str, truth: str, at: datetime
    ) -> list[dict[str, Any]]:
        """Return what a user says of an answer: a rating, an edit, or that a person took over."""
        rng, right, found = self.rng, label == truth, []
        if rng.random() < common_loop_world.RATED:
            lies = rng.random() < common_loop_world.WRONG
            good = right != lies
            found.append(("rating", True, 1.0 if good else 0.0))
            if not good and not right:
                wrong = rng.random() < common_loop_world.WRONG
                names = self.world.texts.names
                edit = str(rng.choice(names)) if wrong else truth
                found.append(("edit", True, json.dumps({"intent": edit})))
        share = common_loop_world.FALSE_ESCALATION if right else common_loop_world.ESCALATED
        if rng.random() < share:
            found.append(("escalated", False, True))
        return [
            {"key": content_hash([record, kind]), "record": record, "kind": kind,
             "explicit": explicit, "value": {"value": value}, "author": user, "at": at}
            for kind, explicit, value in found
        ]  # fmt: skip

    def _roll_out(self) -> bool:
        """Judge the rollout under way from the log, as a gateway does; return whether it moved."""
        store = self.ctx.store
        row = active_rollout(store, "banking")
        if row is None:
            return False
        state = state_of(row)
        if state.state == "pending":
            move = begin(state)
        else:
            limits, found = self.ctx.config.deploy.limits, read_evidence(store, row)
            verdict = judge(found.baseline, found.canary, limits, found.scores)
            move = advance(state, verdict, count(store, row, self.now))
        if move is None:
            return False
        after = apply_transition(store, row.id, row.fence, move)
        if after.state == "promoted":
            self._judge_promotion(row.baseline, row.candidate)
        return True

    def _judge_promotion(self, before: str, after: str) -> None:
        """Compare the two releases by the truth on the next month's requests."""
        month = int(self.world.month[min(self.sent, len(self.world.month) - 1)])
        which = np.arange(self.sent, min(self.sent + len(self.world.asked) // 12,
                                         len(self.world.asked)))  # fmt: skip
        was, now = (_right(self.world, self.heads.models[name], which) for name in (before, after))
        if not len(which):
            return
        lost = float(np.mean(was)) - float(np.mean(now))
        spread = float(np.std(was.astype(float) - now)) / np.sqrt(len(which))
        self.year.promoted.append(
            {"month": month, "before": _percent(was), "after": _percent(now),
             "worse": bool(lost > 2 * spread and lost > 0)}
        )  # fmt: skip

    def _label(self) -> None:
        """Let the oracle answer what is asked, as far as the month's labels go."""
        month = int(self.world.month[self.sent - 1])
        names = self.world.texts.names
        left = LABELS - self.year.labels[month]
        if left <= 0 or turns.current(self.ctx.store, "banking") is None:
            return
        for shown in todo(self.ctx, "oracle", left):
            truth = names[self.world.texts.intent[self.where[shown.text]]]
            try:
                submit(self.ctx, Given(shown.item, "oracle", label=truth))
            except DataError:
                continue
            self.year.labels[month] += 1


def test_rows_trained(ctx: Context) -> int:
    """Return how many rows a version gave to training when they were known to be the test's.

    A request that turns out later to be a twin of a test row is moved to the test side then: a
    version made before did not know, one made afterwards may not train on it.
    """
    with ctx.store.session() as session:
        held = {
            name for name, side in session.query(SplitRow.example_id, SplitRow.split)
            if side == "test"
        }  # fmt: skip
        moved = {row.record: row.at for row in session.query(SideMoveRow)}
        asked: dict[str, datetime] = {}
        for row in session.query(RecordRow).where(RecordRow.split == "test"):
            text, known = row.messages[0]["content"], moved.get(row.id, BEGIN)
            asked[text] = min(known, asked.get(text, known))
        made = {
            row.hash: row.created_at
            for row in session.query(ArtifactRow).where(ArtifactRow.kind == "dataset")
        }
    found: set[str] = set()
    for name, at in made.items():
        version = load_version(ctx.workspace.artifact_dir("datasets", name))
        for row in (*version.rows("train"), *version.rows("validation")):
            if row.id in held or asked.get(row.input_text, at) < at:
                found.add(row.id)
    return len(found)


if __name__ == "__main__":
    main()
