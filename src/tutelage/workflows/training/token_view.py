"""What training reads, token by token: which tokens are learned, which only read, what was cut.

The rows go through the training method's own preparation, with the recipe that the plan has now.
It is kept as files, so looking at it needs neither the tokenizer nor torch. Nothing is trained.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tutelage.core.artifact import Artifact, content_hash
from tutelage.core.errors import DataError
from tutelage.core.events import Event, silent
from tutelage.core.workspace import named_dir
from tutelage.data.version import load_version
from tutelage.workflows.context import Context
from tutelage.workflows.data.browse import Lines, read_lines
from tutelage.workflows.data.preferences import material

if TYPE_CHECKING:
    from tutelage.training.prefix_tree import Row

_STAGE = "tokens"
_VIEW, _ROWS = "view.json", "rows.jsonl"
_MOST = 20_000  # rows whose tokens are kept; the coverage counts all of them
_LABELS = ("classify", "cloze")  # what they learn is a label, which is no token of the row
_BROKEN = "\ufffd"  # part of a character
_LONGEST = 8  # tokens that may make one character


@dataclass(frozen=True)
class TokenView:
    """The view of one dataset version under the project's present settings.

    `facts` holds method, max_tokens, prompt_loss_weight, rows, tokens, labelled, longest,
    shortened (ids), rejected (id to reason), shown (rows kept here) and learns (tokens or labels).
    """

    folder: Path
    facts: dict[str, Any]

    def rows(self, *, start: int = 0, count: int = 10, cut: bool = False) -> Lines:
        """Return rows with id, pieces ([text, weight]), cut, tokens and trained.

        `cut` in a row is the piece before which context is left out, or None; as an argument it
        keeps those rows alone.
        """
        return read_lines(
            self.folder / _ROWS, start=start, count=count, text='"cut": [' if cut else ""
        )


def make(ctx: Context, dataset: Artifact) -> TokenView:
    """Return the view of a dataset version, made where there is none yet.

    Raises DataError if no row can be trained on.
    """
    found = find(ctx, dataset)
    if found is not None:
        return found
    ctx.emit(Event(_STAGE, "note", f"reading the rows of {dataset.short} as training does"))
    facts, rows = _prepare(ctx, dataset)

    def fill(folder: Path) -> str:
        with (folder / _ROWS).open("w", encoding="utf-8") as stream:
            for done, row in enumerate(rows, start=1):
                stream.write(json.dumps(row, ensure_ascii=False) + "\n")
                if done % 200 == 0 or done == facts["shown"]:
                    ctx.emit(Event(_STAGE, "progress", f"row {done} of {facts['shown']}",
                                   done=done, total=facts["shown"]))  # fmt: skip
        (folder / _VIEW).write_text(json.dumps(facts, ensure_ascii=False), encoding="utf-8")
        return _folder(ctx, dataset).name

    named_dir(ctx.workspace.artifacts / "tokens", fill)
    ctx.emit(Event(_STAGE, "done", sentence(facts)))
    made = find(ctx, dataset)
    assert made is not None
    return made


def find(ctx: Context, dataset: Artifact) -> TokenView | None:
    """Return the view of a dataset version under the present settings, if it was made."""
    folder = _folder(ctx, dataset)
    try:
        facts = json.loads((folder / _VIEW).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return TokenView(folder, facts)


def sentence(facts: dict[str, Any]) -> str:
    """Return the label coverage in one line."""
    said = (
        f"{facts['labelled']:,} of {facts['tokens']:,} tokens in {facts['rows']:,} rows are "
        "learned, the others are read"
    )
    if facts["learns"] == "labels":
        said = f"{facts['rows']:,} rows are read, {facts['tokens']:,} tokens; their labels learned"
    if facts["shortened"]:
        said += f"; {_rows_of(facts['shortened'])} with a shortened context"
    if facts["rejected"]:
        said += f"; {_rows_of(facts['rejected'])} that can't be trained on"
    return said


def _rows_of(found: Any) -> str:
    return "1 row" if len(found) == 1 else f"{len(found):,} rows"


def _folder(ctx: Context, dataset: Artifact) -> Path:
    asked = {
        "dataset": dataset.hash,
        "model": ctx.config.model,
        "prompt": ctx.config.prompt,
        "task": ctx.config.task,
        "output": ctx.config.output.model_dump(mode="json"),
        "train": ctx.config.train.model_dump(mode="json"),
    }
    return ctx.workspace.artifacts / "tokens" / content_hash(asked)[:12]


def _prepare(ctx: Context, dataset: Artifact) -> tuple[dict[str, Any], Iterator[dict[str, Any]]]:
    """Return the facts and the rows, from the method's own preparation."""
    from tutelage.inference.transformers_load import load_tokenizer
    from tutelage.training.methods import resolve
    from tutelage.training.prefix_tree import Row
    from tutelage.workflows.training.plan import make_job, plan

    if ctx.config.train.method == "hosted":
        raise DataError(
            "a service reads the rows with a tokenizer of its own",
            where="train.method",
            fix="Look at its report of the run",
        )
    rows_of = material(ctx, dataset)
    version = load_version(ctx.path_of(rows_of))
    recipe = plan(ctx, dataset, probe=False).recipe
    job = make_job(ctx, version, recipe, ctx.workspace.runs)
    tokenizer = load_tokenizer(job.model)
    objective = resolve(recipe.method).objective(recipe)
    prepared = objective.prepare(job, tokenizer, silent)
    made = [row for row in objective.rows(prepared.train) if isinstance(row, Row)]
    learns = "labels" if recipe.method in _LABELS else "tokens"
    labels = {row.id: row.label or row.answer or "" for row in job.train}
    facts = prepared.coverage.as_dict() | {
        "method": recipe.method,
        "max_tokens": recipe.max_tokens,
        "prompt_loss_weight": recipe.prompt_loss_weight,
        "learns": learns,
        "shown": min(len(made), _MOST),
    }
    shortened = set(prepared.coverage.shortened)
    speak = _Speaker(tokenizer)
    return facts, (
        _labelled(row, speak, labels.get(row.id, ""))
        if learns == "labels"
        else _row(row, speak, cut=row.id in shortened)
        for row in made[:_MOST]
    )


def _row(row: Row, speak: _Speaker, *, cut: bool) -> dict[str, Any]:
    """Return a row; where its context was cut, both sides of the cut keep their place."""
    place = row.answer_start // 2 if cut else None  # training/encode.py, cut_middle
    if place is None:
        pieces = speak(row.ids, row.weights)
    else:
        pieces = speak(row.ids[:place], row.weights[:place])
        place = len(pieces)
        pieces += speak(row.ids[row.answer_start // 2 :], row.weights[row.answer_start // 2 :])
    return {
        "id": row.id,
        "pieces": pieces,
        "cut": None if place is None else [place],
        "tokens": len(row.ids),
        "trained": sum(weight > 0 for weight in row.weights),
    }


def _labelled(row: Row, speak: _Speaker, label: str) -> dict[str, Any]:
    """Return a row whose label is learned: its context, then the label."""
    context = row.ids[: row.answer_start]
    pieces = [*speak(context, [0.0] * len(context)), [label, 1.0]]
    return {"id": row.id, "pieces": pieces, "cut": None, "tokens": len(context), "trained": 0}


class _Speaker:
    """Spells tokens, those together that make one character."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._known: dict[int, str] = {}

    def __call__(self, ids: Sequence[int], weights: Sequence[float]) -> list[list[Any]]:
        pieces: list[list[Any]] = []
        place = 0
        while place < len(ids):
            size, said = 1, self._one(ids[place])
            while _BROKEN in said and size < min(_LONGEST, len(ids) - place):
                longer = self._spell(ids[place : place + size + 1])
                size, said = size + 1, longer
            if _BROKEN in said:
                size, said = 1, self._one(ids[place])
            pieces.append([said, round(float(weights[place + size - 1]), 4)])
            place += size
        return pieces

    def _one(self, token: int) -> str:
        if token not in self._known:
            self._known[token] = self._spell([token])
        return self._known[token]

    def _spell(self, ids: Sequence[int]) -> str:
        return str(
            self._tokenizer.decode(
                list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False
            )
        )
