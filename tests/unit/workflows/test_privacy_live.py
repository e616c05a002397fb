"""What a running gateway keeps of users: nothing that is to be redacted, nothing once forgotten."""

from __future__ import annotations

import hashlib
import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select
from tests.fakes.gateway import gateway_project
from tests.fakes.openai_backend import FakeBackend

from tutelage.data.split import load_split_key, private_name
from tutelage.store.records import RecordRow
from tutelage.workflows.feedback.forget import forget
from tutelage.workflows.serving.serve import Serving

USER = "zoe-forgettable-77"


def call(url: str, body: Any = None) -> tuple[int, Any]:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"content-type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=60) as response:
            return response.status, json.loads(response.read())
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read())


def files_with(root: Path, *words: str) -> list[str]:
    return [
        f"{path.relative_to(root)}: {word}"
        for path in sorted(root.rglob("*"))
        if path.is_file()
        for word in words
        if word.encode() in path.read_bytes()
    ]


@pytest.fixture
def backend() -> Iterator[FakeBackend]:
    with FakeBackend() as running:
        yield running


def ask(url: str, text: str, user: str) -> str:
    turns = [{"role": "user", "content": text}]
    status, answer = call(
        f"{url}/v1/chat/completions", {"model": "colours", "messages": turns, "user": user}
    )
    assert status == 200, answer
    return str(answer["id"])


def test_identifiers_are_in_no_file_whatever_path_they_took(
    tmp_path: Path, backend: FakeBackend
) -> None:
    ctx = gateway_project(tmp_path / "p", backend.url, redact=True)
    said = "call Dr. Kumar on (555) 555-0142"
    with Serving(ctx) as serving:
        record = ask(serving.base_url, said, "kumar@example.com")
        feedback = {"record_id": record, "comment": said, "author": "kumar@example.com",
                    "rating": "down", "signals": {"why": said}}  # fmt: skip
        assert call(f"{serving.base_url}/v1/feedback", feedback)[0] == 200
    ctx.store.close()
    assert files_with(tmp_path, "Kumar", "555-0142", "kumar@example.com") == []


def test_a_user_is_forgotten_by_the_running_gateway(tmp_path: Path, backend: FakeBackend) -> None:
    ctx = gateway_project(tmp_path / "p", backend.url)
    with Serving(ctx) as serving:
        url = serving.base_url
        record = ask(url, "does the quaxolotl of old shine at night", USER)
        ask(url, "another thing", "somebody.else")
        call(f"{url}/v1/feedback", {"record_id": record, "comment": "no, the quaxolotl is cold"})
        status, told = call(f"{url}/admin/privacy/forget", {"user": USER, "reason": "asked"})
        assert status == 200
        assert told["store"] == {"records": 1, "signals": 1}
        assert files_with(tmp_path, "quaxolotl", USER) == []
        status, listed = call(f"{url}/admin/privacy/erasures")
        assert [one["state"] for one in listed["data"]] == ["done"]
        assert call(f"{url}/admin/privacy/forget", {"user": USER})[0] == 404
        status, error = call(f"{url}/admin/privacy/show", {"user": 7})
        assert (status, error["error"]["code"]) == (400, "invalid_user")
        status, left = call(f"{url}/admin/privacy/show", {"user": "somebody.else"})
        assert left["store"]["records"] == 1
    ctx.store.close()
    assert files_with(tmp_path, "quaxolotl", USER) == []


def test_users_whose_texts_are_not_kept_are_found_by_a_keyed_hash(
    tmp_path: Path, backend: FakeBackend
) -> None:
    ctx = gateway_project(tmp_path / "p", backend.url, log="none")
    with Serving(ctx) as serving:
        ask(serving.base_url, "the sun", USER)
        assert call(f"{serving.base_url}/healthz")[0] == 200
    with ctx.store.session() as session:
        (row,) = session.scalars(select(RecordRow))
    key = load_split_key(ctx.workspace)
    assert row.user == row.group_key == private_name(key, USER)
    assert row.user != hashlib.sha256(USER.encode()).hexdigest()
    assert forget(ctx, USER).store["records"] == 1
    ctx.store.close()
