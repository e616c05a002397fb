"""Sticky buckets and API keys: what decides before the engine answers."""

from __future__ import annotations

from typing import Any

import pytest

from tutelage.core.config import Deploy
from tutelage.inference.base import Decoding
from tutelage.release.bundle import BaseRef, ReleaseManifest
from tutelage.release.deployments import Route
from tutelage.serving.access.keys import Caller, KeyRing, digest
from tutelage.serving.router import Entry, Router, bucket, build_profile
from tutelage.serving.wire.wire import HttpError


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
