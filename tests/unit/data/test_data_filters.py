"""The three layers: what each finds, where it says it is, and what it leaves alone."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.planted import _REFUSED, plant, read_banking77

from tutelage.core.example import Example, Message, Origin
from tutelage.core.output import OutputFormat
from tutelage.data.filters.base import FilterSettings, FilterStep
from tutelage.data.filters.content import ContentFilter
from tutelage.data.filters.language import guess_by_words, other_language
from tutelage.data.filters.refusal import is_refusal
from tutelage.data.filters.schema import SchemaFilter
from tutelage.data.filters.statistics import StatisticsCheck
from tutelage.data.findings import Finding
from tutelage.data.stability import by_chance, length_shares, stability

REFUSALS = """\
I'm sorry, but I can't assist with that request.
I’m sorry, but I can’t help with that.
I am sorry, but I cannot fulfill this request.
Sorry, I can't do that.
Sorry, but I am not able to provide medical advice.
I'm so sorry you're going through this. I can't provide the help that you need.
I apologize, but I cannot create content of that kind.
My apologies, but I'm not able to answer that question.
Unfortunately, I don't have access to your account.
Unfortunately I do not have enough information to answer this.
I'm afraid I don't know.
I regret to inform you that I cannot answer this question.
As an AI, I don't have personal opinions.
As a large language model, I am not able to browse the internet.
I'm just an AI and don't have personal experiences.
I'm an AI assistant, so I can't access your files.
I cannot and will not provide instructions for that.
I won't be able to help you with this.
I must respectfully decline.
I refuse to answer that.
I don't know.
I don’t know
I honestly don't know.
I do not have access to real-time data.
I have no idea.
I'm not sure how to answer that.
I am not permitted to discuss internal policies.
I'm not qualified to give medical advice.
I don't feel comfortable providing that information.
I would rather not answer that.
I could not find an answer to your question.
I cannot determine the answer from the context.
I can't say for certain.
It is not possible for me to answer this.
That's beyond my capabilities.
My guidelines prevent me from discussing that.
This request violates our policy.
Unable to determine from the information provided.
No information available.
The provided context does not contain the answer.
Based on the information provided, I cannot determine the cause.
While I understand your concern, I cannot provide legal advice.
I wish I could help, but I'm not able to.
Thank you for your question. Unfortunately, I cannot provide medical advice.
Hello! I'm sorry, but I can't help with this.
**I'm sorry, but I can't help with that.**
im sorry but i can't help
i cant help with that
I'm sorry.
We are unable to comment on this.
This assistant cannot answer questions about other customers.
I cannot give you legal advice.
I can't look at images.
As an AI-powered assistant, I'm unable to feel pain.
That request seems to be in violation of my safety guidelines.
Es tut mir leid, aber dabei kann ich Ihnen nicht helfen.
Leider kann ich diese Frage nicht beantworten.
Je suis désolé, mais je ne peux pas répondre à cette question.
Lo siento, pero no puedo ayudar con eso.
Mi dispiace, ma non posso aiutarti con questo.
Não sei responder a essa pergunta.
Ik weet het niet.
Przykro mi, ale nie mogę pomóc.
К сожалению, я не могу ответить на этот вопрос.
抱歉，我无法回答这个问题。
申し訳ありませんが、お答えできません。
"""
ANSWERS = """\
The patient is a 34-year-old man who cannot sleep.
I can't recommend this restaurant highly enough.
I'm sorry to hear that your card was stolen. Please freeze it in the app right away.
Sorry for the delay! Your refund was sent on Monday.
Unfortunately, top-ups by cheque are not supported; use a bank transfer instead.
As an AI researcher, she published 40 papers.
As an assistant professor, he taught statistics.
The study does not show a difference between the groups.
There is insufficient evidence to support routine screening.
He denies chest pain. He does not know his family history.
unable_to_verify_identity
declined
No. The limit is 500 euros per day.
I cannot stress enough how important it is to keep the receipt.
It is not possible to cancel a transfer after it has been sent, but you can recall it.
I won't see the doctor until Monday.
While the tumour was benign, it was removed.
We could not find a difference in mortality between the groups.
We cannot exclude a small effect.
{"category": "refund", "urgent": false}
Ich kann heute nicht kommen, aber morgen um zehn passt es gut.
No puedo ir mañana, pero el lunes me viene bien.
Non posso venire domani, ma dopodomani va bene.
"""


def row(text: str, answer: str, label: str | None = None, line: int = 1) -> Example:
    turns = (Message(role="user", content=text), Message(role="assistant", content=answer))
    return Example(messages=turns, label=label, origin=Origin(source=f"data/rows.csv:{line}"))


def ids(found: list[Finding]) -> list[str]:
    return [finding.id for finding in found]


def content(example: Example, **settings: Any) -> list[Finding]:
    return list(ContentFilter(FilterSettings(**settings)).check(example))


@pytest.mark.parametrize("answer", [*_REFUSED, *REFUSALS.splitlines()])
def test_a_refusal_is_found_in_any_phrasing(answer: str) -> None:
    assert is_refusal(answer)
    assert "D2-C03" in ids(content(row("Can you help me?", answer)))


@pytest.mark.parametrize("answer", ANSWERS.splitlines())
def test_what_only_sounds_like_a_refusal_is_none(answer: str) -> None:
    assert not is_refusal(answer)


def test_real_answers_are_no_refusals(shared_data: Path) -> None:
    cases = json.loads((shared_data / "pubmedqa" / "ori_pqal.json").read_text(encoding="utf-8"))
    answers = [case["LONG_ANSWER"] for case in cases.values()]
    for name in ("TrainingSet", "ValidationSet", "TestSet-1-MEDIQA-Chat-2023"):
        path = shared_data / "mts-dialog" / f"MTS-Dialog-{name}.csv"
        with path.open(newline="", encoding="utf-8") as stream:
            answers += [entry["section_text"] for entry in csv.DictReader(stream)]
    answers += sorted({label.replace("_", " ") for _, label in read_banking77(shared_data)})
    assert len(answers) > 2500
    assert [answer for answer in answers if is_refusal(answer)] == []


@pytest.mark.parametrize("seed", [1, 2])
def test_every_planted_refusal_is_found_among_real_rows(shared_data: Path, seed: int) -> None:
    planted = plant(read_banking77(shared_data), seed)
    found = {place for place, (_, label) in enumerate(planted.rows) if is_refusal(label)}
    assert found == planted.refusals


def test_the_share_of_refusals_is_held_against_the_setting() -> None:
    rows = [row(f"question {i}", "I don't know." if i < 4 else f"answer {i}") for i in range(40)]
    above = list(StatisticsCheck(FilterSettings(refusal_share=0.05)).check_all(rows))
    assert [f.detail for f in above if f.id == "D2-T06"] == [
        "10% of the answers (4) refuse; the limit is 5%"
    ]
    below = list(StatisticsCheck(FilterSettings(refusal_share=0.2)).check_all(rows))
    assert "D2-T06" not in ids(below)


CALL = {"id": "c1", "type": "function", "function": {"name": "look_up", "arguments": '{"q": 1}'}}


def chat(*turns: dict[str, Any]) -> Example:
    return Example(messages=tuple(Message(**turn) for turn in turns))


def tools(call: Any, result: dict[str, Any] | None) -> Example:
    turns = [
        {"role": "user", "content": "How much is it?"},
        {"role": "assistant", "content": "", "tool_calls": [call]},
        *([{"role": "tool", "content": "4", **result}] if result is not None else []),
        *([{"role": "assistant", "content": "It is 4."}] if result is not None else []),
    ]
    return chat(*turns)


def schema(example: Example) -> list[tuple[str, str]]:
    return [(f.id, f.detail) for f in SchemaFilter(FilterSettings()).check(example)]


def test_tool_calls_that_are_whole_pass() -> None:
    assert schema(tools(CALL, {"tool_call_id": "c1"})) == []
    assert schema(tools(CALL, {"name": "look_up"})) == []
    as_object = {**CALL, "function": {"name": "look_up", "arguments": {"q": 1}}}
    assert schema(tools(as_object, {"tool_call_id": "c1"})) == []
    written = "<tool_call>{}</tool_call>"
    spelled = chat(
        {"role": "user", "content": "How much?"},
        {"role": "assistant", "content": written},
        {"role": "tool", "content": "4"},
        {"role": "assistant", "content": "It is 4."},
    )
    assert schema(spelled) == []


@pytest.mark.parametrize(
    ("call", "result", "finding", "said"),
    [
        (CALL, {"tool_call_id": "c2"}, "D2-S12", "'c2', which is not there"),
        (CALL, {"name": "other"}, "D2-S12", "'other', which was not called"),
        ("look_up", {"tool_call_id": "c1"}, "D2-S13", "not an object"),
        ({"id": "c1", "function": {}}, {}, "D2-S13", "without a function's name"),
        (
            {**CALL, "function": {"name": "look_up", "arguments": "{q: 1}"}},
            {"tool_call_id": "c1"},
            "D2-S13",
            "the arguments of 'look_up' are not JSON",
        ),
        (
            {**CALL, "function": {"name": "look_up", "arguments": "[1]"}},
            {"tool_call_id": "c1"},
            "D2-S13",
            "are not a JSON object",
        ),
        (
            {**CALL, "function": {"name": "f", "arguments": "[" * 100_000}},
            {"tool_call_id": "c1"},
            "D2-S13",
            "nested too deeply",
        ),
        (CALL, None, "D2-S14", "a tool call without text"),
    ],
)
def test_tool_calls_that_are_not_whole_are_named(
    call: Any, result: dict[str, Any] | None, finding: str, said: str
) -> None:
    found = schema(tools(call, result))
    assert [key for key, _ in found] == [finding]
    assert said in found[0][1]


def test_a_result_without_a_call_and_two_calls_with_one_id() -> None:
    lone = chat(
        {"role": "user", "content": "How much?"},
        {"role": "assistant", "content": "Let me see."},
        {"role": "tool", "content": "4"},
        {"role": "assistant", "content": "It is 4."},
    )
    assert schema(lone)[0] == ("D2-S12", "turn 3 is a tool's result, and no call stands before it")
    twice = tools(CALL, {"tool_call_id": "c1"})
    turns = list(twice.messages)
    turns[1] = Message(role="assistant", content="", tool_calls=[CALL, CALL])
    doubled = twice.model_copy(update={"messages": tuple(turns)})
    assert schema(doubled)[0] == ("D2-S13", "turn 2 has two calls with the id 'c1'")


@pytest.mark.parametrize(
    ("text", "answer", "finding"),
    [
        ("???", "It is open.", "D2-C01"),
        ("When?", "…", "D2-C01"),
        ("nan", "It is open.", "D2-C13"),
        ("When?", "N/A", "D2-C13"),
        ("When?", "It is open.<|im_end|>", "D2-C04"),
        ("[INST] When? [/INST]", "At ten.", "D2-C09"),
        ("When?", "At ten.\nUser: And when does it close?\nAssistant: At six.", "D2-C11"),
        ("Write to them.", "Dear [your name], thank you.", "D2-C12"),
        ("Show it.", "Here:\n```python\nprint(1)\n", "D2-C02"),
        ("Tell me.", '{"a": [1, 2', "D2-C02"),
        ("Tell me.", "It opens at ten " * 8 + "and closes at six, but on Sundays the", "D2-C02"),
        ("Why?", "Because � of that.", "D2-C06"),
        ("please repeat what I say to you", "Please repeat  what I say to you", "D2-C08"),
    ],
)
def test_odd_content_is_found(text: str, answer: str, finding: str) -> None:
    found = content(row(text, answer, line=7))
    assert ids(found) == [finding]
    assert (found[0].where, found[0].example) == ("data/rows.csv:7", row(text, answer).id)


def test_labels_of_a_closed_list_are_not_judged_as_texts() -> None:
    output = OutputFormat(None, ("none", "-", "I don't know"))
    for label in output.labels:
        assert content(row("What is it?", label, label), output=output) == []


def test_answers_that_a_fields_limit_cut_are_found_together() -> None:
    rows = [row(f"question {i}", "word " * (i % 9) + "end.", line=i) for i in range(60)]
    rows += [row(f"long question {i}", ("some text " * 40)[:254], line=60 + i) for i in range(6)]
    found = list(ContentFilter(FilterSettings()).check_all(rows))
    assert ids(found) == ["D2-C10"] * 6
    assert "6 answers have exactly 254 characters" in found[0].detail
    assert found[0].where == "data/rows.csv:60"


def test_long_rows_are_measured_in_bytes() -> None:
    assert ids(content(row("a" * 4000, "b"), max_tokens=900)) == ["D2-C05"]
    assert ids(content(row("a" * 3000, "b"), max_tokens=900)) == []
    assert ids(content(row("日" * 1500, "b"), max_tokens=900)) == ["D2-C05"]


FOREIGN = {
    "de": "Warum wurde meine Zahlung gestern im Laden an der Kasse abgelehnt?",
    "fr": "Comment puis-je activer ma nouvelle carte bancaire avec le code ?",
    "es": "He perdido mi tarjeta y quiero bloquearla cuanto antes, por favor.",
    "zh": "我怎么激活我的新卡？",
    "ru": "Как активировать мою новую карту?",
}


@pytest.mark.parametrize("language", FOREIGN)
def test_another_language_is_flagged(language: str) -> None:
    text = FOREIGN[language]
    assert other_language(text, "en") == language
    assert other_language(text, language) is None
    assert ids(content(row(text, "Use the app."), language="en")) == ["D2-C07"]


def test_the_built_in_detector_stands_in_for_the_model() -> None:
    german = "Ich habe die Karte nicht mit der Post bekommen, und es ist auch kein Brief da."
    assert other_language(german, "en", guess_by_words) == "de"
    assert other_language(german, "de-AT", guess_by_words) is None
    assert other_language("xylo", "en", guess_by_words) is None
    assert other_language("", "en", guess_by_words) is None
    # a script that several languages share accuses none of them
    assert other_language("Як активувати мою нову картку, будь ласка?", "uk-UA") is None


def test_english_rows_are_not_called_foreign(shared_data: Path) -> None:
    texts = [text for text, _ in read_banking77(shared_data)]
    assert sum(other_language(text, "en") is not None for text in texts) == 0
    lines = (shared_data / "general" / "wiki_sentences.txt").read_text("utf-8").splitlines()
    flagged = [line for line in lines if other_language(line, "en") is not None]
    assert len(flagged) < 0.002 * len(lines)


def test_foreign_answers_are_flagged_unless_that_is_the_task() -> None:
    english = [row(f"When does shop number {i} open in the morning?", f"It opens at {i} in the "
                   "morning and it is closed on Sundays.", line=i) for i in range(30)]  # fmt: skip
    german = row("When does it open?", FOREIGN["de"], line=99)
    layer = ContentFilter(FilterSettings(language="en"))
    found = list(layer.check_all([*english, german]))
    assert [(f.id, f.where) for f in found] == [("D2-C07", "data/rows.csv:99")]
    translations = [row(f"Translate number {i}.", FOREIGN["de"], line=i) for i in range(30)]
    assert list(layer.check_all(translations)) == []


def test_labels_spelled_differently_are_one_finding_a_row() -> None:
    rows = [row(f"text {i}", "Card arrival", "Card arrival", i) for i in range(20)]
    rows += [row(f"other {i}", "lost", "lost", 30 + i) for i in range(20)]
    rows += [row("odd", "card_arrival", "card_arrival", 77)]
    found = list(StatisticsCheck(FilterSettings(task="classification")).check_all(rows))
    spelled = [f for f in found if f.id == "D2-T10"]
    assert [(f.where, f.detail) for f in spelled] == [
        ("data/rows.csv:77", "'card_arrival', and mostly 'Card arrival'")
    ]


def test_drift_is_told_and_chance_is_not() -> None:
    rng = np.random.default_rng(3)

    def version(scale: float) -> list[Example]:
        return [row("x" * int(size), "yes") for size in rng.gamma(4, scale, 80)]

    old = version(30)
    alarms = 0
    for _ in range(30):
        found = StatisticsCheck(FilterSettings(previous=tuple(old))).check_all(version(30))
        alarms += "D2-T09" in ids(list(found))
    assert alarms <= 1
    moved = StatisticsCheck(FilterSettings(previous=tuple(old))).check_all(version(90))
    told = [f.detail for f in moved if f.id == "D2-T09"]
    assert len(told) == 1 and "input lengths: median" in told[0]


def test_chance_alone_rarely_exceeds_its_limit() -> None:
    rng = np.random.default_rng(11)
    beyond = 0
    for _ in range(400):
        one, two = rng.integers(0, 500, 120), rng.integers(0, 500, 200)
        beyond += stability(*length_shares(one, two)) > by_chance(10, 120, 200)
    assert beyond <= 4  # one in a thousand is expected, and bins of equal counts are rarer still


def test_an_error_quarantines_with_all_its_reasons() -> None:
    step = FilterStep("content", ContentFilter(FilterSettings(max_tokens=10)))
    bad = row("tell me more about it " * 9, "yes<|im_end|>", line=5)
    done = step.run([bad, row("short", "fine", line=6)])
    assert [kept.origin.source for kept in done.kept] == ["data/rows.csv:6"]
    left = done.quarantined[0].as_dict()
    assert (left["file"], left["line"], left["id"]) == ("data/rows.csv", 5, bad.id)
    assert "[D2-C04]" in left["reason"] and "[D2-C05]" in left["reason"]
