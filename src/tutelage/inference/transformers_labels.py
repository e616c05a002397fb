"""A trie over the token sequences of given answers, so that shared beginnings are scored once.

For 22 labels written as `{"chapter": "eye"}` the opening is computed once a row, and so is every
common piece of the labels. Pure bookkeeping: the forward passes are transformers_search.Search's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass
class Trie:
    """Nodes in depth-first order, parents before children. The root (the prompt) is -1.

    `tokens`, `parents`, `depths` have one entry a node. `paths[l]` is the list of nodes of
    answer l, one a token.
    """

    tokens: list[int] = field(default_factory=list)
    parents: list[int] = field(default_factory=list)
    depths: list[int] = field(default_factory=list)
    paths: list[list[int]] = field(default_factory=list)


def make_trie(answers: Sequence[Sequence[int]]) -> Trie:
    """Return the trie of the answers' token ids, in the answers' order."""
    trie = Trie()
    index: dict[tuple[int, int], int] = {}
    for answer in answers:
        parent, path = -1, []
        for token in answer:
            node = index.setdefault((parent, token), len(trie.tokens))
            if node == len(trie.tokens):
                trie.tokens.append(token)
                trie.parents.append(parent)
                trie.depths.append(0 if parent < 0 else trie.depths[parent] + 1)
            path.append(node)
            parent = node
        trie.paths.append(path)
    return trie


def without_closing(answers: Sequence[Sequence[int]]) -> list[list[int]]:
    """Return the answers without the tokens they all end in, save the first of those.

    `"}` and the end of the turn follow any label, whatever was asked; the first of them stays,
    because it says that the label ends there ("ear" is not "early").
    """
    same = 0
    shortest = min(map(len, answers), default=0)
    while same < shortest - 1 and len({answer[-1 - same] for answer in answers}) == 1:
        same += 1
    cut = max(0, same - 1)
    return [list(answer[: len(answer) - cut]) for answer in answers]


def as_beginnings(answers: Sequence[Sequence[int]]) -> list[list[int]]:
    """Return the answers without all they end in: the label's own tokens, as benchmarks weigh it.

    One that another answer goes on from keeps the first token of its ending: "ear" is not "early".
    """
    short = without_closing(answers)
    begun = {tuple(answer[:end]) for answer in short for end in range(1, len(answer) - 1)}
    closed = len({answer[-1] for answer in short}) == 1
    return [
        answer if not closed or len(answer) < 2 or tuple(answer[:-1]) in begun else answer[:-1]
        for answer in short
    ]
