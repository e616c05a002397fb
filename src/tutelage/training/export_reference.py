"""Takes a transformers model's greedy answers as the reference, and leads another along them.

Both are one walk: the prompts are computed, then one token a row at a time, the model's own first
choice or the token that is given. Float32 on the CPU; batches are of a fixed size and order.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from tutelage.core.errors import DataError
from tutelage.core.example import Message
from tutelage.inference.chat import as_dicts
from tutelage.inference.parity import Followed, Reference
from tutelage.inference.transformers_cache import Runner, common_prefix
from tutelage.inference.transformers_render import end_ids, render

BATCH = 8  # rows computed together


@dataclass
class _Row:
    """One prompt on its way; `forced` is what must follow, or None for the model's own choice."""

    ids: list[int]
    forced: Sequence[int] | None = None
    tokens: list[int] = field(default_factory=list)
    choices: list[int] = field(default_factory=list)
    logps: list[float] = field(default_factory=list)
    margins: list[float] = field(default_factory=list)
    done: bool = False


def take_reference(
    model: Any, tokenizer: Any, prompts: Sequence[Sequence[Message]], *, max_tokens: int
) -> list[Reference]:
    """Return the model's greedy answers, at most `max_tokens` long, with what backs each token.

    Prompts that leave no room to answer in the model's context have none. Raises DataError if
    there are prompts and all are so long.
    """
    asked = [(turns, _Row(render(tokenizer, turns).prompt_ids)) for turns in prompts]
    limit = int(getattr(model.config, "max_position_embeddings", 0) or 1 << 30)
    fitting = [(turns, row) for turns, row in asked if len(row.ids) + max_tokens <= limit]
    if asked and not fitting:
        shortest = min(len(row.ids) for _, row in asked)
        raise DataError(
            f"no prompt leaves room for {max_tokens} more tokens in the model's {limit}: the "
            f"shortest has {shortest}",
            fix="Shorten the rows or the prompt",
        )
    _walk(model, tokenizer, [row for _, row in fitting], max_tokens)
    return [
        Reference(
            messages=tuple(as_dicts(messages)),
            prompt_ids=tuple(row.ids),
            tokens=tuple(row.tokens),
            logps=tuple(row.logps),
            margins=tuple(row.margins),
            text=_text(tokenizer, row.tokens),
        )
        for messages, row in fitting
    ]


def follow(
    model: Any, tokenizer: Any, prompts: Sequence[Sequence[Message]], along: Sequence[Reference]
) -> list[Followed]:
    """Return what `model` says along the reference answers to `prompts`.

    The text of a row that strays is cut after the first token of its own.
    """
    rows = [
        _Row(render(tokenizer, messages).prompt_ids, forced=reference.tokens)
        for messages, reference in zip(prompts, along, strict=True)
    ]
    _walk(model, tokenizer, rows, max((len(r.tokens) for r in along), default=0))
    followed = []
    for row in rows:
        pairs = zip(row.choices, row.tokens, strict=True)
        own = next((i + 1 for i, (a, b) in enumerate(pairs) if a != b), len(row.choices))
        text = _text(tokenizer, row.choices[:own]) + ("…" if own < len(row.choices) else "")
        followed.append(Followed(tuple(row.ids), tuple(row.choices), tuple(row.logps), text))
    return followed


def _walk(model: Any, tokenizer: Any, rows: list[_Row], max_tokens: int) -> None:
    if not rows or not max_tokens:
        return
    pad = tokenizer.pad_token_id
    runner = Runner(model, tokenizer.eos_token_id if pad is None else pad)
    ends = frozenset(end_ids(tokenizer))
    shared = common_prefix([row.ids for row in rows]) if runner.shares else 0
    order = sorted(rows, key=lambda row: (len(row.ids), row.ids))
    for at in range(0, len(order), BATCH):
        group = order[at : at + BATCH]
        with torch.inference_mode():
            batch = runner.start([row.ids for row in group], group[0].ids[:shared], max_tokens)
            for _ in range(max_tokens):
                tokens = torch.tensor(
                    [
                        _take(row, odds, ends, max_tokens)
                        for row, odds in zip(group, batch.logits.log_softmax(-1), strict=True)
                    ]
                )
                if all(row.done for row in group):
                    break
                runner.step(batch, tokens)


def _take(row: _Row, odds: torch.Tensor, ends: frozenset[int], max_tokens: int) -> int:
    """Note what follows in a row, and return it; a row that ended gets any token."""
    best = odds.topk(2)
    choice = int(best.indices[0])
    if row.done:
        return choice
    token = choice if row.forced is None else row.forced[len(row.tokens)]
    row.choices.append(choice)
    row.tokens.append(token)
    row.logps.append(float(odds[token]))
    row.margins.append(float(best.values[0] - best.values[1]))
    length = max_tokens if row.forced is None else len(row.forced)
    row.done = len(row.tokens) >= length or (row.forced is None and token in ends)
    return token


def _text(tokenizer: Any, tokens: Sequence[int]) -> str:
    return str(tokenizer.decode(list(tokens), skip_special_tokens=True))
