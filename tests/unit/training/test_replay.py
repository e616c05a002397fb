"""Replayed rows: drawn once, the same after a kill, marked, and kept apart from the project's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tutelage.core.example import Example, Message
from tutelage.inference.models import ModelSource
from tutelage.inference.transformers import load_tokenizer
from tutelage.training import replay
from tutelage.training.encode import encode
from tutelage.training.replay import (
    Sampling,
    is_replay,
    mix,
    own_samples,
    replay_count,
    seed_prompts,
)

SHORT = Sampling(tokens=6)


@pytest.mark.parametrize(
    ("rows", "share", "count"), [(95, 0.05, 5), (90, 0.1, 10), (3, 0.05, 1), (0, 0.5, 0), (9, 0, 0)]
)
def test_the_share_is_of_all_rows(rows: int, share: float, count: int) -> None:
    assert replay_count(rows, share) == count


def test_the_seed_prompts_are_many_and_ask_nothing_a_probe_asks() -> None:
    from tutelage.evaluation.forgetting import probes

    prompts = [prompt.lower() for prompt in seed_prompts()]
    assert len(set(prompts)) == len(prompts) >= 60
    stems = [probe.stem.lower() for probe in probes() if len(probe.stem.split()) > 3]
    assert not [(p, s) for p in prompts for s in stems if s in p]


@pytest.mark.parametrize("kind", ["chat", "text"])
def test_samples_are_kept_and_marked(tiny_source: ModelSource, tmp_path: Path, kind: Any) -> None:
    rows = own_samples(tiny_source, kind, 5, tmp_path, sampling=SHORT)
    again = own_samples(tiny_source, kind, 5, tmp_path / "other", sampling=SHORT)
    assert [row.messages for row in rows] == [row.messages for row in again]
    assert len(rows) == 5
    assert all(is_replay(row) for row in rows)
    assert all(row.is_text == (kind == "text") for row in rows)
    assert rows[0].origin.author == tiny_source.short


def test_a_kill_between_batches_loses_nothing_and_changes_nothing(
    tiny_source: ModelSource, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = own_samples(tiny_source, "chat", 20, tmp_path / "whole", sampling=SHORT)
    real, drawn = replay._draw, []

    def dying(model: Any, tokenizer: Any, kind: Any, numbers: Any, sampling: Any) -> Any:
        if numbers[0] == 8 and not drawn:
            drawn.append(numbers[0])
            raise KeyboardInterrupt
        return real(model, tokenizer, kind, numbers, sampling)

    monkeypatch.setattr(replay, "_draw", dying)
    with pytest.raises(KeyboardInterrupt):
        own_samples(tiny_source, "chat", 20, tmp_path / "cut", sampling=SHORT)
    resumed = own_samples(tiny_source, "chat", 20, tmp_path / "cut", sampling=SHORT)
    assert [row.messages for row in resumed] == [row.messages for row in whole]
    monkeypatch.setattr(replay, "_draw", lambda *given: pytest.fail("drawn again"))
    assert len(own_samples(tiny_source, "chat", 20, tmp_path / "cut", sampling=SHORT)) == 20


def test_a_replayed_answer_is_not_put_under_the_projects_prompt(tiny_source: ModelSource) -> None:
    turns = (Message(role="user", content="q"), Message(role="assistant", content="a"))
    tokenizer = load_tokenizer(tiny_source)
    own = Example(messages=turns)
    replayed = Example(messages=turns, meta={"replay": "own"})
    cut = Example(messages=turns, meta={"replay": "own", "open": True})
    texts = [
        tokenizer.decode(row.ids)
        for row in encode([own, replayed, cut], tokenizer, "PROMPT", max_tokens=200).rows
    ]
    assert "PROMPT" in texts[0]
    assert "PROMPT" not in texts[1]
    assert texts[1].endswith("a<|im_end|>")
    assert texts[2].endswith("\na")


def test_raw_text_is_encoded_without_a_template(tiny_source: ModelSource) -> None:
    tokenizer = load_tokenizer(tiny_source)
    row = Example(messages=(Message(role="assistant", content="plain text"),))
    (encoded,) = encode([row], tokenizer, "PROMPT", max_tokens=100).rows
    assert tokenizer.decode(encoded.ids[1:-1]) == "plain text"
    assert encoded.weight == len("plain text") + 1


def test_mixing_keeps_every_row(colours: list[Example]) -> None:
    more = [row.model_copy(update={"meta": {"replay": "own"}}) for row in colours[:3]]
    both = mix(colours[3:], more, 1)
    assert sorted(row.id for row in both) == sorted(row.id for row in colours)
    assert both == mix(colours[3:], more, 1) != mix(colours[3:], more, 2)
