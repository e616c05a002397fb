"""The operators' pages in a real browser: a canary that a fault ends, and the levers beside it.

A real gateway answers clients all the while; only its engine is scripted.
"""

from __future__ import annotations

import json
import re
import threading
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.fakes import web_operations as operations
from tests.fakes.gateway import gateway_project, make_release
from tests.fakes.gateway_process import GatewayProcess
from tests.fakes.openai_backend import FakeBackend
from tests.unit.web.conftest import Site, ready

from tutelage.release.routes import last_rollout
from tutelage.store.annotations import AssignmentRow
from tutelage.workflows.data.experts_people import add_annotators
from tutelage.workflows.improve import improve
from tutelage.workflows.serving import monitor

CANDIDATE = "Candidate: name the colour family."


class Clients:
    """Clients that keep asking a gateway until they are told to leave."""

    def __init__(self, url: str, count: int = 4) -> None:
        self._gone = threading.Event()
        self._threads = [
            threading.Thread(target=self._ask, args=(url, number)) for number in range(count)
        ]

    def _ask(self, url: str, number: int) -> None:
        asked = 0
        while not self._gone.is_set():
            asked += 1
            said = {"role": "user", "content": f"thing {number} {asked}"}
            body = {"model": "colours", "user": f"{number}-{asked}", "messages": [said]}
            request = urllib.request.Request(
                f"{url}/v1/chat/completions", json.dumps(body).encode(),
                {"content-type": "application/json"},
            )  # fmt: skip
            with urllib.request.urlopen(request, timeout=60) as reply:
                reply.read()

    def __enter__(self) -> Clients:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._gone.set()
        for thread in self._threads:
            thread.join(30)


@pytest.fixture(scope="module")
def backend() -> Iterator[FakeBackend]:
    with FakeBackend() as running:
        running.script.keep = False
        yield running


@pytest.fixture(scope="module")
def project_dir(tmp_path_factory: pytest.TempPathFactory, backend: FakeBackend) -> Path:
    """A project whose stable release answers, with another release to roll out."""
    root = tmp_path_factory.mktemp("operate") / "p"
    deploy: dict[str, Any] = {"canary": [50, 100], "min_requests": 5000, "min_total": 9000}
    ctx = gateway_project(root, f"{backend.url}/v1", **deploy)
    add_annotators(ctx, ["ana", "bo"])
    make_release(ctx, CANDIDATE)
    operations.logged(ctx)
    operations.alerts(ctx)
    operations.drift(ctx)
    operations.mined(ctx)
    operations.waiting_turn(ctx)
    ctx.store.close()
    return root


@pytest.fixture(scope="module")
def gateway(project_dir: Path) -> Iterator[str]:
    with GatewayProcess(project_dir) as running:
        yield running.url
        running.stop()


def _start(page: Any) -> None:
    """Start a canary of the candidate from the page."""
    ready(page, "/rollout")
    page.get_by_role("button", name="Start the rollout").click()
    page.get_by_text("gets 50 % of the requests").first.wait_for()


def test_a_canary_with_a_latency_fault_is_rolled_back_before_ones_eyes(
    page: Any, site: Site, gateway: str, backend: FakeBackend
) -> None:
    backend.script.by_model["*"] = {"latency_ms": 10}
    with Clients(gateway):
        _start(page)
        page.get_by_text(re.compile(r"After \d+ candidate requests? no test")).wait_for()
        assert page.get_by_role("img", name="candidate 50 %").count() == 1
        backend.script.by_model["*"] = {"when": {"Candidate:": {"latency_ms": 90}}}
        page.get_by_text(re.compile("was rolled back: latency")).first.wait_for()
    page.get_by_text(re.compile("Over the bound: latency over")).wait_for()
    assert (
        page.get_by_role("region", name="journal of this rollout")
        .get_by_text("rolled back")
        .count()
    )
    assert page.get_by_role("button", name="Start the rollout").is_visible()
    found = last_rollout(site.context.store, "colours")
    assert found is not None
    assert found.state == "rolled_back"


def test_an_operator_pauses_resumes_and_aborts(
    page: Any, site: Site, gateway: str, backend: FakeBackend
) -> None:
    backend.script.by_model["*"] = {"latency_ms": 20}
    with Clients(gateway, 1):
        _start(page)
        for lever, state in (("Pause", "paused"), ("Resume", "running")):
            page.get_by_role("button", name=lever).click()
            page.get_by_role("dialog").get_by_role("button", name=lever).click()
            page.locator(".tt-chip", has_text=re.compile(f"^{state}|{state}$")).first.wait_for()
        page.get_by_role("button", name="Abort").click()
        page.get_by_role("dialog").get_by_role("button", name="Cancel").click()
        page.get_by_role("dialog").wait_for(state="hidden")
        assert last_rollout(site.context.store, "colours").state == "running"  # type: ignore[union-attr]
        page.get_by_role("button", name="Abort").click()
        page.get_by_role("dialog").get_by_role("button", name="Abort").click()
        page.get_by_text(re.compile("was aborted")).first.wait_for()
    assert last_rollout(site.context.store, "colours").state == "aborted"  # type: ignore[union-attr]


def test_deployments_are_made_and_removed(page: Any, site: Site, gateway: str) -> None:
    ready(page, "/deployments")
    page.get_by_text("requests are taken at").wait_for()
    page.get_by_label("Name that clients call").fill("second")
    page.get_by_role("button", name="Make it").click()
    page.get_by_role("link", name="second").wait_for()
    page.get_by_role("button", name="Remove second").click()
    page.get_by_role("dialog").get_by_role("button", name="Remove").click()
    page.get_by_role("link", name="second").wait_for(state="detached")
    page.get_by_label("Name that clients call").fill("no such name!")
    page.get_by_role("button", name="Make it").click()
    page.get_by_text("can't be", exact=False).first.wait_for()


def test_an_alert_is_silenced_and_told_again(page: Any, site: Site) -> None:
    ready(page, "/alerts")
    page.get_by_text("8 % of the requests to colours fail").first.wait_for()
    before = len(monitor.alerts(site.context)["silences"])
    page.get_by_label("Why (others see it)").fill("<b>we know</b>")
    page.get_by_role("button", name="Silence", exact=True).click()
    silences = page.get_by_role("region", name="silences in force")
    silences.get_by_text("<b>we know</b>").wait_for()
    made = monitor.alerts(site.context)["silences"]
    assert len(made) == before + 1
    rule = next(row["rule"] for row in made if row["reason"] == "<b>we know</b>")
    page.get_by_role("button", name=f"End the silence of {rule}").first.click()
    silences.get_by_text("<b>we know</b>").wait_for(state="detached")


def test_an_answer_is_judged_and_sent_to_the_experts(page: Any, site: Site) -> None:
    ready(page, "/traffic")
    page.get_by_label("Show", exact=True).click()
    page.get_by_role("option", name="Corrected by a user").click()
    answers = page.get_by_role("region", name="answers, newest first")
    answers.get_by_text("1 edit").wait_for()
    assert answers.get_by_role("link").count() == 1
    ready(page, "/traffic/rec_op_3")
    page.get_by_text("it is a blue").wait_for()
    page.get_by_role("button", name="Good").click()
    page.get_by_role("region", name="feedback on this answer").get_by_text("rating").wait_for()
    page.get_by_role("button", name="Show its lineage").click()
    page.get_by_text("base model").first.wait_for()
    page.get_by_role("button", name="Send to label").click()
    page.get_by_text("It waits in the label queue of ana, bo").wait_for()
    with site.context.store.session() as session:
        assert session.query(AssignmentRow).count() == 1


def test_what_was_mined_goes_to_the_label_queue(page: Any, site: Site) -> None:
    ready(page, "/mining")
    page.get_by_text("a user said it is wrong").first.wait_for()
    page.get_by_role("button", name="Send to label").click()
    page.get_by_text("given out to label").wait_for()


def test_use_and_drift_are_shown_in_words(page: Any) -> None:
    ready(page, "/usage")
    page.get_by_role("region", name="use").get_by_text("colours-base").first.wait_for()
    page.get_by_label("Group by").click()
    page.get_by_role("option", name="Key", exact=True).click()
    page.get_by_role("region", name="use").get_by_text("shop-1").wait_for()
    ready(page, "/drift")
    page.get_by_role("region", name=re.compile("comparisons")).get_by_role("link").first.click()
    page.get_by_text("Most moved: refund, card, 8.0 % before, 22.0 % now.").wait_for()
    page.get_by_text("Which family does colour 3 belong to?").wait_for()


def test_a_turn_that_waits_is_cancelled_with_its_journal_kept(page: Any, site: Site) -> None:
    ready(page, "/improve")
    page.get_by_text("waits in gate: the rows can't tell").first.wait_for()
    page.get_by_role("button", name="Cancel the turn").click()
    page.get_by_role("dialog").get_by_role("button", name="Cancel the turn").click()
    page.get_by_text(re.compile("was cancelled")).first.wait_for()
    assert improve.status(site.context)["journal"][-1]["author"] == "local"
    assert page.get_by_role("button", name="Begin a turn").is_visible()
