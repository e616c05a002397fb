"""Deployments: made, listed, shown, removed, from the command line, Python and HTTP."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
from tests.fakes.gateway import begin_rollout, gateway_project, make_release
from tests.fakes.vllm_server import Engine, FakeVllm
from typer.testing import CliRunner

import tutelage as tt
from tutelage.cli.main import app
from tutelage.core.errors import Conflict, DataError
from tutelage.release.deployments import abort
from tutelage.store.releases import RolloutRow
from tutelage.workflows.context import Context
from tutelage.workflows.release import deploy
from tutelage.workflows.serving.serve import Serving


@pytest.fixture(scope="module")
def server() -> Iterator[FakeVllm]:
    with FakeVllm() as running:
        yield running


@pytest.fixture
def ctx(tmp_path: Path, server: FakeVllm) -> Iterator[Context]:
    server.fresh()
    context = gateway_project(tmp_path / "project", server.url, guards={})
    yield context
    context.store.close()


def call(ctx: Context, *arguments: str) -> tuple[int, str, str]:
    done = CliRunner().invoke(app, ["deploy", *arguments, "--project", str(ctx.workspace.root)])
    return done.exit_code, done.stdout, done.stderr


def test_a_deployment_is_made_listed_shown_and_removed(ctx: Context) -> None:
    release = make_release(ctx, "Another prompt.")
    code, text, _ = call(ctx, "create", "trial", "--release", release.name)
    assert (code, text) == (0, f"trial: {release.name} answers every request\n")
    code, text, _ = call(ctx, "list")
    assert [line.split()[0] for line in text.splitlines()[1:] if line.strip()] == [
        "colours", "trial",
    ]  # fmt: skip
    rows = json.loads(call(ctx, "list", "--json")[1])["deployments"]
    assert rows[1]["stable"] == release.name
    assert "answers every request" in call(ctx, "show")[1]
    code, text, _ = call(ctx, "remove", "trial")
    assert (code, text) == (0, "removed trial, with 0 ended rollouts\n")
    code, _, problem = call(ctx, "show", "trial")
    assert code == 2
    assert "there is no deployment 'trial'" in problem


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("create", "Trial!"), "can't be a deployment's name"),
        (("create", "colours"), "there is a deployment 'colours' already"),
        (("create", "trial", "--release", "nope"), "there is no release"),
        (("remove", "colours"), "the project's own deployment"),
        (("remove", "colour"), "Did you mean 'colours'?"),
    ],
)
def test_what_can_not_be_done_is_one_sentence(
    ctx: Context, arguments: tuple[str, ...], sentence: str
) -> None:
    if arguments[:2] == ("create", "colours"):
        arguments = (*arguments, "--release", make_release(ctx, "Another prompt.").name)
    code, _, problem = call(ctx, *arguments)
    assert code == 2
    assert sentence in problem
    assert problem.count("\n") == 1


def test_with_a_rollout_under_way_it_stays_and_its_journal_goes_with_it(ctx: Context) -> None:
    project = tt.open(ctx.workspace.root)
    begin_rollout(ctx)
    other = ctx.config.model_copy(update={"name": "another"})
    there = Context(ctx.workspace, other, ctx.store)
    with pytest.raises(Conflict, match="a rollout is under way"):
        deploy.remove(there, "colours")
    with pytest.raises(DataError, match="the project's own"):
        project.deployments.remove("colours")
    abort(ctx.store, "colours")
    assert project.deployments.all()[0]["rollout"] == "aborted"
    assert deploy.remove(there, "colours")["rollouts"] == 1
    with ctx.store.session() as session:
        assert session.query(RolloutRow).count() == 0
    project.close()


def test_over_http_a_new_deployment_answers_at_once(ctx: Context, server: FakeVllm) -> None:
    release = make_release(ctx, "Another prompt.")
    with Serving(ctx) as serving:

        def admin(method: str, path: str, body: Any = None) -> Any:
            data = json.dumps(body).encode() if body is not None else None
            request = urllib.request.Request(f"{serving.base_url}{path}", data, method=method)
            request.add_header("content-type", "application/json")
            return json.loads(urllib.request.urlopen(request).read())

        made = admin("POST", "/admin/deployments", {"name": "trial", "release": release.name})
        assert (made["stable"], made["ready"]) == (release.name, True)
        client = openai.OpenAI(base_url=f"{serving.base_url}/v1", api_key="unused")
        messages: list[Any] = [{"role": "user", "content": "hello"}]
        answer = client.chat.completions.create(model="trial", messages=messages)
        assert answer.choices[0].message.content == "base answers: hello"
        assert [row["name"] for row in admin("GET", "/admin/deployments")["data"]] == [
            "colours", "trial",
        ]  # fmt: skip
        shown = admin("GET", "/admin/backends")["data"][0]
        assert shown["up"]
        assert set(shown["releases"].values()) == {"base"}
        assert admin("DELETE", "/admin/deployments/trial") == {
            "name": "trial", "removed": True, "rollouts": 0,
        }  # fmt: skip
        with pytest.raises(openai.NotFoundError):
            client.chat.completions.create(model="trial", messages=messages)
        with pytest.raises(urllib.error.HTTPError, match="404"):
            admin("DELETE", "/admin/deployments/trial")
        with pytest.raises(urllib.error.HTTPError, match="400"):  # the project's own stays
            admin("DELETE", "/admin/deployments/colours")


def test_servers_are_asked_what_they_can_do(ctx: Context, server: FakeVllm) -> None:
    code, text, _ = call(ctx, "backends")
    assert code == 0
    for line in (
        "up, version 0.11.0, takes adapters while it runs",
        "models    base",
        "kv cache  25%",
        "gpu reserved  90%",
    ):
        assert line in text
    server.stop()
    code, text, _ = call(ctx, "backends")
    assert code == 1
    assert "down: http://127.0.0.1" in text


def test_a_server_without_adapters_says_so(tmp_path: Path) -> None:
    with FakeVllm(Engine(runtime_lora=False)) as plain:
        ctx = gateway_project(tmp_path / "plain", plain.url)
        assert not deploy.backends(ctx)["backends"][0]["adapters"]
        ctx.store.close()
