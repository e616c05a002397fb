"""The section `web` of tutelage.yaml: where the page listens and who may come in.

Says what is allowed; workflows/people/accounts.py keeps the people and web/auth lets them in.
"""

from __future__ import annotations

from ipaddress import ip_address
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import Field, field_validator

from tutelage.core.config_base import Section, yaml_word

_EVERYWHERE = ("0.0.0.0", "::")  # noqa: S104 (told apart, not bound)

Role = Literal["expert", "engineer", "operator", "admin"]


def is_loopback(host: str) -> bool:
    """Return whether a host's name or address can only be this machine."""
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


class Oidc(Section):
    """Signing in at a server that speaks OpenID Connect, beside passwords or in their place."""

    issuer: str = Field(
        pattern=r"^https?://[^\s]+$"
    )  # /.well-known/openid-configuration lies there
    client_id: str  # how this page is registered there
    # name of the environment variable that holds the client's secret; unset: a public client
    client_secret_env: str | None = None
    name: str = "single sign-on"  # what the button says: Sign in with NAME
    scopes: list[str] = ["openid", "profile", "email"]  # what is asked for
    username_claim: str = "preferred_username"  # the claim a new person is named by
    roles_claim: str = "groups"  # the claim that lists a person's groups
    # group: the roles it gives, anew at every sign-in; empty: roles are given here, by an admin
    roles: dict[str, list[Role]] = {}
    default_roles: list[Role] = []  # of new people whom no group gives a role; empty: refused

    @field_validator("issuer")
    @classmethod
    def _is_private(cls, value: str) -> str:
        parts = urlsplit(value)
        if parts.scheme == "http" and not is_loopback(parts.hostname or ""):
            raise ValueError("issuer must begin with https:// (http only on this machine)")
        return value.rstrip("/")


class Web(Section):
    """The web page: its address, accounts and sign-in."""

    host: str = "127.0.0.1"  # address to listen on
    port: int = Field(default=8090, ge=0, le=65535)  # 0: any free one
    # how browsers reach it, where that differs, such as https://label.example.org
    url: str | None = Field(default=None, pattern=r"^https?://[^\s/?#]+$")
    auth: Literal["auto", "on", "off"] = "auto"  # auto: accounts unless host is this machine alone
    session_hours: Annotated[float, Field(gt=0, le=24 * 90)] = 12  # then one signs in again
    oidc: Oidc | None = None

    @field_validator("url", mode="before")
    @classmethod
    def _without_slash(cls, value: object) -> object:
        return value.rstrip("/") if isinstance(value, str) else value

    _words = field_validator("auth", mode="before")(yaml_word)

    @property
    def accounts(self) -> bool:
        """Whether people sign in: always, unless only this machine can reach the page."""
        if self.auth == "auto":
            return not is_loopback(self.host)
        return self.auth == "on"

    @property
    def address(self) -> str:
        """The address a person types: `url`, or what follows from host and port."""
        if self.url is not None:
            return self.url
        host = self.host
        if host in _EVERYWHERE:
            host = "::1" if ":" in host else "127.0.0.1"
        return f"http://[{host}]:{self.port}" if ":" in host else f"http://{host}:{self.port}"
