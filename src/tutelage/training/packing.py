"""Raw text to token blocks: documents whole where they fit, none attending to another.

Every token of a text and its end are predicted once. A text longer than a block is cut into
pieces; a piece begins with the last token of the piece before, which it only reads. Pieces are
put into blocks by best-fit decreasing, so that no piece is cut to fill a block (Ding et al. 2024,
"Fewer Truncations Improve Language Modeling", arXiv 2404.10830). A piece is one row of the step
and sees itself alone, so a block says how much is computed at once, not what is attended to.
"""

from __future__ import annotations

import bisect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tutelage.core.example import Example
from tutelage.inference.chat import neutralise
from tutelage.inference.transformers_render import end_ids, special_tokens
from tutelage.training.prefix_tree import Row

BLOCK = 1024  # tokens of a block where nobody says otherwise
_SEPARATOR = "<|endoftext|>"  # what GPT-2, Qwen, SmolLM and others put between documents


@dataclass(frozen=True)
class Borders:
    """The token a document is read after, and the one that ends it."""

    start: int
    end: int


@dataclass(frozen=True)
class Document:
    """One text: the ids of the rows it was joined from. `open` ends without an end token."""

    rows: tuple[str, ...]
    text: str
    open: bool = False


@dataclass(frozen=True)
class Block:
    """Pieces that are computed together; `weight` is the sum of their token weights."""

    id: str
    pieces: tuple[Row, ...]

    @property
    def weight(self) -> float:
        """What the step's loss is divided by, in tokens."""
        return sum(piece.weight for piece in self.pieces)

    @property
    def tokens(self) -> int:
        """Tokens that the block feeds to the model."""
        return sum(piece.computed for piece in self.pieces)


def borders(tokenizer: Any) -> Borders:
    """Return the tokens around a document, as the model's pre-training most likely had them.

    A chat model's end token ends a turn; where the vocabulary has <|endoftext|> besides, that is
    what stood between documents. Raises ModelError if there is no end token.
    """
    vocabulary = tokenizer.get_added_vocab()
    end = int(vocabulary.get(_SEPARATOR, end_ids(tokenizer)[0]))
    ids = tokenizer("a", verbose=False)["input_ids"]
    adds_start = tokenizer.bos_token_id is not None and ids[:1] == [tokenizer.bos_token_id]
    return Borders(int(tokenizer.bos_token_id) if adds_start else end, end)


def text_ids(tokenizer: Any, text: str, specials: Sequence[str] | None = None) -> list[int]:
    """Return the ids of a text, without borders; control tokens in it are made inert."""
    names = special_tokens(tokenizer) if specials is None else specials
    safe = neutralise(text, names)
    return list(tokenizer(safe, add_special_tokens=False, verbose=False)["input_ids"])


def documents(examples: Sequence[Example]) -> list[Document]:
    """Return the texts of raw rows; passages that follow each other in a document are joined.

    The order of rows does not matter for that: a document stands where its first passage does.
    """
    passages: dict[object, list[tuple[int, Example]]] = {}
    for example in examples:
        name, number = example.meta.get("document"), example.meta.get("passage")
        key = object() if name is None or number is None else name
        passages.setdefault(key, []).append((int(number or 0), example))
    found = []
    for parts in passages.values():
        parts.sort(key=lambda part: part[0])
        run: list[Example] = []
        for place, (number, example) in enumerate(parts):
            if run and number != parts[place - 1][0] + 1:
                found.append(_joined(run))
                run = []
            run.append(example)
        found.append(_joined(run))
    return found


def _joined(rows: Sequence[Example]) -> Document:
    text = "\n\n".join(row.answer or "" for row in rows)
    return Document(tuple(row.id for row in rows), text, bool(rows[-1].meta.get("open")))


def cut_pieces(name: str, ids: Sequence[int], room: int) -> list[Row]:
    """Return `ids` (borders included) as rows of at most `room` predicted tokens each."""
    pieces: list[Row] = []
    for start in range(0, max(1, len(ids) - 1), room):
        part = tuple(ids[start : start + room + 1])
        if len(part) > 1:
            weights = (0.0, *[1.0] * (len(part) - 1))
            pieces.append(Row(f"{name}#{len(pieces)}", part, weights, 0))
    return pieces


def pack_pieces(pieces: Sequence[Row], room: int) -> list[Block]:
    """Return blocks of at most `room` tokens: the longest piece first, where it fits tightest."""
    order = sorted(range(len(pieces)), key=lambda i: (-pieces[i].computed, i))
    held: list[list[Row]] = []
    free: list[tuple[int, int]] = []  # (tokens left, block), ascending
    for index in order:
        piece = pieces[index]
        place = bisect.bisect_left(free, (piece.computed, -1))
        if place < len(free):
            left, block = free.pop(place)
        else:
            left, block = room, len(held)
            held.append([])
        held[block].append(piece)
        bisect.insort(free, (left - piece.computed, block))
    return [Block(f"block-{number}", tuple(part)) for number, part in enumerate(held)]
