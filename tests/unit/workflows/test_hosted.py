"""Hosted tuning from the project's side: consent, identifiers, the job's life, the commands."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from tests.fakes.hosted_project import config, freeze, row, usual
from tests.fakes.jobs_server import KEY, TOKEN, Fault, JobsServer
from typer.testing import CliRunner

from tutelage.cli.main import app
from tutelage.core.artifact import Artifact
from tutelage.core.config import Stage
from tutelage.core.errors import ConfigError, Conflict, DataError, EnvironmentProblem, ModelError
from tutelage.core.events import Event
from tutelage.core.example import Message
from tutelage.inference.base import Prompt
from tutelage.training.hosted.base import Pace
from tutelage.training.hosted.journal import Journal, folder_of, records
from tutelage.workflows.context import Context, last_output, open_context
from tutelage.workflows.evaluation.evaluate import evaluate
from tutelage.workflows.training.hosted import hosted_generator, prepare, train_hosted
from tutelage.workflows.training.hosted_jobs import HostedDesk

NOW = Pace(0, 0)
NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


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
    return running.fresh(azure=request.param == "azure")


Open = Callable[..., Context]


@pytest.fixture
def opened(tmp_path: Path, server: JobsServer) -> Iterator[Open]:
    """Return a function that opens the project, with more settings if given."""
    contexts: list[Context] = []

    def make(more: str = "", events: list[Event] | None = None, rest: str = "") -> Context:
        (tmp_path / "tutelage.yaml").write_text(config(server, more) + rest, encoding="utf-8")
        told = events.append if events is not None else lambda event: None
        contexts.append(open_context(tmp_path, told))
        return contexts[-1]

    yield make
    for ctx in contexts:
        ctx.store.close()


only_openai = pytest.mark.parametrize("server", ["openai"], indirect=True)
only_azure = pytest.mark.parametrize("server", ["azure"], indirect=True)


def test_a_run_ends_in_a_model_that_evaluation_can_call(opened: Open, server: JobsServer) -> None:
    events: list[Event] = []
    ctx = opened(", epochs: 2, learning_rate_multiplier: 0.5, suffix: mine", events)
    dataset = usual(ctx)
    outcome = train_hosted(ctx, dataset, yes=True, pace=NOW)
    artifact = outcome.artifact
    assert (artifact.kind, artifact.parents, artifact.seed) == ("hosted", (dataset.hash,), 3)
    job = server.service.jobs["ftjob-0001"]
    assert artifact.meta["tuned"] == job["fine_tuned_model"]
    assert artifact.meta["job"] == "ftjob-0001"
    assert artifact.meta["metrics"]["train_loss"] == 0.5
    assert artifact.meta["trained_tokens"] == job["trained_tokens"]
    assert len(artifact.meta["checkpoints"]) == 3
    folder = ctx.path_of(artifact)
    assert {path.name for path in folder.iterdir()} == {
        "hosted.json", "results-1.csv", "manifest.json",
    }  # fmt: skip
    found = last_output(ctx, "train")
    assert found is not None and found.hash == artifact.hash
    server.service.text = lambda body: body["messages"][-1]["content"].upper()
    generator = hosted_generator(ctx, artifact)
    (answer,) = generator.generate([Prompt((Message(role="user", content="a rose"),))])
    assert answer.text == "A ROSE"
    progress = [event for event in events if event.kind == "progress"]
    assert [(event.done, event.total) for event in progress] == [(1, 3), (2, 3), (3, 3)]
    assert progress[0].data["loss"] == 1.0 and progress[0].data["validation_loss"] == 1.1


def test_the_request_is_in_the_form_of_the_service(opened: Open, server: JobsServer) -> None:
    ctx = opened(", epochs: 2, batch_size: 4, learning_rate_multiplier: 0.5")
    train_hosted(ctx, usual(ctx), yes=True, pace=NOW)
    (body,) = server.service.bodies
    hyper = {"n_epochs": 2, "batch_size": 4, "learning_rate_multiplier": 0.5}
    files = {split: server.service.contents[body[f"{split}_file"]].decode().splitlines()
             for split in ("training", "validation")}  # fmt: skip
    assert [len(lines) for lines in files.values()] == [12, 4]
    assert json.loads(files["training"][1])["messages"] == [
        {"role": "system", "content": "Name the colour family of the thing."},
        {"role": "user", "content": "thing number 1"},
        {"role": "assistant", "content": '{"family": "warm"}'},
    ]
    assert (body["model"], body["seed"], body["suffix"]) == ("small-1", 3, "colours")
    if server.service.azure:
        assert body["hyperparameters"] == hyper
        assert not {"method", "metadata"} & set(body)
    else:
        assert body["method"] == {"type": "supervised", "supervised": {"hyperparameters": hyper}}
        assert body["metadata"]["tutelage"].endswith("-1")


@only_openai
def test_the_older_form_can_be_asked_for(opened: Open, server: JobsServer) -> None:
    ctx = opened(", epochs: 2, shape: hyperparameters")
    train_hosted(ctx, usual(ctx), yes=True, pace=NOW)
    assert server.service.bodies[0]["hyperparameters"] == {"n_epochs": 2}
    assert "method" not in server.service.bodies[0]


def test_the_same_run_again_is_skipped(opened: Open, server: JobsServer) -> None:
    ctx = opened()
    dataset = usual(ctx)
    first = train_hosted(ctx, dataset, yes=True, pace=NOW)
    asked = len(server.service.seen)
    again = train_hosted(ctx, dataset, pace=NOW)
    assert again.skipped and again.artifact.hash == first.artifact.hash
    assert len(server.service.seen) == asked


@only_openai
class TestBeforeAnythingLeaves:
    def test_nothing_is_sent_without_consent(self, opened: Open, server: JobsServer) -> None:
        ctx = opened(", epochs: 2, price_per_million_tokens: 25")
        with pytest.raises(
            ConfigError, match=r"12 rows, about .* tokens in 2 epochs, about 0\.0"
        ) as told:
            train_hosted(ctx, usual(ctx), pace=NOW)
        assert "nothing was" in told.value.what and "--yes" in str(told.value.fix)
        assert server.service.seen == []
        assert records(ctx.workspace.runs) == []

    def test_the_settings_may_say_yes(self, opened: Open, server: JobsServer) -> None:
        ctx = opened(", upload: true")
        assert train_hosted(ctx, usual(ctx), pace=NOW).artifact.meta["tuned"]

    def test_identifiers_stop_it(self, opened: Open, server: JobsServer) -> None:
        ctx = opened()
        rows = [row(index) for index in range(30)]
        named = row(99).model_copy(
            update={
                "messages": (
                    Message(role="user", content="write to jane.doe@example.com, MRN 4451982"),
                    row(99).messages[-1],
                )
            }
        )
        dataset = freeze(ctx, [*rows[:12], named], rows[12:16], rows[16:])
        with pytest.raises(DataError, match=r"1 row holds personal or health identifiers") as told:
            train_hosted(ctx, dataset, yes=True, pace=NOW)
        assert "jane" not in str(told.value) and "redact" in str(told.value.fix)
        assert server.service.seen == []
        allowed = opened(", identifiers: allow")
        assert train_hosted(allowed, dataset, yes=True, pace=NOW).artifact.meta["tuned"]

    def test_fields_that_stay_here_do_not_stop_it(self, opened: Open, server: JobsServer) -> None:
        ctx = opened()
        rows = [row(index).model_copy(update={"meta": {"email": "a@b.org"}}) for index in range(22)]
        dataset = freeze(ctx, rows[:12], rows[12:16], rows[16:])
        train_hosted(ctx, dataset, yes=True, pace=NOW)
        assert b"a@b.org" not in b"".join(server.service.contents.values())

    def test_a_test_row_stops_it_and_none_is_ever_sent(
        self, opened: Open, server: JobsServer
    ) -> None:
        ctx = opened()
        rows = [row(index) for index in range(22)]
        leaky = freeze(ctx, [*rows[:12], rows[17]], rows[12:16], rows[16:])
        with pytest.raises(
            DataError, match=r"asks what the test row .* asks; nothing was uploaded"
        ):
            train_hosted(ctx, leaky, yes=True, pace=NOW)
        assert server.service.seen == []
        train_hosted(ctx, usual(ctx), yes=True, pace=NOW)
        sent = b"".join(server.service.contents.values()).decode()
        assert all(row(i).input_text in sent for i in range(16))
        assert not any(row(i).input_text in sent for i in range(16, 22))

    def test_too_few_rows_are_refused_here(self, opened: Open, server: JobsServer) -> None:
        ctx = opened()
        rows = [row(index) for index in range(22)]
        with pytest.raises(DataError, match="has 9 rows to upload, a job needs 10"):
            train_hosted(ctx, freeze(ctx, rows[:9], [], rows[16:]), yes=True, pace=NOW)
        assert server.service.seen == []

    def test_without_validation_rows_there_is_one_file(
        self, opened: Open, server: JobsServer
    ) -> None:
        ctx = opened()
        rows = [row(index) for index in range(22)]
        train_hosted(ctx, freeze(ctx, rows[:12], [], rows[16:]), yes=True, pace=NOW)
        assert len(server.service.uploads()) == 1
        assert "validation_file" not in server.service.bodies[0]

    def test_settings_of_training_here_are_named(self, opened: Open, server: JobsServer) -> None:
        events: list[Event] = []
        ctx = opened(events=events)
        settings = ctx.config.train.model_copy(update={"epochs": 5, "rank": 8})
        changed = ctx.config.model_copy(update={"train": settings})
        prepare(replace(ctx, config=changed), usual(ctx))
        assert "is not told train.epochs, train.rank: it takes hosted.epochs" in events[0].message
        staged = settings.model_copy(update={"before": [Stage(sources=["texts/*"])]})
        changed = ctx.config.model_copy(update={"train": staged})
        with pytest.raises(ConfigError, match="a service trains no stages"):
            prepare(replace(ctx, config=changed), usual(ctx))

    def test_without_a_section_it_says_so(self, opened: Open, tmp_path: Path) -> None:
        (tmp_path / "tutelage.yaml").write_text("name: p\nmodel: demo\n")
        ctx = open_context(tmp_path)
        with pytest.raises(ConfigError, match="there is no hosted section"):
            train_hosted(ctx, usual(ctx), yes=True)
        ctx.store.close()


class TestTheLifeOfAJob:
    def test_started_watched_fetched(self, opened: Open, server: JobsServer) -> None:
        ctx = opened()
        desk, dataset = HostedDesk(ctx, NOW), usual(ctx)
        started = desk.start(dataset, yes=True)
        assert (started["job"], started["tuned"]) == ("ftjob-0001", None)
        assert desk.start(dataset)["job"] == "ftjob-0001"  # consent was given
        with pytest.raises(ModelError, match="has made no model yet"):
            desk.fetch()
        assert desk.status()["status"] in ("running", "pending")
        ended = desk.watch()
        assert (ended["status"], ended["step"], ended["steps"]) == ("succeeded", 3, 3)
        artifact = desk.fetch(ended["name"][:6])
        assert desk.fetch("ftjob-0001").hash == artifact.hash
        assert len(server.service.jobs) == 1 and len(server.service.uploads()) == 2
        assert list(ctx.workspace.runs.glob("*/*.jsonl")) == []  # no second copy of the rows
        assert [job["status"] for job in desk.jobs()] == ["succeeded"]
        (seen,) = desk.all_jobs()
        assert (seen["job"], seen["name"]) == ("ftjob-0001", ended["name"])

    @only_openai
    def test_each_event_is_told_once(self, opened: Open, server: JobsServer) -> None:
        events: list[Event] = []
        ctx = opened("", events)
        desk = HostedDesk(ctx, NOW)
        desk.start(usual(ctx), yes=True)
        desk.watch()
        desk.watch()
        told = [e.message for e in events if e.message.startswith(("Fine-tuning", "The job has"))]
        assert told == ["Fine-tuning job started", "The job has successfully completed"]

    @only_openai
    def test_time_left_comes_from_the_service(self, opened: Open, server: JobsServer) -> None:
        ctx = opened()
        desk = HostedDesk(ctx, NOW)
        desk.start(usual(ctx), yes=True)
        server.service.clock = int(datetime.now(UTC).timestamp())
        desk.status()
        left = desk.status()["left_s"]
        assert 0 < left <= 600

    def test_cancelled(self, opened: Open, server: JobsServer) -> None:
        ctx = opened()
        desk, dataset = HostedDesk(ctx, NOW), usual(ctx)
        desk.start(dataset, yes=True)
        with pytest.raises(Conflict, match="no need for another one"):
            desk.start(dataset, yes=True, again=True)
        assert desk.cancel()["status"] == "cancelled"
        assert desk.cancel()["status"] == "cancelled"
        with pytest.raises(Conflict, match="was cancelled"):
            desk.watch()
        with pytest.raises(Conflict, match=r"hosted start --again --yes"):
            train_hosted(ctx, dataset, yes=True, pace=NOW)
        assert len(server.service.jobs) == 1
        with pytest.raises(ConfigError, match="nothing was"):
            desk.start(dataset, again=True)
        assert desk.start(dataset, yes=True, again=True)["job"] == "ftjob-0002"
        assert len(server.service.uploads()) == 2  # found again, not sent again
        assert desk.watch()["status"] == "succeeded"

    @only_openai
    def test_cancelling_what_is_done_changes_nothing(
        self, opened: Open, server: JobsServer
    ) -> None:
        ctx = opened()
        train_hosted(ctx, usual(ctx), yes=True, pace=NOW)
        assert HostedDesk(ctx, NOW).cancel()["status"] == "succeeded"

    @only_openai
    def test_a_job_that_fails_says_why(self, opened: Open, server: JobsServer) -> None:
        server.service.fails = "The training file holds content that is not allowed"
        ctx = opened()
        dataset = usual(ctx)
        for _ in range(2):
            with pytest.raises(ModelError, match=r"ftjob-0001: the job failed \(The training file"):
                train_hosted(ctx, dataset, yes=True, pace=NOW)
        assert len(server.service.jobs) == 1

    def test_a_lost_answer_does_not_start_a_second_job(
        self, opened: Open, server: JobsServer
    ) -> None:
        server.service.faults += [
            Fault("POST", status=502, after=True, times=1),
            Fault("fine_tuning/jobs", status=503, times=2),
        ]
        ctx = opened()
        train_hosted(ctx, usual(ctx), yes=True, pace=NOW)
        assert len(server.service.jobs) == 1 and len(server.service.uploads()) == 2

    def test_the_same_rows_for_another_job_are_not_sent_again(
        self, opened: Open, server: JobsServer
    ) -> None:
        dataset = usual(opened())
        train_hosted(opened(), dataset, yes=True, pace=NOW)
        train_hosted(opened(", epochs: 5"), dataset, yes=True, pace=NOW)
        assert len(server.service.jobs) == 2 and len(server.service.uploads()) == 2

    @only_openai
    def test_two_commands_do_not_meet(self, opened: Open, server: JobsServer) -> None:
        ctx = opened()
        desk, dataset = HostedDesk(ctx, NOW), usual(ctx)
        name = desk.start(dataset, yes=True)["name"]
        with Journal(folder_of(ctx.workspace.runs, name)).locked():
            for act in (desk.watch, desk.fetch, lambda: desk.start(dataset)):
                with pytest.raises(Conflict, match="another command is at this hosted job"):
                    act()
            assert desk.status()["job"] == "ftjob-0001"
            assert desk.cancel()["status"] == "cancelled"

    @only_openai
    def test_a_file_that_can_not_be_read_stops_it(self, opened: Open, server: JobsServer) -> None:
        ctx = opened()
        seen = server.service.seen

        def spoil(number: int, phase: str, line: str) -> None:
            if line.endswith("files/file-0002") and phase == "before":
                server.service.files["file-0002"].update(status="error", status_details="bad line")

        server.service.hook = spoil
        with pytest.raises(DataError, match=r"can't read the rows \(bad line\)"):
            train_hosted(ctx, usual(ctx), yes=True, pace=NOW)
        assert not any("POST" in line and "jobs" in line for line in seen)

    @only_openai
    def test_a_file_that_was_deleted_there_goes_up_again(
        self, opened: Open, server: JobsServer
    ) -> None:
        ctx = opened()
        dataset = usual(ctx)

        def delete(number: int, phase: str, line: str) -> None:
            if line.endswith("files/file-0002") and phase == "before":
                server.service.files.pop("file-0002", None)

        server.service.hook = delete
        with pytest.raises(DataError, match="the service has lost the rows"):
            train_hosted(ctx, dataset, yes=True, pace=NOW)
        server.service.hook = lambda *at: None
        train_hosted(ctx, dataset, pace=NOW)
        assert len(server.service.uploads()) == 2 and len(server.service.jobs) == 1

    @only_openai
    def test_unknown_names_are_listed(self, opened: Open, server: JobsServer) -> None:
        ctx = opened()
        desk = HostedDesk(ctx, NOW)
        with pytest.raises(DataError, match="has no hosted job yet"):
            desk.status()
        name = desk.start(usual(ctx), yes=True)["name"]
        with pytest.raises(DataError, match=f"'xyz' names no job of this project. Known: {name}"):
            desk.status("xyz")

    @only_openai
    def test_a_broken_journal_is_said(self, opened: Open, server: JobsServer) -> None:
        ctx = opened()
        desk = HostedDesk(ctx, NOW)
        name = desk.start(usual(ctx), yes=True)["name"]
        Journal(folder_of(ctx.workspace.runs, name)).path.write_text("{")
        with pytest.raises(EnvironmentProblem, match="journal of a hosted job can't be read"):
            desk.status()


class TestKeepingAlive:
    def tuned(self, ctx: Context) -> HostedDesk:
        train_hosted(ctx, usual(ctx), yes=True, pace=NOW)
        return HostedDesk(ctx, NOW)

    @only_openai
    def test_it_calls_when_it_is_due(self, opened: Open, server: JobsServer) -> None:
        desk = self.tuned(opened())
        first = desk.keepalive(every="7d", now=NOON)
        assert first["called"] and first["due_at"] == "2026-01-08T12:00:00+00:00"
        soon = desk.keepalive(now=NOON + timedelta(days=6))
        assert not soon["called"] and soon["last_success"] == NOON.isoformat()
        assert desk.due(NOON + timedelta(days=6)) == []
        assert desk.due(NOON + timedelta(days=7)) == [first["name"]]
        assert desk.keepalive(now=NOON + timedelta(days=8))["called"]
        assert len(server.service.asked) == 2
        assert all(body["max_tokens"] == 1 for body in server.service.asked)

    @only_openai
    def test_without_an_interval_it_always_calls(self, opened: Open, server: JobsServer) -> None:
        desk = self.tuned(opened())
        assert desk.keepalive(now=NOON)["called"] and desk.keepalive(now=NOON)["called"]
        assert desk.due(NOON) == []

    @only_openai
    def test_the_settings_may_hold_the_interval(self, opened: Open, server: JobsServer) -> None:
        desk = self.tuned(opened(", keep_alive: 2w"))
        assert desk.keepalive(now=NOON)["due_at"] == "2026-01-15T12:00:00+00:00"

    @only_azure
    def test_calls_keep_a_deployment_alive(self, opened: Open, server: JobsServer) -> None:
        desk = self.tuned(opened())
        for week in range(6):
            assert desk.keepalive(every="7d", now=NOON + timedelta(days=7 * week))["called"]
            server.service.pass_days(7)
        assert list(server.service.deployments) == ["colours"]
        server.service.pass_days(16)
        with pytest.raises(ModelError, match="colours is gone") as told:
            desk.keepalive(now=NOON + timedelta(days=70))
        assert "tutelage hosted fetch" in str(told.value.fix)
        desk.fetch()  # deploys it again
        assert desk.keepalive(now=NOON + timedelta(days=70))["called"]

    @only_openai
    def test_a_failed_call_is_remembered(self, opened: Open, server: JobsServer) -> None:
        ctx = opened()
        desk = self.tuned(ctx)
        desk.keepalive(every="7d", now=NOON)
        server.service.forget(next(iter(server.service.models)))
        with pytest.raises(ModelError, match="is gone"):
            desk.keepalive(now=NOON + timedelta(days=7))
        kept = next(ctx.workspace.runs.glob("hosted-*/keepalive.json")).read_text()
        assert json.loads(kept)["last_success"] == NOON.isoformat()
        assert "does not exist" in json.loads(kept)["last_problem"]

    @only_openai
    def test_before_there_is_a_model(self, opened: Open, server: JobsServer) -> None:
        ctx = opened()
        desk = HostedDesk(ctx, NOW)
        desk.start(usual(ctx), yes=True)
        with pytest.raises(DataError, match="no tuned model to call yet"):
            desk.keepalive()


@only_azure
def test_a_deployment_may_be_named_after_the_job(opened: Open, server: JobsServer) -> None:
    bare = 'hosted: {kind: azure, base_url: "%s", model: small-1, api_key_env: JOBS_KEY}\n'
    ctx = opened()
    whole = ctx.workspace.config_path.read_text()
    ctx.workspace.config_path.write_text(
        whole[: whole.index("hosted: {kind")] + bare % server.url, encoding="utf-8"
    )
    without = open_context(ctx.workspace.root)
    dataset = usual(without)
    with pytest.raises(ConfigError, match="only after it is deployed"):
        train_hosted(without, dataset, yes=True, pace=NOW)
    without.store.close()
    artifact: Artifact = HostedDesk(opened(), NOW).fetch()
    assert artifact.meta["callable_as"] == "colours"
    assert len(server.service.jobs) == 1


@only_openai
class TestCommands:
    def call(self, root: Path, *arguments: str) -> tuple[int, str]:
        done = CliRunner().invoke(app, ["hosted", *arguments, "--project", str(root)])
        return done.exit_code, done.stdout

    @pytest.fixture
    def root(self, tmp_path: Path, server: JobsServer, monkeypatch: pytest.MonkeyPatch) -> Path:
        """A project with its sources, and a pace that tests can bear."""
        monkeypatch.setattr("tutelage.workflows.training.hosted_jobs.Pace", lambda: NOW)
        (tmp_path / "data").mkdir()
        words = (
            "rose",
            "moon",
            "lava",
            "river",
            "brick",
            "frost",
            "amber",
            "slate",
            "ember",
            "fjord",
        )
        lines = [
            json.dumps({"text": f"{one} beside the {two}", "label": ("warm", "cold")[i % 2]})
            for i, one in enumerate(words)
            for two in words[:6]
            if one != two
        ]
        (tmp_path / "data" / "rows.jsonl").write_text("\n".join(lines))
        text = config(server, ", epochs: 2, price_per_million_tokens: 3").replace(
            "sources: [data/*]",
            "sources: [data/*], columns: {input: text, output: label}, "
            "quality: {outliers: false, label_errors: false}",
        )
        (tmp_path / "tutelage.yaml").write_text(text, encoding="utf-8")
        return tmp_path

    def test_the_whole_way(self, root: Path, server: JobsServer) -> None:
        code, text = self.call(root, "start", "--plan")
        assert code == 0 and "about" in text and "2 epochs (hosted.epochs)" in text
        code, text = self.call(root, "start", "--json")
        assert code == 2 and json.loads(text)["error"] == "ConfigError"
        assert server.service.seen == []
        code, text = self.call(root, "start", "--yes", "--json")
        started: dict[str, Any] = json.loads(text)
        assert code == 0 and started["job"] == "ftjob-0001"
        assert self.call(root, "status")[1].startswith("ftjob-0001  ")
        code, text = self.call(root, "watch", "--json")
        assert code == 0 and json.loads(text)["status"] == "succeeded"
        code, text = self.call(root, "fetch", "--json")
        assert json.loads(text)["endpoint"]["model"] == json.loads(text)["tuned"]
        assert "tuned model ft:small-1" in self.call(root, "fetch")[1]
        code, text = self.call(root, "keepalive", "--every", "7d")
        assert code == 0 and "called, next call due" in text
        assert "not due yet" in self.call(root, "keepalive")[1]
        code, text = self.call(root, "list", "--json")
        assert [job["job"] for job in json.loads(text)["jobs"]] == ["ftjob-0001"]
        assert json.loads(self.call(root, "list", "--all", "--json")[1])["jobs"][0]["name"]
        assert "succeeded" in self.call(root, "list")[1]

    def test_a_cancelled_job_ends_with_2(self, root: Path, server: JobsServer) -> None:
        self.call(root, "start", "--yes")
        assert "cancelled" in self.call(root, "cancel")[1]
        assert self.call(root, "watch")[0] == 2
        assert json.loads(self.call(root, "start", "--again", "--yes", "--json")[1])["job"] == (
            "ftjob-0002"
        )


@only_openai
def test_the_tuned_model_is_evaluated_against_its_base(opened: Open, server: JobsServer) -> None:
    ctx = opened()
    dataset = usual(ctx)
    artifact = train_hosted(ctx, dataset, yes=True, pace=NOW).artifact
    server.service.models.add("small-1")

    def answer(body: dict[str, Any]) -> str:
        number = int(body["messages"][-1]["content"].split()[-1])
        tuned = body["model"] == artifact.meta["tuned"]
        return json.dumps({"family": "warm" if number % 2 and tuned else "cold"})

    server.service.text = answer
    meta = evaluate(ctx, dataset, artifact).artifact.meta
    assert (meta["primary"]["base"], meta["primary"]["tuned"]) == (0.5, 1.0)
    assert meta["forgetting"] is None
    assert meta["verdict"] != "pass"  # six rows prove nothing
    assert "label list" not in " ".join(meta["lines"])
