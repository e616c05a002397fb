"""The demo's filling: every part has something to show, it happens once, and nothing is lost."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.fakes.web_demo import filled

from tutelage.core.errors import DataError
from tutelage.store.feedback import MarkRow
from tutelage.workflows import jobs
from tutelage.workflows.context import Context
from tutelage.workflows.data import experts, experts_review
from tutelage.workflows.data.experts_progress import progress
from tutelage.workflows.demo import demo_site
from tutelage.workflows.feedback import drift, mine_queue
from tutelage.workflows.feedback.feedback import summary
from tutelage.workflows.improve import improve
from tutelage.workflows.release import prompt
from tutelage.workflows.release import rollout as rollouts
from tutelage.workflows.release.release_overview import overview
from tutelage.workflows.serving import monitor
from tutelage.workflows.serving.usage import budgets, usage


@pytest.fixture(scope="module")
def ctx(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Context]:
    found = filled(tmp_path_factory.mktemp("demo") / "project")
    yield found
    found.store.close()


def test_experts_have_work_done_and_work_to_do(ctx: Context) -> None:
    people = {one["name"]: one for one in progress(ctx)["people"]}
    assert people["anna"]["done"] > 20 and people["ben"]["left"] and people["chloe"]["left"]
    assert experts_review.disputed(ctx)
    assert experts_review.agree(ctx).rated > 30
    shown = experts.next_item(ctx, "local")
    assert shown is not None and shown.draft is not None and shown.guideline == 2


def test_a_rollout_was_rolled_back_and_one_is_under_way(ctx: Context) -> None:
    now = rollouts.status(ctx)["rollout"]
    assert (now["state"], now["step"], now["verdict"]) == ("running", 1, "pass")
    states = [one["state"] for one in rollouts.history(ctx)]
    assert states == ["running", "rolled_back"]


def test_operations_have_figures(ctx: Context) -> None:
    told = monitor.alerts(ctx, ended=True)
    assert {one["state"] for one in told["alerts"]} == {"firing", "resolved"}
    assert told["silences"]
    assert usage(ctx)["total"]["cost"] > 0
    assert summary(ctx)["signals"]
    assert len(drift.history(ctx)) == 2
    (look,) = mine_queue.looks(ctx)
    assert look["rows"] and look["batch"] and look["answered"] == 2
    busiest = next(one for one in budgets(ctx) if one["key"] == "coding-desk")
    assert 0.7 < busiest["spent"] / busiest["limit"] < 1


def test_releases_say_what_they_are(ctx: Context) -> None:
    found = overview(ctx)["releases"]
    assert sorted(one["prompt"] for one in found if one["kind"] == "tuned") == [1, 2, 3]
    assert "none" not in {one["verdict"] for one in found}


def test_engineering_has_a_past(ctx: Context) -> None:
    actions = {one["action"] for one in prompt.log(ctx)}
    assert actions >= {"drafted", "tested", "approved", "published", "restored"}
    assert ctx.config.prompt.rstrip() == prompt.adopt(ctx).text.rstrip()  # type: ignore[union-attr]
    assert [one["state"] for one in improve.history(ctx)] == ["review", "kept", "done"]
    assert {one.state for one in jobs.jobs(ctx)} == {"done", "interrupted", "failed"}


def test_it_is_filled_once(ctx: Context) -> None:
    before = progress(ctx)["answers"]
    assert demo_site.fill(ctx) == []
    assert progress(ctx)["answers"] == before


def test_a_part_that_can_not_be_filled_is_told(
    ctx: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(cast: object) -> None:
        raise DataError("no rows", fix="Bring some")

    with ctx.store.begin() as session:
        session.delete(session.get_one(MarkRow, "demo-site"))
    monkeypatch.setattr(demo_site, "_PARTS", (("nothing", broken),))
    assert demo_site.fill(ctx) == ["no rows. Bring some."]


def test_a_folder_that_is_no_project_gets_a_small_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: list[bool] = []
    monkeypatch.setattr(demo_site, "_train", lambda ctx: ran.append(True))
    monkeypatch.setattr(demo_site, "fill", lambda ctx: [])
    monkeypatch.setattr(demo_site, "_read", lambda ctx: None)
    folder = demo_site.prepare(tmp_path / "demo", lambda event: None, port=0)
    assert ran and (folder / "tutelage.yaml").is_file()
    assert len((folder / "data" / "icd10_codes.csv").read_text().splitlines()) > 100
