"""Six domain cases of real rows for quality.py: what is asked, which rows, how answers score.

Each gives train, validation and test rows for a seed; the test rows are the same for all seeds
where the source has an official test file. The data lies in ../shared/data (README there); the
ICD-10 rows come from the package simple-icd-10-cm.
"""

from __future__ import annotations

import csv
import json
import random
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tutelage.core.example import Example, Message

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
Rows = tuple[list[Example], list[Example], list[Example]]  # train, validation, test
Pair = tuple[str, str]  # what is asked, what is answered


@dataclass(frozen=True)
class Case:
    """`labels` non-empty: the likeliest of them is the answer; else the model writes."""

    name: str
    task: str
    prompt: str
    rows: Callable[[int], Rows]
    labels: tuple[str, ...] = ()
    max_new_tokens: int = 64
    score: Callable[[str, str], float] = lambda given, wanted: float(given.strip() == wanted)
    texts: Callable[[], list[str]] = list  # raw text to go on pre-training with


def example(asked: str, answer: str, label: str | None = None) -> Example:
    """Return one row."""
    turns = (Message(role="user", content=asked), Message(role="assistant", content=answer))
    return Example(messages=turns, label=label)


def _split(pairs: Sequence[Pair], seed: int, sizes: tuple[int, int], closed: bool) -> list[Any]:
    """Return train and validation rows drawn by `seed`."""
    drawn = random.Random(seed).sample(list(pairs), sum(sizes))
    rows = [example(a, b, b if closed else None) for a, b in drawn]
    return [rows[: sizes[0]], rows[sizes[0] :]]


def _read_csv(path: str) -> list[dict[str, str]]:
    with (DATA / path).open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


INTENTS = (  # of Banking77: about cards and top-ups, easily taken for one another
    "card_arrival", "card_delivery_estimate", "card_not_working", "card_swallowed",
    "lost_or_stolen_card", "compromised_card", "top_up_failed", "top_up_reverted",
    "pending_top_up", "top_up_by_card_charge",
)  # fmt: skip


def banking(seed: int) -> Rows:
    """Return 16 train and 4 validation rows of each of ten intents, and their official test."""
    by_label: dict[str, list[str]] = defaultdict(list)
    for row in _read_csv("banking77/train.csv"):
        by_label[row["category"]].append(row["text"])
    draw, train, validation = random.Random(seed), [], []
    for label in INTENTS:
        texts = draw.sample(by_label[label], 20)
        rows = [example(text, label, label) for text in texts]
        train += rows[:16]
        validation += rows[16:]
    draw.shuffle(train)
    test = [
        example(row["text"], row["category"], row["category"])
        for row in _read_csv("banking77/test.csv")
        if row["category"] in INTENTS
    ]
    return train, validation, test


def chapters(seed: int) -> Rows:
    """Return about 200 train, 30 validation and 220 test descriptions of diagnoses."""
    from tutelage.workflows.demo.demo import demo_rows

    rows = [example(text, name, name) for text, name in demo_rows(per_chapter=21, seed=seed)]
    return rows[:200], rows[200:232], rows[232:452]


def _chapter_names() -> tuple[str, ...]:
    from tutelage.workflows.demo.demo import CHAPTERS

    return CHAPTERS


def _pubmed() -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = json.loads(
        (DATA / "pubmedqa" / "ori_pqal.json").read_text("utf-8")
    )
    return found


def pubmed(seed: int) -> Rows:
    """Return 170 train, 30 validation and 250 of the official test questions with context."""
    official = json.loads((DATA / "pubmedqa" / "test_ground_truth.json").read_text("utf-8"))
    rows: dict[bool, list[Example]] = {True: [], False: []}
    for key, item in sorted(_pubmed().items()):
        context = " ".join(item["CONTEXTS"])[:1200]
        decision = item["final_decision"]
        asked = f"{context}\n\nQuestion: {item['QUESTION']}"
        rows[key in official].append(example(asked, decision, decision))
    own = random.Random(seed).sample(rows[False], 200)
    return own[:170], own[170:], random.Random(0).sample(rows[True], 250)


def pubmed_texts() -> list[str]:
    """Return the abstracts of the questions that are not in the official test."""
    official = json.loads((DATA / "pubmedqa" / "test_ground_truth.json").read_text("utf-8"))
    return [
        " ".join([*item["CONTEXTS"], item["LONG_ANSWER"]])
        for key, item in sorted(_pubmed().items())
        if key not in official
    ]


SLOTS = ("people", "time", "date", "first_name", "last_name")


def restaurant(seed: int) -> Rows:
    """Return 170 train, 30 validation and 250 test turns; the answer is JSON of the slots."""
    train = [
        pair for name in ("train_5.json", "train_6.json", "train_3.json") for pair in _turns(name)
    ]
    kept = list(dict.fromkeys(train))
    own = _split(kept, seed, (170, 30), closed=False)
    test = random.Random(0).sample(_turns("test.json"), 250)
    return own[0], own[1], [example(asked, answer) for asked, answer in test]


def _turns(name: str) -> list[Pair]:
    found = []
    for item in json.loads((DATA / "restaurant8k" / name).read_text("utf-8")):
        text = item["userInput"]["text"]
        slots = {}
        for label in item.get("labels", []):
            span = label["valueSpan"]
            slots[label["slot"]] = text[span.get("startIndex", 0) : span["endIndex"]]
        asked = ", ".join(item.get("context", {}).get("requestedSlots", [])) or "nothing"
        found.append((f"Asked for: {asked}\nGuest: {text}", json.dumps(slots, sort_keys=True)))
    return found


def slot_f1(given: str, wanted: str) -> float:
    """Return the F1 of slots with their exact values; no JSON object scores 0."""
    try:
        said, right = json.loads(given), json.loads(wanted)
    except ValueError:
        return 0.0
    if not isinstance(said, dict):
        return 0.0
    hits = sum(said.get(name) == value for name, value in right.items())
    total = len(said) + len(right)
    return 1.0 if total == 0 else 2 * hits / total


HEADERS = (  # of MTS-Dialog: those with at least 15 training rows
    "FAM/SOCHX", "GENHX", "PASTMEDICALHX", "CC", "PASTSURGICAL", "ALLERGY", "ROS", "MEDICATIONS",
    "ASSESSMENT", "EXAM", "DIAGNOSIS", "DISPOSITION",
)  # fmt: skip


def headers(seed: int) -> Rows:
    """Return 200 train, 40 validation and the official test dialogues with their note section."""
    files = ("TrainingSet", "TestSet-1-MEDIQA-Chat-2023")
    train, test = (
        [
            (row["dialogue"][:900], row["section_header"])
            for row in _read_csv(f"mts-dialog/MTS-Dialog-{name}.csv")
            if row["section_header"] in HEADERS
        ]
        for name in files
    )
    own = _split(train, seed, (200, 40), closed=True)
    return own[0], own[1], [example(text, label, label) for text, label in test]


PUBMED_PROMPT = (
    "You read an abstract of a biomedical study. Answer the question that follows it with one "
    "word: yes, no or maybe."
)
CASES = {
    case.name: case
    for case in (
        Case(
            "banking77", "classification",
            "You work for a bank's support. Name the intent of the customer's message. Intents: "
            + ", ".join(INTENTS) + ".",
            banking, INTENTS,
        ),
        Case(
            "icd10", "classification",
            "You are a medical coder. Name the chapter of ICD-10-CM that the diagnosis belongs to. "
            "Chapters: " + ", ".join(_chapter_names()) + ".",
            chapters, _chapter_names(),
        ),
        Case("pubmedqa", "classification", PUBMED_PROMPT, pubmed, ("yes", "no", "maybe")),
        Case(
            "restaurant8k", "extraction",
            "You take bookings for a restaurant. Write what the guest says as JSON with the slots "
            + ", ".join(SLOTS) + "; leave out what is not said.",
            restaurant, score=slot_f1,
        ),
        Case(
            "mts_headers", "classification",
            "You read a talk of doctor and patient. Name the section of the clinical note that it "
            "belongs to. Sections: " + ", ".join(HEADERS) + ".",
            headers, HEADERS,
        ),
        Case(
            "pubmed_cpt", "classification", PUBMED_PROMPT, pubmed, ("yes", "no", "maybe"),
            texts=pubmed_texts,
        ),
    )
}  # fmt: skip
QUICK = ("banking77", "mts_headers")
