"""Let a teacher write training rows, within the budget; list and take back what it wrote.

Rows are kept by job under .tutelage/augmented and join the train split when curation runs. Only
rows of the train split are ever shown to the teacher.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tutelage.core import plugins
from tutelage.core.artifact import content_hash, hash_file, utc_now
from tutelage.core.config import Endpoint
from tutelage.core.errors import ConfigError, DataError, ModelError
from tutelage.core.events import Event
from tutelage.core.example import Example, Message, Origin
from tutelage.core.workspace import atomic_write
from tutelage.data.augment.base import Augmenter, Draft, Settings
from tutelage.data.augment.job import Asker, Journal, Task, make_tasks, run_tasks
from tutelage.data.augment.judging import judge_request, read_mark
from tutelage.data.augment.sift import Known, Sifted, dropped, sift
from tutelage.data.filters.base import FilterSettings, load_filters
from tutelage.data.version import DatasetVersion, json_lines, load_version, row_text
from tutelage.inference.openai import OpenAIGenerator
from tutelage.workflows.context import Context, last_output

STAGE = "augment"
_ROUNDS = 4  # a row is asked about at most this often
_LEAST_BELIEVED = 0.2  # share of drafts: a round asks for at most five times what is missing


@dataclass(frozen=True)
class Augmented:
    """What one job gave. `reasons` counts dropped drafts by finding id; `tokens` are spent ones."""

    batch: str
    method: str
    model: str
    kept: int
    reasons: dict[str, int]
    unread: int
    failed: int
    tokens: int
    budget_spent: bool
    path: str

    def as_dict(self) -> dict[str, Any]:
        """Return the result as plain JSON."""
        return asdict(self)


def augment(
    ctx: Context, method: str = "paraphrase", count: int | None = None, texts: Path | None = None
) -> Augmented:
    """Return what a teacher added. `count` rows are wanted, at most augment.ratio × train rows.

    `texts`: a file with one answer a line, for the method instruction. Run again after a stop, it
    asks only for what it has no answer to. Raises ConfigError without a teacher, ModelError if
    the teacher answers nothing.
    """
    config = ctx.config
    teacher = _endpoint(config.teacher, "teacher")
    version = _version(ctx)
    train = [row for row in version.rows("train") if row.origin.kind != "augmented"]
    augmenter: Augmenter = plugins.load("augment", method)(
        Settings(config.task, config.prompt, config.augment.per_row, config.augment.temperature)
    )
    parents = _text_rows(texts) if texts is not None else train
    wanted = _wanted(ctx, count, len(train))
    job = _job(method, teacher, parents, config.augment.model_dump(mode="json"))
    folder = ctx.workspace.home / STAGE / job
    asker = Asker(
        _generator(teacher), Journal.open(folder / "answers.jsonl"), config.augment.tokens
    )
    held_out = [*version.rows("validation"), *version.rows("test")]
    work = _Work(ctx, augmenter, asker, Known(train, held_out), method, teacher.model)
    result, unread = work.run(parents, wanted)
    if not result.kept and not asker.journal.answers and asker.failed:
        raise ModelError(
            f"the teacher answered none of {asker.failed} requests ({asker.problem})",
            where=teacher.base_url,
            fix="Check that the server runs and knows the model",
        )
    result = _judged(ctx, result, folder, asker.journal.tokens)
    result.kept = result.kept[:wanted]
    path = _write(ctx, job, method, teacher.model, result)
    done = Augmented(
        batch=job,
        method=method,
        model=teacher.model,
        kept=len(result.kept),
        reasons=dict(Counter(item.finding_id for item in result.dropped)),
        unread=len(unread),
        failed=asker.failed,
        tokens=asker.journal.tokens,
        budget_spent=asker.spent,
        path=str(path),
    )
    ctx.emit(Event(STAGE, "done", f"{done.kept:,} rows for the train split"))
    return done


@dataclass
class _Work:
    """Asks in rounds until enough drafts are believed; a spent budget answers from the journal."""

    ctx: Context
    augmenter: Augmenter
    asker: Asker
    known: Known
    method: str
    author: str

    def run(self, parents: Sequence[Example], wanted: int) -> tuple[Sifted, list[str]]:
        per_row = self.ctx.config.augment.per_row
        layers = _layers(self.ctx)
        asked: list[Task] = []
        drafts: list[Draft] = []
        unread: list[str] = []
        result = Sifted()
        per_task = 1 if self.method == "back_translation" else per_row
        for number in range(_ROUNDS):
            missing = wanted - len(result.kept)
            if missing <= 0:
                break
            believed = max(_LEAST_BELIEVED, len(result.kept) / len(drafts)) if drafts else 1.0
            count = math.ceil(missing / per_task / believed)
            tasks = make_tasks(parents, self.augmenter.shots, count, number, asked)
            asked += tasks
            self._progress(len(tasks), number)
            found, problems = run_tasks(self.augmenter, tasks, self.asker)
            drafts += [_without_text_parent(draft, parents) for draft in found]
            unread += problems
            result = sift(drafts, self.known, layers, per_row=per_row, author=self.author)
        return result, unread

    def _progress(self, tasks: int, number: int) -> None:
        done = 0
        message = f"{self.method}, round {number + 1}"

        def tick() -> None:
            nonlocal done
            done += 1
            self.ctx.emit(Event(STAGE, "progress", message, done=done, total=max(done, tasks)))

        self.asker.on_answer = tick


def batches(ctx: Context) -> list[dict[str, Any]]:
    """Return every batch of augmented rows: batch, method, model, rows, at."""
    found = []
    for path in sorted(_home(ctx).glob("*.json")):
        entry: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        found.append(entry)
    return sorted(found, key=lambda entry: str(entry["at"]), reverse=True)


def remove(ctx: Context, batch: str) -> int:
    """Take a batch out of later versions; return how many rows it had. Answers stay journaled."""
    entry = next((e for e in batches(ctx) if e["batch"] == batch), None)
    if entry is None:
        raise DataError(
            f"there is no batch of augmented rows {batch!r}",
            fix="`tutelage data augment --list` names them",
        )
    for suffix in (".json", ".jsonl", ".rejected.jsonl"):
        (_home(ctx) / f"{batch}{suffix}").unlink(missing_ok=True)
    return int(entry["rows"])


def fingerprint(ctx: Context) -> dict[str, str]:
    """Return the hash of every batch by name: an input of curation."""
    return {path.stem: hash_file(path) for path in _row_files(ctx)}


def augmented_rows(ctx: Context) -> list[Example]:
    """Return the rows of all batches, each once."""
    rows: dict[str, Example] = {}
    for path in _row_files(ctx):
        with path.open(encoding="utf-8", newline="\n") as stream:
            for line in stream:
                row = Example.model_validate_json(line)
                rows.setdefault(row.id, row)
    return list(rows.values())


def _row_files(ctx: Context) -> list[Path]:
    return sorted(p for p in _home(ctx).glob("*.jsonl") if not p.name.endswith(".rejected.jsonl"))


def _home(ctx: Context) -> Path:
    return ctx.workspace.home / "augmented"


def _version(ctx: Context) -> DatasetVersion:
    artifact = last_output(ctx, "curate")
    if artifact is None or not ctx.path_of(artifact).exists():
        raise DataError(
            "there is no dataset version yet, so no row is known to be a training row",
            where=str(ctx.workspace.root),
            fix="Run `tutelage data split` first",
        )
    return load_version(ctx.path_of(artifact))


def _endpoint(endpoint: Endpoint | None, name: str) -> Endpoint:
    if endpoint is None:
        raise ConfigError(
            f"tutelage.yaml names no {name}",
            fix=f"Add `{name}: {{base_url: …, model: …, api_key_env: …}}`; any OpenAI-compatible "
            "server will do",
        )
    return endpoint


def _generator(endpoint: Endpoint) -> OpenAIGenerator:
    return OpenAIGenerator(endpoint.base_url, endpoint.model, endpoint.api_key_env)


def _wanted(ctx: Context, count: int | None, train: int) -> int:
    """Return how many rows to ask for: never more than the cap leaves."""
    cap = math.floor(ctx.config.augment.ratio * train)
    if count is None:
        return cap
    if count < 1:
        raise DataError(f"{count} rows are asked for", fix="Ask for at least 1 with --count")
    if count > cap:
        note = f"{count:,} rows are more than augment.ratio allows: {cap:,} are asked for"
        ctx.emit(Event(STAGE, "warning", note))
    return min(count, cap)


def _text_rows(path: Path) -> list[Example]:
    """Return a row without input for every line of a file of answers."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(
            "the file of texts can't be read", where=str(path), fix="Name a UTF-8 text file"
        ) from error
    rows = [
        Example(
            messages=(Message(role="assistant", content=line.strip()),),
            origin=Origin(source=f"{path.name}:{number}"),
        )
        for number, line in enumerate(lines, start=1)
        if line.strip()
    ]
    if not rows:
        raise DataError("the file of texts is empty", where=str(path), fix="Put one text a line")
    return rows


def _without_text_parent(draft: Draft, parents: Sequence[Example]) -> Draft:
    """Return the draft without parents that are no rows (lines of a file of texts)."""
    known = {row.id for row in parents if row.context}
    kept = tuple(parent for parent in draft.parents if parent in known)
    return Draft(draft.input, draft.answer, draft.label, kept, draft.method)


def _job(
    method: str, teacher: Endpoint, parents: Sequence[Example], settings: dict[str, Any]
) -> str:
    """Return the job's name: the same settings and rows go on with the same journal."""
    lasting = {key: settings[key] for key in ("per_row", "temperature")}
    rows = sorted(row.id for row in parents)
    return content_hash([method, teacher.base_url, teacher.model, rows, lasting])[:12]


def _layers(ctx: Context) -> list[Any]:
    config = ctx.config
    settings = FilterSettings(
        task=config.task,
        output=config.output.format(),
        json_schema=config.output.json_schema,
        language=config.data.language,
        max_tokens=config.data.max_tokens,
    )
    layers = load_filters(settings)
    layers.pop("statistics", None)
    return list(layers.values())


def _judged(ctx: Context, result: Sifted, folder: Path, spent: int) -> Sifted:
    """Return what the judge lets pass; without augment.judge everything does."""
    least = ctx.config.augment.judge
    if not least or not result.kept:
        return result
    judge = _endpoint(next(iter(ctx.config.judge), None), "judge")
    settings = Settings(ctx.config.task, ctx.config.prompt)
    journal = Journal.open(folder / "marks.jsonl")
    asker = Asker(_generator(judge), journal, max(0, ctx.config.augment.tokens - spent))
    total = len(result.kept)
    done = 0

    def tick() -> None:
        nonlocal done
        done += 1
        ctx.emit(Event(STAGE, "progress", "judging", done=done, total=max(total, done)))

    asker.on_answer = tick
    answers = asker.ask([judge_request(row, settings) for row in result.kept])
    kept: list[Example] = []
    for row, text in zip(result.kept, answers, strict=True):
        why = _too_low(text, least)
        if why is None:
            kept.append(row)
        else:
            result.dropped.append(dropped(row, "D11-J01", why))
    result.kept = kept
    return result


def _too_low(text: str | None, least: float) -> str | None:
    if text is None:
        return "the judge did not answer"
    try:
        mark = read_mark(text)
    except ValueError as error:
        return str(error)
    return f"marked {mark:g}, the least is {least:g}" if mark < least else None


def _write(ctx: Context, job: str, method: str, model: str, result: Sifted) -> Path:
    home = _home(ctx)
    path = home / f"{job}.jsonl"
    rejected = json_lines(item.as_dict() for item in result.dropped)
    atomic_write(home / f"{job}.rejected.jsonl", rejected.encode())
    atomic_write(path, "".join(row_text(row) + "\n" for row in result.kept).encode())
    about = {
        "batch": job,
        "method": method,
        "model": model,
        "rows": len(result.kept),
        "rejected": len(result.dropped),
        "at": utc_now().isoformat(timespec="seconds"),
    }
    atomic_write(home / f"{job}.json", json.dumps(about, indent=2).encode())
    return path
