"""Accounts as people meet them in a browser: first start, sign-in, people, an ended session."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import expect
from tests.fakes.oidc_server import CLIENT, SECRET, OidcServer
from tests.fakes.web_projects import empty_project
from tests.unit.web.conftest import Site, ready

from tutelage.store.accounts import UserRow
from tutelage.workflows.people import accounts, audit

PASSWORD = "a lamp beside the river"
SETTINGS = """\
web:
  auth: "on"
  oidc:
    issuer: {issuer}
    client_id: {client}
    client_secret_env: TEST_OIDC_SECRET
    name: Example
    roles: {{label-team: [expert], builders: [engineer]}}
"""


@pytest.fixture(scope="module")
def server() -> Iterator[OidcServer]:
    with OidcServer() as made:
        yield made


@pytest.fixture(scope="module")
def project_dir(tmp_path_factory: pytest.TempPathFactory, server: OidcServer) -> Iterator[Path]:
    root = tmp_path_factory.mktemp("people")
    empty_project(root, extra=SETTINGS.format(issuer=server.issuer, client=CLIENT))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TEST_OIDC_SECRET", SECRET)
        yield root


@pytest.fixture(autouse=True)
def honest(server: OidcServer) -> None:
    server.spoil = ""
    server.groups = ["label-team"]
    server.person = {"sub": "1001", "preferred_username": "Ines"}


def sign_in(page: Any, name: str) -> None:
    page.goto("/login")
    page.get_by_label("Name").fill(name)
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Sign in").click()
    landed(page)


def landed(page: Any) -> None:
    """Wait for a page inside: the forms outside run no script, not even a test's."""
    page.locator(".tt-shell").wait_for(state="attached")
    page.wait_for_function("window.did_handshake === true")


def person(site: Site, name: str) -> None:
    """Make sure that there is an admin of this name."""
    store = site.context.store
    if name not in [row["name"] for row in accounts.people(store)]:
        accounts.add(store, name, ["admin"], by="test", password=PASSWORD)


def test_first_start_makes_an_admin_once(site: Site, page: Any, allowed: list[str]) -> None:
    link = next(note for note in site.notes if "/welcome/" in note).split()[-1]
    page.goto(link)
    page.get_by_label("Name").fill("Petra")
    page.get_by_label("New password").fill(PASSWORD)
    page.get_by_label("The same again").fill("something else")
    allowed.append("400")
    page.get_by_role("button", name="Save and sign in").click()
    expect(page.get_by_role("alert")).to_have_text("The two passwords differ")
    assert page.get_by_label("Name").input_value() == "Petra"
    page.get_by_label("New password").fill(PASSWORD)
    page.get_by_label("The same again").fill(PASSWORD)
    page.get_by_role("button", name="Save and sign in").click()
    landed(page)
    assert accounts.person(site.context.store, "petra")["roles"] == ["admin"]
    allowed.append("410")
    page.goto(link)
    expect(page.get_by_role("heading", level=1)).to_have_text("This link has ended")
    site.restart()
    assert not any("/welcome/" in note for note in site.notes)
    ready(page, "/account")  # a restart signs nobody out
    expect(page.get_by_role("heading", level=1)).to_have_text("Your account")


def test_an_admin_adds_somebody_who_chooses_a_password(site: Site, page: Any, browser: Any) -> None:
    person(site, "petra")
    sign_in(page, "petra")
    ready(page, "/users")
    page.get_by_label("Name of the new person").fill("Jonas")
    page.get_by_role("button", name="Add and make a link").click()
    link = page.get_by_role("dialog").locator("code").inner_text()
    page.get_by_role("button", name="Close").click()
    expect(page.get_by_role("row", name="jonas")).to_contain_text("invited")
    other = browser.new_context(base_url=site.url)
    theirs = other.new_page()
    theirs.goto(link)
    assert theirs.get_by_label("Name").input_value() == "jonas"
    theirs.get_by_label("New password").fill("three green bottles")
    theirs.get_by_label("The same again").fill("three green bottles")
    theirs.get_by_role("button", name="Save and sign in").click()
    landed(theirs)
    ready(page, "/users")
    page.get_by_role("button", name="jonas").click()
    page.get_by_role("button", name="Shut out").click()
    page.get_by_label("Shut jonas out?").get_by_role("button", name="Shut out").click()
    expect(page.get_by_role("row", name="jonas")).to_contain_text("disabled")
    theirs.wait_for_url("**/login?next=**")  # his open page notices by itself
    other.close()
    ready(page, "/audit")
    for action in ("users.added", "users.link", "users.password", "users.disabled"):
        expect(page.get_by_role("cell", name=action, exact=True).first).to_be_visible()
    page.get_by_role("button", name="Check the log").click()
    expect(page.get_by_text("No line was changed or taken out.")).to_be_visible()


def test_a_person_changes_their_password_and_ends_other_sessions(
    site: Site, page: Any, browser: Any
) -> None:
    store = site.context.store
    accounts.add(store, "mara", ["expert"], by="test", password=PASSWORD)
    sign_in(page, "mara")
    other = browser.new_context(base_url=site.url)
    sign_in(other.new_page(), "mara")
    ready(page, "/account")
    page.get_by_role("button", name="Sign out everywhere else").click()
    expect(page.get_by_text("1 other session ended")).to_be_visible()
    other.pages[0].wait_for_url("**/login?next=**")
    other.close()
    page.get_by_role("link", name="Change your password").click()
    page.get_by_label("Present password").fill(PASSWORD)
    page.get_by_label("New password").fill("three green bottles")
    page.get_by_label("The same again").fill("three green bottles")
    page.get_by_role("button", name="Change the password").click()
    landed(page)
    assert accounts.person(store, "mara")["sessions"] == 1


def test_the_sign_in_server_brings_people_with_their_roles(
    site: Site, page: Any, server: OidcServer
) -> None:
    page.goto("/login?next=/account")
    page.get_by_role("link", name="Sign in with Example").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Your account")
    known = accounts.person(site.context.store, "ines")
    assert (known["roles"], known["oidc"], known["password"]) == (["expert"], True, False)
    server.groups = ["builders"]
    server.person = {"sub": "1001", "preferred_username": "renamed"}  # known by sub, not by name
    page.context.clear_cookies()
    page.goto("/auth/oidc")
    landed(page)
    assert accounts.person(site.context.store, "ines")["roles"] == ["engineer"]
    last = audit.lines(site.context.store, user="ines", action="sign-in", limit=1)[0][0]
    assert last["what"] == {"with": "Example"}


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        ("nonce", "can't be trusted"),
        ("audience", "can't be trusted"),
        ("issuer", "can't be trusted"),
        ("key", "can't be trusted"),
        ("none", "can't be trusted"),
        ("late", "can't be trusted"),
        ("who", "told of somebody else"),
        ("refuse", "you are not in the team"),
        ("no role", "has no role here"),
        ("name", "is called 'petra' here"),
    ],
)
def test_a_wrong_answer_of_the_server_signs_nobody_in(
    site: Site, page: Any, server: OidcServer, allowed: list[str], spoil: str, sentence: str
) -> None:
    person(site, "petra")
    server.spoil = spoil
    server.person = {"sub": f"of {spoil}", "preferred_username": "petra"}
    if spoil == "no role":
        server.groups = ["strangers"]
        server.person["preferred_username"] = "otto"
    allowed.append("403")
    page.goto("/auth/oidc")
    expect(page.get_by_role("alert")).to_contain_text(sentence)
    names = {cookie["name"] for cookie in page.context.cookies()}
    assert "tutelage_help-desk" not in names
    with site.context.store.session() as session:
        subjects = [row.subject for row in session.query(UserRow) if row.subject]
    assert not any(subject.endswith(f"of {spoil}") for subject in subjects)


def test_an_answer_that_was_not_asked_for_in_this_browser_is_refused(
    site: Site, page: Any, browser: Any, allowed: list[str]
) -> None:
    victim = browser.new_context(base_url=site.url)
    attacker = page.context.request.get(f"{site.url}/auth/oidc", max_redirects=0)
    back = page.context.request.get(attacker.headers["location"], max_redirects=0)
    theirs = victim.new_page()
    theirs.goto(back.headers["location"])
    expect(theirs.get_by_role("alert")).to_contain_text("not begun in this browser")
    victim.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing(site: Site, browser: Any, scheme: Any) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright")
    person(site, "petra")
    context = browser.new_context(base_url=site.url, color_scheme=scheme)
    page = context.new_page()
    page.goto("/login")
    found = {"/login": _serious(axe, page)}
    sign_in(page, "petra")
    for path in ("/users", "/audit", "/account"):
        ready(page, path)
        found[path] = _serious(axe, page)
    page.goto("/auth/password")
    found["/auth/password"] = _serious(axe, page)
    context.close()
    assert not any(found.values()), found


def _serious(axe: Any, page: Any) -> list[str]:
    found = axe.Axe().run(page).response["violations"]
    return [
        f"{one['id']}: {one['nodes'][0]['html'][:200]}"
        for one in found
        if one["impact"] in ("serious", "critical")
    ]
