"""Negative log-likelihood of whole texts; what texts begin with alike is read once.

A question's four sentences differ in their last words alone, so texts with a common beginning
make one trie, and a pass reads the nodes of many. Nodes after which nothing is predicted are left
out. N nodes, K nodes of one trie, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from tutelage.inference.transformers_attention import Tokens
from tutelage.inference.transformers_cache import Batch, Runner
from tutelage.inference.transformers_labels import Trie, make_trie

_POSITIONS = 1024  # nodes whose logits are held at once
_NONE = torch.zeros(0)


@dataclass(frozen=True)
class _Texts:
    """Texts that begin alike, by their places, as a trie of their inner nodes."""

    places: list[int]
    trie: Trie
    inner: list[int]  # nodes that something follows, in the trie's order


def sums(runner: Runner, texts: Sequence[Sequence[int]]) -> list[float]:
    """Return the sum of -log p of each text's tokens but the first, natural log.

    `texts` are token ids, at least two each. Needs a runner that shares.
    """
    found = [0.0] * len(texts)
    for group in _passes([_texts(texts, places) for places in _alike(texts)]):
        odds = _forward(runner, group)
        for one, known in zip(group, odds, strict=True):
            for place, path in zip(one.places, one.trie.paths, strict=True):
                found[place] = -sum(known[node] for node in path[1:])
    return found


def _alike(texts: Sequence[Sequence[int]]) -> Iterator[list[int]]:
    """Yield the places of texts that share at least half of what they say, and go together."""
    order = sorted(range(len(texts)), key=lambda place: list(texts[place]))
    group: list[int] = []
    for place in order:
        if group:
            first, new = texts[group[0]], texts[place]
            short = min(len(first), len(new))
            same = next((i for i in range(short) if first[i] != new[i]), short)
            if 2 * same < short:
                yield group
                group = []
        group.append(place)
    if group:
        yield group


def _texts(texts: Sequence[Sequence[int]], places: list[int]) -> _Texts:
    trie = make_trie([texts[place] for place in places])
    return _Texts(places, trie, sorted(set(trie.parents) - {-1}))


def _passes(tries: list[_Texts]) -> Iterator[list[_Texts]]:
    """Yield tries of like size for one pass, at most _POSITIONS nodes or one trie."""
    group: list[_Texts] = []
    for one in sorted(tries, key=lambda t: (len(t.inner), t.places)):
        if group and len(one.inner) * (len(group) + 1) > _POSITIONS:
            yield group
            group = []
        group.append(one)
    if group:
        yield group


def _forward(runner: Runner, group: list[_Texts]) -> list[dict[int, float]]:
    """Return log p of each trie's nodes but the first tokens, by node."""
    width = max(len(one.inner) for one in group)
    slots = runner.slots((), len(group), width)
    ids: list[int] = []
    rows: list[int] = []
    at: list[int] = []
    positions: list[int] = []
    sees = torch.zeros((sum(len(one.inner) for one in group), width), dtype=torch.bool)
    for row, one in enumerate(group):
        slot = {node: place for place, node in enumerate(one.inner)}
        for node, place in slot.items():
            parent = one.trie.parents[node]
            if parent >= 0:
                sees[len(ids)] = sees[len(ids) - place + slot[parent]]
            sees[len(ids), place] = True
            ids.append(one.trie.tokens[node])
            rows.append(row)
            at.append(place)
            positions.append(one.trie.depths[node])
    stream = Tokens(
        torch.tensor(ids), torch.tensor(rows), torch.tensor(at), torch.tensor(positions), sees=sees
    )
    logits = runner.stream(Batch(_NONE, _NONE, slots), stream)  # (N, V)
    whole = logits.logsumexp(dim=-1)
    return _read(group, logits, whole)


def _read(group: list[_Texts], logits: torch.Tensor, whole: torch.Tensor) -> list[dict[int, float]]:
    """Return log p of the nodes that follow those whose logits these are, by trie and node."""
    found: list[dict[int, float]] = []
    start = 0
    for one in group:
        slot = {node: start + place for place, node in enumerate(one.inner)}
        nodes = [node for node, parent in enumerate(one.trie.parents) if parent >= 0]
        above = torch.tensor([slot[one.trie.parents[node]] for node in nodes])
        tokens = torch.tensor([one.trie.tokens[node] for node in nodes])
        above, tokens = above.to(logits.device), tokens.to(logits.device)
        odds = (logits[above, tokens] - whole[above]).double().tolist()
        found.append(dict(zip(nodes, odds, strict=True)))
        start += len(one.inner)
    return found
