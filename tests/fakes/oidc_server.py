"""An OpenID Connect server on this machine that speaks the real protocol: code flow, PKCE, RS256.

It signs in whoever `person` says, without asking. `spoil` makes its tokens wrong in one way.
"""

from __future__ import annotations

import base64
import hashlib
import json
import secrets
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

from joserfc import jwt
from joserfc.jwk import KeySet, RSAKey

CLIENT, SECRET = "tutelage-page", "a secret of the client"


class OidcServer:
    """Starts with `with OidcServer() as server:`; `server.issuer` is its address."""

    def __init__(self) -> None:
        self.key = RSAKey.generate_key(2048, {"kid": "one", "use": "sig", "alg": "RS256"})
        self.strange = RSAKey.generate_key(2048, {"kid": "one"})
        self.person: dict[str, Any] = {"sub": "1001", "preferred_username": "Ines"}
        self.groups: list[str] = []
        self.spoil = ""
        self.codes: dict[str, dict[str, str]] = {}
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self.issuer = f"http://127.0.0.1:{self._http.server_address[1]}"

    def __enter__(self) -> OidcServer:
        threading.Thread(target=self._http.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        self._http.shutdown()
        self._http.server_close()

    def metadata(self) -> dict[str, Any]:
        return {
            "issuer": self.issuer,
            "authorization_endpoint": f"{self.issuer}/authorize",
            "token_endpoint": f"{self.issuer}/token",
            "jwks_uri": f"{self.issuer}/keys",
            "userinfo_endpoint": f"{self.issuer}/who",
            "id_token_signing_alg_values_supported": ["RS256", "none"],
        }

    def authorize(self, asked: dict[str, str]) -> str:
        """Return where the browser is sent back to, with a code."""
        assert asked["client_id"] == CLIENT and asked["response_type"] == "code"
        assert asked["code_challenge_method"] == "S256" and "openid" in asked["scope"].split()
        if self.spoil == "refuse":
            answer = {"error": "access_denied", "error_description": "you are not in the team"}
        else:
            code = secrets.token_urlsafe(16)
            self.codes[code] = asked
            answer = {"code": code}
        return f"{asked['redirect_uri']}?{urlencode({**answer, 'state': asked['state']})}"

    def token(self, given: dict[str, str], authorization: str) -> tuple[int, dict[str, Any]]:
        """Return an access and an id token for a code, once."""
        wanted = base64.b64encode(f"{CLIENT}:{SECRET.replace(' ', '+')}".encode()).decode()
        plain = base64.b64encode(f"{CLIENT}:{SECRET}".encode()).decode()
        asked = self.codes.pop(given.get("code", ""), None)
        digest = hashlib.sha256(given.get("code_verifier", "").encode()).digest()
        challenge = base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
        if authorization not in (f"Basic {wanted}", f"Basic {plain}"):
            return 401, {"error": "invalid_client"}
        if asked is None or challenge != asked["code_challenge"]:
            return 400, {"error": "invalid_grant"}
        return 200, {
            "access_token": "a token",
            "token_type": "Bearer",
            "expires_in": 60,
            "id_token": self._id_token(asked),
        }

    def _id_token(self, asked: dict[str, str]) -> str:
        now = int(time.time())
        claims = {
            "iss": "http://127.0.0.1:1" if self.spoil == "issuer" else self.issuer,
            "aud": "another-client" if self.spoil == "audience" else CLIENT,
            "nonce": "another" if self.spoil == "nonce" else asked["nonce"],
            "iat": now - 7200 if self.spoil == "late" else now,
            "exp": now - 3600 if self.spoil == "late" else now + 60,
            **self.person,
        }
        if self.spoil == "none":
            parts = [{"alg": "none"}, claims]
            return ".".join(_base64(json.dumps(part)) for part in parts) + "."
        key = self.strange if self.spoil == "key" else self.key
        return jwt.encode({"alg": "RS256", "kid": "one"}, claims, key)

    def keys(self) -> dict[str, Any]:
        return dict(KeySet([self.key]).as_dict(private=False))


def _base64(text: str) -> str:
    return base64.urlsafe_b64encode(text.encode()).rstrip(b"=").decode()


def _handler(server: OidcServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            parts = urlsplit(self.path)
            asked = {name: values[0] for name, values in parse_qs(parts.query).items()}
            if parts.path == "/authorize":
                self.send_response(302)
                self.send_header("location", server.authorize(asked))
                self.end_headers()
            elif parts.path == "/keys":
                self._send(200, server.keys())
            elif parts.path == "/who":
                sub = "9999" if server.spoil == "who" else server.person["sub"]
                self._send(200, {"sub": sub, "groups": server.groups})
            else:
                self._send(200, server.metadata())

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"])).decode()
            given = {name: values[0] for name, values in parse_qs(body).items()}
            self._send(*server.token(given, self.headers.get("authorization", "")))

        def _send(self, status: int, body: dict[str, Any]) -> None:
            data = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, format: str, *given: object) -> None:
            pass

    return Handler
