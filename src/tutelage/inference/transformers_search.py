"""Weighs a closed list of answers by walking the trie of their tokens, the likeliest node first.

Log-probability only falls along a path, so a node that is less likely than the best answer found
so far can't lead to a better one: branch and bound (Land & Doig 1960), exact for the likeliest
answer. The nodes of many rows make up each forward pass. Without the bound every answer gets its
log-probability. Always normalised over the whole vocabulary.
B rows, M nodes of the trie, L answers, N nodes of one pass, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from tutelage.inference.label_choice import Choice
from tutelage.inference.transformers_attention import Tokens
from tutelage.inference.transformers_cache import Batch, Runner
from tutelage.inference.transformers_labels import Trie, make_trie

_LOGITS_MB = 128  # that the logits of one pass may take
_MOST, _LEAST = 512, 16  # nodes a pass, whatever the vocabulary
_FILL = 32  # nodes that make a pass worth its while
_EAGER = 48  # nodes of a bounded walk's pass: what the first of them find may rule out the rest
_ROWS = 512  # searched together: the more, the fuller the last passes
_STATES_MB = 1536  # that keys and values of rows in flight should take
_EXPECTED = 32  # nodes a row looks at, give or take, when it is bounded

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Answers:
    """The answers' trie as arrays."""

    trie: Trie
    tokens: Ints  # (M,)
    depths: Ints  # (M,)
    above: Ints  # (M, deepest) the nodes a node stands on, -1 where there is none
    inner: NDArray[np.bool_]  # (M,) something follows
    forced: Ints  # (M,) the one node that follows, if something follows that in turn; else -1
    last: Ints  # (L,) the node each answer ends at
    first_child: Ints  # (M + 2,) where the children of node n - 1 begin; the root is 0
    children: Ints  # (M,) in the order of their parents

    @classmethod
    def of(cls, tails: Sequence[Sequence[int]]) -> Answers:
        """Return them for the token ids of the answers."""
        trie = make_trie(tails)
        parents = np.array(trie.parents)
        above = np.full((len(parents), max(trie.depths)), -1)
        for node, (parent, depth) in enumerate(zip(trie.parents, trie.depths, strict=True)):
            if parent >= 0:
                above[node, : depth - 1] = above[parent, : depth - 1]
                above[node, depth - 1] = parent
        inner = np.zeros(len(parents), dtype=bool)
        inner[parents[parents >= 0]] = True
        counts = np.bincount(parents + 1, minlength=len(parents) + 1)
        forced = np.full(len(parents), -1)
        alone = np.flatnonzero(inner & (parents >= 0) & (counts[parents + 1] == 1))
        forced[parents[alone]] = alone
        return cls(
            trie,
            np.array(trie.tokens),
            np.array(trie.depths),
            above,
            inner,
            forced,
            np.array([path[-1] for path in trie.paths]),
            np.concatenate([[0], counts.cumsum()]),
            np.argsort(parents, kind="stable"),
        )

    def below(self, nodes: Ints) -> tuple[Ints, Ints]:
        """Return the children of all `nodes`, and for each the place of its parent in `nodes`."""
        starts, ends = self.first_child[nodes + 1], self.first_child[nodes + 2]
        owner = np.repeat(np.arange(len(nodes)), ends - starts)
        offset = np.arange(len(owner)) - np.repeat((ends - starts).cumsum() - (ends - starts),
                                                   ends - starts)  # fmt: skip
        return self.children[starts[owner] + offset], owner


def rows_at_once(runner: Runner, answers: Answers, longest: int, *, bounded: bool) -> int:
    """Return how many rows to search together, so that keys and values stay within bounds."""
    nodes = int(answers.inner.sum())
    if bounded:
        nodes = min(nodes, _EXPECTED)
    return int(np.clip(_STATES_MB * 2**20 // (runner.slot_bytes * (longest + nodes)), 1, _ROWS))


class Search:
    """The walk of one batch of rows."""

    def __init__(self, runner: Runner, batch: Batch, answers: Answers, *, bounded: bool) -> None:
        """`bounded`: only the likeliest answer is asked for."""
        rows, nodes = len(batch.position), len(answers.tokens)
        self._runner, self._batch, self._answers = runner, batch, answers
        self._bounded = bounded
        self._logp = np.full((rows, nodes), -np.inf)  # of the path down to the node
        self._open = np.zeros((rows, nodes), dtype=bool)  # known, and what follows is not
        self._slot = np.full((rows, nodes), -1)
        self._prompt = batch.filled.numpy().copy()
        self._used = self._prompt.copy()
        every = np.arange(rows)
        self._spread(batch.logits, every, np.full(rows, -1), np.zeros(rows))
        width = batch.logits.shape[1]
        self._most = int(np.clip(_LOGITS_MB * 2**20 // (4 * width), _LEAST, _MOST))

    def run(self) -> None:
        """Walk until nothing is left to look at."""
        while True:
            rows, nodes = self._pick()
            if not len(rows):
                return
            rows, nodes, wave = self._with_forced(rows, nodes)
            logits = self._compute(rows, nodes)
            for number in range(int(wave.max()) + 1):
                at = np.flatnonzero(wave == number)
                part, below = rows[at], nodes[at]
                self._open[part, below] = False
                odds = logits if len(at) == len(rows) else logits[torch.from_numpy(at)]
                self._spread(odds, part, below, self._logp[part, below])

    def scores(self) -> Floats:
        """Return log p of each answer, (B, L); -inf for those not followed to their end."""
        return self._logp[:, self._answers.last]

    def choices(self) -> list[Choice]:
        """Return the likeliest answer of each row.

        Its share of the list's probability is known within bounds: answers not followed to their
        end have together at most the probability of the nodes they are below.
        """
        scores = self.scores()
        best = scores.argmax(axis=1)
        top = scores[np.arange(len(best)), best]
        found = np.exp(scores - top[:, None]).sum(axis=1)
        open_ = np.where(self._open, self._logp, -np.inf)
        rest = np.exp(open_ - top[:, None]).sum(axis=1)
        return [
            Choice(int(b), float(t), float(1 / (f + r)), float(1 / f))
            for b, t, f, r in zip(best, top, found, rest, strict=True)
        ]

    def _pick(self) -> tuple[Ints, Ints]:
        """Return the next nodes, (N,) rows and nodes, those of a row together.

        A row without an answer takes its likeliest node, one with an answer all that may still
        lead to a better one. A pass that is too small is filled up with the next likeliest nodes
        of rows without an answer.
        """
        logp = np.where(self._open, self._logp, -np.inf)
        if not self._bounded:
            rows, nodes = np.nonzero(_likeliest(self._open, logp, self._most))
            return rows, nodes
        best = self.scores().max(axis=1, keepdims=True)
        top = logp.max(axis=1, keepdims=True)
        seeking = np.isneginf(best)
        must = self._open & np.where(seeking, logp >= top, logp > best)
        must = _first_of_each(must, logp, min(_EAGER, self._most))
        limit = np.where(seeking, top, best)
        rank = logp - np.where(np.isneginf(limit), 0.0, limit)
        lacking = min(_FILL, self._most) - int(must.sum())
        if must.any() and lacking > 0:
            more = self._open & seeking & ~must
            must |= _likeliest(more, rank, lacking)
        rows, nodes = np.nonzero(_likeliest(must, rank, self._most))
        return rows, nodes

    def _with_forced(self, rows: Ints, nodes: Ints) -> tuple[Ints, Ints, Ints]:
        """Return the nodes with those that alone can follow them, and how far below each is.

        What nothing competes with is read in the same pass, as far as the pass has room: on the
        way to the end of an answer only its forks need passes of their own. A bounded walk reads
        on below the likeliest node of a row alone, lest it read what the bound rules out.
        """
        found = [(rows, nodes)]
        room = self._most - len(rows)
        if self._bounded:
            top = np.where(self._open, self._logp, -np.inf).max(axis=1)
            first = self._logp[rows, nodes] >= top[rows]
            rows, nodes = rows[first], nodes[first]
        while len(rows) and room > 0:
            only = self._answers.forced[nodes]
            rows, nodes = rows[only >= 0][:room], only[only >= 0][:room]
            found.append((rows, nodes))
            room -= len(rows)
        wave = np.repeat(np.arange(len(found)), [len(r) for r, _ in found])
        every, below = (np.concatenate(part) for part in zip(*found, strict=True))
        order = np.argsort(every, kind="stable")
        return every[order], below[order], wave[order]

    def _compute(self, rows: Ints, nodes: Ints) -> torch.Tensor:
        """Return the logits after the nodes, (N, V)."""
        answers = self._answers
        first = np.concatenate([[True], rows[1:] != rows[:-1]])
        nth = np.arange(len(rows)) - np.flatnonzero(first)[first.cumsum() - 1]
        at = self._used[rows] + nth
        np.maximum.at(self._used, rows, at + 1)
        self._slot[rows, nodes] = at
        keys = int(at.max()) + 1
        if keys > self._batch.slots.room:
            whole = int(self._prompt.max() + answers.inner.sum())
            self._batch.slots.grow(min(whole, keys + keys // 4))
        prompts = self._prompt[rows]
        sees = np.arange(int(prompts.max())) < prompts[:, None]
        above = answers.above[nodes]  # (N, deepest)
        chain = np.where(above >= 0, self._slot[rows[:, None], above], -1)
        deepest = int(answers.depths[nodes].max())
        chain = np.concatenate([chain[:, :deepest], at[:, None]], axis=1)
        owners = torch.from_numpy(rows)
        positions = self._batch.position[owners] + torch.from_numpy(answers.depths[nodes])
        stream = Tokens(
            torch.from_numpy(answers.tokens[nodes]), owners, torch.from_numpy(at), positions,
            torch.from_numpy(sees), torch.from_numpy(chain),
        )  # fmt: skip
        return self._runner.stream(self._batch, stream)

    def _spread(self, logits: torch.Tensor, rows: Ints, nodes: Ints, so_far: Floats) -> None:
        """Note log p of the children of the nodes whose logits these are."""
        children, owner = self._answers.below(nodes)
        places = torch.from_numpy(owner).to(logits.device)
        tokens = torch.from_numpy(self._answers.tokens[children]).to(logits.device)
        whole = logits.logsumexp(dim=-1)
        odds = (logits[places, tokens] - whole[places]).double().cpu().numpy()
        self._logp[rows[owner], children] = so_far[owner] + odds
        self._open[rows[owner], children] = self._answers.inner[children]


def _first_of_each(mask: NDArray[np.bool_], logp: Floats, count: int) -> NDArray[np.bool_]:
    """Return `mask` with the likeliest of each row, evenly, about `count` in all.

    What a row finds there may rule out the rest.
    """
    rows = int(mask.any(axis=1).sum())
    each = max(1, count // max(1, rows))
    if not rows or int(mask.sum(axis=1).max()) <= each:
        return mask
    ranked = np.where(mask, logp, -np.inf)
    least = -np.partition(-ranked, each - 1, axis=1)[:, each - 1 : each]
    return mask & (ranked >= least)


def _likeliest(mask: NDArray[np.bool_], rank: Floats, count: int) -> NDArray[np.bool_]:
    """Return `mask` with at most `count` entries, those of the highest rank."""
    places = np.flatnonzero(mask)
    if len(places) <= count:
        return mask
    order = np.argsort(-rank.reshape(-1)[places], kind="stable")[:count]
    kept = np.zeros(mask.size, dtype=bool)
    kept[places[order]] = True
    return kept.reshape(mask.shape)


def search(
    runner: Runner, prompts: Sequence[Sequence[int]], shared: int, answers: Answers, *,
    bounded: bool,
) -> Search:  # fmt: skip
    """Return the finished walk for prompts (token ids) whose first `shared` tokens are the same.

    Prompts that were just answered in free text are not computed again.
    """
    inner = int(answers.inner.sum())
    room = min(_EXPECTED, inner) if bounded else inner
    batch = runner.start(prompts, prompts[0][:shared], room, again=True)
    walk = Search(runner, batch, answers, bounded=bounded)
    walk.run()
    return walk
