"""Asks the listener that every llama.cpp server opens by itself; no prompt or answer goes this way.

It is there for what the library does not offer as a call: tokens of a text, slots on disk.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
from typing import Any

from tutelage.core.errors import EnvironmentProblem, ModelError

_UNIX = "unix://"
_TIMEOUT_S = 30.0


def ask(address: str, key: str, path: str, body: Any) -> Any:
    """Return the JSON that a POST of `body` to `path` gives.

    Raises EnvironmentProblem if nobody listens at `address`, ModelError if it refuses.
    """
    headers = {"content-type": "application/json", "authorization": f"Bearer {key}"}
    try:
        with contextlib.closing(_connect(address)) as connection:
            connection.request("POST", path, json.dumps(body), headers)
            response = connection.getresponse()
            answer = json.loads(response.read())
    except (OSError, http.client.HTTPException) as error:
        raise EnvironmentProblem(f"llama.cpp does not listen ({error})") from error
    if response.status != http.HTTPStatus.OK:
        raise ModelError(f"llama.cpp refused {path} ({answer})")
    return answer


def _connect(address: str) -> http.client.HTTPConnection:
    """Return a connection to `http://host:port` or `unix://path`."""
    if not address.startswith(_UNIX):
        return http.client.HTTPConnection(address.removeprefix("http://"), timeout=_TIMEOUT_S)
    connection = http.client.HTTPConnection("localhost", timeout=_TIMEOUT_S)
    connection.sock = socket.socket(socket.AF_UNIX)
    connection.sock.settimeout(_TIMEOUT_S)
    connection.sock.connect(address.removeprefix(_UNIX))
    return connection
