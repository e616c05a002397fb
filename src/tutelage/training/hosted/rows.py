"""Rows as a fine-tuning job takes them, what training on them costs, and no test row among them.

A row is rendered as the project renders it everywhere: its prompt as the system message, control
tokens inert, the answer as it stands. Only the answer carries a loss: earlier assistant turns get
weight 0.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from tutelage.core.errors import DataError
from tutelage.core.example import Example, Message, normalise
from tutelage.core.lines import lines_of
from tutelage.inference.chat import conversation

LEAST_ROWS = 10  # a job with fewer training rows is refused by the API
_LARGEST_MB = 512  # a file, at most
_BYTES_PER_TOKEN = 4
_TOKENS_PER_TURN = 4  # role and separators
_TOKENS_PER_ROW = 3  # the opening of the answer
_TOOLS = ("tools", "parallel_tool_calls", "functions")  # fields of a row that a job takes besides
COUNTED = (
    "a token for every 4 bytes of UTF-8, 4 more a turn and 3 more a row, times the epochs: an "
    "estimate, the service counts with its own tokenizer"
)


@dataclass(frozen=True)
class RowsFile:
    """One file to upload. `rejected` maps the id of a row that can't be sent to why."""

    data: bytes
    rows: int
    tokens: int  # of one pass, estimated
    rejected: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Estimate:
    """What a job would cost. `cost` is in the money of the price; None without a price."""

    rows: int
    tokens: int  # of one pass over the training rows
    epochs: int
    epochs_from: str  # "hosted.epochs", or where the assumption comes from
    cost: float | None

    @property
    def billed_tokens(self) -> int:
        """Tokens of all epochs: validation is not billed."""
        return self.tokens * self.epochs

    def as_dict(self) -> dict[str, Any]:
        """Return the figures for a report, with the rule they were counted by."""
        return {**asdict(self), "billed_tokens": self.billed_tokens, "counted": COUNTED}

    def sentence(self) -> str:
        """Return the figures in one line."""
        text = f"{self.rows:,} rows, about {self.billed_tokens:,} tokens in {self.epochs} epochs"
        return text if self.cost is None else f"{text}, about {self.cost:,.2f}"


def render_rows(rows: Sequence[Example], prompt: str) -> RowsFile:
    """Return the rows as JSON lines; rows without an answer, and raw text, are left out by name."""
    lines: list[str] = []
    rejected: dict[str, str] = {}
    tokens = 0
    for row in rows:
        if row.is_text:
            rejected[row.id] = "raw text without a question"
        elif not (row.answer or "").strip():
            rejected[row.id] = "no answer"
        else:
            made = job_row(row, prompt)
            tokens += count_tokens(made["messages"])
            lines.append(json.dumps(made, ensure_ascii=False))
    data = "".join(line + "\n" for line in lines).encode()
    return RowsFile(data, len(lines), tokens, rejected)


def job_row(row: Example, prompt: str) -> dict[str, Any]:
    """Return one row in the form of a fine-tuning file."""
    turns = [_turn(message) for message in conversation(row, prompt)]
    answer = _turn(row.messages[-1])
    earlier = [turn for turn in turns if turn["role"] == "assistant"]
    for turn in earlier:
        turn["weight"] = 0
    if earlier:
        answer["weight"] = 1
    tools = {key: row.meta[key] for key in _TOOLS if key in row.meta}
    return {"messages": [*turns, answer], **tools}


def count_tokens(turns: Iterable[dict[str, Any]]) -> int:
    """Return the estimated tokens of a row by the rule in COUNTED."""
    total = _TOKENS_PER_ROW
    for turn in turns:
        text = "".join(
            value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
            for key, value in turn.items()
            if key not in ("role", "weight")
        )
        total += _TOKENS_PER_TURN + math.ceil(len(text.encode()) / _BYTES_PER_TOKEN)
    return total


def estimate(file: RowsFile, epochs: int | None, price_per_million: float | None) -> Estimate:
    """Return what training on `file` would cost; unset epochs are taken as the service would."""
    assumed = epochs or usual_epochs(file.rows)
    source = "hosted.epochs" if epochs else "assumed: the service chooses by the number of rows"
    cost = None
    if price_per_million is not None:
        cost = file.tokens * assumed * price_per_million / 1e6
    return Estimate(file.rows, file.tokens, assumed, source, cost)


def usual_epochs(rows: int) -> int:
    """Return the epochs that OpenAI's notes for estimating costs expect when none are set.

    Three, more below 34 rows (so that 100 rows are seen, at most 25 epochs), fewer above 8,333
    (25,000 rows are seen). Source: OpenAI Cookbook, "Data preparation and analysis for chat model
    fine-tuning".
    """
    if rows * 3 < 100:
        return min(25, 100 // max(1, rows))
    if rows * 3 > 25_000:
        return max(1, 25_000 // rows)
    return 3


def require_enough(file: RowsFile, validation: RowsFile) -> None:
    """Raise DataError unless the API takes the files."""
    if file.rows < LEAST_ROWS:
        reasons = sorted(set(file.rejected.values()))
        left = f" ({len(file.rejected)} left out: {', '.join(reasons)})" if reasons else ""
        raise DataError(
            f"the train split has {file.rows} rows to upload{left}, a job needs {LEAST_ROWS}",
            fix="Add rows with answers to the sources in data.sources",
        )
    for name, made in (("train", file), ("validation", validation)):
        if len(made.data) > _LARGEST_MB * 1_000_000:
            raise DataError(
                f"the {name} rows take {len(made.data) / 1e6:,.0f} MB, a file holds at most "
                f"{_LARGEST_MB}",
                fix="Train on the best rows only with data.quality.best",
            )


def forbid_test(files: Iterable[RowsFile], test: Sequence[Example], prompt: str) -> None:
    """Raise DataError if a line to upload is a test row, or asks what a test row asks.

    It looks at the bytes that would be sent, not at where they came from.
    """
    asked = {_asked(job_row(row, prompt)): row.id for row in test if row.messages}
    for file in files:
        for number, line in enumerate(lines_of(file.data.decode()), start=1):
            found = asked.get(_asked(json.loads(line)))
            if found is not None:
                raise DataError(
                    f"row {number} of the upload asks what the test row {found} asks; nothing was "
                    "uploaded",
                    fix="Run `tutelage data leaks` and `tutelage data split` to mend the split",
                )


def _asked(row: dict[str, Any]) -> str:
    """Return what the user side of a row says, as exact duplicates see it."""
    turns = row["messages"][:-1]
    return normalise("\n".join(str(t.get("content", "")) for t in turns if t["role"] != "system"))


def _turn(message: Message) -> dict[str, Any]:
    turn = message.model_dump(exclude_none=True)
    turn.pop("weight", None)
    return turn
