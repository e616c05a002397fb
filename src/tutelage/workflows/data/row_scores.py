"""Scores of single rows that cost a model's time: a judge's marks, the base model's losses.

They are kept under .tutelage/quality as they come, so that a killed command goes on and the next
curation can use them. A score holds for one row (its id) and one model.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tutelage.core.artifact import content_hash
from tutelage.core.config import Endpoint
from tutelage.core.errors import ConfigError, ModelError
from tutelage.core.events import Event
from tutelage.core.example import Example, Message
from tutelage.core.workspace import disk_errors
from tutelage.data.quality.space import text_of
from tutelage.inference.base import Prompt
from tutelage.workflows.context import Context

STAGE = "rank"
KINDS = ("judge", "difficulty", "loss")
_BATCH = 16  # rows between two writes


@dataclass
class Kept:
    """The scores on disk by kind and example id; `source` names the model they are of."""

    path: Path
    values: dict[tuple[str, str], dict[str, float]] = field(default_factory=dict)

    @classmethod
    def open(cls, ctx: Context) -> Kept:
        """Return what is kept; a line that a crash cut off is left out."""
        kept = cls(ctx.workspace.home / "quality" / "scores.jsonl")
        with disk_errors(kept.path):
            content = kept.path.read_bytes() if kept.path.exists() else b""
        whole = content[: content.rfind(b"\n") + 1]
        if len(whole) < len(content):
            with disk_errors(kept.path), kept.path.open("r+b") as stream:
                stream.truncate(len(whole))
        for line in whole.splitlines():
            entry = json.loads(line)
            kept.of(entry["kind"], entry["source"])[entry["id"]] = float(entry["value"])
        return kept

    def of(self, kind: str, source: str) -> dict[str, float]:
        """Return the scores of one kind and model, by example id."""
        return self.values.setdefault((kind, source), {})

    def add(self, kind: str, source: str, found: Mapping[str, float]) -> None:
        """Keep scores, durable when this returns."""
        lines = "".join(
            json.dumps({"kind": kind, "source": source, "id": key, "value": value}) + "\n"
            for key, value in found.items()
        )
        with disk_errors(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("ab") as stream:
                stream.write(lines.encode())
                stream.flush()
                os.fsync(stream.fileno())
        self.of(kind, source).update(found)


def kept_scores(ctx: Context, kind: str) -> dict[str, float]:
    """Return the scores of one kind by example id, of the models tutelage.yaml names now."""
    source = _source(ctx, kind)
    return dict(Kept.open(ctx).of(kind, source)) if source else {}


def fingerprint(ctx: Context) -> str:
    """Return a hash of the kept scores that a selection looks at."""
    return content_hash([kept_scores(ctx, kind) for kind in ("judge", "difficulty")])


def judge_marks(ctx: Context, rows: Sequence[Example]) -> dict[str, float]:
    """Return the judge's mark (0 to 1) of every row it answers on, by example id.

    At most augment.tokens tokens are spent. Raises ConfigError if tutelage.yaml names no judge,
    ModelError if it answers nothing.
    """
    from tutelage.data.augment.base import Settings
    from tutelage.data.augment.job import Asker, Journal
    from tutelage.data.augment.judging import judge_request, read_mark
    from tutelage.inference.openai import OpenAIGenerator

    judge, source = _judge(ctx), _source(ctx, "judge")
    if judge is None or source is None:
        raise ConfigError(
            "tutelage.yaml names no judge",
            fix="Add `judge: {base_url: …, model: …, api_key_env: …}`; any OpenAI-compatible "
            "server will do",
        )
    kept = Kept.open(ctx)
    missing = [row for row in rows if row.id not in kept.of("judge", source)]
    generator = OpenAIGenerator(judge.base_url, judge.model, judge.api_key_env)
    journal = Journal.open(kept.path.parent / f"marks-{content_hash(source)[:12]}.jsonl")
    asker = Asker(generator, journal, journal.tokens + ctx.config.augment.tokens)
    asker.on_answer = _ticker(ctx, "judging rows", len(missing))
    settings = Settings(ctx.config.task, ctx.config.prompt)
    answers = asker.ask([judge_request(row, settings) for row in missing])
    found: dict[str, float] = {}
    for row, text in zip(missing, answers, strict=True):
        try:
            found[row.id] = read_mark(text or "")
        except ValueError:
            continue
    if missing and not found:
        raise ModelError(
            f"the judge marked none of {len(missing)} rows ({asker.problem or 'no usable mark'})",
            where=judge.base_url,
            fix="Check that the server runs and knows the model",
        )
    kept.add("judge", source, found)
    return _of(rows, kept.of("judge", source))


def losses(ctx: Context, rows: Sequence[Example]) -> dict[str, float]:
    """Return the base model's mean -ln p a token of every row's text, by example id."""

    def measure(engine: Any, part: Sequence[Example]) -> list[float | None]:
        sums = engine.mean_nll([text_of(row) for row in part])
        return [total / tokens if tokens else None for total, tokens in sums]

    return _by_base_model(ctx, "loss", rows, measure)


def difficulties(ctx: Context, rows: Sequence[Example]) -> dict[str, float]:
    """Return how little the request helps the base model to the answer, by example id.

    The instruction-following difficulty: -ln p(answer | request) over -ln p(answer | nothing)
    (Li et al. 2024, arXiv 2308.12032). Rows without an answer have none.
    """
    from tutelage.inference.chat import conversation, neutralise

    alone: dict[str, float] = {}  # an answer's loss after an empty request

    def loss(engine: Any, turns: tuple[Message, ...], answer: str) -> float:
        return float(-engine.score_labels([Prompt(turns)], [answer])[0, 0])

    def measure(engine: Any, part: Sequence[Example]) -> list[float | None]:
        out: list[float | None] = []
        for row in part:
            answer = neutralise(row.answer or "", engine.specials)
            if answer not in alone:
                nothing = conversation([Message(role="user", content="")], "", engine.specials)
                alone[answer] = loss(engine, nothing, answer)
            asked = conversation(row, ctx.config.prompt, engine.specials)
            given = loss(engine, asked, answer)
            out.append(given / alone[answer] if alone[answer] > 0 else None)
        return out

    answered = [row for row in rows if row.answer and not row.is_text]
    return _by_base_model(ctx, "difficulty", answered, measure)


def _by_base_model(
    ctx: Context,
    kind: str,
    rows: Sequence[Example],
    measure: Callable[[Any, Sequence[Example]], list[float | None]],
) -> dict[str, float]:
    """Return the rows' scores; the model is loaded only if some are missing."""
    from tutelage.inference.models import locate_model
    from tutelage.workflows.evaluation.evaluate import open_transformers

    source, kept = _source(ctx, kind) or "", Kept.open(ctx)
    missing = [row for row in rows if row.id not in kept.of(kind, source)]
    if missing:
        tick = _ticker(ctx, "reading rows with the base model", len(missing))
        model = locate_model(ctx.config.model, ctx.workspace.root)
        engine: Any = open_transformers(model, _BATCH).engine
        for start in range(0, len(missing), _BATCH):
            part = missing[start : start + _BATCH]
            values = measure(engine, part)
            pairs = zip(part, values, strict=True)
            kept.add(kind, source, {row.id: value for row, value in pairs if value is not None})
            for _ in part:
                tick()
        engine.close()
    return _of(rows, kept.of(kind, source))


def _judge(ctx: Context) -> Endpoint | None:
    """Return the judge of rows: the first of a panel."""
    return next(iter(ctx.config.judge), None)


def _source(ctx: Context, kind: str) -> str | None:
    """Return the name of the model behind a kind of score; None if there is none."""
    from tutelage.inference.models import locate_model

    if kind == "judge":
        judge = _judge(ctx)
        return f"{judge.base_url} {judge.model} {ctx.config.prompt}" if judge else None
    try:
        model = locate_model(ctx.config.model, ctx.workspace.root).digest
    except ModelError:
        return None
    return content_hash([model, ctx.config.prompt])[:16]


def _of(rows: Sequence[Example], values: Mapping[str, float]) -> dict[str, float]:
    return {row.id: values[row.id] for row in rows if row.id in values}


def _ticker(ctx: Context, message: str, total: int) -> Callable[[], None]:
    done = 0

    def tick() -> None:
        nonlocal done
        done += 1
        ctx.emit(Event(STAGE, "progress", message, done=min(done, total), total=total))

    return tick
