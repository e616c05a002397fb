"""Who gets in, by plain HTTP and websockets: forms, sessions, other sites, guesses, every route."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.fakes.web_projects import empty_project
from tests.unit.web.conftest import Site
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from tutelage.store.accounts import SessionRow, TryRow
from tutelage.workflows.people import accounts, accounts_links, accounts_sessions
from tutelage.workflows.people.accounts_sessions import Visit

PASSWORD = "a lamp beside the river"
ROLES = ("expert", "engineer", "operator", "admin")
ROUTES = """
import json, sys
from pathlib import Path
from tutelage.web.app import make_site
from tutelage.web import registry
served, site = make_site(Path(sys.argv[1]), host="127.0.0.1", port=1)
from nicegui import app
found = [[getattr(r, "path", ""), sorted(getattr(r, "methods", None) or [])]
         for r in [*served.routes, *app.routes]]
pages = [[p.path, sorted(p.roles), p.public] for p in registry.pages()]
print(json.dumps({"routes": found, "pages": pages}))
"""


@pytest.fixture(scope="module")
def project_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("accounts")
    store = empty_project(root, extra='web: {auth: "on"}\n').store
    for role in ROLES:
        accounts.add(store, f"{role}-1", [role], by="test", password=PASSWORD)
    return root


@pytest.fixture(scope="module")
def routes(project_dir: Path) -> dict[str, Any]:
    """What the application serves: every route, and every page with its roles."""
    done = subprocess.run(
        [sys.executable, "-c", ROUTES, str(project_dir)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


@pytest.fixture
def client(site: Site) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=site.url) as made:
        yield made


def token_of(text: str) -> str:
    found = re.search('name="csrf" value="([^"]+)"', text)
    assert found is not None
    return found[1]


def alert_in(text: str) -> str:
    found = re.search('role="alert">([^<]+)<', text)
    assert found is not None
    return found[1]


def sign_in(
    client: httpx.Client, name: str, password: str = PASSWORD, after: str = ""
) -> httpx.Response:
    path = f"/login?next={after}" if after else "/login"
    csrf = token_of(client.get(path).text)
    return client.post(path, data={"name": name, "password": password, "csrf": csrf})


def signed_in(site: Site, name: str) -> httpx.Client:
    """Return a client of somebody who is signed in, without the form."""
    store = site.context.store
    with store.begin() as session:
        row = accounts.found(session, name)
        token = accounts_sessions.open_session(session, row, Visit(), "test")
    return httpx.Client(base_url=site.url, cookies={"tutelage_help-desk": token})


def filled(path: str) -> str:
    return re.sub(r"\{[^}]+\}", "x", path)


def test_strangers_are_led_to_the_sign_in_and_back(client: httpx.Client) -> None:
    answer = client.get("/users?of=x", headers={"accept": "text/html"})
    assert (answer.status_code, answer.headers["location"]) == (
        303,
        "/login?next=%2Fusers%3Fof%3Dx",
    )
    answer = sign_in(client, "Admin-1", after="%2Fusers%3Fof%3Dx")
    assert (answer.status_code, answer.headers["location"]) == (303, "/users?of=x")
    assert client.get("/users").status_code == 200
    assert client.get("/login").headers["location"] == "/"
    kept = answer.headers["set-cookie"]
    assert "HttpOnly" in kept and "SameSite=lax" in kept and "Secure" not in kept


@pytest.mark.parametrize("after", ["https://evil.example", "//evil.example", "/\\evil.example",
                                   "javascript:alert(1)", "/a\nb", "/login", "%"])  # fmt: skip
def test_nobody_is_led_elsewhere(after: str) -> None:
    from tutelage.web.auth.entry import safe_path

    assert safe_path(after) == "/"


@pytest.mark.parametrize(
    ("host", "sent", "answered"),
    [
        ("127.0.0.1:8090", {}, True),
        ("localhost:8090", {"origin": "http://localhost:8090"}, True),
        ("[::1]:8090", {}, True),
        ("192.168.1.5:8090", {}, True),
        ("evil.example:8090", {}, False),  # a name that somebody points at this machine
        ("evil.example:8090", {"origin": "http://evil.example:8090"}, False),
        ("127.0.0.1.evil.example", {}, False),
        ("localhost:8090", {"origin": "http://localhost:3000"}, False),
        ("localhost:8090", {"sec-fetch-site": "same-site", "sec-fetch-mode": "cors"}, False),
        ("localhost:8090", {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"}, True),
        ("", {}, False),
    ],
)
def test_without_accounts_only_this_machine_s_names_are_answered(
    host: str, sent: dict[str, str], answered: bool
) -> None:
    from starlette.requests import HTTPConnection

    from tutelage.core.config_web import Web
    from tutelage.web.auth.origin import refusal

    given = [(name.encode(), value.encode()) for name, value in {"host": host, **sent}.items()]
    scope = {"type": "http", "method": "GET", "path": "/", "headers": given}
    assert (refusal(HTTPConnection(scope), Web()) is None) == answered


def test_behind_https_the_cookie_is_of_this_host_alone(tmp_path: Path) -> None:
    from starlette.requests import HTTPConnection
    from starlette.responses import Response

    from tutelage.web.auth.sessions import Gate
    from tutelage.web.view import Site as PageSite

    extra = "web: {url: 'https://label.example.org', auth: 'on'}\n"
    gate = Gate(PageSite(empty_project(tmp_path, extra=extra), "0.0.0.0", 8090))
    scope = {"type": "http", "headers": [], "scheme": "http", "server": ("x", 80), "path": "/"}
    response = Response()
    gate.keep(HTTPConnection(scope), response, "secret")
    kept = response.headers["set-cookie"]
    assert kept.startswith("__Host-tutelage_help-desk=secret;") and "Secure" in kept
    assert "Path=/" in kept and "Domain" not in kept


def test_a_planted_session_is_worth_nothing(site: Site, client: httpx.Client) -> None:
    planted = "x" * 43
    client.cookies.set("tutelage_help-desk", planted, domain="127.0.0.1")
    sign_in(client, "expert-1")
    given = [c.value for c in client.cookies.jar if c.name == "tutelage_help-desk"]
    assert planted not in given
    thief = httpx.Client(base_url=site.url, cookies={"tutelage_help-desk": planted})
    assert thief.get("/").status_code == 401


def test_signing_in_anew_ends_the_session_before(site: Site) -> None:
    with signed_in(site, "expert-1") as client:
        old = client.cookies["tutelage_help-desk"]
        client.cookies.clear()
        csrf = token_of(client.get("/login").text)
        client.cookies.set("tutelage_help-desk", old, domain="127.0.0.1")
        form = {"name": "expert-1", "password": PASSWORD, "csrf": csrf}
        assert client.post("/login", data=form).status_code == 303
    store = site.context.store
    assert accounts_sessions.signed_in(store, accounts_sessions.digest_of(old)) is None
    with store.session() as session:
        kept = [row.digest for row in session.query(SessionRow)]
    assert old not in kept and all(len(digest) == 64 for digest in kept)


def test_signing_out_ends_the_session(site: Site) -> None:
    with signed_in(site, "operator-1") as client:
        token = client.cookies["tutelage_help-desk"]
        assert "Sign out?" in client.get("/logout").text  # a link from elsewhere asks first
        assert client.get("/").status_code == 200
        client.post("/logout", headers={"origin": site.url})
    with httpx.Client(base_url=site.url, cookies={"tutelage_help-desk": token}) as thief:
        assert thief.get("/").status_code == 401


def test_a_session_ends_with_its_time(site: Site) -> None:
    store = site.context.store
    with store.begin() as session:
        row = accounts.found(session, "expert-1")
        token = accounts_sessions.open_session(session, row, Visit(hours=-1), "test")
    with httpx.Client(base_url=site.url, cookies={"tutelage_help-desk": token}) as client:
        assert client.get("/").status_code == 401


@pytest.mark.parametrize("csrf", ["", "x" * 43])
def test_a_form_without_its_token_does_nothing(site: Site, client: httpx.Client, csrf: str) -> None:
    form = {"name": "expert-1", "password": PASSWORD, "again": PASSWORD, "csrf": csrf}
    client.get("/login")
    answer = client.post("/login", data=form)
    assert answer.status_code == 403 and "another site" in alert_in(answer.text)
    store = site.context.store
    link = accounts_links.password_link(store, site.context.config.web, "expert-1", by="test")
    path = "/welcome/" + link.rsplit("/", 1)[1]
    assert client.post(path, data=form).status_code == 400
    with signed_in(site, "expert-1") as inside:
        form["old"] = PASSWORD
        assert inside.post("/auth/password", data=form).status_code == 400
        assert inside.get("/").status_code == 200
    assert accounts_links.look(store, path.rsplit("/", 1)[1]) is not None


def test_other_sites_are_refused_on_every_route(site: Site, routes: dict[str, Any]) -> None:
    with signed_in(site, "admin-1") as client:
        tried = 0
        for path, methods in routes["routes"]:
            for method in set(methods or ["GET"]) - {"HEAD"}:
                for sent in (
                    {"origin": "http://evil.example"},
                    {"origin": "null"},
                    {"origin": site.url.replace("127.0.0.1", "localhost")},
                    {"sec-fetch-site": "cross-site", "sec-fetch-mode": "no-cors"},
                ):
                    answer = client.request(method, filled(path) or "/", headers=sent)
                    assert answer.status_code == 403, (method, path, sent)
                    tried += 1
        assert tried > 40


def socket_of(site: Site, token: str, origin: str | None, client_id: str = "none") -> Any:
    address = site.url.replace("http", "ws")
    path = f"/_nicegui_ws/socket.io/?EIO=4&transport=websocket&client_id={client_id}"
    cookie = {"cookie": f"tutelage_help-desk={token}"} if token else {}
    return connect(address + path, origin=origin, additional_headers=cookie)  # type: ignore[arg-type]


def test_a_websocket_needs_the_origin_the_session_and_the_page(site: Site) -> None:
    with signed_in(site, "expert-1") as client, signed_in(site, "operator-1") as other:
        token = client.cookies["tutelage_help-desk"]
        page = re.search(r"client_id.: ?.([0-9a-f-]{36})", client.get("/").text)
        assert page is not None
        stranger = other.cookies["tutelage_help-desk"]
        for given, origin, client_id in (
            (token, "http://evil.example", "none"),
            (token, "null", "none"),
            ("", site.url, "none"),
            ("x" * 43, site.url, "none"),
            (stranger, site.url, page[1]),
        ):
            with pytest.raises(InvalidStatus) as refused:
                socket_of(site, given, origin, client_id)
            assert refused.value.response.status_code == 403
        polling = f"/_nicegui_ws/socket.io/?EIO=4&transport=polling&client_id={page[1]}"
        assert other.get(polling).status_code == 403
        with socket_of(site, token, site.url, page[1]) as socket:
            assert str(socket.recv()).startswith("0{")


def test_an_open_websocket_ends_with_its_session(site: Site) -> None:
    with signed_in(site, "expert-1") as client:
        with socket_of(site, client.cookies["tutelage_help-desk"], site.url) as socket:
            socket.recv()
            accounts_sessions.sign_out_everywhere(site.context.store, "expert-1", by="test")
            closed = None
            while closed is None:
                try:
                    socket.send("3")
                    socket.recv(timeout=0.1)
                except TimeoutError:
                    continue
                except Exception as error:
                    closed = error
            assert "1008" in str(closed)


def test_guessing_is_slowed_down(site: Site, client: httpx.Client) -> None:
    accounts.add(site.context.store, "guessed", ["expert"], by="test", password=PASSWORD)
    answers = [sign_in(client, "guessed", f"a wrong password {n}") for n in range(6)]
    assert [answer.status_code for answer in answers] == [401] * 5 + [429]
    right = sign_in(client, "guessed")  # the right one has to wait as well
    assert right.status_code == 429 and int(right.headers["retry-after"]) >= 1
    assert "too many wrong passwords" in alert_in(right.text)
    unknown = [sign_in(client, "nobody", "a wrong password").text for _ in range(2)]
    assert alert_in(unknown[0]) == alert_in(answers[0].text)  # names can't be found out
    assert sign_in(client, "expert-1").status_code == 303
    client.cookies.clear()
    with site.context.store.begin() as session:
        session.query(TryRow).delete()
    assert sign_in(client, "guessed").status_code == 303


def test_each_role_sees_what_it_should(site: Site, routes: dict[str, Any]) -> None:
    pages = [(path, set(roles)) for path, roles, public in routes["pages"] if not public]
    assert {"/", "/users", "/audit", "/account"} <= {path for path, _ in pages}
    for role in ROLES:
        with signed_in(site, f"{role}-1") as client:
            for path, allowed in pages:
                status = client.get(filled(path), headers={"accept": "text/html"}).status_code
                if role in allowed or role == "admin":
                    assert status in (200, 404), (role, path, status)
                else:
                    assert status == 403, (role, path, status)


def test_signed_out_nothing_is_answered(site: Site, routes: dict[str, Any]) -> None:
    public = ("/login", "/welcome/", "/logout", "/auth/")
    routes["routes"] += [["/loginx", ["GET"]], ["/logout/x", ["GET"]], ["/welcome", ["GET"]]]
    with httpx.Client(base_url=site.url) as client:
        for path, methods in routes["routes"]:
            if path.startswith(public) and path not in ("/loginx", "/logout/x"):
                continue
            for method in set(methods or ["GET"]) - {"HEAD"}:
                answer = client.request(method, filled(path) or "/")
                assert answer.status_code == 401, (method, path, answer.status_code)
                assert set(answer.json()) == {"error", "what"}


def test_every_answer_tells_the_browser_to_be_careful(site: Site, client: httpx.Client) -> None:
    form = client.get("/login").headers
    with signed_in(site, "admin-1") as inside:
        page = inside.get("/").headers
    for sent in (form, page, client.get("/nothing").headers):
        assert sent["x-content-type-options"] == "nosniff"
        assert sent["referrer-policy"] == "same-origin"
        assert sent["x-frame-options"] in ("DENY", "SAMEORIGIN")
        assert sent["cache-control"] == "no-store"
    assert "script-src" not in form["content-security-policy"]
    assert "default-src 'none'" in form["content-security-policy"]
    policy = page["content-security-policy"]
    scripts = next(part for part in policy.split("; ") if part.startswith("script-src"))
    assert "nonce-" in scripts and "unsafe-inline" not in scripts
    assert "object-src 'none'" in page["content-security-policy"]
    assert "frame-ancestors 'self'" in page["content-security-policy"]
