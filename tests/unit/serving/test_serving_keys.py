"""API keys: what makes one, what ends one, and that secrets are nowhere but with their owner."""

from __future__ import annotations

import math
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from tutelage.core.artifact import utc_now
from tutelage.core.errors import Conflict, DataError
from tutelage.serving.access.key_store import (
    create_key,
    list_keys,
    load_keys,
    revoke_key,
    rotate_key,
    update_key,
)
from tutelage.serving.access.keys import Allowance, Caller, KeyRing
from tutelage.serving.wire.wire import HttpError
from tutelage.store.base import Store, open_store
from tutelage.store.releases import KeyRow


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = open_store(f"sqlite:///{tmp_path / 'store.db'}")
    yield store
    store.close()


def ring(store: Store) -> KeyRing:
    keys = KeyRing(required=True)
    keys.replace(load_keys(store))
    return keys


def show(keys: KeyRing, secret: str, address: str | None = None) -> Caller:
    return keys.identify({"authorization": f"Bearer {secret}"}, address)


def refusal(keys: KeyRing, secret: str, address: str | None = None) -> tuple[int, str | None]:
    with pytest.raises(HttpError) as caught:
        show(keys, secret, address)
    return caught.value.status, caught.value.code


def test_a_key_brings_its_role_and_limits(store: Store) -> None:
    secret = create_key(
        store, "shop", "operator", requests_per_minute=5, tokens_per_minute=None,
        budgets=[{"unit": "tokens", "per": "day", "limit": 10}],
    )  # fmt: skip
    caller = show(ring(store), secret)
    assert caller.name == "shop" and caller.may("operator") and not caller.may("admin")
    assert (caller.requests_per_minute, caller.tokens_per_minute) == (5, None)
    assert caller.budgets == (Allowance("tokens", "day", 10),)
    assert caller.sees("anything")


def test_the_secret_is_kept_nowhere(store: Store) -> None:
    secret = create_key(store, "shop")
    with store.session() as session:
        (row,) = session.scalars(select(KeyRow))
    assert secret not in repr(vars(row)) and secret not in repr(list_keys(store))
    assert len(row.hash) == 64


def test_an_expired_key_is_told_so(store: Store) -> None:
    secret = create_key(store, "shop", expires_at=utc_now() + timedelta(hours=1))
    keys = ring(store)
    assert show(keys, secret).name == "shop"
    with store.begin() as session:
        session.scalars(select(KeyRow)).one().expires_at = utc_now() - timedelta(seconds=1)
    keys.replace(load_keys(store))
    assert refusal(keys, secret) == (401, "expired_api_key")
    assert list_keys(store)[0]["state"] == "expired"


def test_a_rotated_key_keeps_its_name_and_the_old_secret_for_a_while(store: Store) -> None:
    old = create_key(store, "shop", requests_per_minute=5)
    new = rotate_key(store, "shop", grace_s=3600)
    keys = ring(store)
    assert show(keys, old).name == show(keys, new).name == "shop"
    assert show(keys, new).requests_per_minute == 5
    assert len(keys.callers()) == 1
    with store.begin() as session:
        session.scalars(select(KeyRow)).one().previous_until = utc_now() - timedelta(seconds=1)
    keys.replace(load_keys(store))
    assert refusal(keys, old) == (401, "expired_api_key")
    newest = rotate_key(store, "shop")
    keys.replace(load_keys(store))
    assert refusal(keys, new) == (401, "invalid_api_key")
    assert show(keys, newest).name == "shop"


def test_a_revoked_key_stays_revoked(store: Store) -> None:
    old = create_key(store, "shop")
    new = rotate_key(store, "shop", grace_s=3600)
    revoke_key(store, "shop")
    keys = ring(store)
    assert refusal(keys, old)[0] == refusal(keys, new)[0] == 401
    with pytest.raises(DataError, match="is revoked"):
        rotate_key(store, "shop")


def test_changes_take_limits_and_take_them_away(store: Store) -> None:
    create_key(store, "shop", tokens_per_minute=9)
    changed = update_key(store, "shop", {"role": "admin", "tokens_per_minute": None})
    assert (changed["role"], changed["tokens_per_minute"]) == ("admin", None)
    update_key(store, "shop", {"budgets": [{"unit": "cost", "per": "month", "limit": 2.5}]})
    assert update_key(store, "shop", {"budgets": None})["budgets"] == []


@pytest.mark.parametrize(
    ("limits", "sentence"),
    [
        ({"role": "boss"}, "'boss' is not a role. Choose one of client, operator, admin."),
        ({"requests_per_minute": 0}, "must be a whole number of 1 or more"),
        ({"requests_per_minute": 10**20}, "can be 1,000,000,000 at most"),
        ({"tokens_per_minute": True}, "must be a whole number of 1 or more"),
        ({"expires_at": utc_now() - timedelta(days=1)}, "is over"),
        ({"expires_at": "soon"}, "'soon' is no time"),
        ({"deployments": ["nix"]}, "there is no deployment 'nix'"),
        ({"deployments": []}, "must be a list of names"),
        ({"budgets": [{"unit": "euros", "per": "day", "limit": 1}]}, "'euros' is no unit"),
        ({"budgets": [{"unit": "cost", "per": "week", "limit": 1}]}, "'week' is no period"),
        ({"budgets": [{"unit": "cost", "per": "day", "limit": -1}]}, "a number of 0 or more"),
        (
            {"budgets": [{"unit": "tokens", "per": "day", "limit": math.inf}]},
            "a number of 0 or more",
        ),
        (
            {"budgets": [{"unit": "tokens", "per": "day", "limit": n} for n in (5, 9)]},
            "two budgets limit tokens per day. Keep one of them",
        ),
        ({"budgets": [{"unit": "cost"}]}, "needs 'unit', 'per' and 'limit'"),
        ({"budget": []}, "a key has no 'budget'. Did you mean 'budgets'?"),
    ],
)
def test_what_makes_no_sense_is_said_in_a_sentence(
    store: Store, limits: dict[str, Any], sentence: str
) -> None:
    create_key(store, "known")
    with pytest.raises(DataError) as caught:
        update_key(store, "known", limits)
    assert sentence in caught.value.sentence()
    if "role" not in limits:
        with pytest.raises(DataError):
            create_key(store, "fresh", **limits)


def test_names_are_taken_once_and_misspelt_ones_are_guessed(store: Store) -> None:
    create_key(store, "shop")
    with pytest.raises(Conflict, match="rotate that key"):
        create_key(store, "shop")
    for name in ("", "*", "x" * 81, "a/b", "[red]", "tab\tbed", "(local)"):
        with pytest.raises(DataError, match="a key can't be named"):
            create_key(store, name)
    with pytest.raises(DataError, match="Did you mean 'shop'"):
        revoke_key(store, "shopp")


def test_guessing_is_slowed_down_and_right_keys_are_not(store: Store) -> None:
    secret = create_key(store, "shop")
    keys = ring(store)
    codes = [refusal(keys, f"tut_guess{n}", "10.0.0.9")[1] for n in range(30)]
    assert codes[0] == "invalid_api_key" and codes[-1] == "too_many_wrong_keys"
    assert refusal(keys, "tut_guess", "10.0.0.9")[0] == 429
    assert refusal(keys, "tut_guess", "10.0.0.10")[0] == 401
    assert show(keys, secret, "10.0.0.9").name == "shop"


def test_the_ring_notices_changes_alone(store: Store) -> None:
    create_key(store, "shop")
    keys = ring(store)
    before = keys.version
    keys.replace(load_keys(store))
    assert keys.version == before
    update_key(store, "shop", {"requests_per_minute": 3})
    keys.replace(load_keys(store))
    assert keys.version == before + 1
    assert keys.named("shop").requests_per_minute == 3
    assert keys.named(None).role == "admin"
