"""`keys` and `usage` as people and scripts see them: one document, one sentence, exit codes."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

import tutelage
from tutelage.cli.main import app
from tutelage.store.records import RecordRow

RUN = CliRunner()


@pytest.fixture
def project(tmp_path: Path) -> Path:
    settings = {
        "name": "colours",
        "model": "demo",
        "prices": {"currency": "EUR", "tokens": {"demo": {"prompt": 1.0, "completion": 2.0}}},
        "budgets": [{"key": "*", "tokens": 1_000_000, "per": "day"}],
    }
    (tmp_path / "tutelage.yaml").write_text(yaml.safe_dump(settings))
    return tmp_path


def call(project: Path, *words: str) -> tuple[int, str]:
    result = RUN.invoke(app, [*words, "--project", str(project)])
    return result.exit_code, result.output


def document(project: Path, *words: str) -> dict[str, Any]:
    code, text = call(project, *words, "--json")
    assert code == 0, text
    found: dict[str, Any] = json.loads(text)
    return found


def test_a_key_s_life(project: Path) -> None:
    made = document(
        project, "keys", "create", "shop", "--expires", "90d", "--requests-per-minute", "60",
        "--budget", "5000 tokens/day", "--budget", "2.5 cost/month",
    )  # fmt: skip
    assert made["key"].startswith("tut_") and made["role"] == "client"
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+\+00:00", made["expires_at"])
    assert made["budgets"] == [
        {"unit": "tokens", "per": "day", "limit": 5000},
        {"unit": "cost", "per": "month", "limit": 2.5},
    ]
    _, text = call(project, "keys", "list")
    assert "shop" in text and "60 requests a minute" in text and made["key"] not in text
    changed = document(project, "keys", "update", "shop", "--role", "admin", "--clear", "expires")
    assert (changed["role"], changed["expires_at"]) == ("admin", None)
    code, text = call(project, "keys", "rotate", "shop", "--grace", "24h")
    assert code == 0 and "tut_" in text and "The old secret works until" in text
    assert document(project, "keys", "revoke", "shop")["state"] == "revoked"
    assert document(project, "keys", "list")["keys"][0]["active"] is False


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("keys", "create", "x", "--budget", "many tokens/day"), "'many tokens/day' is no budget"),
        (("keys", "create", "x", "--budget", "inf tokens/day"), "'inf tokens/day' is no budget"),
        (("keys", "create", "x", "--expires", "999999w"), "'999999w' is too long"),
        (("keys", "create", "x", "--budget", "5 tokens/week"), "'week' is no period"),
        (("keys", "create", "x", "--expires", "soon"), "is no length of time"),
        (("keys", "create", "x", "--role", "boss"), "'boss' is not a role"),
        (("keys", "update", "x", "--clear", "everything"), "there is no key named 'x'"),
        (("usage", "--by", "colour"), "use can't be shown by 'colour'"),
        (("usage", "--since", "ever"), "'ever' is no time"),
    ],
)
def test_bad_input_is_one_sentence(project: Path, words: tuple[str, ...], sentence: str) -> None:
    code, text = call(project, *words)
    assert code == 2 and sentence in text and "Traceback" not in text


def test_use_and_budgets_from_the_command_and_from_python(project: Path) -> None:
    opened = tutelage.open(project)
    opened.keys.create("shop")
    with opened.context.store.begin() as session:
        for number in range(3):
            session.add(
                RecordRow(
                    id=f"r{number}", deployment="colours", release="r" * 64, arm="stable",
                    key_name="shop", split="train", group_key="g", messages=[], response="",
                    finish_reason="stop", status=200, latency_ms=1.0, prompt_tokens=1000,
                    completion_tokens=100, checks={},
                )
            )  # fmt: skip
    found = document(project, "usage", "--by", "key")
    assert found["rows"] == opened.usage.report(by=["key"])["rows"]
    assert found["total"]["cost"] == pytest.approx(3 * 1200 / 1e6)
    assert {one["key"] for one in found["budgets"]} == {"shop", "(local)"}
    code, text = call(project, "usage", "--by", "key,day")
    assert code == 0
    assert "shop" in text and "3,000" in text and "EUR" in text and "1,000,000" in text
    _, text = call(project, "usage", "--key", "nobody")
    assert "nothing was asked in this time" in text
    opened.context.store.close()


def test_a_budget_that_holds_nobody_is_told(project: Path) -> None:
    path = project / "tutelage.yaml"
    settings = yaml.safe_load(path.read_text())
    settings["budgets"] += [
        {"key": "shpo", "tokens": 5},
        {"deployment": "colour", "tokens": 5},
        {"key": "(local)", "deployment": "colours", "tokens": 5},
    ]
    path.write_text(yaml.safe_dump(settings))
    document(project, "keys", "create", "shop")
    found = document(project, "usage")["idle_budgets"]
    assert found == ["no active key is called 'shpo'", "there is no deployment 'colour'"]
    assert "A budget holds nobody: no active key is called 'shpo'." in call(project, "usage")[1]
