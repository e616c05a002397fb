"""What the terminal shows of an evaluation: every candidate, the reasons, what to do next."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from tests.unit.evaluation.report_documents import classification, graded

from tutelage.cli.finish import evaluation_view


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    return classification(60)


def shown(document: dict[str, Any], home: Path, *, kept: bool = True, width: int = 100) -> str:
    folder = home / "evaluations"
    folder.mkdir(exist_ok=True)
    (folder / "evaluation.json").unlink(missing_ok=True)
    if kept:
        (folder / "evaluation.json").write_text(json.dumps(document), encoding="utf-8")
    data = {
        "report": "evaluations/report.html", "primary": document["primary"],
        "verdict": document["verdict"]["outcome"], "criteria": document["verdict"]["criteria"],
        "sentence": document["verdict"]["sentence"],
    }  # fmt: skip
    stream = io.StringIO()
    Console(file=stream, width=width).print(evaluation_view(data, home))
    return stream.getvalue()


def test_every_candidate_has_its_interval_drawn(document: dict[str, Any], tmp_path: Path) -> None:
    text = shown(document, tmp_path)
    for candidate in document["candidates"]:
        line = next(row for row in text.splitlines() if candidate["title"] in row)
        low, middle, high = (
            candidate["metrics"]["accuracy"][k] for k in ("low", "estimate", "high")
        )
        assert f"{middle * 100:.0f} %" in line
        assert f"{low * 100:.0f} to {high * 100:.0f}" in line
        assert "●" in line


def test_the_verdict_its_reasons_and_the_next_step(
    document: dict[str, Any], tmp_path: Path
) -> None:
    text = " ".join(shown(document, tmp_path).split())
    assert document["verdict"]["sentence"] in text
    assert "✓ accuracy: tuned" in text
    assert "tuned model against points interval better / worse rows reading" in text
    assert "what now 1. " in text and "report.html" in text


def test_without_the_document_the_headline_is_left(
    document: dict[str, Any], tmp_path: Path
) -> None:
    text = shown(document, tmp_path, kept=False)
    assert "tuned" in text and "what now" not in text


def test_a_metric_that_is_no_share_is_told_in_its_unit(
    document: dict[str, Any], tmp_path: Path
) -> None:
    changed = graded(document)
    changed["primary"] = {**changed["primary"], "metric": "answer_perplexity"}
    line = next(row for row in shown(changed, tmp_path).splitlines() if "tuned model  " in row)
    assert "10" in line and "8 to 13" in line and "%" not in line
