"""The jobs API: the real SDK and ours see the same service, and no lost answer sends twice."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import openai
import pytest
from tests.fakes.jobs_server import KEY, TOKEN, Fault, JobsServer
from tests.fakes.openai_backend import FakeBackend

from tutelage.core.config import Hosted
from tutelage.core.errors import ConfigError, EnvironmentProblem
from tutelage.inference.openai_http import Patience
from tutelage.training.hosted.api import JobsApi
from tutelage.training.hosted.azure import AzureService
from tutelage.training.hosted.base import Pace
from tutelage.training.hosted.http import Client, NotThere, Rejected, Unsure, once
from tutelage.training.hosted.openai import OpenAIService

NOW = Pace(0, 0)
HYPER = {"n_epochs": 2, "batch_size": 4, "learning_rate_multiplier": 0.5}


def lines(count: int = 12) -> bytes:
    """Return the bytes of a training file."""
    turns = [
        [{"role": "user", "content": f"thing {i}"}, {"role": "assistant", "content": "warm ü"}]
        for i in range(count)
    ]
    rows = [json.dumps({"messages": row}, ensure_ascii=False) for row in turns]
    return ("\n".join(rows) + "\n").encode()


@pytest.fixture(scope="module")
def running() -> Iterator[JobsServer]:
    with JobsServer() as server:
        yield server


@pytest.fixture(params=["openai", "azure"])
def server(
    request: pytest.FixtureRequest, running: JobsServer, monkeypatch: pytest.MonkeyPatch
) -> JobsServer:
    monkeypatch.setenv("JOBS_KEY", KEY)
    monkeypatch.setenv("AZURE_TOKEN", TOKEN)
    for name in ("OPENAI_API_KEY", "AZURE_OPENAI_API_KEY", "OPENAI_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    return running.fresh(azure=request.param == "azure", reads=2)


def settings(server: JobsServer, **more: Any) -> Hosted:
    kind = "azure" if server.service.azure else "openai"
    deployment = {
        "subscription": "sub-1", "resource_group": "rg", "account": "acc",
        "management_url": server.url,
    }  # fmt: skip
    given: dict[str, Any] = {
        "kind": kind, "base_url": server.url, "model": "small-1", "api_key_env": "JOBS_KEY",
        "deployment": deployment if server.service.azure else None,
    }  # fmt: skip
    return Hosted(**{**given, **more})


def ours(server: JobsServer, **more: Any) -> JobsApi:
    made = AzureService if server.service.azure else OpenAIService
    return JobsApi(made(settings(server, **more), "colours"), Client(Patience(3, 0.0)))


def theirs(server: JobsServer) -> openai.OpenAI:
    if server.service.azure:
        return openai.AzureOpenAI(
            azure_endpoint=server.url, api_key=KEY, api_version="2024-10-21", max_retries=0
        )
    return openai.OpenAI(base_url=f"{server.url}/v1", api_key=KEY, max_retries=0)


def body(server: JobsServer, file_id: str) -> dict[str, Any]:
    made: dict[str, Any] = {"model": "small-1", "training_file": file_id, "seed": 3, "suffix": "a"}
    if server.service.azure:
        return {**made, "hyperparameters": HYPER}
    method = {"type": "supervised", "supervised": {"hyperparameters": HYPER}}
    return {**made, "method": method, "metadata": {"tutelage": "k-1"}}


def test_the_sdk_can_do_all_of_it_against_the_service(server: JobsServer) -> None:
    with theirs(server) as client:
        file = client.files.create(file=("rows.jsonl", lines()), purpose="fine-tune")
        file = client.files.wait_for_processing(file.id, poll_interval=0)
        assert file.status == "processed" and file.bytes == len(lines())
        made = client.fine_tuning.jobs.create(**body(server, file.id))
        while made.status not in ("succeeded", "failed"):
            made = client.fine_tuning.jobs.retrieve(made.id)
        assert made.status == "succeeded" and made.fine_tuned_model
        assert made.hyperparameters.n_epochs == 2
        events = list(client.fine_tuning.jobs.list_events(made.id, limit=3))
        assert len(events) == len(server.service.events[made.id]) > 3
        assert [e.type for e in events].count("metrics") == 3
        checkpoints = list(client.fine_tuning.jobs.checkpoints.list(made.id, limit=2))
        assert [c.step_number for c in checkpoints] == [3, 2, 1]
        assert client.files.content(made.result_files[0]).read()
        assert [job.id for job in client.fine_tuning.jobs.list()] == [made.id]
        second = client.fine_tuning.jobs.create(**body(server, file.id))
        assert client.fine_tuning.jobs.cancel(second.id).status == "cancelled"
        with pytest.raises(openai.NotFoundError):
            client.fine_tuning.jobs.retrieve("ftjob-none")
        with pytest.raises(openai.BadRequestError, match="Unrecognized request argument"):
            client.fine_tuning.jobs.create(**body(server, file.id), extra_body={"nonsense": 1})
        server.service.faults.append(Fault("GET", status=429))
        with pytest.raises(openai.RateLimitError):
            client.files.list()
    with pytest.raises(openai.AuthenticationError):
        theirs(server).with_options(api_key="wrong").files.list()


def test_ours_does_the_same_and_sees_the_same(server: JobsServer) -> None:
    api = ours(server)
    uploaded = api.upload("rows.jsonl", lines())
    assert server.service.contents[uploaded["id"]] == lines()
    assert api.file(uploaded["id"])["status"] in ("uploaded", "pending")
    assert api.file(uploaded["id"])["status"] == "processed"
    assert api.find_file("rows.jsonl", len(lines())) == api.file(uploaded["id"])
    assert api.find_file("rows.jsonl", 1) is None
    job = api.create(body(server, uploaded["id"]))
    seen: list[dict[str, Any]] = []
    while job["status"] not in ("succeeded", "failed"):
        job = api.job(job["id"])
        seen += api.events(job["id"], seen[-1]["id"] if seen else None)
    assert seen == server.service.events[job["id"]]
    assert api.content(job["result_files"][0]).startswith(b"step,train_loss")
    assert [item["step_number"] for item in api.checkpoints(job["id"])] == [1, 2, 3]
    with theirs(server) as client:
        sdk_job = client.fine_tuning.jobs.retrieve(job["id"])
        assert sdk_job.fine_tuned_model == job["fine_tuned_model"]
        assert sdk_job.trained_tokens == job["trained_tokens"]
        sdk_events = client.fine_tuning.jobs.list_events(job["id"])
        assert [event.id for event in sdk_events][::-1] == [event["id"] for event in seen]
        name = api.service.publish(api.client, job["fine_tuned_model"], NOW)
        api.ping(name)
        answer = client.chat.completions.create(
            model=name, messages=[{"role": "user", "content": "ping"}], max_tokens=1
        )
        assert answer.choices[0].message.content == "pong"
    assert len(server.service.asked) == 2
    assert server.service.asked[0] == {**server.service.asked[1], "model": name}
    second = api.create(body(server, uploaded["id"]))
    assert api.cancel(second["id"])["status"] == "cancelled"


def test_lists_are_read_to_the_last_page(
    server: JobsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tutelage.training.hosted.api._PAGE", 2)
    api = ours(server)
    for number in range(5):
        api.file(api.upload(f"rows-{number}.jsonl", lines(10 + number))["id"])
    found = api.find_file("rows-0.jsonl", len(lines(10)))
    assert found is not None and found["filename"] == "rows-0.jsonl"
    file_id = found["id"]
    api.file(file_id)
    made = [api.create(body(server, file_id))["id"] for _ in range(5)]
    assert [job["id"] for job in api.jobs()] == made[::-1]


@pytest.mark.parametrize("status", [429, 500, 503, 0])
def test_looking_is_repeated_until_it_works(server: JobsServer, status: int) -> None:
    server.service.faults.append(Fault("GET", status=status, times=3))
    assert list(ours(server).jobs()) == []
    server.service.faults.append(Fault("GET", status=status, times=99))
    with pytest.raises(EnvironmentProblem, match="the service does not answer"):
        list(ours(server).jobs())


@pytest.mark.parametrize("status", [500, 504, 408, 0])
@pytest.mark.parametrize("after", [True, False])
def test_a_change_whose_answer_is_lost_is_not_guessed_at(
    server: JobsServer, status: int, after: bool
) -> None:
    api = ours(server)
    server.service.faults.append(Fault("POST", status=status, after=after))
    with pytest.raises(Unsure):
        api.upload("rows.jsonl", lines())
    assert len(server.service.files) == after
    server.service.faults.append(Fault("POST", status=status, after=after))
    found = once(
        lambda: api.find_file("rows.jsonl", len(lines())),
        lambda: api.upload("rows.jsonl", lines()),
        api.client,
        "the rows",
    )
    assert list(server.service.files) == [found["id"]]


def test_a_busy_service_did_nothing_so_it_is_asked_again(server: JobsServer) -> None:
    server.service.faults.append(Fault("POST", status=429, times=2))
    assert ours(server).upload("rows.jsonl", lines())["id"] == "file-0001"
    assert server.service.uploads() == ["rows.jsonl"]


def test_it_gives_up_where_it_stays_unsure(server: JobsServer) -> None:
    api = ours(server)
    server.service.faults.append(Fault("POST", status=502, times=99))
    with pytest.raises(EnvironmentProblem, match="does not say whether it took the rows"):
        once(
            lambda: api.find_file("rows.jsonl", len(lines())),
            lambda: api.upload("rows.jsonl", lines()),
            api.client,
            "the rows",
        )
    assert len([line for line in server.service.seen if line.startswith("POST")]) == 4


def test_errors_say_what_to_do(server: JobsServer, monkeypatch: pytest.MonkeyPatch) -> None:
    api = ours(server)
    with pytest.raises(NotThere, match="the service does not know this"):
        api.job("ftjob-none")
    with pytest.raises(Rejected, match="invalid training_file: file-none"):
        api.create({"model": "small-1", "training_file": "file-none"})
    server.service.faults.append(Fault("GET", status=429, code="insufficient_quota"))
    with pytest.raises(EnvironmentProblem, match="no credit left"):
        list(api.jobs())
    monkeypatch.setenv("JOBS_KEY", "wrong")
    with pytest.raises(EnvironmentProblem, match="refuses the key"):
        list(api.jobs())
    monkeypatch.delenv("JOBS_KEY")
    with pytest.raises(EnvironmentProblem, match="the environment has no JOBS_KEY"):
        list(api.jobs())


def test_a_service_that_is_not_there_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JOBS_KEY", KEY)
    where = Hosted(base_url="http://127.0.0.1:1/v1", model="m", api_key_env="JOBS_KEY")
    api = JobsApi(OpenAIService(where, "p"), Client(Patience(1, 0.0)))
    with pytest.raises(EnvironmentProblem, match="can't be reached"):
        list(api.jobs())


def test_a_server_of_another_kind_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JOBS_KEY", KEY)
    with FakeBackend() as chat:  # it serves models, not jobs
        where = Hosted(base_url=chat.url, model="m", api_key_env="JOBS_KEY")
        api = JobsApi(OpenAIService(where, "p"), Client(Patience(1, 0.0)))
        with pytest.raises(NotThere, match=r"Check hosted\.base_url"):
            list(api.jobs())


@pytest.mark.parametrize("server", ["openai"], indirect=True)
def test_models_that_count_tokens_otherwise_are_pinged_too(server: JobsServer) -> None:
    server.service.models.add("ft:m")
    server.service.completion_tokens_only = True
    ours(server).ping("ft:m")
    assert server.service.asked[0]["max_completion_tokens"] == 1


@pytest.mark.parametrize("server", ["azure"], indirect=True)
class TestAzure:
    def test_a_tuned_model_is_deployed_once(self, server: JobsServer) -> None:
        api = ours(server)
        server.service.models.add("small-1.ft-1")
        assert api.service.publish(api.client, "small-1.ft-1", NOW) == "colours"
        assert api.service.publish(api.client, "small-1.ft-1", NOW) == "colours"
        made = server.service.deployments["colours"]
        assert made["sku"] == {"name": "Standard", "capacity": 1}
        assert made["properties"]["model"]["name"] == "small-1.ft-1"

    def test_without_a_deployment_it_says_what_is_missing(self, server: JobsServer) -> None:
        api = ours(server, deployment=None)
        with pytest.raises(ConfigError, match="only after it is deployed"):
            api.service.publish(api.client, "small-1.ft-1", NOW)

    def test_a_wrong_token_is_one_sentence(
        self, server: JobsServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("AZURE_TOKEN", "wrong")
        api = ours(server)
        with pytest.raises(EnvironmentProblem, match="Authentication failed"):
            api.service.publish(api.client, "small-1.ft-1", NOW)

    def test_the_v1_form_has_no_api_version(self, server: JobsServer) -> None:
        service = AzureService(settings(server, base_url=f"{server.url}/openai/v1/"), "colours")
        address = service.address("chat/completions", "colours")
        assert address.url == f"{server.url}/openai/v1/chat/completions"
        assert address.headers == {"api-key": KEY}
