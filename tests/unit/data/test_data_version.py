"""Dataset versions: content-addressed, loadable, and checked on load."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tutelage.core.errors import DataError, EnvironmentProblem
from tutelage.core.example import Example, Message
from tutelage.data.version import VersionDraft, load_version, write_version


def row(text: str, label: str = "a") -> Example:
    turns = (Message(role="user", content=text), Message(role="assistant", content=label))
    return Example(messages=turns, label=label)


def draft(test_text: str = "drei") -> VersionDraft:
    one, two, three = row("eins\u2028zwei"), row("zwei", "b"), row(test_text)
    return VersionDraft(
        splits={"train": [one, two], "validation": [], "test": [three]},
        clusters={one.id: "c1", two.id: "c1", three.id: three.id},
        dropped=[{"reason": "D4-E01 exact duplicate", "row": "x"}],
    )


def test_rows_survive_the_trip(tmp_path: Path) -> None:
    version = write_version(tmp_path, draft())
    loaded = load_version(version.directory)
    assert loaded.hash.startswith(version.directory.name)
    assert [e.input_text for e in loaded.rows("train")] == ["eins\u2028zwei", "zwei"]
    assert loaded.rows("train")[0].id == row("eins\u2028zwei").id
    assert len(loaded.all_rows()) == 3
    assert loaded.cluster_of(row("zwei", "b").id) == "c1"
    assert loaded.cluster_of("unknown") == "unknown"
    assert loaded.manifest["counts"] == {"train": 2, "validation": 0, "test": 1}


def test_same_content_same_hash(tmp_path: Path) -> None:
    first = write_version(tmp_path / "a", draft())
    assert write_version(tmp_path / "b", draft()).hash == first.hash
    assert write_version(tmp_path / "b", draft("vier")).hash != first.hash


def test_the_hash_counts_rows_and_reasons_but_no_reports(tmp_path: Path) -> None:
    plain = write_version(tmp_path / "a", draft())
    told = write_version(tmp_path / "b", draft(), lambda m: {"report.txt": "another"})
    assert told.hash == plain.hash
    assert set(told.manifest["files"]) - set(plain.manifest["files"]) == {"report.txt"}
    assert plain.manifest["rows_hash"] == told.manifest["rows_hash"]
    assert [path.name for path in (tmp_path / "a").iterdir()] == [plain.hash[:12]]


def test_a_failed_report_leaves_nothing_behind(tmp_path: Path) -> None:
    def broken(manifest: dict[str, Any]) -> dict[str, str]:
        raise OSError(28, "no space left")

    with pytest.raises(EnvironmentProblem, match="disk is full"):
        write_version(tmp_path, draft(), broken)
    assert list(tmp_path.iterdir()) == []


def test_rows_besides_known_ones_are_read_alone(tmp_path: Path) -> None:
    version = write_version(tmp_path, draft())
    known = {e.id for e in version.rows("train")}
    assert [e.input_text for e in version.besides(known)] == ["drei"]
    assert version.besides({e.id for e in version.all_rows()}) == []
    assert [e.input_text for e in version.stream("train")] == ["eins\u2028zwei", "zwei"]


def test_reports_see_the_manifest(tmp_path: Path) -> None:
    version = write_version(tmp_path, draft(), lambda m: {"report.txt": m["hash"]})
    assert (version.directory / "report.txt").read_text() == version.hash


def test_a_changed_file_is_noticed(tmp_path: Path) -> None:
    version = write_version(tmp_path, draft())
    (version.directory / "train.jsonl").write_text("{}")
    with pytest.raises(DataError, match=r"train\.jsonl is missing or was changed"):
        load_version(version.directory)


def test_a_folder_that_is_no_version(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="not a dataset version"):
        load_version(tmp_path)
