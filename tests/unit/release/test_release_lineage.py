"""Lineage: from a release down to the source files."""

from __future__ import annotations

import pytest
from tests.unit.release.conftest import Home

from tutelage.core.artifact import describe
from tutelage.core.errors import DataError
from tutelage.release.lineage import lineage, render
from tutelage.workflows.context import register

DATA, ADAPTER, REPORT, RELEASE = ("1" * 64, "2" * 64, "3" * 64, "4" * 64)


@pytest.fixture
def story(home: Home) -> Home:
    counts = {"train": 7, "validation": 2, "test": 3}
    meta = {"counts": counts, "sources": ["data/a.csv", "data/b.jsonl"]}
    register(home.store, describe("dataset", DATA, "artifacts/datasets/1", meta=meta))
    register(home.store, describe("adapter", ADAPTER, "artifacts/adapters/2", parents=[DATA]))
    report = describe(
        "evaluation", REPORT, "artifacts/evaluations/3", parents=[DATA, ADAPTER],
        meta={"verdict": "pass"},
    )  # fmt: skip
    register(home.store, report)
    meta = {"name": "colours-v1"}
    parents = [ADAPTER, DATA, REPORT]
    register(home.store, describe("release", RELEASE, "r", parents=parents, meta=meta))
    return home


def test_a_release_leads_down_to_the_files(story: Home) -> None:
    text = render(lineage(story.store, RELEASE))
    assert text.splitlines()[:5] == [
        "release 444444444444  colours-v1",
        "├─ adapter 222222222222",
        "│  └─ dataset 111111111111  7 train, 2 validation, 3 test",
        "│     ├─ file data/a.csv",
        "│     └─ file data/b.jsonl",
    ]
    assert "└─ evaluation 333333333333  pass" in text


def test_the_tree_is_plain_data_too(story: Home) -> None:
    tree = lineage(story.store, ADAPTER).as_dict()
    assert tree["parents"][0]["sources"] == ["data/a.csv", "data/b.jsonl"]


def test_a_parent_that_is_gone_is_said_to_be_unknown(story: Home) -> None:
    child = describe("release", "5" * 64, "x", parents=["9" * 64])
    register(story.store, child)
    assert render(lineage(story.store, "5" * 64)).endswith("└─ unknown 999999999999")
    with pytest.raises(DataError, match="there is no artifact '999999999999'"):
        lineage(story.store, "9" * 64)
