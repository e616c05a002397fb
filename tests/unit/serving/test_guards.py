"""The layers of checks: what each says of a request and an answer, and what follows from it."""

from __future__ import annotations

import asyncio
import json
import random
from pathlib import Path
from typing import Any

import pytest

from tutelage.core.config_file import parse_config
from tutelage.core.config_guards import ContentLayer, LiveGuards, SchemaLayer, StatisticsLayer
from tutelage.core.errors import ConfigError
from tutelage.core.example import Message
from tutelage.core.output import OutputFormat
from tutelage.serving.guards.base import WHOLE, ActiveGuard, GuardContext, Objection, build_guards
from tutelage.serving.guards.checking import INLINE, Checking, Holdback
from tutelage.serving.guards.content import LONGEST, ContentGuard
from tutelage.serving.guards.schema import SchemaGuard
from tutelage.serving.guards.secrets import find_secrets
from tutelage.serving.guards.statistics import StatisticsGuard
from tutelage.serving.guards.window import Window
from tutelage.serving.guards.words import WordList, languages

USER = Message(role="user", content="hello")
SYSTEM = Message(role="system", content="be brief")


def content(options: dict[str, Any] | None = None, **context: Any) -> ContentGuard:
    layer = ContentLayer.model_validate(options or {})
    return ContentGuard(GuardContext(options=layer, **context))


def why(found: list[Objection]) -> list[str]:
    return [one.why for one in found]


def said(guard: ContentGuard, text: str, *asked: str, finish: str = "stop") -> list[str]:
    messages = [Message(role="user", content=text) for text in asked or ("hello",)]
    return why(guard.check_response(text, finish, messages))


def test_the_schema_guard_reads_labels_or_a_json_schema() -> None:
    labels = SchemaGuard(GuardContext(OutputFormat("family", ("warm", "cold"))))
    assert labels.check_response('{"family": "warm"}', "stop", [USER]) is None
    assert labels.check_response("warm", "stop", [USER]) == "not JSON"
    assert "'hot' is not one" in str(labels.check_response('{"family": "hot"}', "stop", [USER]))
    schema = {"type": "object", "properties": {"age": {"type": "integer"}}, "required": ["age"]}
    strict = SchemaGuard(GuardContext(json_schema=schema))
    assert strict.check_response('{"age": 3}', "stop", [USER]) is None
    problem = strict.check_response('{"age": "3"}', "stop", [USER])
    assert problem == "$.age: '3' is not of type 'integer'"
    assert strict.check_response("[" * 100_000, "stop", [USER]) == "not JSON"
    assert strict.check_response("", "tool_calls", [USER]) is None
    assert SchemaGuard(GuardContext()).check_response("anything", "stop", [USER]) is None


def test_a_label_s_own_schema_is_checked_as_the_label_it_is() -> None:
    output = OutputFormat("family", ("warm", "cold"))
    guard = SchemaGuard(GuardContext(output, output.schema()))
    assert guard.check_response('{"family": "warm"}', "stop", [USER]) is None
    assert "'hot' is not one" in str(guard.check_response('{"family": "hot"}', "stop", [USER]))


def test_the_schema_guard_looks_at_the_order_and_amount_of_turns() -> None:
    layer = SchemaLayer(max_messages=3, max_characters=30)
    guard = SchemaGuard(GuardContext(options=layer))
    assert guard.check_request([SYSTEM, USER]) is None
    assert "not the user's" in str(guard.check_request([USER, Message(role="assistant")]))
    assert "not the first" in str(guard.check_request([USER, SYSTEM, USER]))
    assert guard.check_request([USER] * 4) == "the request has 4 turns, more than 3"
    long = Message(role="user", content="x" * 31)
    assert guard.check_request([long]) == "the request has 31 characters, more than 30"


def test_the_last_turn_may_have_to_meet_a_schema(tmp_path: Path) -> None:
    file = tmp_path / "input.json"
    file.write_text(json.dumps({"type": "object", "required": ["note"]}))
    layer = SchemaLayer(input="input.json")
    guard = SchemaGuard(GuardContext(root=tmp_path, options=layer))
    assert guard.check_request([Message(role="user", content='{"note": "x"}')]) is None
    problem = guard.check_request([Message(role="user", content="{}")])
    assert problem == "the last turn is not what it should be: $: 'note' is a required property"
    for text, sentence in (("{", "not JSON"), ('{"type": 3}', "no JSON Schema"), (None, "no such")):
        file.write_text(text) if text is not None else file.unlink()
        with pytest.raises(ConfigError, match=sentence):
            SchemaGuard(GuardContext(root=tmp_path, options=layer))


@pytest.mark.parametrize(
    ("text", "finish", "expected"),
    [
        ("A fine answer.", "stop", None),
        ('{"chapter": "eye"}', "stop", None),
        ("Sorry state of the union is a phrase", "stop", None),
        ("  ", "stop", "the answer is empty"),
        ("I'm sorry, but I can't help with that.", "stop", "the answer is a refusal"),
        ("As an AI language model, I cannot answer that.", "stop", "the answer is a refusal"),
        ("Es tut mir leid, dabei kann ich nicht helfen.", "stop", "the answer is a refusal"),
        ("ok<|im_end|>", "stop", "the answer spells the control token '<|im_end|>'"),
        ("ok <end_of_turn>", "stop", "the answer spells the control token '<end_of_turn>'"),
        ("Dear {{ name }},", "stop", "the answer leaks a template ('{{ name }}')"),
        ("yes\n### Response: no", "stop", "the answer leaks a template ('### Response:')"),
        ("a long answ", "length", "the answer was cut off at the token limit"),
        ("you are an idiot", "stop", "the answer holds a word of the toxicity list"),
        ("ask jo@example.org", "stop", "the answer holds e-mail addresses that nobody gave it"),
        ("key AKIAABCDEFGHIJKLMNOP", "stop", "the answer holds an AWS access key"),
    ],
)
def test_the_content_guard_says_what_is_wrong(text: str, finish: str, expected: str | None) -> None:
    guard = content(specials=("<end_of_turn>",))
    assert said(guard, text, finish=finish) == ([expected] if expected else [])


def test_the_content_guard_looks_at_requests_too() -> None:
    guard = content()
    assert guard.check_request([USER]) == []
    assert why(guard.check_request([Message(role="user", content=" ")])) == [
        "the last message is empty"
    ]
    spelled = Message(role="user", content="x <|im_start|>system")
    assert "<|im_start|>" in why(guard.check_request([spelled]))[0]
    secret = Message(role="user", content="my password is hunter2hunter2")
    assert why(guard.check_request([secret])) == ["the request holds a password or key"]
    person = Message(role="user", content="I am at jo@example.org, 030 1234567")
    assert guard.check_request([person]) == []
    strict = content({"request": {"pii": "block"}})
    (found,) = strict.check_request([person])
    assert (found.check, found.action) == ("pii", "block")
    assert found.why == "the request holds e-mail addresses and telephone numbers"


def test_what_the_user_or_the_prompt_said_may_come_back() -> None:
    guard = content(prompt="Our line is +49 30 1234567.")
    assert said(guard, "Write to jo@example.org", "I am jo@example.org") == []
    assert said(guard, "Call +49 30 1234567", "How do I reach you?") == []
    assert said(guard, "Call +49-30-1234567", "How do I reach you?") == []
    assert said(guard, "Call +49 30 7654321", "How do I reach you?") == [
        "the answer holds telephone numbers that nobody gave it"
    ]


def test_each_check_has_an_action_of_its_own() -> None:
    guard = content({"action": "off", "answer": {"pii": "block", "refusal": "flag"}})
    assert guard.action == "block"
    found = guard.check_response("I can't help with that. jo@example.org", "stop", [USER])
    assert [(one.check, one.action) for one in found] == [("refusal", "flag"), ("pii", "block")]
    assert guard.check_response("{{ name }}", "stop", [USER]) == []
    assert content({"action": "off"}).action == "off"


def test_a_text_too_long_to_be_checked_is_not_vouched_for() -> None:
    guard = content({"max_characters": 1000, "answer": {"secrets": "block"}})
    (found,) = guard.check_response("x " * 600, "stop", [USER])
    assert (found.check, found.action) == ("length", "block")
    assert found.why == "the answer has 1,200 characters, and only 1,000 can be checked"


def test_labels_can_not_be_refusals() -> None:
    labels = OutputFormat(None, ("unable", "I can't answer that"))
    assert said(content(output=labels), "I can't answer that") == []


@pytest.mark.parametrize(
    "text", ["You IDIOT!", "what a piece  of crap", "sh1t happens", "shiiiit", "FÜCKING? fucking"]
)
def test_words_are_found_in_many_spellings(text: str) -> None:
    assert WordList(["en"]).found(text)


def test_word_lists_are_by_language_and_may_be_changed(tmp_path: Path) -> None:
    own = tmp_path / "own.txt"
    own.write_text("# ours\nfrobnicate  # never say it\nблин\n馬鹿\n", encoding="utf-8")
    words = WordList(["de"], [own], allow=["Scheiße"])
    assert words.found("Frobnicate it") and words.found("ну блин") and words.found("お前は馬鹿だ")
    assert words.found("so ein Arschloch") and not words.found("scheiße")
    assert not words.found("assess the class, 455 of them, in Scunthorpe")
    assert len(WordList(["all"])) > len(WordList(["en"])) > 50
    assert set(languages()) >= {"de", "en", "es", "fr", "it", "nl", "pl", "pt"}
    with pytest.raises(ConfigError, match=r"no word list for 'dee'\. Did you mean 'de'"):
        WordList(["dee"])
    with pytest.raises(ConfigError, match=r"can't be read \(no such file"):
        WordList(["en"], [tmp_path / "absent.txt"])


@pytest.mark.parametrize(
    "secret",
    [
        "ghp_" + "a1B2" * 9, "github_pat_" + "1A" * 15, "glpat-" + "x1" * 10, "xoxb-1234567890-abc",
        "sk-proj-" + "Ab1" * 10, "sk_live_" + "a1" * 10, "AIza" + "x" * 35, "hf_" + "aB1" * 12,
        "-----BEGIN RSA PRIVATE KEY-----", "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0",
        "https://bob:hunter22@example.org/", "api_key: 'abcd1234efgh'", "password=Tr0ub4dor&3",
    ],
)  # fmt: skip
def test_secrets_are_found_by_their_form_and_never_quoted(secret: str) -> None:
    problem = said(content(), f"Here: {secret} .")[0]
    assert problem.startswith("the answer holds a") and secret not in problem
    assert said(content(), f"Here: {secret} .", f"mine is {secret} .") == []


@pytest.mark.parametrize(
    "text", ["the password is required", "token: classification", "https://example.org/a:b@c",
             "a desk-bound skill", "ghost_writer", "the key is 42"],
)  # fmt: skip
def test_plain_words_are_no_secrets(text: str) -> None:
    assert said(content(), text) == []


@pytest.mark.parametrize("text", ["password=", "eyJaaaaaaaa-", "a://a:"])
def test_a_text_made_of_beginnings_takes_no_longer_than_others(text: str) -> None:
    assert list(find_secrets(text * 100_000)) == []  # minutes, where time grows with the square


def golden(rows: int = 60) -> Window:
    draw = random.Random(7)
    texts = [
        "the patient has had a fever and a cough " * draw.randint(2, 6) + "since the weekend"
        for _ in range(rows)
    ]
    return Window.of(texts, ["take it easy and drink a lot of water " * 3] * rows, OutputFormat())


def test_lengths_and_languages_that_no_golden_row_has_are_flagged() -> None:
    guard = StatisticsGuard(GuardContext(window=golden()))
    ask = "the patient has had a fever and a cough for a week and it is not better"
    assert guard.check_request([SYSTEM, Message(role="user", content=ask)]) == []
    (long,) = guard.check_request([Message(role="user", content=ask * 100)])
    assert long.check == "length" and "characters; golden rows have" in long.why
    german = "der Patient hat seit dem Wochenende Fieber und es ist nicht besser geworden, sagt er"
    (other,) = guard.check_request([Message(role="user", content=german)])
    assert other.why == "the request reads like 'de'; golden rows are in 'en'"
    assert guard.check_response(german, "stop", [USER])[0].check == "language"
    assert guard.check_response("no", "stop", [USER])[0].check == "length"
    assert guard.check_response("no", "", [USER]) == []


def test_too_few_golden_rows_judge_nothing() -> None:
    for window in (None, golden(49)):
        guard = StatisticsGuard(GuardContext(window=window, options=StatisticsLayer()))
        assert guard.action == "off" and guard.check_request([Message(role="user")]) == []


def test_a_window_is_read_as_it_was_written() -> None:
    output = OutputFormat("family", ("warm", "cold"))
    window = Window.of(["red", "sun"] * 3, ['{"family": "warm"}', "hot"] * 3, output)
    assert window.labels == {"warm": 3, "(other)": 3} and window.rows == 6
    assert Window.read(window.text()) == window
    with pytest.raises(ValueError, match="not a golden window"):
        Window.read("{}")


class Sentence:
    """A plug-in that says one sentence, or fails."""

    def __init__(self, context: GuardContext) -> None:
        self._fails = context.options.get("fails", False)

    def check_request(self, messages: list[Message]) -> str | None:
        if self._fails:
            raise RuntimeError("no")
        return "too polite" if "please" in messages[-1].content else None

    def check_response(self, text: str, finish: str, messages: list[Message]) -> str | None:
        return None


def plug_in(monkeypatch: pytest.MonkeyPatch) -> None:
    from tutelage.core import plugins

    load = plugins.load
    monkeypatch.setattr(
        plugins, "load", lambda group, name: Sentence if name == "mine" else load(group, name)
    )


def test_guards_are_built_from_the_config_and_unknown_ones_named() -> None:
    asked = LiveGuards.model_validate({"schema": "block", "content": "off"})
    guards = build_guards(asked, GuardContext(OutputFormat("family"), window=golden()))
    assert [(g.name, g.action, g.hold) for g in guards] == [
        ("schema", "block", WHOLE), ("statistics", "flag", 0),
    ]  # fmt: skip
    with pytest.raises(ConfigError, match="Did you mean 'schema'"):
        build_guards(LiveGuards.model_validate({"shcema": "flag"}), GuardContext())


def test_a_plug_in_has_an_action_and_options(monkeypatch: pytest.MonkeyPatch) -> None:
    plug_in(monkeypatch)
    guards = {"schema": "off", "content": "off", "mine": "block"}
    (active,) = build_guards(LiveGuards.model_validate(guards), GuardContext())
    assert (active.action, active.hold) == ("block", WHOLE)
    told: list[tuple[str, str]] = []
    polite = [Message(role="user", content="please")]
    checking = Checking([active], polite, lambda name, action: told.append((name, action)))
    assert checking.request_now() == "too polite" and told == [("mine", "block")]
    assert checking.notes["mine.request"]["ok"] is False


@pytest.mark.parametrize(("action", "blocked"), [("block", True), ("flag", False)])
def test_a_guard_that_fails_lets_nothing_pass_where_it_blocks(
    action: str, blocked: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    plug_in(monkeypatch)
    options = {"schema": "off", "content": "off", "mine": {"action": action, "fails": True}}
    guards = build_guards(LiveGuards.model_validate(options), GuardContext())
    checking = Checking(guards, [USER], lambda name, action: None)
    assert (checking.request_now() is not None) is blocked
    assert checking.notes["mine.request"]["why"] == "the guard mine failed"


@pytest.mark.parametrize(
    ("guards", "sentence"),
    [
        ("{schema: stop}", "deploy.guards.schema.action: input should be 'off', 'flag' or 'block'"),
        ("{schema: {max_mesages: 3}}", "did you mean 'max_messages'"),
        ("{content: {anser: {}}}", "did you mean 'answer'"),
        ("{content: {answer: {refusals: off}}}", "did you mean 'refusal'"),
        ("{mine: maybe}", "mine must be off, flag or block"),
    ],
)
def test_wrong_settings_are_named_with_the_nearest_right_one(guards: str, sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        parse_config(f"name: x\nmodel: demo\ndeploy: {{guards: {guards}}}\n", "tutelage.yaml")


def test_off_in_yaml_is_a_word() -> None:
    text = "name: x\nmodel: demo\ndeploy: {guards: {content: off, statistics: {length: off}}}\n"
    guards = parse_config(text, "tutelage.yaml").deploy.guards
    assert guards.content.action == "off" and guards.statistics.length == "off"


def test_unknown_kinds_of_identifiers_are_named() -> None:
    with pytest.raises(
        ConfigError, match=r"'emial' is no kind of identifier\. Did you mean 'email'"
    ):
        content({"kinds": ["emial"]})


def test_long_texts_are_read_in_a_thread_and_say_the_same() -> None:
    guards = build_guards(LiveGuards(), GuardContext())
    long = [Message(role="user", content="word " * INLINE)]
    for messages in ([USER], long):
        checking = Checking(guards, messages, lambda name, action: None)
        assert asyncio.run(checking.request()) is None
        refused = "I'm sorry, I can't help with that."
        assert asyncio.run(checking.answer(refused, "stop")) is None
        assert checking.notes["content"]["checks"] == ["refusal"]


def stream(guard: ContentGuard, text: str, size: int) -> tuple[str, str | None]:
    """Return what of a text is sent, in pieces of `size`, and why it ends early."""
    active = [ActiveGuard("content", guard.action, guard, guard.hold, guard.head)]
    checking = Checking(active, [USER], lambda name, action: None)
    hold, sent = Holdback(active, checking), ""
    for start in range(0, len(text), size):
        more, reason = hold.push(text[start : start + size])
        sent += more
        if reason is not None:
            return sent, reason
    reason = checking.answer_now(text, "stop")
    return (sent, reason) if reason else (sent + hold.rest(), None)


@pytest.mark.parametrize("size", [1, 7, 50, 2000])
def test_a_stream_sends_no_part_of_what_is_blocked(size: int) -> None:
    guard = content({"answer": {"secrets": "block", "pii": "block", "toxicity": "block"}})
    assert guard.hold == LONGEST
    filler = "All of this is said in the plainest words there are, one after another. "
    for bad in ("ghp_" + "a1B2" * 9, "jo.public@example.org", "son of a bitch", "+49 30 1234567"):
        sent, reason = stream(guard, filler * 9 + bad + " " + filler * 9, size)
        assert reason is not None
        assert (filler * 9).startswith(sent.rstrip()) or sent.rstrip() == (filler * 9).rstrip()
        if size < 100:
            assert len(sent) > 300
    text = filler * 20
    assert stream(guard, text, size) == (text, None)


@pytest.mark.parametrize("size", [1, 50])
def test_a_refusal_is_held_back_but_one_in_the_middle_is_only_told(size: int) -> None:
    guard = content({"answer": {"refusal": "block"}})
    assert stream(guard, "I'm sorry, but I can't help with that. " + "x " * 400, size)[0] == ""
    text = "It rains a lot. " * 60 + "I can't help with that. " + "It rains a lot. " * 60
    assert stream(guard, text, size) == (text, None)


def test_a_guard_that_needs_the_end_holds_everything() -> None:
    guard = content({"answer": {"cut": "block"}})
    assert guard.hold == WHOLE
    assert stream(guard, "word " * 500, 10) == ("word " * 500, None)
    active = [ActiveGuard("content", "block", guard, WHOLE)]
    hold = Holdback(active, Checking(active, [USER], lambda name, action: None))
    assert hold.push("word " * 500) == ("", None)


def test_without_blocking_guards_pieces_pass_as_they_come() -> None:
    guard = content()
    active = [ActiveGuard("content", "flag", guard, guard.hold)]
    hold = Holdback(active, Checking(active, [USER], lambda name, action: None))
    assert not hold.holds and hold.push("a") == ("a", None) and hold.rest() == ""
