"""The reference engine: a transformers model in this process, base and adapters sharing weights.

Greedy text is repeatable: rows are put in one order, batches have a fixed size. A prefix that
all prompts of a call share is computed once. Generation honours `temperature`, `max_tokens`,
`stop` and `seed`; a JSON schema is not enforced here. No remote code, no pickles.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from tutelage.core.errors import DataError
from tutelage.inference import transformers_nll as nll
from tutelage.inference.base import Completion, OnDone, Prompt, Usage
from tutelage.inference.label_choice import Choice, choices_of
from tutelage.inference.models import ModelSource
from tutelage.inference.transformers_cache import Batch, Runner, common_prefix
from tutelage.inference.transformers_labels import as_beginnings, without_closing
from tutelage.inference.transformers_load import load_model, load_tokenizer
from tutelage.inference.transformers_prepare import prepare
from tutelage.inference.transformers_render import Rendered, end_ids, render, special_tokens
from tutelage.inference.transformers_search import Answers, Search, rows_at_once, search
from tutelage.inference.transformers_tuned import Answerer, TunedWeights

__all__ = [
    "Rendered", "TransformersGenerator", "load_model", "load_tokenizer", "prepare", "render",
    "special_tokens",
]  # fmt: skip

_SLOTS = 16384  # tokens whose keys and values the rows of one batch may keep, beyond the prefix
_NLL_POSITIONS = 1024  # positions whose logits are held at once by mean_nll
_NLL_WINDOW = 512  # tokens of one text that are seen together by mean_nll


@dataclass
class _Row:
    """One prompt on its way. `made` are the tokens written so far."""

    index: int
    prompt: Prompt
    ids: list[int]
    made: list[int] = field(default_factory=list)
    reason: str | None = None
    first_ms: float | None = None
    draw: torch.Generator | None = None


class TransformersGenerator:
    """Writes answers, weighs labels and measures perplexity with one model in memory."""

    def __init__(
        self,
        source: ModelSource,
        *,
        adapter: Path | None = None,
        batch_size: int = 8,
        dtype: str = "float32",
        share: bool = True,
        merge: bool = False,
    ) -> None:
        """Load the model. `share=False` takes the plain path, which the tests compare with.

        `merge` folds the adapter in use into a small model's matrices, for many rows at a time.
        """
        model = load_model(source, dtype=dtype)
        self._setup(model, load_tokenizer(source), batch_size, share, merge=merge)
        if adapter is not None:
            self.set_adapter(adapter)

    @classmethod
    def over(
        cls, model: Any, tokenizer: Any, *, batch_size: int = 8, share: bool = True
    ) -> TransformersGenerator:
        """Return a generator over a model that is already in memory, e.g. one in training."""
        made = cls.__new__(cls)
        made._setup(model, tokenizer, batch_size, share)
        made._changing = True
        return made

    def _setup(
        self, model: Any, tokenizer: Any, batch_size: int, share: bool, *, merge: bool = False
    ) -> None:
        self._model, self.tokenizer, self.batch_size = model, tokenizer, batch_size
        self._ends = frozenset(end_ids(tokenizer))
        pad = tokenizer.pad_token_id
        self._runner = Runner(model, tokenizer.eos_token_id if pad is None else pad, share=share)
        self._limit = int(getattr(model.config, "max_position_embeddings", 0) or 1 << 30)
        self._weights = TunedWeights(model, merge=merge)
        self._answerer: Answerer | None = None
        self._changing = False  # somebody else may change the weights between two calls

    def set_adapter(self, adapter: Path | None) -> None:
        """Answer with this adapter from now on; None is the base model. Weights are shared."""
        self._runner.forget()
        self._model = self._runner.model = self._weights.use(adapter)
        self._answerer = self._weights.answerer(self.tokenizer)

    @property
    def specials(self) -> tuple[str, ...]:
        """The control tokens that inference.chat.conversation must make inert."""
        return special_tokens(self.tokenizer)

    def generate(
        self, prompts: Sequence[Prompt], on_done: OnDone | None = None
    ) -> list[Completion]:
        """Return one completion a prompt, in order.

        `latency_ms` runs from the start of the row's batch. Raises DataError if a prompt leaves
        no room to answer in the model's context.
        """
        if self._answerer is not None:
            picked = self._answerer.generate(prompts)
            for index, completion in enumerate(picked):
                if on_done is not None:
                    on_done(index, completion)
            return picked
        rows = self._rows(prompts)
        shared = self._shared(rows)
        done: list[Completion | None] = [None] * len(rows)
        for group in self._batches(rows, self._together(rows, shared)):
            with self._still():
                finished = self._write(group, shared)
            for row, completion in finished:
                done[row.index] = completion
                if on_done is not None:
                    on_done(row.index, completion)
        return [completion for completion in done if completion is not None]

    def score_labels(
        self, prompts: Sequence[Prompt], answers: Sequence[str], *, whole: bool = True
    ) -> NDArray[np.float64]:
        """Return log p(answer | prompt), natural log, end-of-turn token included; (N, L).

        `whole=False` leaves out what all answers end in, save its first token: a quarter less
        work, the same order.
        """
        if self._answerer is not None:
            return self._answerer.score_labels(prompts, answers)
        rows = self._rows(prompts)
        result = np.zeros((len(rows), len(answers)))
        if not rows or not answers:
            return result
        tails = self._tails(prompts[0], answers, whole)
        if not self._runner.shares:
            with self._still():
                for row in rows:
                    result[row.index] = self._score_plain(row.ids, tails)
            return result
        for group, walk in self._walks(rows, tails, bounded=False):
            result[[row.index for row in group]] = walk.scores()
        return result

    def choose_labels(
        self,
        prompts: Sequence[Prompt],
        answers: Sequence[str],
        *,
        whole: bool = False,
        ended: bool = True,
    ) -> list[Choice]:
        """Return the likeliest of `answers` a prompt: that of `score_labels`, for less work.

        Answers that can't win any more are not followed to their end, so the share of the
        probability is known within bounds. `whole` as in `score_labels`. Without `ended` an
        answer need only begin the text: its ending is weighed where another answer goes on.
        """
        if not prompts or not answers or self._answerer is not None or not self._runner.shares:
            scores = self.score_labels(prompts, answers, whole=whole)
            return choices_of(scores) if answers else []
        rows = self._rows(prompts)
        tails = self._tails(prompts[0], answers, whole)
        tails = tails if ended else as_beginnings(tails)
        made: dict[int, Choice] = {}
        for group, walk in self._walks(rows, tails, bounded=True):
            made |= zip((row.index for row in group), walk.choices(), strict=True)
        return [made[row.index] for row in rows]

    def _tails(self, prompt: Prompt, answers: Sequence[str], whole: bool) -> list[list[int]]:
        tails = [render(self.tokenizer, prompt.messages, answer=a).answer_ids for a in answers]
        return tails if whole else without_closing(tails)

    def _walks(
        self, rows: Sequence[_Row], tails: list[list[int]], *, bounded: bool
    ) -> Iterator[tuple[list[_Row], Search]]:
        """Yield groups of rows of like length with the finished walk of the answers' trie."""
        found = Answers.of(tails)
        shared = self._shared(rows)
        waiting = [row for (row,) in self._batches(rows, 1)]  # short ones first
        while waiting:
            longest = len(waiting[-1].ids) - shared
            with self._still():
                size = rows_at_once(self._runner, found, longest, bounded=bounded)
                size = -(-len(waiting) // -(-len(waiting) // size))  # groups of like size
                group, waiting = waiting[-size:], waiting[:-size]
                walk = search(
                    self._runner, [row.ids for row in group], shared, found, bounded=bounded
                )
            yield group, walk

    def mean_nll(self, texts: Sequence[str]) -> list[tuple[float, int]]:
        """Return (sum of -log p, tokens predicted) a text, natural log, no chat template.

        Perplexity is exp(sum / tokens). Long texts are read in windows of 512 tokens.
        """
        totals = [(0.0, 0)] * len(texts)
        windows: list[tuple[int, list[int]]] = []
        for index, text in enumerate(texts):
            ids = self.tokenizer(text, verbose=False)["input_ids"]
            windows += [
                (index, ids[at : at + _NLL_WINDOW + 1])
                for at in range(0, max(1, len(ids) - 1), _NLL_WINDOW)
            ]
        windows = [w for w in sorted(windows, key=lambda w: len(w[1])) if len(w[1]) > 1]
        with self._still():
            if self._runner.shares:
                sums = nll.sums(self._runner, [ids for _, ids in windows])
            else:
                sums = self._nll([ids for _, ids in windows])
        for (index, ids), one in zip(windows, sums, strict=True):
            total, tokens = totals[index]
            totals[index] = (total + one, tokens + len(ids) - 1)
        return totals

    def close(self) -> None:
        """Drop the model and everything kept with it."""
        self._runner.forget()
        self._model = self._runner.model = self._answerer = None
        self._weights = TunedWeights(None)

    @contextlib.contextmanager
    def _still(self) -> Iterator[None]:
        """Without gradients or dropout; a model that is in training goes on training after."""
        training = self._model.training
        self._model.eval()
        try:
            with torch.inference_mode():
                yield
        finally:
            self._model.train(training)

    def _rows(self, prompts: Sequence[Prompt]) -> list[_Row]:
        if self._changing:
            self._runner.forget()
        rows = []
        for index, prompt in enumerate(prompts):
            ids = render(self.tokenizer, prompt.messages).prompt_ids
            if len(ids) >= self._limit:
                raise DataError(
                    f"prompt {index + 1} has {len(ids)} tokens, the model reads {self._limit}",
                    fix="Shorten the row or the prompt, or choose a model with a longer context",
                )
            rows.append(_Row(index, prompt, ids))
        return rows

    def _shared(self, rows: Sequence[_Row]) -> int:
        """Return how many leading tokens are computed once for all rows.

        They end where the last turn's own text begins, whatever the texts happen to share, so
        they are the same in every call with the same instructions and examples.
        """
        if not rows or not self._runner.shares:
            return 0
        turns = rows[0].prompt.messages
        others = [
            render(self.tokenizer, [*turns[:-1], turns[-1].model_copy(update={"content": text})])
            for text in (".", "x")
        ]
        return common_prefix([row.ids for row in rows] + [other.prompt_ids for other in others])

    def _together(self, rows: Sequence[_Row], shared: int) -> int:
        """Return how many rows make a batch: `batch_size`, or fewer where they are very long."""
        longest = max((len(r.ids) - shared + r.prompt.decoding.max_tokens for r in rows), default=1)
        return max(1, min(self.batch_size, _SLOTS // longest))

    def _batches(self, rows: Sequence[_Row], size: int) -> Iterator[list[_Row]]:
        """Yield groups of rows of like length, in an order that depends on the prompts alone."""
        order = sorted(rows, key=lambda row: (len(row.ids), row.ids, row.index))
        for at in range(0, len(order), size):
            yield order[at : at + size]

    def _write(self, rows: list[_Row], shared: int) -> list[tuple[_Row, Completion]]:
        finished: list[tuple[_Row, Completion]] = []
        started = time.perf_counter()
        room = max(row.prompt.decoding.max_tokens for row in rows)
        batch = self._runner.start([row.ids for row in rows], rows[0].ids[:shared], room)
        for row in rows:
            seed = row.prompt.decoding.seed
            row.draw = torch.Generator().manual_seed((seed or 0) + row.index)
            if seed is None:
                row.draw.seed()
        going = list(range(len(rows)))
        for _ in range(room):
            tokens = self._next(batch, rows, going)
            now = (time.perf_counter() - started) * 1000
            for place, token in zip(going, tokens.tolist(), strict=True):
                if self._take(rows[place], token, now):
                    finished.append((rows[place], self._completion(rows[place], shared, now)))
            kept = [i for i, place in enumerate(going) if rows[place].reason is None]
            going = [going[i] for i in kept]
            if not going:
                break
            self._runner.step(batch, tokens[kept], torch.tensor(going))
        return finished

    def _next(self, batch: Batch, rows: list[_Row], going: list[int]) -> torch.Tensor:
        """Return a token for each of the rows that have not ended."""
        logits = batch.logits[going]
        tokens = logits.argmax(dim=-1)
        for i, place in enumerate(going):
            temperature = rows[place].prompt.decoding.temperature
            if temperature > 0:
                odds = torch.softmax(logits[i] / temperature, dim=-1)
                tokens[i] = torch.multinomial(odds, 1, generator=rows[place].draw)[0]
        return tokens

    def _take(self, row: _Row, token: int, now: float) -> bool:
        """Add a token to a row; return whether that ended it."""
        row.first_ms = now if row.first_ms is None else row.first_ms
        if token in self._ends:
            row.reason = "stop"
            return True
        row.made.append(token)
        decoding = row.prompt.decoding
        if decoding.stop and _cut(self._text(row), decoding.stop) is not None:
            row.reason = "stop"
        elif len(row.made) >= decoding.max_tokens or len(row.ids) + len(row.made) >= self._limit:
            row.reason = "length"
        return row.reason is not None

    def _text(self, row: _Row) -> str:
        return str(self.tokenizer.decode(row.made, skip_special_tokens=True))

    def _completion(self, row: _Row, shared: int, now: float) -> Completion:
        text = self._text(row)
        cut = _cut(text, row.prompt.decoding.stop)
        return Completion(
            text=text if cut is None else text[:cut],
            finish_reason=row.reason or "length",
            usage=Usage(len(row.ids), len(row.made), shared),
            latency_ms=now,
            first_token_ms=row.first_ms,
        )

    def _score_plain(self, prompt: list[int], tails: list[list[int]]) -> list[float]:
        """Score one answer at a time over full sequences: for models that can't branch."""
        scores = []
        for tail in tails:
            ids = torch.tensor([prompt + tail], device=self._model.device)
            logits = self._model(input_ids=ids, logits_to_keep=len(tail) + 1).logits
            odds = torch.log_softmax(logits[0, :-1].float(), dim=-1)
            scores.append(float(odds[torch.arange(len(tail)), torch.tensor(tail)].sum()))
        return scores

    def _nll(self, rows: list[list[int]]) -> list[float]:
        """Return the sums of -log p of rows in the order of their length, padded."""
        sums: list[float] = []
        while len(sums) < len(rows):
            count = 1
            for longest in map(len, rows[len(sums) + 1 :]):
                if longest * (count + 1) > _NLL_POSITIONS:
                    break
                count += 1
            sums += self._nll_padded(rows[len(sums) : len(sums) + count])
        return sums

    def _nll_padded(self, rows: list[list[int]]) -> list[float]:
        width = max(len(row) for row in rows)
        ids = torch.full((len(rows), width), self._runner.pad)
        for i, row in enumerate(rows):
            ids[i, : len(row)] = torch.tensor(row)
        logits = self._model(input_ids=ids.to(self._model.device)).logits
        sums = []
        for i, row in enumerate(rows):
            odds = logits[i, : len(row) - 1].float()
            target = ids[i, 1 : len(row)].to(odds.device)
            picked = odds.gather(1, target[:, None])[:, 0]
            sums.append(float((odds.logsumexp(dim=-1) - picked).double().sum()))
        return sums


def _cut(text: str, stops: Sequence[str]) -> int | None:
    places = [text.find(stop) for stop in stops if stop and stop in text]
    return min(places) if places else None
