"""Report documents that the page's tests share: a large one, a graded one, hostile text."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

from tutelage.core.config import Guards, Project
from tutelage.core.example import Example, Message
from tutelage.core.output import OutputFormat
from tutelage.evaluation import report
from tutelage.evaluation.forgetting import ProbeResult, compare, probes
from tutelage.evaluation.gate import Evidence, decide
from tutelage.evaluation.rows import RowResult
from tutelage.evaluation.scoring import differences, score_candidate
from tutelage.evaluation.task import Task, make_task

TOPICS = ("card", "transfer", "top up", "exchange rate", "cash", "identity", "refund")
LABELS = tuple(f"{topic.replace(' ', '_')}_{i:02d}" for i in range(11) for topic in TOPICS)
SKILL = {"base": 0.12, "few_shot": 0.48, "tuned": 0.71, "stable": 0.66,
         "base_constrained": 0.31, "tuned_constrained": 0.73}  # fmt: skip
TITLES = {"base": "base model, zero-shot", "few_shot": "base model, 6 examples",
          "tuned": "tuned model", "stable": "stable release 3f9a1c22",
          "base_constrained": "base model, zero-shot, label list",
          "tuned_constrained": "tuned model, label list"}  # fmt: skip
ATTACKS = (
    "<script>window.pwned=1;alert(1)</script>",
    '"><img src=x onerror="window.pwned=1;alert(2)">',
    "'onmouseover='window.pwned=1' style='position:fixed;inset:0' x='",
    "</title></style></textarea><svg onload=window.pwned=1>",
    "<iframe src='javascript:parent.pwned=1'></iframe><a href='javascript:pwned=1'>x</a>",
    "</script><script src=//evil.example/x.js></script>",
    "<details open ontoggle=window.pwned=1><link rel=stylesheet href=//evil.example/x.css>",
    "<meta http-equiv=refresh content='0;url=//evil.example'><base href=//evil.example/>",
    "`<b>x</b>` \x00\x1b[31m\x85\ud800\u202eevil\ufffe {{7*7}} ${7*7}",
)


def classification(
    rows: int = 60, labels: tuple[str, ...] = LABELS[:12], seed: int = 0
) -> dict[str, Any]:
    """Return the document of a classification: every candidate of SKILL, forgetting included."""
    project = Project.model_validate(
        {"name": "bank-help", "task": "classification", "model": "demo", "prompt": "Which intent?",
         "output": {"field": "intent", "labels": list(labels)}}
    )  # fmt: skip
    form, dice = OutputFormat(field="intent", labels=labels), random.Random(seed)

    def example(i: int, side: str) -> Example:
        label = labels[i % len(labels)]
        text = f"{side} {i}: why is my {label.replace('_', ' ')} still pending, and what is next?"
        return Example(
            messages=(
                Message(role="user", content=text),
                Message(role="assistant", content=form.render(label)),
            ),
            label=label,
        )

    task = make_task(
        project, [example(i, "old") for i in range(3 * len(labels))],
        [example(i, "new") for i in range(rows)], lambda item: item, lambda text: len(text) // 4,
    )  # fmt: skip
    scored = {}
    for name, skill in SKILL.items():
        answers = {}
        for i, row in enumerate(task.rows):
            right = dice.random() < skill * (1.25 if i % 3 else 0.5)
            wrong = labels[(i + dice.choice((1, 1, 1, 2, 7))) % len(labels)]
            text = form.render(str(row.label) if right else wrong)
            if name == "base" and not right and dice.random() < 0.4:
                text = "I am not sure which intent this is, sorry."
            answers[row.id] = _answer(name, row.id, text, i, dice)
        scored[name] = score_candidate(
            task, task.scorers(project), answers, (name, TITLES[name])
        )  # fmt: skip
    return _document("bank-help", task, scored, seed)


def _answer(name: str, item: str, text: str, i: int, dice: random.Random) -> RowResult:
    chosen, tokens = name.endswith("constrained"), len(text) // 4 + 1
    took = dice.gauss(900 if name == "few_shot" else 400, 60) + 30 * tokens
    return RowResult(
        name, item, text, "chosen" if chosen else "stop", 120, 100, tokens, took, i // 8,
        took / 3,
    )  # fmt: skip


def _document(name: str, task: Task, scored: dict[str, Any], seed: int) -> dict[str, Any]:
    dice, sure = random.Random(seed), []
    for _ in probes():
        first = dice.uniform(0.3, 0.9)
        sure.append([first, *[(1 - first) / 3] * 3])
    after = [[max(r[0] + dice.gauss(-0.01, 0.1), 0.01), *r[1:]] for r in sure]
    texts = ([30.0 + i % 7 for i in range(40)], [10] * 40)
    heavier = ([30.6 + i % 7 for i in range(40)], [10] * 40)
    forgotten = compare(ProbeResult(sure, *texts), ProbeResult(after, *heavier))
    compared = differences(task, scored)
    evidence = Evidence(task.primary, 0.95, scored, compared, forgotten)
    findings = report.Findings(
        name, task, evidence, decide(evidence, Guards()), 8, 0, task.train[:6],
        {"load": 3.1, "answers": 210.4}, {"dataset": "5c1de0a9", "adapter": "91aa03f2"},
    )  # fmt: skip
    return report.build(findings)


def graded(document: Mapping[str, Any]) -> dict[str, Any]:
    """Return `document` as a task of free text: long answers, a judge, perplexity, cost, KL."""
    words = "the patient was seen for a routine check and reports no pain since the last visit"
    changed = {
        "against": "few_shot", "graded": True,
        "counts": {"fixed": 31, "broken": 9, "both_wrong": 0, "both_right": 0},
        **{group: [_long(i, words) for i in range(n)]
           for group, n in (("fixed", 6), ("broken", 4), ("best", 3), ("worst", 3))},
    }  # fmt: skip
    candidates = [
        {**c, "per_class": [], "confusion": None, "usage": _alone(c["usage"]), "metrics": {
            **c["metrics"],
            "judge_quality": {"estimate": 3.4 + k / 5, "low": 3.1 + k / 5, "high": 3.7 + k / 5,
                              "n": 60, "unscored": k},
            "answer_perplexity": {"estimate": 12.0 - k, "low": 10.0 - k, "high": 15.0 - k, "n": 60},
        }}
        for k, c in enumerate(document["candidates"])
    ]  # fmt: skip
    kl = {"estimate": 0.031, "low": 0.021, "high": 0.044, "n": 40}
    own = [{"name": "our safety rules: loss of right answers", "estimate": 0.1, "low": 0.02,
            "high": 0.18, "n": 30}]  # fmt: skip
    priced = [
        {"name": c["name"], "title": c["title"], "EUR_for_1000_answers": 0.4 + k / 9,
         "low": 0.35 + k / 9, "high": 0.5 + k / 9, "by": "tokens"}
        for k, c in enumerate(document["candidates"][:3])
    ]  # fmt: skip
    return {
        **document, "task": "summarization", "changed": changed, "candidates": candidates,
        "forgetting": {**document["forgetting"], "kl": kl, "further": own},
        "cost": {"note": "By tokens.", "candidates": priced},
        "something_new": {"a": 1},
    }  # fmt: skip


def _alone(usage: dict[str, Any] | None) -> dict[str, Any] | None:
    times = {"rows": 20, "p50_ms": 610.0, "p95_ms": 690.0, "p99_ms": None,
             "first_token_p50_ms": 200.0, "per_token_p50_ms": 31.0}  # fmt: skip
    return {**usage, "alone": times} if usage else None


def _long(i: int, words: str) -> dict[str, Any]:
    now = words.replace("routine", f"yearly ({i})").replace("no pain", "some pain")
    return {
        "id": f"{i:024x}", "input": f"{words}. " * (30 if i == 0 else 6), "expected": words,
        "answers": {"few_shot": words, "tuned": now}, "scores": {"few_shot": 0.41, "tuned": 0.63},
        "why": None,
    }  # fmt: skip


def attacked(value: Any, key: str = "", turn: list[int] | None = None) -> Any:
    """Return a document in which every text but the verdict's outcomes attacks the page."""
    turn = turn if turn is not None else [0]
    if isinstance(value, Mapping):
        return {_renamed(k, key): attacked(v, k, turn) for k, v in value.items()}
    if isinstance(value, list):
        return [attacked(v, key, turn) for v in value]
    if not isinstance(value, str) or key == "outcome":
        return value
    if key in ("name", "against", "other", "metric"):
        return value if value in (*SKILL, "accuracy") else value + ATTACKS[0]
    turn[0] += 1
    return f"{value} {ATTACKS[turn[0] % len(ATTACKS)]}"


def _renamed(key: str, parent: str) -> str:
    """Attack through keys that are shown: metrics, versions, stages, what it was made from."""
    free = parent in ("metrics", "extra", "versions", "lineage", "seconds")
    return key + ATTACKS[1] if free and key != "accuracy" else key
