"""People, links, tries and the audit log in the store, as commands and pages change them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select, update
from typer.testing import CliRunner

from tutelage.cli.main import app
from tutelage.core.artifact import utc_now
from tutelage.core.config_web import Oidc, Web, is_loopback
from tutelage.core.errors import DataError, TutelageError
from tutelage.store.accounts import AuditRow, LinkRow, SessionRow, TryRow, UserRow
from tutelage.store.base import Store, open_store
from tutelage.workflows.people import (
    accounts,
    accounts_links,
    accounts_oidc,
    accounts_sessions,
    accounts_tries,
    audit,
    passwords,
)
from tutelage.workflows.people.accounts_sessions import SignInRefused, Visit

PASSWORD = "a lamp beside the river"
ON = Web(auth="on")


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    made = open_store(f"sqlite:///{tmp_path / 'store.db'}")
    yield made
    made.close()


def secret_of(link: str | None) -> str:
    assert link is not None
    return link.rsplit("/", 1)[1]


def test_accounts_are_on_unless_only_this_machine_can_reach_the_page() -> None:
    assert [is_loopback(host) for host in ("127.0.0.1", "127.8.8.8", "::1", "localhost")] == [
        True
    ] * 4
    assert [is_loopback(host) for host in ("0.0.0.0", "::", "10.1.2.3", "example.org")] == [
        False
    ] * 4
    assert not Web().accounts and Web(host="0.0.0.0").accounts
    assert Web(auth="on").accounts and not Web(host="0.0.0.0", auth="off").accounts
    assert Web(host="::", port=1).address == "http://[::1]:1"
    with pytest.raises(ValueError, match="https://"):
        Oidc(issuer="http://login.example.org", client_id="x")


@pytest.mark.parametrize("password", ["short", "aaaaaaaaaaaaaaaa", "annannannanna", "x" * 201])
def test_weak_passwords_are_refused(store: Store, password: str) -> None:
    with pytest.raises(DataError):
        accounts.add(store, "anna", ["expert"], by="test", password=password)
    assert accounts.people(store) == []


def test_passwords_are_kept_as_argon2id(store: Store) -> None:
    accounts.add(store, "Anna", ["expert"], by="test", password=PASSWORD)
    with store.session() as session:
        kept = session.scalar(select(UserRow.password))
    assert kept is not None and kept.startswith("$argon2id$") and PASSWORD not in kept
    assert passwords.matches(kept, PASSWORD) and not passwords.matches(kept, PASSWORD + " ")
    assert not passwords.matches(None, PASSWORD) and not passwords.matches("rubbish", PASSWORD)


@pytest.mark.parametrize("name", ["", "local", "Local", "a b", "<b>", "-a", "a" * 65, "a\nb"])
def test_some_names_can_t_be_had(store: Store, name: str) -> None:
    with pytest.raises(DataError):
        accounts.add(store, name, ["expert"], by="test")


def test_the_last_admin_stays(store: Store) -> None:
    accounts.add(store, "anna", ["admin"], by="test")
    for change in (
        lambda: accounts.set_disabled(store, "anna", True, by="test"),
        lambda: accounts.set_roles(store, "anna", ["expert"], by="test"),
    ):
        with pytest.raises(DataError, match="the only admin"):
            change()
    accounts.add(store, "ben", ["admin"], by="test")
    assert accounts.set_disabled(store, "anna", True, by="test")["state"] == "disabled"


def test_other_roles_another_password_and_being_disabled_end_sessions(store: Store) -> None:
    accounts.add(store, "anna", ["expert"], by="test", password=PASSWORD)
    for change in (
        lambda: accounts.set_roles(store, "anna", ["expert", "engineer"], by="test"),
        lambda: accounts.set_password(store, "anna", PASSWORD, by="test"),
        lambda: accounts.set_disabled(store, "anna", True, by="test"),
    ):
        token = accounts_sessions.sign_in(store, "ANNA", PASSWORD, Visit())
        digest = accounts_sessions.digest_of(token)
        assert accounts_sessions.signed_in(store, digest) is not None
        change()
        assert accounts_sessions.signed_in(store, digest) is None
    with pytest.raises(SignInRefused, match="the name or the password is wrong"):
        accounts_sessions.sign_in(store, "anna", PASSWORD, Visit())


def test_the_first_link_makes_one_admin(store: Store) -> None:
    assert accounts_links.first_link(store, Web()) is None
    old = secret_of(accounts_links.first_link(store, ON))
    new = secret_of(accounts_links.first_link(store, ON))
    assert accounts_links.look(store, old) is None
    assert accounts_links.look(store, new) == accounts_links.Link("first", None)
    with pytest.raises(DataError):
        accounts_links.use(store, new, "local", PASSWORD, Visit())

    def race(name: str) -> bool:
        try:
            accounts_links.use(store, new, name, PASSWORD, Visit())
        except TutelageError:
            return False
        return True

    with ThreadPoolExecutor(4) as pool:
        won = list(pool.map(race, ["anna", "ben", "cleo", "dora"]))
    assert sum(won) == 1 and len(accounts.people(store)) == 1
    assert accounts_links.first_link(store, ON) is None


def test_links_end_with_their_time_and_keep_no_secret(store: Store) -> None:
    accounts.add(store, "anna", ["expert"], by="test")
    token = secret_of(accounts_links.password_link(store, ON, "anna", by="test"))
    with store.begin() as session:
        assert session.scalar(select(LinkRow.digest)) != token
        session.execute(update(LinkRow).values(expires_at=utc_now() - timedelta(seconds=1)))
    assert accounts_links.look(store, token) is None
    with pytest.raises(SignInRefused, match="does not work any more"):
        accounts_links.use(store, token, "anna", PASSWORD, Visit())


def test_a_state_of_the_sign_in_server_is_no_link(store: Store) -> None:
    state = accounts_oidc.remember(store, {"nonce": "n"})
    assert accounts_links.look(store, state) is None
    with pytest.raises(SignInRefused):
        accounts_links.use(store, state, "anna", PASSWORD, Visit())
    assert accounts_oidc.recall(store, state) == {"nonce": "n"}
    assert accounts_oidc.recall(store, state) is None


def test_waits_grow_and_a_right_password_ends_them(store: Store) -> None:
    def after_waiting(name: str, address: str) -> int:
        with store.begin() as session:
            session.execute(update(TryRow).values(next_at=utc_now()))
        assert accounts_tries.begin(store, name, address) == 0
        return accounts_tries.begin(store, name, address)

    assert [accounts_tries.begin(store, "anna", "a") for _ in range(5)] == [0] * 5
    waits = [accounts_tries.begin(store, "anna", "a")]
    waits += [after_waiting("anna", "a") for _ in range(9)]
    assert waits == [8, 16, 32, 64, 128, 256, 512, 900, 900, 900]
    assert accounts_tries.begin(store, "anna", "b") == 0  # the right person, elsewhere
    accounts_tries.clear(store, "anna", "a")
    assert accounts_tries.begin(store, "anna", "a") == 0


def test_one_address_can_t_go_through_names(store: Store) -> None:
    waits = [accounts_tries.begin(store, f"name-{n}", "a") for n in range(31)]
    assert waits[:30] == [0] * 30 and waits[30] > 0


def test_many_tries_at_once_gain_nothing(store: Store) -> None:
    with ThreadPoolExecutor(8) as pool:
        waits = list(pool.map(lambda _: accounts_tries.begin(store, "anna", "a"), range(20)))
    assert waits.count(0) == 5


def test_groups_give_roles_anew_at_every_sign_in(store: Store) -> None:
    oidc = Oidc(issuer="https://x.example", client_id="c", roles={"a": ["expert"], "b": ["admin"]})
    claims: dict[str, Any] = {"sub": "1", "preferred_username": "Änne Meier", "groups": ["a", "z"]}
    token = accounts_oidc.sign_in(store, oidc, claims, Visit())
    assert accounts.people(store)[0]["name"] == "nne-meier"
    claims["groups"] = ["b", "a"]
    accounts_oidc.sign_in(store, oidc, claims, Visit())
    assert accounts.people(store)[0]["roles"] == ["expert", "admin"]
    assert accounts_sessions.signed_in(store, accounts_sessions.digest_of(token)) is None
    claims["groups"] = "z"
    with pytest.raises(SignInRefused, match="no role here any more"):
        accounts_oidc.sign_in(store, oidc, claims, Visit())
    accounts.add(store, "ben", ["admin"], by="test")
    accounts.set_disabled(store, "nne-meier", True, by="test")
    claims["groups"] = ["a"]
    with pytest.raises(SignInRefused, match="disabled"):
        accounts_oidc.sign_in(store, oidc, claims, Visit())


def test_the_log_shows_what_was_changed_in_it(store: Store) -> None:
    for number in range(4):
        audit.record(store, "anna", "release.promoted", {"release": f"r{number}"})
    audit.record(store, "ben", "users_x", {})
    found, count = audit.lines(store, user="anna", action="release.", limit=2, offset=1)
    assert ([line["what"]["release"] for line in found], count) == (["r2", "r1"], 4)
    assert audit.lines(store, action="users_")[1] == 1 and audit.lines(store, action="%")[1] == 0
    assert audit.first_broken(store) is None
    with store.begin() as session:
        session.execute(update(AuditRow).where(AuditRow.id == 2).values(user="ben"))
    assert audit.first_broken(store) == 2
    with store.begin() as session:
        session.execute(update(AuditRow).where(AuditRow.id == 2).values(user="anna"))
        session.delete(session.get(AuditRow, 3))
    assert audit.first_broken(store) == 4


def test_lines_that_are_written_at_once_follow_one_another(store: Store) -> None:
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda n: audit.record(store, "anna", f"a.{n}", {}), range(24)))
    assert audit.lines(store)[1] == 24 and audit.first_broken(store) is None


def test_expired_sessions_are_swept_and_counted_out(store: Store) -> None:
    accounts.add(store, "anna", ["expert"], by="test", password=PASSWORD)
    with store.begin() as session:
        row = accounts.found(session, "anna")
        accounts_sessions.open_session(session, row, Visit(hours=-1), "test")
    assert accounts.person(store, "anna")["sessions"] == 0
    accounts_sessions.sign_in(store, "anna", PASSWORD, Visit())
    with store.session() as session:
        assert session.query(SessionRow).count() == 1


def test_people_from_the_terminal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "tutelage.yaml").write_text("name: colours\nmodel: demo\nweb: {port: 99}\n")
    run = CliRunner()

    def call(*words: str, typed: str = "") -> Any:
        done = run.invoke(app, ["users", *words, "-p", str(tmp_path), "--json"], input=typed)
        return done.exit_code, json.loads(done.stdout)

    code, made = call("add", "Anna", "--role", "expert", "--role", "admin")
    assert code == 0 and made["link"].startswith("http://127.0.0.1:99/welcome/")
    assert (made["name"], made["roles"], made["state"]) == ("anna", ["expert", "admin"], "invited")
    assert call("password", "anna", "--stdin", typed=f"{PASSWORD}\n")[1]["state"] == "active"
    code, told = call("roles", "anna", "--role", "expert")
    assert (code, told["what"]) == (2, "anna is the only admin and can't lose the role admin")
    assert "Did you mean 'anna'?" in call("disable", "ana")[1]["fix"]
    assert call("add", "ben", "--role", "boss")[1]["what"] == "'boss' is not a role"
    assert call("add", "ben", "--role", "expert", "--oidc", "7")[1]["error"] == "ConfigError"
    assert call("list")[1]["users"][0]["name"] == "anna"
    assert call("sign-out", "anna")[1] == {"name": "anna", "sessions": 0}
    actions = [line["action"] for line in call("audit")[1]["lines"]]
    assert actions == ["sign-out.everywhere", "users.password", "users.link", "users.added"]
    assert call("audit", "--verify") == (0, {"broken": None})
