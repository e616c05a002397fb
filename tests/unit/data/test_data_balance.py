"""Balance: labels, refusals, and the rows against production, where chance raises no alarm."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import entropy
from sklearn.metrics import roc_auc_score
from tests.planted import read_banking77
from typer.testing import CliRunner

from tutelage.cli.main import app
from tutelage.core.artifact import utc_now
from tutelage.core.example import Example, Message
from tutelage.data.quality.balance import (
    Balance,
    classes,
    percent,
    refusals,
    represent,
    section,
    topic_differs,
)
from tutelage.data.quality.two_sample import delong, separability, topics, vocabulary
from tutelage.store.records import RecordRow
from tutelage.workflows.context import Context, open_context
from tutelage.workflows.data.balance import balance, findings, production_rows

CONFIG = """\
name: bank
task: classification
model: demo
output: {labels: [card, fee, app]}
data: {sources: [data/*], columns: {input: text, output: label}}
"""
SUBJECTS = {
    "card": ("card", "pin", "plastic", "chip", "lost", "stolen", "expired", "contactless"),
    "fee": ("fee", "charge", "cost", "price", "monthly", "refund", "extra", "foreign"),
    "app": ("app", "login", "password", "phone", "screen", "update", "install", "crash"),
}
FRAMES = (
    "please tell me about {a} and {b}",
    "my {a} has a problem with {b}",
    "why is {a} {b}",
    "how do i fix the {a} {b}",
    "is there a {a} for {b} today",
    "help with {a} then {b}",
)


def texts(label: str, count: int, rng: random.Random) -> list[str]:
    words = SUBJECTS[label]
    return [
        rng.choice(FRAMES).format(a=rng.choice(words), b=rng.choice(words))
        + f" {rng.randrange(999)}"
        for _ in range(count)
    ]


def example(text: str, label: str | None = "card", answer: str | None = None) -> Example:
    turns = (
        Message(role="user", content=text),
        Message(role="assistant", content=answer or label or ""),
    )
    return Example(messages=turns, label=label)


def mixed(shares: dict[str, int], seed: int) -> list[Example]:
    rng = random.Random(seed)
    rows = [example(text, label) for label, n in shares.items() for text in texts(label, n, rng)]
    rng.shuffle(rows)
    return rows


EVEN = {"card": 100, "fee": 100, "app": 100}
SMALL = {"card": 30, "fee": 30, "app": 30}


def test_classes_are_counted_and_the_small_and_missing_named() -> None:
    found = classes(mixed({"card": 120, "fee": 8, "app": 40}, 1), ["card", "fee", "app", "loan"])
    assert found is not None
    assert found.counts == {"card": 120, "app": 40, "fee": 8}
    assert (found.ratio, found.few, found.missing) == (15.0, ("fee",), ("loan",))
    assert found.flagged and found.evenness == pytest.approx(entropy([120, 40, 8]) / math.log(3))
    even = classes(mixed(EVEN, 1))
    assert even is not None and not even.flagged and even.evenness == pytest.approx(1)
    assert classes([example("only one", "card")]) is None


def test_refusals_have_an_interval_and_a_limit() -> None:
    rows = [example(f"text {i}", None, "I don't know." if i < 6 else "Yes.") for i in range(60)]
    found = refusals(rows, limit=0.05)
    assert (found.count, found.share, found.flagged) == (6, 0.1, True)
    assert (round(found.low, 4), round(found.high, 4)) == (0.0466, 0.2015)  # Wilson
    assert not refusals(rows, limit=0.2).flagged


def test_rows_that_match_production_are_alike() -> None:
    found = represent(mixed(EVEN, 1), mixed(EVEN, 2))
    assert found.verdict == "alike"
    assert found.apart is not None and found.apart.low < 0.5 < found.apart.high
    assert found.sentences[0].startswith("The data look like what production asks (AUC 0.")
    assert not any(map(topic_differs, found.topics))


def test_chance_raises_no_alarm() -> None:
    verdicts = [represent(mixed(SMALL, 10 + i), mixed(SMALL, 90 + i), i).verdict for i in range(8)]
    assert verdicts.count("differs") <= 1


def test_a_topic_that_production_asks_more_about_is_named_with_an_example() -> None:
    found = represent(mixed({"card": 140, "fee": 140, "app": 20}, 1), mixed(EVEN, 2))
    assert found.verdict == "differs"
    more = [t for t in found.topics if topic_differs(t) and t.second > t.first]
    assert more and all(set(topic.words) & set(SUBJECTS["app"]) for topic in more)
    told = [s for s in found.sentences if s.startswith("Production asks")]
    assert told and "× more about" in told[0] and "e.g. “" in told[0]
    moved = {feature.name: feature.moved for feature in found.features}
    assert moved == {"input lengths": False, "label shares": True}


def test_a_topic_that_no_row_is_about() -> None:
    rows = mixed({"card": 100, "fee": 100}, 1)
    found = represent(rows, mixed({"card": 60, "fee": 60, "app": 60}, 2))
    assert any("and no row does" in sentence for sentence in found.sentences)
    assert found.words is not None and set(found.words.words) & set(SUBJECTS["app"])


def test_longer_inputs_are_told() -> None:
    rows = mixed(EVEN, 1)
    longer = [example(row.input_text * 4, row.label) for row in mixed(EVEN, 2)]
    told = represent(rows, longer).sentences
    assert any(s.startswith("The input lengths differ: median") for s in told)


def test_too_little_and_no_traffic_conclude_nothing() -> None:
    rows = mixed(EVEN, 1)
    assert represent(rows, []).verdict == "no_traffic"
    few = represent(rows, rows[:49])
    assert (few.verdict, few.sentences) == (
        "too_few", ("49 requests and 300 rows; 50 of each are needed",)
    )  # fmt: skip


def test_delong_against_scikit_learn_and_the_bootstrap() -> None:
    rng = np.random.default_rng(5)
    positive, negative = rng.normal(0.7, 1, 120), rng.normal(0, 1, 80).round(1)
    auc, variance = delong(positive, negative)
    side = np.r_[np.ones(120), np.zeros(80)]
    assert auc == pytest.approx(roc_auc_score(side, np.r_[positive, negative]))
    drawn = [delong(rng.choice(positive, 120), rng.choice(negative, 80))[0] for _ in range(800)]
    assert variance**0.5 == pytest.approx(np.std(drawn), rel=0.12)


def test_a_repeated_text_is_not_recognised() -> None:
    rows = [f"the same question {i % 40}" for i in range(200)]
    assert separability(rows, rows, seed=1).auc == pytest.approx(0.5, abs=0.02)


def test_texts_without_words_are_no_trouble() -> None:
    nothing = ["?", "!", "…", "日"] * 20
    found = represent(
        [example(t, None, "ok") for t in nothing], [example(t, None, "ok") for t in nothing]
    )
    assert found.verdict == "alike"
    assert topics(nothing, nothing, 1) == []
    assert vocabulary([], [], 1).unknown == 0.0


def test_real_rows_against_their_test_file(shared_data: Path) -> None:
    train = [example(*row) for row in read_banking77(shared_data)][:1500]
    random.Random(1).shuffle(train)
    halves = represent(train[:700], train[700:1400])
    assert halves.verdict == "alike"
    lines = (shared_data / "general" / "wiki_sentences.txt").read_text("utf-8").splitlines()
    strange = represent(train[:700], [example(line, None, "") for line in lines[:300]])
    assert strange.verdict == "differs" and strange.apart is not None and strange.apart.auc > 0.98


def record(index: int, text: str, response: str, **values: Any) -> RecordRow:
    fields: dict[str, Any] = {
        "id": f"r{index}", "deployment": "bank", "release": "a" * 64, "rollout": None, "step": None,
        "arm": "stable", "user": None, "key_name": None, "split": "train", "group_key": f"g{index}",
        "messages": [{"role": "system", "content": "Be kind."}, {"role": "user", "content": text}],
        "response": response, "finish_reason": "stop", "status": 200, "error": None,
        "latency_ms": 1.0, "first_token_ms": None, "prompt_tokens": 5, "completion_tokens": 1,
        "checks": {},
    }  # fmt: skip
    return RecordRow(**(fields | values))


def project(make_project: Callable[..., Path], rows: Sequence[Example]) -> Path:
    lines = [json.dumps({"text": row.input_text, "label": row.label}) for row in rows]
    return make_project({"rows.jsonl": "\n".join(lines)}, CONFIG)


def log(ctx: Context, records: Sequence[RecordRow]) -> None:
    with ctx.store.begin() as session:
        session.add_all(records)


def test_production_is_read_as_it_was_answered(make_project: Callable[..., Path]) -> None:
    rows = mixed(EVEN, 1)
    ctx = open_context(project(make_project, rows))
    log(ctx, [
        record(1, "an  old card", "card", at=utc_now() - timedelta(days=9)),
        record(2, "my fee", "fee"),
        record(3, "what is this", "no label at all"),
        record(4, "it failed", "", status=500),
        record(5, "seen twice", "app", arm="shadow"),
        record(6, "no turns", "app", messages=["odd", {"role": "robot"}, {"role": "user"}]),
    ])  # fmt: skip
    found = production_rows(ctx, rows)
    assert [(row.input_text, row.label) for row in found] == [
        ("an old card", "card"), ("my fee", "fee"), ("what is this", None),
    ]  # fmt: skip
    assert found[0].origin.kind == "production" and found[0].origin.source == "r1"
    assert len(production_rows(ctx, rows, days=1)) == 2
    assert production_rows(ctx, rows, limit=1) == []  # the newest holds no turn
    assert len(production_rows(ctx, rows, limit=2)) == 1


@pytest.mark.parametrize(
    ("shares", "code", "verdict"),
    [
        ({}, 0, "no_traffic"),
        ({"card": 20}, 3, "too_few"),
        (EVEN, 0, "alike"),
        ({"card": 20, "fee": 20, "app": 160}, 1, "differs"),
    ],
)
def test_the_command_and_its_exit_code(
    make_project: Callable[..., Path], shares: dict[str, int], code: int, verdict: str
) -> None:
    root = project(make_project, mixed(EVEN, 1))
    asked = mixed(shares, 2)
    ctx = open_context(root)
    log(ctx, [record(i, row.input_text, row.label or "") for i, row in enumerate(asked)])
    done = CliRunner().invoke(app, ["data", "balance", "--project", str(root), "--json"])
    assert done.exit_code == code, done.output
    found = json.loads(done.stdout)
    assert (found["production"]["verdict"], found["production"]["requests"]) == (
        verdict,
        len(asked),
    )
    assert found["classes"]["counts"] == EVEN
    shown = CliRunner().invoke(app, ["data", "balance", "--project", str(root)])
    assert "3; the largest has 1.0 times the rows" in shown.stdout
    if verdict == "differs":
        assert "Production asks" in shown.stdout
    assert [f.id for f in findings(balance(ctx))][:1] == (["D6-P01"] if code == 1 else [])


def test_the_section_shows_it_to_an_expert() -> None:
    rows, asked = mixed({"card": 140, "fee": 140, "app": 20}, 1), mixed(EVEN, 2)
    rows[0] = example("<b>bold</b>", None, "I don't know.")
    found = Balance(
        rows=len(rows),
        refusals=refusals(rows, 0.05),
        production=represent(rows, asked),
        classes=classes(rows, ["card", "loan"]),
    )
    page = "".join(section(found))
    assert "The rows differ from what production asks" in page
    assert "Rows a label" in page and "No row at all: loan." in page
    assert "1 of 300 answers refuse" in page and "<b>bold</b>" not in page
    quiet = Balance(2, refusals([], 0.05), represent(rows, []))
    assert section(quiet) == []
    assert json.loads(json.dumps(found.as_dict()))["production"]["topics"]


def test_percent() -> None:
    assert [percent(share) for share in (0.0, 0.014, 0.1, 1.0)] == ["0%", "1.4%", "10%", "100%"]
