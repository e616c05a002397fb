"""Whether the project's gateway runs and takes requests. It asks over HTTP and changes nothing."""

from __future__ import annotations

import json
from http.client import HTTPConnection, HTTPException
from typing import Any
from urllib.parse import urlsplit

from tutelage.workflows.context import Context

_TIMEOUT_S = 1.0


def gateway_state(ctx: Context) -> dict[str, Any]:
    """Return {state, url, says}: state is ready, starting, stopping, down, silent or off.

    Down: it takes requests, and no engine answers them.
    """
    note = ctx.workspace.home / "serving.json"
    try:
        url = str(json.loads(note.read_text("utf-8"))["url"])
    except (OSError, ValueError, KeyError):
        return {"state": "off", "url": None, "says": "no gateway runs; `tutelage up` starts it"}
    try:
        found = _ready(url)
    except (HTTPException, OSError, ValueError):
        says = f"the gateway at {url} does not answer; `tutelage up` starts it anew"
        return {"state": "silent", "url": url, "says": says}
    state = str(found.get("status", "starting"))
    dumb = found.get("unanswered")
    names = f" but those to {', '.join(dumb)}" if isinstance(dumb, list) else ""
    says = {
        "ready": f"requests are taken at {url}{names}",
        "down": "no engine answers for any deployment; `tutelage deploy backends` asks the servers",
    }.get(state, f"the gateway is {state}")
    return {"state": state, "url": url, "says": says}


def _ready(url: str) -> dict[str, Any]:
    place = urlsplit(url)
    connection = HTTPConnection(place.hostname or "", place.port, timeout=_TIMEOUT_S)
    try:
        connection.request("GET", "/readyz")
        found = json.loads(connection.getresponse().read())
    finally:
        connection.close()
    return found if isinstance(found, dict) else {}
