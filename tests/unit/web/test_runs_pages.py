"""Dataset versions, what is trained on, the plan and a run of training, in a real browser."""

from __future__ import annotations

import json
import os
import re
import signal
import warnings
from pathlib import Path
from typing import Any

import pytest
from tests.fakes.tiny_llama import build_tiny_model
from tests.unit.web.conftest import Site, ready

from tutelage.store.artifacts import JobRow
from tutelage.workflows import jobs
from tutelage.workflows.context import Context, last_output, open_context
from tutelage.workflows.curate import curate
from tutelage.workflows.data.versions import versions
from tutelage.workflows.training import token_view

CONFIG = """\
name: colours
task: classification
model: model
prompt: Name the colour family of the thing.
output: {field: family, labels: [warm, cold]}
data:
  sources: [data/*]
  columns: {input: text, output: label}
  quality: {embedder: tfidf}
train: {tracker: none, epochs: 3, rank: 4, replay: 0, max_tokens: 130}
"""
HOSTILE = "<img src=x onerror=window.pwned=1> a crimson couch"
PATIENCE_MS = 90_000  # for a child process that trains


def _rows() -> list[dict[str, str]]:
    shades = {"warm": ("red", "orange", "amber"), "cold": ("blue", "teal", "grey")}
    things = ("apple", "kettle", "scarf", "lamp", "bicycle", "tent", "mug", "boat")
    return [
        {"text": f"the {thing} number {n} in the garden shed is {shade}", "label": label}
        for label, names in shades.items()
        for shade in names
        for n, thing in enumerate(things)
    ]


def _write(root: Path, rows: list[dict[str, str]], broken: str = "") -> None:
    text = "".join(json.dumps(row) + "\n" for row in rows) + broken
    (root / "data" / "rows.jsonl").write_text(text, encoding="utf-8")


@pytest.fixture(scope="module")
def project_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two dataset versions, the newer one's tokens, and a model that some rows are too long for."""
    root = tmp_path_factory.mktemp("runs")
    (root / "data").mkdir()
    (root / "tutelage.yaml").write_text(CONFIG, encoding="utf-8")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        build_tiny_model(root / "model")
    rows = _rows()
    _write(root, rows)
    ctx = open_context(root)
    curate(ctx)
    rows[3] = {**rows[3], "text": rows[3]["text"].replace("is red", "is dark red")}
    rows.append({"text": HOSTILE, "label": "warm"})
    _write(root, rows, "{not json\n")
    dataset = curate(ctx).artifact
    token_view.make(ctx, dataset)
    ctx.store.close()
    return root


@pytest.fixture(scope="module")
def hashes(project_dir: Path) -> list[str]:
    """The two versions, the newer first."""
    ctx = open_context(project_dir)
    found = [each["hash"] for each in versions(ctx)]
    ctx.store.close()
    return found


def test_versions_are_listed_and_two_are_compared(page: Any, hashes: list[str]) -> None:
    ready(page, "/data")
    assert page.locator("tr[data-row]").count() == 2
    assert page.get_by_text("1 row is in quarantine").count() == 1
    page.get_by_role("button", name="Compare").click()
    page.get_by_role("heading", name="What changed").wait_for()
    assert hashes[1] in page.url.split("/to/")[0]
    assert page.locator("ins").filter(has_text="dark").count() == 1
    assert page.get_by_text("Added rows").count() == 1
    assert page.evaluate("window.pwned") is None


def test_a_version_shows_leaks_rows_and_what_was_left_out(page: Any, hashes: list[str]) -> None:
    ready(page, f"/data/{hashes[0]}")
    assert page.get_by_text("Between train and test: 0 exact and 0 near twins").count() == 1
    page.get_by_label("Part").click()
    page.get_by_role("option", name="Quarantine (1)").click()
    page.get_by_text("not valid JSON").nth(1).wait_for()
    page.get_by_label("Part").click()
    page.get_by_role("option", name="Train").click()
    page.locator("tr[data-row]").nth(5).wait_for()
    page.get_by_label("Find in the text").fill("dark RED")
    page.wait_for_function("document.querySelectorAll('tr[data-row]').length === 1")
    assert "dark red" in page.locator("tr[data-row]").inner_text()
    page.locator("tr[data-row] .tt-link").first.click()
    page.get_by_role("dialog").get_by_role("heading", name="In these versions").wait_for()
    assert page.evaluate("window.pwned") is None


def test_every_token_is_learned_or_read_and_cuts_are_marked(page: Any, hashes: list[str]) -> None:
    ready(page, f"/data/{hashes[0]}/tokens")
    first = page.locator(".tt-tokens li").first
    first.wait_for()
    learned = "".join(first.locator(".tt-token-learned").all_inner_texts())
    assert learned.startswith('{"family": "') and learned.endswith("<|im_end|>")
    assert "Name the colour family" in "".join(first.locator(".tt-token-read").all_inner_texts())
    page.get_by_role("checkbox", name="Only rows whose context is cut").click()
    page.wait_for_function("""document.querySelectorAll('.tt-tokens li').length
        === document.querySelectorAll('.tt-tokens .tt-token-cut').length""")
    assert 0 < page.locator(".tt-tokens li").count() <= 8


def test_a_plan_then_a_run_of_training_to_its_end(page: Any, site: Site) -> None:
    ready(page, "/plan")
    page.get_by_role("button", name="Plan", exact=False).first.click()
    page.get_by_text("Memory: about").wait_for(timeout=PATIENCE_MS)
    assert page.get_by_text("your setting (planned:").count() > 0
    page.get_by_role("button", name="Start training").click()
    page.wait_for_url("**/runs/train-*")
    page.get_by_role("heading", name="Where it stands").wait_for()
    assert page.get_by_role("progressbar").count() == 1
    opened = page.get_by_role("link", name="Open the adapter")
    opened.wait_for(timeout=PATIENCE_MS)
    assert page.get_by_role("img", name="Loss by step").count() == 1
    opened.click()
    page.get_by_role("heading", name="Label coverage").wait_for()
    assert page.get_by_text(re.compile(r"all \d+ steps done")).count() >= 1
    ctx = site.context
    try:
        made = last_output(ctx, "train")
        assert made is not None and made.short in page.url
        assert jobs.jobs(ctx)[0].by == "local"
    finally:
        ctx.store.close()


def test_a_run_is_stopped_with_a_question_and_goes_on_later(page: Any, site: Site) -> None:
    ctx = site.context
    try:
        name = jobs.start(ctx, "curate", by="ada")
        pid = _held(ctx, name)
        ready(page, f"/runs/{name}")
        page.get_by_role("button", name="Stop").click()
        page.get_by_role("dialog").get_by_role("button", name="Stop").click()
        page.get_by_text("stopping", exact=True).wait_for()
        os.kill(pid, signal.SIGCONT)
        page.get_by_role("button", name="Go on").wait_for()
        assert page.get_by_text("Stopped.").count() == 1
        assert jobs.job(ctx, name).state == jobs.STOPPED
    finally:
        ctx.store.close()


def test_a_failure_is_a_sentence_and_texts_stay_text(page: Any, site: Site) -> None:
    ctx = site.context
    try:
        with ctx.store.begin() as session:
            session.add(JobRow(id="train-bad", kind="train", state=jobs.FAILED, message=HOSTILE))
    finally:
        ctx.store.close()
    ready(page, "/runs")
    page.get_by_text("crimson couch").wait_for()
    ready(page, "/runs/train-bad")
    assert page.get_by_text("Failed. <img").count() == 1
    assert page.evaluate("window.pwned") is None


def test_there_is_no_page_of_what_is_not_there(page: Any, allowed: list[str]) -> None:
    allowed.append("404")
    for path in ("/runs/ffffffffffff", "/runs/train-none", "/data/ffffffffffff"):
        answer = ready(page, path)
        assert answer.status == 404, path
        assert (
            page.get_by_text("there is no such").count()
            + page.get_by_text("there is no dataset version").count()
        )


def _held(ctx: Context, name: str) -> int:
    """Stop a job's process in its tracks; return its number."""
    note = json.loads((jobs.job(ctx, name).folder / "job.json").read_text(encoding="utf-8"))
    os.kill(note["pid"], signal.SIGSTOP)
    return int(note["pid"])
