"""General text among the training rows, so that a model keeps what it could do before.

By default the text is the base model's own: it answers the seed prompts and writes texts from
nothing, at temperature 1, which draws from what it was trained on (Marek et al. 2026, arXiv
2605.26097). The samples are made once a model and kept; a kill loses one batch at most. Replayed
rows carry meta["replay"]; they are never validated on.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from tutelage.core.artifact import content_hash
from tutelage.core.events import Emit, Event, silent
from tutelage.core.example import Example, Message, Origin
from tutelage.core.lines import lines_of
from tutelage.core.workspace import atomic_write

if TYPE_CHECKING:
    from tutelage.inference.models import ModelSource

Kind = Literal["chat", "text"]
KINDS: tuple[Kind, ...] = ("chat", "text")  # what is replayed beside labelled rows
KEY = "replay"  # in an example's meta: where the row is from
STAGE = "replay"
_BATCH = 8  # samples drawn at once; part of what a sample is


@dataclass(frozen=True)
class Sampling:
    """How samples are drawn. `tokens` is the longest one; a longer one is left open."""

    tokens: int = 48
    temperature: float = 1.0
    seed: int = 7


LONG = Sampling(tokens=256)  # beside raw text, whose rows are long


@cache
def seed_prompts() -> tuple[str, ...]:
    """Return the built-in requests."""
    text = (files("tutelage.training") / "replay_seeds.json").read_text(encoding="utf-8")
    return tuple(json.loads(text)["prompts"])


def is_replay(example: Example) -> bool:
    """Return whether a row is there against forgetting alone."""
    return KEY in example.meta


def replay_count(rows: int, share: float) -> int:
    """Return how many replayed rows make up `share` of all rows beside `rows` of the project's."""
    return 0 if share <= 0 or rows == 0 else max(1, round(rows * share / (1 - share)))


def own_samples(
    source: ModelSource,
    kind: Kind,
    count: int,
    folder: Path,
    *,
    sampling: Sampling = Sampling(),
    emit: Emit = silent,
) -> list[Example]:
    """Return `count` rows that the base model wrote; those of earlier calls are read back.

    `folder` keeps one file a model, kind and way of sampling. Samples come in batches of eight,
    each with its own seed, so which call drew one does not matter.
    """
    name = content_hash([kind, sampling.tokens, sampling.temperature, sampling.seed, _BATCH])
    if kind == "chat":
        name = content_hash([name, list(seed_prompts())])
    path = folder / f"{kind}-{source.short}-{name[:8]}.jsonl"
    made = _read(path)
    if _usable(made) < count:
        for grown in _grow(source, kind, count, made, sampling):
            made = grown
            lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in made)
            atomic_write(path, lines.encode())
            message = f"the base model writes {kind} rows to rehearse"
            emit(Event(STAGE, "progress", message, done=min(_usable(made), count), total=count))
    rows = [row for row in made if row["text"].strip()]
    return [_example(row, source.short) for row in rows[:count]]


def mix(rows: Sequence[Example], replayed: Sequence[Example], seed: int) -> list[Example]:
    """Return all rows in an order drawn by `seed`; batches are drawn anew an epoch anyway."""
    both = [*rows, *replayed]
    random.Random(seed).shuffle(both)
    return both


def _read(path: Path) -> list[dict[str, Any]]:
    if not path.is_file():
        return []
    return [json.loads(line) for line in lines_of(path.read_text(encoding="utf-8"))]


def _usable(rows: Sequence[dict[str, Any]]) -> int:
    return sum(bool(row["text"].strip()) for row in rows)


def _grow(
    source: ModelSource, kind: Kind, count: int, made: list[dict[str, Any]], sampling: Sampling
) -> Iterator[list[dict[str, Any]]]:
    """Yield the list after each batch, until `count` samples are usable."""
    import torch

    from tutelage.inference.transformers import load_model, load_tokenizer

    model: Any = load_model(source, dtype="float32")
    model.to("cuda" if torch.cuda.is_available() else "cpu")
    tokenizer = load_tokenizer(source)
    model.requires_grad_(False)
    most = 4 * count + 8 * _BATCH  # a model that writes next to nothing ends here
    while _usable(made) < count and len(made) < most:
        numbers = range(len(made), len(made) + _BATCH)
        made = [*made, *_draw(model, tokenizer, kind, numbers, sampling)]
        yield made


def _draw(
    model: Any, tokenizer: Any, kind: Kind, numbers: Sequence[int], sampling: Sampling
) -> list[dict[str, Any]]:
    """Return one batch of samples; its random state depends on the seed and its place alone."""
    import torch

    prompts = [_prompt(kind, number) for number in numbers]
    ids = [_prompt_ids(tokenizer, prompt) for prompt in prompts]
    ends = _ends(tokenizer, kind)
    width = max(map(len, ids))
    batch = torch.full((len(ids), width), ends[0])
    mask = torch.zeros_like(batch)
    for row, tokens in enumerate(ids):
        batch[row, width - len(tokens) :] = torch.tensor(tokens)
        mask[row, width - len(tokens) :] = 1
    with torch.random.fork_rng(devices=[]), torch.inference_mode():
        torch.manual_seed(sampling.seed * 1_000_003 + numbers[0])
        written = model.generate(
            input_ids=batch.to(model.device), attention_mask=mask.to(model.device),
            do_sample=True, temperature=sampling.temperature, top_k=0, top_p=1.0,
            repetition_penalty=1.0, max_new_tokens=sampling.tokens, eos_token_id=list(ends),
            pad_token_id=ends[0],
        )  # fmt: skip
    rows = []
    for number, prompt, tokens in zip(numbers, prompts, written[:, width:].tolist(), strict=True):
        stop = next((i for i, token in enumerate(tokens) if token in ends), None)
        text = tokenizer.decode(tokens[:stop], skip_special_tokens=True)
        rows.append({"number": number, "prompt": prompt, "text": text, "open": stop is None})
    return rows


def _prompt(kind: Kind, number: int) -> str:
    return seed_prompts()[number % len(seed_prompts())] if kind == "chat" else ""


def _prompt_ids(tokenizer: Any, prompt: str) -> list[int]:
    from tutelage.inference.transformers_render import render
    from tutelage.training.packing import borders

    if not prompt:
        return [borders(tokenizer).start]
    return render(tokenizer, (Message(role="user", content=prompt),)).prompt_ids


def _ends(tokenizer: Any, kind: Kind) -> tuple[int, ...]:
    from tutelage.inference.transformers_render import end_ids
    from tutelage.training.packing import borders

    ends = end_ids(tokenizer)
    return ends if kind == "chat" else tuple(dict.fromkeys([borders(tokenizer).end, *ends]))


def _example(row: dict[str, Any], author: str) -> Example:
    """Return a sample as a training row; a text that was cut off carries meta["open"]."""
    turns = [Message(role="user", content=row["prompt"])] if row["prompt"] else []
    meta: dict[str, Any] = {KEY: "own"}
    if row["open"]:
        meta["open"] = True
    return Example(
        messages=(*turns, Message(role="assistant", content=row["text"])),
        meta=meta,
        origin=Origin(kind="augmented", source=f"replay:{row['number']}", author=author),
    )
