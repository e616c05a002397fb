"""Deciding between texts: what was typed is what is kept, at once, after a reload and a restart."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select
from tests.fakes.web_projects import labelling_project
from tests.unit.web.conftest import Site, ready

from tutelage.store.annotations import AdjudicationRow
from tutelage.workflows.data.experts import Given, submit, todo


@pytest.fixture(scope="module")
def project_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("texts")
    ctx = labelling_project(root, people=("anna", "ben"), items=2, overlap=2, free_text=True)
    for name in ("anna", "ben"):
        for one in todo(ctx, name):
            submit(ctx, Given(one.item, name, answer=f"It comes on Monday, says {name}."))
    ctx.store.close()
    return root


def test_a_text_is_decided_as_it_was_typed_to_the_last_word(site: Site, page: Any) -> None:
    ready(page, "/review")
    page.get_by_text("2 items wait for you").wait_for()
    page.keyboard.press("a")
    editor = page.get_by_label("The right answer")
    page.wait_for_function("document.querySelector('textarea').value.startsWith('It comes')")
    editor.press("End")
    editor.type(" Or Tuesday.")
    page.keyboard.press("Control+Enter")
    page.get_by_text("1 item waits for you").wait_for()
    ctx = site.context
    with ctx.store.session() as session:
        kept = session.scalars(select(AdjudicationRow)).one()
    ctx.store.close()
    assert kept.answer is not None and kept.answer.endswith(". Or Tuesday.")


def test_what_is_typed_outlives_a_reload_and_a_restart(site: Site, page: Any) -> None:
    ready(page, "/review")
    page.get_by_label("The right answer").fill("It comes on Friday.")
    page.get_by_label("Why, for the others").fill("asked the store")
    page.reload()
    page.wait_for_function("document.querySelector('textarea')?.value === 'It comes on Friday.'")
    page.get_by_label("The right answer").fill("It comes on Friday at noon.")
    page.get_by_text("Saved").first.wait_for()
    page.goto("about:blank")
    site.restart(kill=True)
    ready(page, "/review")
    page.wait_for_function(
        "document.querySelector('textarea')?.value === 'It comes on Friday at noon.'"
    )
    assert page.get_by_label("Why, for the others").input_value() == "asked the store"
