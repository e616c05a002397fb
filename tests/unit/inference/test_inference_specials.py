"""Control tokens are read from a model's files as its tokenizer would name them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tutelage.core.errors import ModelError
from tutelage.inference.models import ModelSource, locate_model
from tutelage.inference.specials import special_spellings


def source(path: Path) -> ModelSource:
    return ModelSource(str(path), path.name, "directory", path, "d" * 64)


def test_a_directorys_tokenizer_files_are_read(tmp_path: Path) -> None:
    assert special_spellings(source(tmp_path)) == ()
    added = [{"content": "<s>", "special": True}, {"content": "hello", "special": False}]
    (tmp_path / "tokenizer.json").write_text(json.dumps({"added_tokens": added}), encoding="utf-8")
    decoder = {"7": {"content": "[INST]", "special": True}, "8": {"content": " ", "special": True}}
    text = json.dumps({"added_tokens_decoder": decoder})
    (tmp_path / "tokenizer_config.json").write_text(text, encoding="utf-8")
    assert special_spellings(source(tmp_path)) == ("<s>", "[INST]")


def test_a_broken_tokenizer_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text("{", encoding="utf-8")
    with pytest.raises(ModelError, match=r"tokenizer\.json: the tokenizer's file can't be read"):
        special_spellings(source(tmp_path))


@pytest.mark.model
def test_the_demo_models_are_those_of_its_tokenizer() -> None:
    found = special_spellings(locate_model("demo"))
    assert {"<|im_start|>", "<|im_end|>", "<|endoftext|>", "<repo_name>"} <= set(found)
    assert len(found) == 17
