"""What needs a person now: by role, counted, and the next step of a project that is not done."""

from __future__ import annotations

from pathlib import Path

from tests.fakes.web_projects import empty_project, labelling_project

from tutelage.store.alerts import AlertRow
from tutelage.store.artifacts import StageRow
from tutelage.store.releases import PromptRow
from tutelage.workflows.attention import attention, next_step
from tutelage.workflows.context import Context
from tutelage.workflows.data import experts


def test_an_empty_project_needs_its_first_command(tmp_path: Path) -> None:
    ctx = empty_project(tmp_path)
    assert attention(ctx, "local", {"admin"}) == []
    step = next_step(ctx)
    assert step is not None and step.command == "tutelage run"
    with ctx.store.begin() as session:
        for stage in ("curate", "train", "evaluate", "release"):
            session.add(StageRow(stage=stage, input_hash="", output="", seconds=0.0))
    assert next_step(ctx) is None


def test_an_expert_is_told_what_is_left_and_an_operator_is_not(tmp_path: Path) -> None:
    ctx = labelling_project(tmp_path, people=("anna", "ben"), items=6, overlap=2)
    assert _texts(ctx, "anna", "expert") == ["6 items of yours to label"]
    assert _texts(ctx, "anna", "operator") == []
    shown = experts.next_item(ctx, "anna")
    assert shown is not None
    experts.submit(ctx, experts.Given(shown.item, "anna", label="billing"))
    assert _texts(ctx, "anna", "expert") == ["5 items of yours to label"]
    assert _texts(ctx, "ben", "expert") == ["6 items of yours to label"]


def test_a_prompt_and_an_alert_are_named_with_what_they_say(tmp_path: Path) -> None:
    ctx = empty_project(tmp_path)
    with ctx.store.begin() as session:
        session.add(PromptRow(hash="a", number=3, text="t", state="review"))
        session.add(
            AlertRow(
                key="k", rule="errors", labels={}, state="firing", level="error", message="7 %"
            )
        )
    assert _texts(ctx, "local", "engineer") == ["Version 3 of the prompt waits for review"]
    assert [(need.text, need.level) for need in attention(ctx, "local", {"operator"})] == [
        ("7 %", "bad")
    ]


def _texts(ctx: Context, person: str, role: str) -> list[str]:
    return [need.text for need in attention(ctx, person, {role})]
