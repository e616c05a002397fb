"""Requests to a fine-tuning service: what may be sent again, and what went wrong in one sentence.

A request that changes something is never sent twice on a guess: where it is not known whether it
was carried out, Unsure is raised, and `once` looks before it asks again.
"""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, TypeVar

import aiohttp

from tutelage.core.errors import EnvironmentProblem, ModelError, TutelageError
from tutelage.inference.openai_http import LONGEST_WAIT_S, PASSING, Patience, retry_after
from tutelage.training.hosted.base import Address

_NOT_DONE = frozenset((425, 429))  # the server says that it did nothing
_TIMEOUT = aiohttp.ClientTimeout(total=600, sock_connect=10, sock_read=120)
Found = TypeVar("Found")


class Unsure(Exception):
    """The request may have been carried out: the answer was lost."""


class NotThere(ModelError):
    """The service knows no such file, job, model or deployment."""


class Rejected(ModelError):
    """The service does not accept the request as it is."""


@dataclass(frozen=True)
class Form:
    """A file to send as multipart/form-data, with its fields."""

    name: str
    data: bytes
    fields: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class _Answer:
    status: int
    body: bytes
    retry_after_s: float = 0.0


class Client:
    """Sends requests one after the other; failures that pass are tried again."""

    def __init__(self, patience: Patience | None = None) -> None:
        self.patience = patience or Patience()

    def get(self, address: Address) -> Any:
        """Return the JSON that stands at an address."""
        return _json(self.read(address), address)

    def read(self, address: Address) -> bytes:
        """Return the bytes that stand at an address."""
        return self._send("GET", address, safe=True)

    def put(self, address: Address, body: Mapping[str, Any]) -> Any:
        """Put `body` at an address; doing it twice is doing it once."""
        return _json(self._send("PUT", address, safe=True, body=body), address)

    def post(self, address: Address, body: Mapping[str, Any], *, safe: bool = False) -> Any:
        """Post `body` and return the JSON answer. `safe`: doing it twice does no harm.

        Raises Unsure if the answer was lost and it is not safe.
        """
        return _json(self._send("POST", address, safe=safe, body=body), address)

    def upload(self, address: Address, form: Form) -> Any:
        """Post a file and return the JSON answer. Raises Unsure if the answer was lost."""
        return _json(self._send("POST", address, safe=False, form=form), address)

    def wait(self, attempt: int, least_s: float = 0.0) -> None:
        """Pause before attempt `attempt` + 1; the pauses double."""
        pause = self.patience.first_wait_s * 2**attempt * random.uniform(0.5, 1)
        time.sleep(min(LONGEST_WAIT_S, max(pause, least_s)))

    def _send(
        self,
        method: str,
        address: Address,
        *,
        safe: bool,
        body: Mapping[str, Any] | None = None,
        form: Form | None = None,
    ) -> bytes:
        problem = ""
        for attempt in range(self.patience.retries + 1):
            least_s = 0.0
            try:
                answer = _in_own_loop(_exchange(method, address, body, form))
            except aiohttp.ClientConnectorError as error:
                problem = f"it can't be reached: {error}"  # nothing was sent
            except (aiohttp.ClientError, TimeoutError, OSError) as error:
                problem = f"{type(error).__name__}: {error}"
                if not safe:
                    raise Unsure(problem) from error
            else:
                if answer.status < 300:
                    return answer.body
                problem = f"status {answer.status}: {_message(answer.body)}"
                if answer.status not in PASSING or _code(answer.body) == "insufficient_quota":
                    raise _refusal(address, answer)
                if not safe and answer.status not in _NOT_DONE:
                    raise Unsure(problem)
                least_s = answer.retry_after_s
            if attempt < self.patience.retries:
                self.wait(attempt, least_s)
        raise EnvironmentProblem(
            f"the service does not answer ({problem})",
            where=address.url,
            fix="Run the same command again; nothing is sent twice",
        )


def once(
    find: Callable[[], Found | None], make: Callable[[], Found], client: Client, what: str
) -> Found:
    """Return what `find` gives, else what `make` makes; if that is unsure, look before a new try.

    Raises EnvironmentProblem if it stays unsure.
    """
    problem: Unsure | None = None
    for attempt in range(client.patience.retries + 1):
        found = find()
        if found is not None:
            return found
        try:
            return make()
        except Unsure as error:
            problem = error
            client.wait(attempt)
    found = find()
    if found is not None:
        return found
    raise EnvironmentProblem(
        f"the service does not say whether it took {what} ({problem})",
        fix="Run the same command again; it looks for it before it sends anything",
    )


def _in_own_loop(work: Any) -> _Answer:
    with ThreadPoolExecutor(1) as own:  # the caller may be inside an event loop
        answer: _Answer = own.submit(asyncio.run, work).result()
    return answer


async def _exchange(
    method: str, address: Address, body: Mapping[str, Any] | None, form: Form | None
) -> _Answer:
    """Send one request. Redirects are not followed: they would carry the key elsewhere."""
    sent: dict[str, Any] = {}
    if form is not None:
        parts = aiohttp.FormData(dict(form.fields))
        parts.add_field("file", form.data, filename=form.name, content_type="application/jsonl")
        sent["data"] = parts
    elif body is not None:
        sent["json"] = dict(body)
    async with (
        aiohttp.ClientSession(timeout=_TIMEOUT, headers=address.headers) as session,
        session.request(method, address.url, allow_redirects=False, **sent) as response,
    ):
        content = await response.read()
        return _Answer(response.status, content, retry_after(response.headers.get("retry-after")))


def _refusal(address: Address, answer: _Answer) -> TutelageError:
    said = _message(answer.body)
    where = address.url.partition("?")[0]
    if _code(answer.body) == "insufficient_quota":
        return EnvironmentProblem(
            f"the account has no credit left ({said})",
            where=where,
            fix="Add credit at the service and run the same command again",
        )
    if answer.status in (401, 403):
        return EnvironmentProblem(
            f"the service refuses the key ({said})",
            where=where,
            fix="Check the key in hosted.api_key_env, and what it may do",
        )
    if answer.status == 404:
        return NotThere(
            f"the service does not know this ({said})",
            where=where,
            fix="Check hosted.base_url, hosted.api_version and the name",
        )
    return Rejected(
        f"the service does not accept the request ({said})",
        where=where,
        fix="Correct what it names in tutelage.yaml or in the rows",
    )


def _json(content: bytes, address: Address) -> Any:
    try:
        found = json.loads(content)
    except ValueError as error:
        raise ModelError(
            "the service answers with something else than JSON",
            where=address.url,
            fix="Check hosted.base_url",
        ) from error
    return found


def _error(content: bytes) -> dict[str, Any]:
    """Return the error object of OpenAI's and Azure's answers, empty if there is none."""
    try:
        error = json.loads(content)["error"]
    except (ValueError, KeyError, TypeError):
        return {}
    return error if isinstance(error, dict) else {"message": str(error)}


def _message(content: bytes) -> str:
    found = _error(content).get("message")
    text = str(found) if found else content.decode(errors="replace")
    return " ".join(text.split())[:300].rstrip(".")


def _code(content: bytes) -> str:
    return str(_error(content).get("code") or "")
