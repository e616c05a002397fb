"""The general probes: sound items, honest figures, and what was forgotten by name."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import t

from tutelage.core.config import Guards
from tutelage.core.errors import ConfigError, DataError
from tutelage.evaluation.forgetting import (
    Measured,
    ProbeResult,
    compare,
    measure,
    probes,
    texts,
)
from tutelage.evaluation.forgetting_probes import Probe, ProbeSet, own_probes
from tutelage.evaluation.gate_forgetting import forgetting_criteria


class Marks:
    """Gives the right ending a likelihood of its own; everything else is equal."""

    def __init__(self, right: Sequence[float], nll: float = 3.0) -> None:
        self._right = {
            f"{p.stem} {p.choices[0]}.": -math.log(3 * r / (1 - r))
            for p, r in zip(probes(), right, strict=True)
        }
        self._nll = nll
        self._general = set(texts())

    def mean_nll(self, texts: Sequence[str]) -> list[tuple[float, int]]:
        return [
            (self._right.get(text, 0.0) + (self._nll * 10 if text in self._general else 0.0), 10)
            for text in texts
        ]


def test_the_probes_are_distinct_four_way_questions() -> None:
    assert len(probes()) >= 120 and len(texts()) == 40
    assert len({p.stem for p in probes()}) == len(probes())
    assert all(len(set(p.choices)) == 4 for p in probes())
    assert not {p.right + "." for p in probes()} & set(texts())


def test_a_chance_is_the_probability_among_the_four() -> None:
    right = np.linspace(0.1, 0.9, len(probes())).tolist()
    found = measure(Marks(right))
    assert found.right == pytest.approx(right, abs=1e-5)
    assert sum(found.hits) == sum(r > 0.25 for r in right)
    assert found.tokens == [10] * 40


def test_nothing_forgotten_is_nothing() -> None:
    same = measure(Marks([0.5] * len(probes())))
    found = compare(same, same)
    assert (found.number, found.chance_drop.estimate, found.perplexity_ratio.estimate) == (0, 0, 1)
    assert found.lost == [] and found.gained == []


def test_what_was_forgotten_is_named() -> None:
    before = [0.6] * len(probes())
    after = [0.1] * 3 + before[3:]
    found = compare(measure(Marks(before)), measure(Marks(after)))
    assert [item["stem"] for item in found.lost] == [p.stem for p in probes()[:3]]
    assert found.lost[0]["right"] == probes()[0].choices[0]
    assert found.lost[0]["instead"] in probes()[0].choices[1:]
    assert found.number == pytest.approx(3 / len(probes()))
    back = compare(measure(Marks(after)), measure(Marks(before)))
    assert back.number == 0.0 and len(back.gained) == 3


def test_perplexity_is_that_of_all_tokens_together() -> None:
    base = ProbeResult([[1.0, 0, 0, 0]] * len(probes()), [20.0, 30.0], [10, 10])
    tuned = ProbeResult([[1.0, 0, 0, 0]] * len(probes()), [22.0, 33.0], [10, 10])
    found = compare(base, tuned)
    assert found.base_perplexity == pytest.approx(math.exp(2.5))
    assert found.perplexity_ratio.estimate == pytest.approx(math.exp(0.25))


def test_the_interval_of_the_ratio_is_students_over_texts() -> None:
    rng = np.random.default_rng(1)
    change = rng.normal(0.5, 1.0, size=40)
    base = ProbeResult([[1.0, 0, 0, 0]] * len(probes()), [30.0] * 40, [10] * 40)
    tuned = ProbeResult(base.chances, (30.0 + change).tolist(), [10] * 40)
    found = compare(base, tuned).perplexity_ratio
    half = t.ppf(0.975, 39) * change.std(ddof=1) / np.sqrt(40) / 10
    assert np.log(found.low) == pytest.approx(change.mean() / 10 - half, abs=0.1 * half)
    assert np.log(found.high) == pytest.approx(change.mean() / 10 + half, abs=0.1 * half)


def test_the_chance_sees_a_loss_that_the_count_can_not() -> None:
    """Why the gate reads the chance: same rows, a tenth of the uncertainty."""
    rng = np.random.default_rng(0)
    before = rng.uniform(0.3, 0.9, len(probes()))
    after = np.clip(before - 0.03 + rng.normal(0, 0.03, len(probes())), 0.02, 0.97)
    found = compare(measure(Marks(before.tolist())), measure(Marks(after.tolist())))
    assert found.chance_drop.low > 0.02
    assert found.chance_drop.detectable < 0.25 * found.accuracy_drop.detectable


def test_the_divergence_is_the_mean_over_tokens_with_an_interval_over_texts() -> None:
    same = measure(Marks([0.5] * len(probes())))
    found = compare(same, same, kl=[(1.0, 10), (2.0, 30), (0.5, 10)] * 10)
    assert found.kl is not None
    assert found.kl.estimate == pytest.approx(3.5 / 50)
    assert 0 < found.kl.low < found.kl.estimate < found.kl.high and found.kl.n == 30
    assert found.kl_detectable is not None and found.kl_detectable < 0.05
    assert compare(same, same).kl is None


def test_topics_are_told_apart_and_corrected_for_their_number() -> None:
    before = [0.6] * len(probes())
    hit = [p.topic == "geography" for p in probes()]
    after = [0.3 if h else 0.6 + 0.001 * (i % 3 - 1) for i, h in enumerate(hit)]
    rows = compare(measure(Marks(before)), measure(Marks(after))).topics
    assert rows[0]["topic"] == "geography" and rows[0]["sure"]
    assert rows[0]["drop"] == pytest.approx(0.3, abs=1e-4) and rows[0]["p_holm"] > rows[0]["p"]
    assert not any(row["sure"] for row in rows[1:])
    assert sum(row["questions"] for row in rows) == len(probes())


def own(name: str = "law", questions: int = 30, texts: int = 0) -> ProbeSet:
    made = tuple(Probe("law", f"Case {i} is", ("won", "lost", "open")) for i in range(questions))
    return ProbeSet(name, made, tuple(f"Clause {i} binds." for i in range(texts)), "d" * 64)


def test_own_probes_are_judged_apart_by_the_same_limits() -> None:
    same = measure(Marks([0.5] * len(probes())))
    base = ProbeResult([[0.5, 0.3, 0.2]] * 30, [], [])
    tuned = ProbeResult([[0.3, 0.5, 0.2]] * 30, [], [])
    found = compare(same, same, own=[Measured(own(), base, tuned)])
    assert found.number == 0.0 and len(found.own[0].lost) == 30
    assert found.own[0].perplexity_ratio is None
    criteria = forgetting_criteria(found, Guards(), 0.95)
    assert [(c.name, c.outcome) for c in criteria] == [
        ("keeps general knowledge", "pass"), ("keeps general English", "pass"),
        ("keeps law", "fail"),
    ]  # fmt: skip
    assert criteria[2].sentence.startswith(
        "law: chance of the right answer 50.0 % → 30.0 %: −20.0 points"
    )
    assert found.further[0]["name"] == "law: loss of the chance of the right answer"


def test_two_questions_decide_nothing_and_say_so() -> None:
    same = measure(Marks([0.5] * len(probes())))
    base = ProbeResult([[0.5, 0.5], [0.5, 0.5]], [30.0, 30.0], [10, 10])
    tuned = ProbeResult([[0.4, 0.6], [0.5, 0.5]], [30.0, 50.0], [10, 10])
    found = compare(same, same, own=[Measured(own(questions=2, texts=2), base, tuned)])
    for criterion in forgetting_criteria(found, Guards(), 0.95)[2:]:
        assert criterion.outcome == "not_enough_evidence"
        assert criterion.sentence.endswith("unknown: too few to tell")


def test_own_texts_are_held_to_the_perplexity_limit() -> None:
    same = measure(Marks([0.5] * len(probes())))
    base = ProbeResult([], [30.0] * 20, [10] * 20)
    tuned = ProbeResult([], [33.0 + 0.1 * (i % 2) for i in range(20)], [10] * 20)
    found = compare(same, same, own=[Measured(own(questions=0, texts=20), base, tuned)])
    last = forgetting_criteria(found, Guards(), 0.95)[-1]
    assert (last.name, last.outcome) == ("keeps the texts of law", "fail")
    assert "n = 20 texts; limit × 1.1" in last.sentence


@pytest.mark.parametrize(
    ("nats", "outcome"), [(0.01, "pass"), (0.9, "fail"), (None, "not_enough_evidence")]
)
def test_a_limit_on_the_divergence_is_a_guard_of_its_own(nats: float | None, outcome: str) -> None:
    same = measure(Marks([0.5] * len(probes())))
    kl = None if nats is None else [(nats * n, n) for n in (10, 12, 9, 11) * 10]
    found = compare(same, same, kl=kl)
    assert len(forgetting_criteria(found, Guards(), 0.95)) == 2
    criterion = forgetting_criteria(found, Guards(kl=0.1), 0.95)[2]
    assert (criterion.name, criterion.outcome) == ("stays close to the base", outcome)


def test_own_probes_are_read_in_every_form(tmp_path: Path) -> None:
    rows = [
        {"question": "Who signs?", "choices": ["the buyer", "the notary"], "answer": 1},
        {"question": "When?", "choices": ["now", "never"], "answer": "B", "topic": "time"},
        {"stem": "A will is", "choices": ["a contract", "a deed"], "answer": "a deed"},
        {"text": "The tenant pays on the first."}, {"text": "The landlord repairs the roof."},
    ]  # fmt: skip
    (tmp_path / "law.jsonl").write_text("\n".join(json.dumps(r) for r in rows) + "\n\n")
    found = own_probes(["law.jsonl"], tmp_path)[0]
    assert found.name == "law" and len(found.texts) == 2 and len(found.digest) == 64
    assert [p.choices[0] for p in found.probes] == ["the notary", "never", "a deed"]
    assert found.probes[0].sentences[0] == "Question: Who signs?\nAnswer: the notary"
    assert found.probes[2].sentences[0] == "A will is a deed."
    assert found.probes[1].topic == "time"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "the line is no JSON"),
        ("[1]", "no JSON object"),
        ('{"answer": 1}', "no question, stem or text"),
        ('{"question": "a?", "choices": ["x"], "answer": 0}', "two or more different texts"),
        ('{"question": "a?", "choices": ["x", "x"], "answer": 0}', "two or more different texts"),
        ('{"question": "a?", "choices": ["x", "y"], "answer": 2}', "answer 2 is none of the 2"),
        ('{"question": "a?", "choices": ["x", "y"], "answer": "C"}', "answer 'C' is none"),
        ('{"text": "one"}', "two words or more"),
        ('{"text": "two words"}', "have one text"),
        ("", "have no question"),
    ],
)
def test_a_probe_that_can_not_be_used_is_named_with_its_line(
    line: str, message: str, tmp_path: Path
) -> None:
    (tmp_path / "own.jsonl").write_text(line)
    with pytest.raises(DataError, match=re.escape(message)) as caught:
        own_probes(["own.jsonl"], tmp_path)
    assert "own.jsonl" in str(caught.value.as_dict())


def test_a_missing_file_and_a_name_used_twice_are_clear_errors(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"there is no file law\.jsonl"):
        own_probes(["law.jsonl"], tmp_path)
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "law.jsonl").write_text('{"text": "a b"}\n{"text": "c d"}')
    with pytest.raises(ConfigError, match="two files are called 'law'"):
        own_probes(["a/law.jsonl", "b/law.jsonl"], tmp_path)
