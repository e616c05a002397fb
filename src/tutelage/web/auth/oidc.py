"""Signing in at an OpenID Connect server: the authorization code flow with PKCE and a nonce.

The protocol's parts are authlib's. Who somebody is here, and what they may do, is decided in
workflows/people/accounts_oidc.py.
"""

from __future__ import annotations

import asyncio
import hmac
import os
import secrets
import time
from typing import Any

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from tutelage.core.config_web import Oidc
from tutelage.core.errors import EnvironmentProblem, TutelageError
from tutelage.web.auth import origin, sheet
from tutelage.web.auth.entry import entered, safe_path
from tutelage.web.auth.sessions import Gate
from tutelage.workflows.people import accounts_oidc
from tutelage.workflows.people.accounts_sessions import SignInRefused

_COOKIE = "tutelage_oidc"
_KNOWN_S = 3600.0  # how long what the server says of itself is kept
_PATIENCE_S = 10.0
_SAFE = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA")


class SignOn:
    """Sign-in at one server."""

    def __init__(self, gate: Gate) -> None:
        self._gate = gate
        self._metadata: dict[str, Any] = {}
        self._read_at = 0.0

    @property
    def _settings(self) -> Oidc:
        settings = self._gate.web.oidc
        if settings is None:
            raise SignInRefused("there is no sign-in server here")
        return settings

    async def start(self, request: Request) -> Response:
        """Send the browser to the server, with what only this browser brings back."""
        nonce, verifier = secrets.token_urlsafe(32), secrets.token_urlsafe(48)
        data = {
            "nonce": nonce,
            "verifier": verifier,
            "after": safe_path(request.query_params.get("next", "")),
        }
        try:
            metadata = await self._known()
            state = await asyncio.to_thread(accounts_oidc.remember, self._gate.store, data)
            async with self._client(request) as client:
                url, _ = client.create_authorization_url(
                    metadata["authorization_endpoint"],
                    state=state,
                    nonce=nonce,
                    code_verifier=verifier,
                )
        except TutelageError as error:
            return self._failed(error)
        response = RedirectResponse(url, 303)
        secure = origin.is_https(request, self._gate.web)
        response.set_cookie(
            _COOKIE, state, max_age=600, httponly=True, samesite="lax", secure=secure
        )
        return response

    async def back(self, request: Request) -> Response:
        """Let in whom the server names, if this browser asked for it a moment ago."""
        given = request.query_params
        state, kept = given.get("state", ""), request.cookies.get(_COOKIE, "")
        try:
            data = await asyncio.to_thread(accounts_oidc.recall, self._gate.store, state)
            if data is None or not kept or not hmac.compare_digest(state.encode(), kept.encode()):
                raise SignInRefused("this sign-in was not begun in this browser", fix="Try again")
            if "error" in given:
                reason = given.get("error_description") or given["error"]
                raise SignInRefused(f"the sign-in server refused: {reason[:200]}")
            claims = await self._claims(request, given.get("code", ""), data)
            token = await asyncio.to_thread(
                accounts_oidc.sign_in,
                self._gate.store, self._settings, claims, self._gate.visit(request),
            )  # fmt: skip
        except TutelageError as error:
            response = self._failed(error)
            response.delete_cookie(_COOKIE)
            return response
        response = entered(self._gate, request, token, safe_path(data["after"]))
        response.delete_cookie(_COOKIE)
        return response

    async def _claims(self, request: Request, code: str, data: dict[str, str]) -> dict[str, Any]:
        """Return what the server says of a person, checked: whom it was said to, when, by whom."""
        from authlib.integrations.base_client import OAuthError

        metadata = await self._known()
        try:
            async with self._client(request) as client:
                token = await client.fetch_token(
                    metadata["token_endpoint"], code=code, code_verifier=data["verifier"]
                )
                keys = await client.request("GET", metadata["jwks_uri"], withhold_token=True)
                keys.raise_for_status()
                claims = self._checked(token, keys.json(), data["nonce"], metadata)
                return await self._filled(client, claims, metadata)
        except OAuthError as error:
            raise SignInRefused(f"the sign-in server refused: {str(error)[:200]}") from error
        except TutelageError:
            raise
        except Exception as error:  # whatever a server may send
            raise self._unusable(error) from error

    def _checked(
        self, token: dict[str, Any], keys: Any, nonce: str, metadata: dict[str, Any]
    ) -> dict[str, Any]:
        from authlib.oidc.core import CodeIDToken
        from joserfc import jwt
        from joserfc.errors import JoseError
        from joserfc.jwk import KeySet
        from joserfc.jws import JWSRegistry

        named = metadata.get("id_token_signing_alg_values_supported") or ["RS256"]
        usable = [name for name in named if name in _SAFE]
        try:
            decoded = jwt.decode(
                token["id_token"],
                KeySet.import_key_set(keys),
                registry=JWSRegistry(algorithms=usable, strict_check_header=False),
            )
            claims = CodeIDToken(
                decoded.claims,
                decoded.header,
                {
                    "iss": {"essential": True, "values": [metadata["issuer"]]},
                    "aud": {"essential": True, "value": self._settings.client_id},
                },
                {
                    "nonce": nonce,
                    "client_id": self._settings.client_id,
                    "access_token": token.get("access_token"),
                },
            )
            claims.validate(leeway=60)
        except (JoseError, KeyError, ValueError) as error:
            raise SignInRefused(
                f"the sign-in server's token can't be trusted ({type(error).__name__})"
            ) from error
        return dict(claims)

    async def _filled(
        self, client: Any, claims: dict[str, Any], metadata: dict[str, Any]
    ) -> dict[str, Any]:
        """Return the claims, with those that only the server's user info has."""
        wanted = {self._settings.username_claim}
        if self._settings.roles:
            wanted.add(self._settings.roles_claim)
        if wanted <= claims.keys() or "userinfo_endpoint" not in metadata:
            return claims
        answer = await client.get(metadata["userinfo_endpoint"])
        answer.raise_for_status()
        more = answer.json()
        if more.get("sub") != claims["sub"]:
            raise SignInRefused("the sign-in server told of somebody else")
        return {**more, **claims}

    async def _known(self) -> dict[str, Any]:
        """Return what the server says of itself."""
        if self._metadata and time.monotonic() - self._read_at < _KNOWN_S:
            return self._metadata
        issuer = self._settings.issuer
        try:
            async with self._client(None) as client:
                place = f"{issuer}/.well-known/openid-configuration"
                answer = await client.request("GET", place, withhold_token=True)
                answer.raise_for_status()
                found = dict(answer.json())
            missing = {"authorization_endpoint", "token_endpoint", "jwks_uri"} - found.keys()
            if str(found.get("issuer", "")).rstrip("/") != issuer or missing:
                raise SignInRefused(f"{issuer} names itself {found.get('issuer')!r}")
        except TutelageError:
            raise
        except Exception as error:  # whatever a server may send
            raise self._unusable(error) from error
        self._metadata, self._read_at = found, time.monotonic()
        return found

    def _client(self, request: Request | None) -> Any:
        from authlib.integrations.httpx_client import AsyncOAuth2Client

        settings = self._settings
        name = settings.client_secret_env
        secret = os.environ.get(name) if name else None
        if name and not secret:
            raise EnvironmentProblem(f"the variable {name} holds no secret of the sign-in server")
        return AsyncOAuth2Client(
            settings.client_id,
            secret,
            scope=" ".join(settings.scopes),
            redirect_uri=self._address(request) if request is not None else None,
            code_challenge_method="S256",
            token_endpoint_auth_method="client_secret_basic" if secret else "none",
            timeout=_PATIENCE_S,
            leeway=0,  # the access token is used at once
        )

    def _address(self, request: Request) -> str:
        ours = self._gate.web.url or f"{request.url.scheme}://{request.headers.get('host', '')}"
        return f"{ours}/auth/oidc/back"

    def _unusable(self, error: Exception) -> SignInRefused:
        return SignInRefused(
            f"the sign-in server does not answer as it should ({type(error).__name__})",
            fix="Try again, or sign in with a password",
        )

    def _failed(self, error: TutelageError) -> Response:
        parts = [sheet.wrong(error.sentence()), sheet.link("/login", "Back to the sign-in")]
        return sheet.page(self._gate.project, "Nobody is signed in", parts, 403)
