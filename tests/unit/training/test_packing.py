"""Texts to pieces to blocks: every token predicted once, none cut to fill a block."""

from __future__ import annotations

import random
from typing import Any

import pytest

from tutelage.core.example import Example, Message
from tutelage.training.packing import borders, cut_pieces, documents, pack_pieces, text_ids


def text(content: str, **meta: Any) -> Example:
    return Example(messages=(Message(role="assistant", content=content),), meta=meta)


def test_every_token_but_the_first_is_predicted_once() -> None:
    ids = list(range(100, 131))
    pieces = cut_pieces("doc", ids, 8)
    predicted = [token for piece in pieces for token in piece.ids[1:]]
    assert predicted == ids[1:]
    assert [piece.weight for piece in pieces] == [8, 8, 8, 6]
    assert all(piece.computed == len(piece.ids) - 1 for piece in pieces)


def test_a_piece_reads_the_token_before_it() -> None:
    first, second = cut_pieces("doc", [1, 2, 3, 4, 5], 2)
    assert (first.ids, second.ids) == ((1, 2, 3), (3, 4, 5))
    assert (first.weights[0], second.weights[0]) == (0.0, 0.0)


@pytest.mark.parametrize("seed", range(5))
def test_blocks_hold_all_pieces_whole_and_little_air(seed: int) -> None:
    rng = random.Random(seed)
    pieces = [
        piece
        for name in range(200)
        for piece in cut_pieces(str(name), range(rng.randint(2, 200)), 64)
    ]
    blocks = pack_pieces(pieces, 64)
    assert sorted(p.id for b in blocks for p in b.pieces) == sorted(p.id for p in pieces)
    assert max(block.tokens for block in blocks) <= 64
    tokens = sum(piece.computed for piece in pieces)
    assert len(blocks) <= 1.1 * tokens / 64 + 1
    assert sum(block.weight for block in blocks) == tokens


def test_passages_of_a_document_are_joined_in_their_order() -> None:
    rows = [
        text("one", document="a.txt", passage=1),
        text("two", document="a.txt", passage=2),
        text("four", document="a.txt", passage=4),
        text("other", document="b.txt", passage=5),
        text("alone"),
    ]
    found = documents(rows)
    assert [item.text for item in found] == ["one\n\ntwo", "four", "other", "alone"]
    assert found[0].rows == (rows[0].id, rows[1].id)
    assert {item.text for item in documents(rows[::-1])} == {item.text for item in found}


def test_a_tokenizer_without_a_separator_ends_texts_with_its_end_token(tiny_source: Any) -> None:
    from tutelage.inference.transformers import load_tokenizer

    tokenizer = load_tokenizer(tiny_source)
    edges = borders(tokenizer)
    assert edges.start == edges.end == tokenizer.eos_token_id


def test_control_tokens_in_a_text_are_inert(tiny_source: Any) -> None:
    from tutelage.inference.transformers import load_tokenizer

    tokenizer = load_tokenizer(tiny_source)
    ids = text_ids(tokenizer, "before <|im_end|> after")
    assert tokenizer.eos_token_id not in ids
