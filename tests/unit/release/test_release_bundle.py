"""Releases: the same content is the same release, and a changed file is never served."""

from __future__ import annotations

import json
import shutil

import pytest
from tests.unit.release.conftest import Home

from tutelage.core.errors import DataError, ModelError
from tutelage.inference.base import Decoding
from tutelage.release.bundle import (
    adapter_files,
    adapter_path,
    get_release,
    list_releases,
    manifest_of,
    release_artifact,
    verify_release,
)


def test_names_count_up_and_the_base_has_its_own(home: Home) -> None:
    rows = [
        home.release(kind="base"),
        home.release(),
        home.release(prompt="Name it."),
        home.release(kind="base", prompt="Other."),
    ]
    assert [row.name for row in rows] == [
        "colours-base",
        "colours-v1",
        "colours-v2",
        "colours-base-v2",
    ]
    assert [row.name for row in list_releases(home.store)] == [row.name for row in rows]


def test_the_same_content_twice_is_one_release(home: Home) -> None:
    first, again = home.release(), home.release(name="another-name")
    assert (again.id, again.name) == (first.id, "colours-v1")
    assert len(list_releases(home.store)) == 1


@pytest.mark.parametrize(
    "change",
    [
        {"prompt": "x"},
        {"decoding": Decoding(max_tokens=33)},
        {"decoding": Decoding(max_tokens=32, temperature=0.5)},
        {"specials": ("<s>",)},
        {"golden": ()},
        {"kind": "imported"},
        {"dataset": "e" * 64},
    ],
)
def test_any_change_is_another_release(home: Home, change: dict[str, object]) -> None:
    assert home.manifest(**change).id != home.manifest().id


def test_where_the_adapter_lies_is_no_content(home: Home) -> None:
    adapter = home.adapter()
    moved = adapter.model_copy(update={"path": "elsewhere"})
    assert home.manifest(adapter=adapter).id == home.manifest(adapter=moved).id
    other = home.adapter(weights=b"other weights")
    assert home.manifest(adapter=adapter).id != home.manifest(adapter=other).id


def test_the_folder_holds_what_was_hashed(home: Home) -> None:
    row = home.release(adapter=home.adapter())
    folder = home.workspace.home / row.path
    assert folder == home.workspace.artifacts / "releases" / row.id[:12]
    body = json.loads((folder / "release.json").read_text(encoding="utf-8"))
    assert body["id"] == row.id
    assert "name" not in body
    golden = (folder / "golden.jsonl").read_bytes().splitlines()
    assert [json.loads(line)["expected"] for line in golden] == ["white"]
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    assert (manifest["kind"], manifest["hash"]) == ("release", row.id)
    assert manifest["parents"] == [home.adapter().hash]


def test_a_lost_folder_comes_back(home: Home) -> None:
    row = home.release()
    folder = home.workspace.home / row.path
    shutil.rmtree(folder)
    home.release()
    assert (folder / "release.json").is_file()


def test_a_release_is_found_by_name_and_by_the_start_of_its_id(home: Home) -> None:
    row = home.release()
    assert get_release(home.store, "colours-v1").id == row.id
    assert get_release(home.store, row.id).id == row.id
    assert get_release(home.store, row.id[:6]).name == "colours-v1"


def test_an_unknown_release_lists_the_known_ones(home: Home) -> None:
    with pytest.raises(DataError, match=r"none yet, run `tutelage run`"):
        get_release(home.store, "colours-v1")
    home.release()
    with pytest.raises(DataError, match=r"Did you mean 'colours-v1'\? Known: colours-v1"):
        get_release(home.store, "colour-v1")


def test_a_given_name_is_taken_only_once(home: Home) -> None:
    assert home.release(name="spring").name == "spring"
    with pytest.raises(DataError, match="named 'spring' exists and is not the same"):
        home.release(name="spring", prompt="Other.")


def test_an_untouched_release_verifies(home: Home) -> None:
    row = home.release(adapter=home.adapter())
    verify_release(home.workspace, row)
    folder = adapter_path(home.workspace, row)
    assert folder is not None and (folder / "adapter_config.json").is_file()
    base = home.release(kind="base")
    verify_release(home.workspace, base)
    assert adapter_path(home.workspace, base) is None


def test_a_changed_adapter_is_refused(home: Home) -> None:
    row = home.release(adapter=home.adapter())
    file = home.workspace.home / home.adapter().path / "adapter_model.safetensors"
    file.write_bytes(b"tampered")
    with pytest.raises(ModelError, match="adapter of colours-v1 was changed since it was released"):
        verify_release(home.workspace, row)
    file.unlink()
    with pytest.raises(ModelError, match="adapter of colours-v1 is missing"):
        verify_release(home.workspace, row)


def test_a_changed_manifest_is_refused(home: Home) -> None:
    row = home.release()
    row.manifest = {**row.manifest, "prompt": "Say anything."}
    with pytest.raises(ModelError, match="manifest is not what its id says"):
        verify_release(home.workspace, row)


def test_half_an_adapter_can_not_be_released(home: Home) -> None:
    folder = home.workspace.home / home.adapter().path
    (folder / "adapter_config.json").unlink()
    with pytest.raises(ModelError, match=r"the adapter has no adapter_config\.json"):
        adapter_files(folder)


def test_the_artifact_names_its_parents(home: Home) -> None:
    row = home.release(adapter=home.adapter(), dataset="d" * 64, evaluation="e" * 64)
    artifact = release_artifact(row, {"verdict": "pass"})
    assert set(artifact.parents) == {"d" * 64, "e" * 64, home.adapter().hash}
    assert artifact.meta["name"] == "colours-v1"
    assert artifact.meta["verdict"] == "pass"
    assert manifest_of(row).name == "colours-v1"
