"""Evaluations, prompts and releases in a real browser, over a project with one of each and more."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from tests.fakes.evaluation_engine import FakeEngine
from tests.fakes.web_demo import LABELS, finished
from tests.unit.web.conftest import Site, ready

from tutelage.core.artifact import Artifact, describe
from tutelage.core.output import OutputFormat
from tutelage.data.version import load_version
from tutelage.release import prompts
from tutelage.store.accounts import AuditRow
from tutelage.workflows.context import Context, last_output, register
from tutelage.workflows.evaluation import evaluations
from tutelage.workflows.evaluation.evaluate import evaluate
from tutelage.workflows.evaluation.evaluate_engines import LoadedEngine
from tutelage.workflows.release import prompt, prompt_trial, rollout
from tutelage.workflows.release.release import base_release

HOSTILE = "<img src=x onerror=window.pwned=1> answer with \"quotes\" and 'more'"


@pytest.fixture(scope="module")
def project_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with two evaluations, two releases, and a tested draft of the prompt."""
    root = tmp_path_factory.mktemp("build") / "project"
    ctx = finished(root)
    _second_evaluation(ctx)
    base_release(ctx)
    prompt.draft(ctx, f"{ctx.config.prompt}Think of the order first.", by="ann", note="a nudge")
    engine = LoadedEngine(_right(ctx), len)
    prompt_trial.trial(ctx, "2", rows=8, by="ann", open_engine=lambda source, size: engine)
    ctx.store.close()
    return root


def _right(ctx: Context, wrong_each: int = 0) -> FakeEngine:
    """Return an engine that answers the test rows right, every n-th one wrong."""
    form = OutputFormat(field="topic", labels=LABELS)
    dataset = last_output(ctx, "curate")
    assert dataset is not None
    rows = load_version(ctx.path_of(dataset)).rows("test")
    said = {
        row.input_text: form.render(
            LABELS[-1] if wrong_each and i % wrong_each == 0 else str(row.label)
        )
        for i, row in enumerate(rows)
    }
    return FakeEngine(said, said)


def _second_evaluation(ctx: Context) -> Artifact:
    dataset = last_output(ctx, "curate")
    assert dataset is not None
    first = ctx.workspace.artifacts / "adapters" / "aaaaaaaaaaaa"
    folder = first.with_name("bbbbbbbbbbbb")
    shutil.copytree(first, folder)
    made = describe("adapter", "b" * 64, ctx.workspace.relative(folder), parents=[dataset.hash])
    engine = LoadedEngine(_right(ctx, wrong_each=3), len)
    adapter = register(ctx.store, made)
    return evaluate(ctx, dataset, adapter, open_engine=lambda source, size: engine).artifact


def _prompt_state(site: Site) -> tuple[int | None, list[str]]:
    ctx = site.context
    row = prompts.published(ctx.store)
    with ctx.store.session() as session:
        audited = [row.action for row in session.query(AuditRow).order_by(AuditRow.id)]
    return row.number if row else None, audited


def test_an_evaluation_is_read_from_its_verdict_down_to_its_rows(page: Any) -> None:
    ready(page, "/evaluations")
    page.get_by_role("button", name="Pass", exact=True).click()
    page.get_by_text("Candidate").wait_for()
    page.get_by_role("link", name="tuned model aaaaaaaaaaaa").click()
    page.get_by_text("The tuned model is better than the base model").wait_for()
    assert page.locator("h1").inner_text() == "Evaluation of the tuned model"
    criteria = page.get_by_role("region", name="Criteria")
    assert criteria.get_by_text("better than base").first.is_visible()
    page.get_by_text("1–10 of 32").wait_for()
    page.get_by_label("Find in rows").fill("garden hose")
    page.get_by_text("1–10 of 32").wait_for(state="detached")
    assert {"garden hose" in text for text in page.locator("article").all_inner_texts()} == {True}
    page.get_by_label("Find in rows").fill("no such text")
    page.get_by_text("No row fits this filter.").wait_for()


def test_the_full_report_opens_shut_in_a_frame_and_is_kept_as_a_file(
    page: Any, site: Site, tmp_path: Path
) -> None:
    _, (first, *_) = evaluations.listing(site.context, verdict="pass")
    ready(page, f"/evaluations/{first['id'][:12]}")
    with page.expect_download() as download:
        page.keyboard.press("d")
    download.value.save_as(tmp_path / "report.html")
    assert (tmp_path / "report.html").read_text().startswith("<!doctype html>")
    ready(page, f"/evaluations/{first['id'][:12]}/report")
    frame = page.frame_locator("iframe")
    frame.get_by_role("heading", name="is the tuned model better?").wait_for()
    assert page.locator("iframe").get_attribute("sandbox") == "allow-scripts"
    frame.get_by_label("Find in rows").wait_for()  # its own script runs, and reaches no further


def test_two_evaluations_stand_side_by_side_and_are_paired(page: Any) -> None:
    ready(page, "/evaluations")
    for box in page.get_by_role("checkbox").all():
        box.click()
    page.get_by_role("button", name="side by side").click()
    page.get_by_role("region", name="Verdicts side by side").wait_for()
    page.get_by_role("button", name="Pair ").click()
    page.get_by_role("region", name="Paired differences").wait_for()
    page.get_by_text(re.compile("rows? (is|are) better in")).first.wait_for()


def test_a_prompt_is_written_over_a_restart_published_and_the_earlier_restored(
    page: Any, site: Site, allowed: list[str]
) -> None:
    allowed += ["ERR_CONNECTION_REFUSED", "WebSocket"]
    ready(page, "/prompts")
    editor = page.get_by_label("Prompt", exact=True)
    text = f"Name the topic. {HOSTILE}"
    editor.fill(text)
    page.get_by_text("Saved", exact=True).wait_for()
    site.restart(kill=True)
    ready(page, "/prompts")
    assert editor.input_value() == text
    page.get_by_label("Why").fill("shorter")
    page.get_by_role("button", name="Keep as a draft").click()
    page.wait_for_url("**/prompts/3")
    page.wait_for_function("window.did_handshake === true")
    assert page.get_by_text(HOSTILE).first.is_visible()
    assert page.evaluate("window.pwned") is None

    page.keyboard.press("p")
    dialog = page.get_by_role("dialog")
    dialog.get_by_text("It has not been tested.").wait_for()
    dialog.get_by_label("Why").fill("for the forms")
    dialog.get_by_role("button", name="Publish", exact=True).click()
    page.get_by_text("version 3 of the prompt has not been tested").wait_for()
    assert _prompt_state(site)[0] == 1
    dialog.get_by_text("Publish all the same").click()
    dialog.get_by_role("button", name="Publish", exact=True).click()
    page.get_by_text("published it").wait_for()
    assert _prompt_state(site) == (3, ["prompt.drafted", "prompt.published"])

    ready(page, "/prompts/1")
    page.keyboard.press("p")
    dialog.get_by_label("Why").fill("complaints")
    dialog.get_by_role("button", name="Publish again").click()
    page.get_by_text("published it again").wait_for()
    assert _prompt_state(site) == (1, ["prompt.drafted", "prompt.published", "prompt.restored"])


def test_a_tested_draft_is_reviewed_with_its_evidence_beside_it(page: Any, site: Site) -> None:
    ready(page, "/prompts/2")
    assert page.get_by_text("Version 2: accuracy").first.is_visible()
    assert page.get_by_text("words inserted").is_visible()
    page.keyboard.press("a")
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("Note").fill("reads well")
    dialog.get_by_role("button", name="Approve").click()
    page.get_by_text("approved it").wait_for()
    assert prompts.show(site.context.store, "2")["state"] == "approved"


def test_who_publishes_on_what_has_moved_meanwhile_is_told(page: Any, site: Site) -> None:
    ready(page, "/prompts/2")
    ctx = site.context
    prompt.draft(ctx, "Say the topic.", by="bob")
    newest = prompts.newest_draft(ctx.store)
    assert newest is not None
    prompt.publish(ctx, newest.hash, note="first", by="bob", force=True)
    page.keyboard.press("p")
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("Why").fill("second")
    dialog.get_by_role("button", name="Publish", exact=True).click()
    page.get_by_text("somebody else moved the published prompt").wait_for()
    published = prompts.published(ctx.store)
    assert published is not None and published.hash == newest.hash


def test_a_release_shows_where_it_comes_from_and_that_it_is_whole(page: Any, site: Site) -> None:
    ready(page, "/releases")
    page.get_by_role("link", name="help-desk-v1").click()
    page.get_by_text("Lineage as a list").click()  # it comes when it is read
    assert page.get_by_text("48 imported").last.is_visible()
    assert page.get_by_role("heading", name="Model card").is_visible()
    page.keyboard.press("v")
    page.get_by_text("Everything is still what was released.").wait_for()
    weights = site.directory / ".tutelage/artifacts/adapters/aaaaaaaaaaaa/adapter_model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(b"others")
    page.get_by_role("button", name="Check every hash").click()
    page.get_by_text("Something was changed.").wait_for()
    weights.write_bytes(whole)


def test_a_release_is_promoted_and_the_deployment_rolled_back(page: Any, site: Site) -> None:
    ready(page, "/releases")
    page.get_by_role("link", name="help-desk-base").click()
    page.get_by_role("heading", name="Release help-desk-base").wait_for()
    page.wait_for_function("window.did_handshake === true")
    page.keyboard.press("p")
    dialog = page.get_by_role("dialog")
    dialog.get_by_role("button", name="Promote").click()
    page.get_by_text("help-desk: stable", exact=True).wait_for()
    assert rollout.status(site.context)["stable"] == "help-desk-base"
    assert (site.directory / ".tutelage/logs/registry.log").exists()  # left to a child
    ready(page, "/releases")
    page.get_by_role("button", name="Roll help-desk back to help-desk-v1").click()
    dialog.get_by_role("button", name="Roll back").click()
    page.get_by_role("button", name="Roll help-desk back to help-desk-base").wait_for()
    assert rollout.status(site.context)["stable"] == "help-desk-v1"


@pytest.mark.parametrize("path", ["/rollout", "/releases"])
def test_a_page_that_is_out_of_date_returns_nobody_twice(page: Any, site: Site, path: str) -> None:
    if rollout.status(site.context)["stable"] != "help-desk-base":
        rollout.switch(site.context, "help-desk-base")
    rollout.start(site.context, "help-desk-v1")
    rollout.abort(site.context)
    ready(page, path)
    page.get_by_role("button", name=re.compile("^(Return|Roll .* back) to help-desk-v1")).click()
    page.get_by_role("dialog").wait_for()
    rollout.rollback(site.context, to="help-desk-v1")  # a colleague was faster
    page.get_by_role("dialog").get_by_role("button", name=re.compile("Return|Roll")).click()
    page.get_by_text(re.compile("isn't the newest any more")).first.wait_for()
    assert rollout.status(site.context)["stable"] == "help-desk-v1"


def test_a_test_that_cannot_run_says_why(page: Any) -> None:
    ready(page, "/prompts/2")
    page.keyboard.press("t")
    page.get_by_role("dialog").get_by_role("button", name="Test", exact=True).click()
    page.get_by_role("status", name="Test of a prompt at work").get_by_text("Watch").wait_for()
    page.get_by_text("Test of a prompt: ").last.wait_for()
