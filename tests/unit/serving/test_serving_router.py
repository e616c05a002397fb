"""Sticky buckets, API keys and guards: what decides before and after the engine answers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tutelage.core.config import Deploy
from tutelage.core.errors import ConfigError
from tutelage.core.example import Message
from tutelage.core.output import OutputFormat
from tutelage.inference.base import Decoding
from tutelage.release.bundle import BaseRef, ReleaseManifest
from tutelage.release.deployments import Route
from tutelage.serving.guards.base import GuardContext, build_guards
from tutelage.serving.guards.content import ContentGuard
from tutelage.serving.guards.schema import SchemaGuard
from tutelage.serving.keys import Caller, KeyRing, digest
from tutelage.serving.router import Entry, Router, bucket, build_profile
from tutelage.serving.wire import HttpError


def manifest(prompt: str = "", **changes: Any) -> ReleaseManifest:
    base = BaseRef(spec="demo", name="demo", digest="0" * 64)
    return ReleaseManifest(kind="base", base=base, prompt=prompt, **changes)


def router(weight: float, state: str = "running") -> Router:
    deploy = Deploy()
    entry = Entry(
        Route("d", "a", "b", weight, "salt", "ro1", 0, state, 1),
        build_profile(manifest("stable"), deploy),
        build_profile(manifest("canary"), deploy),
    )
    return Router({"d": entry})


def test_buckets_are_spread_evenly_and_differ_between_rollouts() -> None:
    places = [bucket("salt", "r1", f"user-{n}") for n in range(4000)]
    for weight in (1, 10, 50):
        share = sum(p < weight for p in places) / len(places) * 100
        assert share == pytest.approx(weight, abs=2)
    assert places[:5] != [bucket("salt", "r2", f"user-{n}") for n in range(5)]
    assert places[:5] == [bucket("salt", "r1", f"user-{n}") for n in range(5)]


def test_a_user_of_the_canary_stays_there_as_the_weight_rises() -> None:
    before: set[str] = set()
    for weight in (1.0, 5.0, 25.0, 100.0):
        chosen = {f"u{n}" for n in range(500) if router(weight).pick("d", f"u{n}").arm == "canary"}
        assert before <= chosen
        before = chosen
    assert len(before) == 500


@pytest.mark.parametrize("state", ["pending", None])
def test_a_candidate_that_is_not_live_gets_nobody(state: str) -> None:
    pick = router(100, state).pick("d", "u")
    assert (pick.arm, pick.rollout) == ("stable", None)


def test_an_unknown_deployment_lists_the_known_ones() -> None:
    with pytest.raises(HttpError, match="Deployments: d") as caught:
        router(1).pick("nothing", "u")
    assert caught.value.status == 404


def test_a_profile_carries_the_release_s_decoding() -> None:
    schema = {"type": "object"}
    profile = build_profile(
        manifest(decoding=Decoding(temperature=0.3, max_tokens=9, stop=("#",), json_schema=schema)),
        Deploy(),
    )
    assert profile.settings["temperature"] == 0.3
    assert profile.settings["response_format"]["json_schema"]["schema"] == schema
    assert (profile.max_tokens, profile.stop) == (9, ("#",))


def ring(required: bool) -> KeyRing:
    keys = KeyRing(required=required)
    keys.replace({digest("tut_good"): Caller("web", "operator")})
    return keys


def test_a_key_is_required_off_loopback() -> None:
    keys = ring(required=True)
    assert keys.identify({"authorization": "Bearer tut_good"}) == Caller("web", "operator")
    for headers in ({}, {"authorization": "Bearer tut_bad"}, {"authorization": "Basic tut_good"}):
        with pytest.raises(HttpError) as caught:
            keys.identify(headers)
        assert caught.value.status == 401


def test_loopback_takes_placeholders_but_not_wrong_keys_of_ours() -> None:
    keys = ring(required=False)
    assert keys.identify({"authorization": "Bearer sk-anything"}).role == "admin"
    assert keys.identify({"host": "localhost:8321"}).name is None
    assert keys.identify({"host": "[::1]:8321", "origin": "http://127.0.0.1:3000"}).name is None
    with pytest.raises(HttpError) as caught:
        keys.identify({"authorization": "Bearer tut_revoked"})
    assert caught.value.status == 401
    foreign = ({"host": "rebound.example"}, {"origin": "https://evil.example"}, {"origin": "null"})
    for headers in foreign:
        with pytest.raises(HttpError) as caught:
            keys.identify(headers)
        assert caught.value.status == 403


def test_roles_are_ordered() -> None:
    assert Caller(None, "admin").may("operator")
    assert not Caller("web", "client").may("operator")


USER = Message(role="user", content="hello")
SYSTEM = Message(role="system", content="be brief")
Check = Callable[[str, str], str | None]


def test_the_schema_guard_reads_labels_or_a_json_schema() -> None:
    labels = SchemaGuard(GuardContext(OutputFormat("family", ("warm", "cold"))))
    assert labels.check_response('{"family": "warm"}', "stop") is None
    assert labels.check_response("warm", "stop") == "not JSON"
    assert "'hot' is not one" in str(labels.check_response('{"family": "hot"}', "stop"))
    schema = {"type": "object", "properties": {"age": {"type": "integer"}}, "required": ["age"]}
    strict = SchemaGuard(GuardContext(json_schema=schema))
    assert strict.check_response('{"age": 3}', "stop") is None
    assert strict.check_response('{"age": "3"}', "stop") == "$.age: '3' is not of type 'integer'"
    assert SchemaGuard(GuardContext()).check_response("anything", "stop") is None
    assert strict.check_request([SYSTEM, USER]) is None
    assert "not the user's" in str(strict.check_request([USER, Message(role="assistant")]))
    assert "not the first" in str(strict.check_request([USER, SYSTEM, USER]))


@pytest.mark.parametrize(
    ("text", "finish", "why"),
    [
        ("A fine answer.", "stop", None),
        ('{"chapter": "eye"}', "stop", None),
        ("Sorry state of the union is a phrase", "stop", None),
        ("Sorry, no.", "stop", "the answer is a refusal"),
        ("  ", "stop", "the answer is empty"),
        ("I'm sorry, but I can't help with that.", "stop", "the answer is a refusal"),
        ("As an AI language model, I ...", "stop", "the answer is a refusal"),
        ("ok<|im_end|>", "stop", "the answer spells the control token '<|im_end|>'"),
        ("ok <end_of_turn>", "stop", "the answer spells the control token '<end_of_turn>'"),
        ("Dear {{ name }},", "stop", "the answer leaks a template ('{{ name }}')"),
        ("yes\n### Response: no", "stop", "the answer leaks a template ('### Response:')"),
        ("a long answ", "length", "the answer was cut off at the token limit"),
    ],
)
def test_the_content_guard_says_what_is_wrong(text: str, finish: str, why: str | None) -> None:
    guard = ContentGuard(GuardContext(specials=("<end_of_turn>",)))
    assert guard.check_response(text, finish) == why


def test_the_content_guard_looks_at_requests_too() -> None:
    guard = ContentGuard(GuardContext())
    assert guard.check_request([USER]) is None
    assert guard.check_request([Message(role="user", content=" ")]) == "the last message is empty"
    spelled = Message(role="user", content="x <|im_start|>system")
    assert "<|im_start|>" in str(guard.check_request([spelled]))


def test_guards_are_built_from_the_config_and_unknown_ones_named() -> None:
    guards = build_guards({"schema": "block", "content": "off"}, GuardContext())
    assert [(g.name, g.action) for g in guards] == [("schema", "block")]
    with pytest.raises(ConfigError, match="Did you mean 'schema'"):
        build_guards({"shcema": "flag"}, GuardContext())
