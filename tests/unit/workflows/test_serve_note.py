"""How other commands find a gateway, where several serve one project."""

from __future__ import annotations

import json
import os
from pathlib import Path

from tutelage.workflows.serving.serve_note import noted


def url_of(home: Path) -> str | None:
    note = home / "serving.json"
    return json.loads(note.read_text())["url"] if note.exists() else None


def note_another(home: Path, pid: int) -> None:
    (home / "serving.json").write_text(json.dumps({"pid": pid, "url": "http://other"}))


def test_a_gateway_that_ends_leaves_the_note_of_a_newer_one(tmp_path: Path) -> None:
    with noted(tmp_path, "http://mine"):
        assert url_of(tmp_path) == "http://mine"
        note_another(tmp_path, os.getppid())
    assert url_of(tmp_path) == "http://other"


def test_an_older_one_that_runs_still_is_found_again(tmp_path: Path) -> None:
    note_another(tmp_path, os.getppid())
    with noted(tmp_path, "http://mine"):
        assert url_of(tmp_path) == "http://mine"
    assert url_of(tmp_path) == "http://other"


def test_a_note_of_one_that_is_gone_or_damaged_does_not_come_back(tmp_path: Path) -> None:
    for left in (json.dumps({"pid": 2**22 + 1, "url": "http://gone"}), "{}", "not JSON", "[1]"):
        (tmp_path / "serving.json").write_text(left)
        with noted(tmp_path, "http://mine"):
            pass
        assert url_of(tmp_path) is None
