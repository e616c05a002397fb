"""Convert a GGUF model once into a folder that transformers loads fast: safetensors and tokenizer.

The converter of transformers forgets how some tokenizers split text before merging (digits one by
one, for instance), and then a model is trained on other tokens than llama.cpp serves. The rules
of `tokenizer.ggml.pre` are put back here. Directories are used as they are.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import warnings
from collections.abc import Iterator
from logging import getLogger
from pathlib import Path
from typing import Any

from tutelage.core.artifact import canonical
from tutelage.core.errors import ModelError
from tutelage.core.workspace import atomic_dir
from tutelage.inference.gguf_header import read_header
from tutelage.inference.models import ModelSource, cache_dir

FORMAT = 1  # of the cached folder; a higher number makes a new one
_SUMMARY = "prepared.json"  # name and size of every file, so that a damaged folder is noticed

# How text is cut before byte-pair merging, by `tokenizer.ggml.pre` (llama.cpp, llama-vocab.cpp).
_DIGITS_ALONE = {"smollm", "starcoder", "refact", "command-r", "codeshell", "exaone", "minerva-7b"}
_WORDS = (
    r"(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])|[^\r\n\p{L}\p{N}]?\p{L}+|"
    r"\p{N}NUMBERS| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_NUMBERS = {"llama-bpe": "{1,3}", "llama3": "{1,3}", "llama-v3": "{1,3}", "qwen2": ""}


def prepare(source: ModelSource) -> Path:
    """Return a directory that from_pretrained loads: the source's own, or the converted GGUF.

    A GGUF is converted once a digest into cache_dir()/models; the folder appears whole or not at
    all. Raises ModelError if the file is damaged or of an architecture that transformers lacks.
    """
    if source.kind != "gguf":
        return source.path
    target = cache_dir() / "models" / f"{source.short}-v{FORMAT}"
    if target.exists():
        if _intact(target):
            return target
        shutil.rmtree(target)
    with quiet():
        try:
            return atomic_dir(target, lambda folder: _convert(source, folder))
        except (OSError, ImportError, MemoryError, ModelError):
            raise
        except Exception as error:
            raise ModelError(
                f"the GGUF file can't be converted ({type(error).__name__}: {short(error)})",
                where=str(source.path),
                fix="Download it again, or name a directory with safetensors",
            ) from error


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep transformers' bars and advice off the terminal; errors still come as exceptions."""
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    getLogger("bitsandbytes").setLevel("ERROR")  # it asks for kernels of a hub when it is imported
    from transformers.utils import logging

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


def short(error: BaseException) -> str:
    """Return the first line of an error's text, at most 160 characters."""
    lines = str(error).strip().splitlines()
    return (lines[0] if lines else type(error).__name__)[:160]


def _convert(source: ModelSource, folder: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    where = {
        "pretrained_model_name_or_path": str(source.path.parent),
        "gguf_file": source.path.name,
    }
    tokenizer = AutoTokenizer.from_pretrained(**where)
    header = read_header(source.path)
    restore_pre_tokenizer(tokenizer, str(header.metadata.get("tokenizer.ggml.pre") or ""))
    tokenizer.save_pretrained(folder)
    with _no_bar():
        model = AutoModelForCausalLM.from_pretrained(
            **where, quantization_config=GgufConfig(dequantize=True), dtype=torch.float32
        )
    _forget_quantization(model)
    model.save_pretrained(folder)
    sizes = {f.name: f.stat().st_size for f in sorted(folder.iterdir())}
    (folder / _SUMMARY).write_bytes(canonical({"digest": source.digest, "files": sizes}))


@contextlib.contextmanager
def _no_bar() -> Iterator[None]:
    """Switch off the bar of the GGUF converter, which ignores transformers' own switch."""
    from transformers import modeling_gguf_pytorch_utils as converter

    bar = getattr(converter, "tqdm", None)
    converter.tqdm = lambda items, *args, **kwargs: items
    try:
        yield
    finally:
        converter.tqdm = bar


def _forget_quantization(model: Any) -> None:
    """Clear what marks the model as packed, so that its plain weights can be saved."""
    model.hf_quantizer = None
    for name in ("is_quantized", "quantization_method"):
        if name in vars(model):
            delattr(model, name)
    if hasattr(model.config, "quantization_config"):
        delattr(model.config, "quantization_config")


def restore_pre_tokenizer(tokenizer: Any, rule: str) -> None:
    """Give a tokenizer made from GGUF the splitting rule that `tokenizer.ggml.pre` names.

    Rules that are not known here are left as transformers made them.
    """
    from tokenizers import Regex, pre_tokenizers

    if rule in _DIGITS_ALONE:
        steps = [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
        ]
    elif rule in _NUMBERS:
        pattern = Regex(_WORDS.replace("NUMBERS", _NUMBERS[rule]))
        steps = [
            pre_tokenizers.Split(pattern, behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    else:
        return
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(steps)


def _intact(folder: Path) -> bool:
    try:
        files = json.loads((folder / _SUMMARY).read_bytes())["files"]
        return all((folder / name).stat().st_size == size for name, size in files.items())
    except (OSError, ValueError, KeyError):
        return False
