"""OpenAI's files and fine-tuning jobs, as any service of the group speaks them.

One method a call; what comes back is the service's JSON. Nothing here remembers or decides.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote, urlencode

from tutelage.core.errors import ModelError
from tutelage.training.hosted.base import Address, HostedService
from tutelage.training.hosted.http import Client, Form, Rejected

PURPOSE = "fine-tune"
_PAGE = 100  # entries a page
_PAGES = 1000  # read of one list, at most
Json = dict[str, Any]


class JobsApi:
    """The calls of one service."""

    def __init__(self, service: HostedService, client: Client | None = None) -> None:
        self.service = service
        self.client = client or Client()

    def find_file(self, name: str, size: int) -> Json | None:
        """Return the file uploaded under `name` with `size` bytes that can be used, or None."""
        for file in self._list("files", purpose=PURPOSE):
            same = file.get("filename") == name and file.get("bytes") in (size, None)
            if same and file.get("status") not in ("error", "failed", "deleted"):
                return file
        return None

    def upload(self, name: str, data: bytes) -> Json:
        """Upload a training file. Raises Unsure if the answer was lost."""
        form = Form(name, data, {"purpose": PURPOSE})
        return _object(self.client.upload(self.service.address("files"), form), "file")

    def file(self, file_id: str) -> Json:
        """Return what is known of a file."""
        return _object(self._get(f"files/{quote(file_id)}"), "file")

    def content(self, file_id: str) -> bytes:
        """Return the bytes of a file; result files that come as base64 are decoded."""
        raw = self.client.read(self.service.address(f"files/{quote(file_id)}/content"))
        return _decoded(raw)

    def create(self, body: Json) -> Json:
        """Create a job. Raises Unsure if the answer was lost."""
        address = self.service.address("fine_tuning/jobs")
        return _object(self.client.post(address, body), "job")

    def jobs(self) -> Iterator[Json]:
        """Yield the jobs of the account, the newest first."""
        return self._list("fine_tuning/jobs")

    def job(self, job_id: str) -> Json:
        """Return what is known of a job."""
        return _object(self._get(f"fine_tuning/jobs/{quote(job_id)}"), "job")

    def events(self, job_id: str, seen: str | None = None) -> list[Json]:
        """Return the job's events after the one with id `seen`, the oldest first."""
        fresh = []
        for event in self._list(f"fine_tuning/jobs/{quote(job_id)}/events"):  # newest first
            if event.get("id") == seen:
                break
            fresh.append(event)
        return fresh[::-1]

    def checkpoints(self, job_id: str) -> list[Json]:
        """Return the models that the job kept on its way, by step."""
        found = list(self._list(f"fine_tuning/jobs/{quote(job_id)}/checkpoints"))
        return sorted(found, key=lambda item: int(item.get("step_number") or 0))

    def cancel(self, job_id: str) -> Json:
        """Cancel a job; one that is cancelled stays so."""
        address = self.service.address(f"fine_tuning/jobs/{quote(job_id)}/cancel")
        return _object(self.client.post(address, {}, safe=True), "job")

    def ping(self, model: str) -> None:
        """Ask a model for one token, so that it is in use."""
        address = self.service.address("chat/completions", model)
        body = {"model": model, "messages": [{"role": "user", "content": "ping"}]}
        try:
            self.client.post(address, {**body, "max_tokens": 1}, safe=True)
        except Rejected as error:
            if "max_completion_tokens" not in str(error):
                raise
            self.client.post(address, {**body, "max_completion_tokens": 1}, safe=True)

    def _get(self, path: str, **query: str) -> Any:
        return self.client.get(_with_query(self.service.address(path), query))

    def _list(self, path: str, **query: str) -> Iterator[Json]:
        """Yield the entries of a list, page by page, in the service's order."""
        after: str | None = None
        for _ in range(_PAGES):
            asked = {**query, "limit": str(_PAGE), **({"after": after} if after else {})}
            page = self._get(path, **asked)
            entries = page.get("data") if isinstance(page, dict) else None
            if not isinstance(entries, list):
                raise _unreadable(path)
            yield from entries
            last = str(entries[-1].get("id")) if entries else None
            if not page.get("has_more") or last is None or last == after:
                return
            after = last


def _with_query(address: Address, query: dict[str, str]) -> Address:
    if not query:
        return address
    sign = "&" if "?" in address.url else "?"
    return Address(f"{address.url}{sign}{urlencode(query)}", address.headers)


def _object(found: Any, what: str) -> Json:
    if not isinstance(found, dict) or not isinstance(found.get("id"), str):
        raise _unreadable(what)
    return found


def _unreadable(what: str) -> ModelError:
    return ModelError(
        f"the service's answer about {what!r} is not in the form of OpenAI's jobs API",
        fix="Check hosted.kind and hosted.base_url",
    )


def _decoded(raw: bytes) -> bytes:
    if b"," in raw or not raw.strip():  # a table
        return raw
    try:
        return base64.b64decode(raw, validate=True)
    except (binascii.Error, ValueError):
        return raw
