"""Whether a model that was tuned elsewhere fits the project's base model; nothing is loaded.

Read are JSON files and the headers of safetensors: names and shapes of weights, vocabulary,
architecture. Pickles are never opened and no code of a model is run.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tutelage.core.errors import ModelError
from tutelage.inference.models import weight_files
from tutelage.inference.tuned import ADAPTER, INFO

Shapes = dict[str, tuple[int, ...]]
_PREFIX = "base_model.model."
_LARGEST_HEADER = 100_000_000  # bytes, what the format allows
_SIZES = (
    "hidden_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads",
    "intermediate_size", "vocab_size",
)  # fmt: skip
_ANSWERERS = ("", "cloze", "head")
_AS_BASE = "To use it as a base model, name it as `model` in tutelage.yaml"


@dataclass
class Findings:
    """What is worth saying about what was found to fit."""

    notes: list[str] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)


def check_adapter(folder: Path, base: Path, digest: str) -> Findings:
    """Return what is known of a PEFT adapter that fits the base model in the folder `base`.

    `digest` is the base's SHA-256. Raises ModelError naming the first thing that does not fit.
    """
    config = read_json(folder / ADAPTER[0])
    if not (folder / ADAPTER[1]).is_file():
        raise _no_safetensors(folder, f"the adapter has no {ADAPTER[1]}")
    library = str((config.get("auto_mapping") or {}).get("parent_library") or "transformers")
    if library.split(".")[0] not in ("transformers", "peft"):
        raise ModelError(
            f"the adapter asks for code of {library!r}, which is never run",
            where=str(folder / ADAPTER[0]), fix="Train it on a model class of transformers",
        )  # fmt: skip
    shapes = header(folder / ADAPTER[1])
    if not shapes:
        raise ModelError("the adapter holds no weights", where=str(folder), fix="Export it again")
    _check_layers(folder, shapes, weights_of(base))
    _check_answerer(folder)
    found = Findings()
    found.facts = {k: config[k] for k in ("peft_type", "r", "lora_alpha") if config.get(k)}
    _check_base(folder, config, digest, found)
    check_tokenizer(folder, base, found)
    return found


def check_model(folder: Path, base: Path) -> Findings:
    """Return what is known of a whole model of the same architecture as the one in `base`.

    Raises ModelError naming the first thing that does not fit.
    """
    theirs, ours = read_json(folder / "config.json"), read_json(base / "config.json")
    kind, known = theirs.get("model_type"), ours.get("model_type")
    if kind != known:
        raise ModelError(
            f"the model is a {kind}, the project's base model a {known}",
            where=str(folder), fix=_AS_BASE,
        )  # fmt: skip
    if theirs.get("quantization_config"):
        raise ModelError(
            "the model's weights are packed (quantization_config)", where=str(folder),
            fix="Save it with its weights in full: merge and export in float16 or float32",
        )  # fmt: skip
    for name in _SIZES:
        if name in ours and theirs.get(name) != ours[name]:
            raise ModelError(
                f"the model's {name} is {theirs.get(name)}, that of the base model {ours[name]}",
                where=str(folder), fix=_AS_BASE,
            )  # fmt: skip
    _check_weights(folder, weights_of(folder), weights_of(base))
    _check_answerer(folder)
    found = Findings()
    check_tokenizer(folder, base, found)
    return found


def check_tokenizer(folder: Path, base: Path, found: Findings) -> None:
    """Raise ModelError if a tokenizer that came along gives other tokens than the base's.

    Tokens beyond the embeddings don't count: some converters add their own defaults there.
    """
    theirs, ours = folder / "tokenizer.json", base / "tokenizer.json"
    if not theirs.is_file():
        found.notes.append("it brings no tokenizer.json; the base model's tokenizer is used")
        return
    if not ours.is_file():
        found.notes.append("the base model has no tokenizer.json, the tokenizers were not compared")
        return
    size = read_json(base / "config.json").get("vocab_size")
    a, b = (_vocabulary(read_json(file), size) for file in (theirs, ours))
    for token in sorted(a.keys() | b.keys(), key=str):
        if a.get(token) != b.get(token):
            raise ModelError(
                f"the tokenizers differ: {token!r} is {a.get(token, 'unknown')} in the one that "
                f"came along and {b.get(token, 'unknown')} in the base model's",
                where=str(theirs), fix="Tune it on the base model with its own tokenizer",
            )  # fmt: skip


def weights_of(folder: Path) -> Shapes:
    """Return name and shape of every weight of a model folder."""
    found: Shapes = {}
    for file in weight_files(folder):
        found |= header(file)
    return found


def header(file: Path) -> Shapes:
    """Return name and shape of every tensor of a safetensors file, from its header alone.

    Raises ModelError if it is not one, or was cut off.
    """
    try:
        with file.open("rb") as stream:
            (length,) = struct.unpack("<Q", stream.read(8))
            if length > min(_LARGEST_HEADER, file.stat().st_size):
                raise ValueError("the header is longer than the file")
            values = json.loads(stream.read(length))
        ends = [v["data_offsets"][1] for n, v in values.items() if n != "__metadata__"]
        if ends and max(ends) + 8 + length > file.stat().st_size:
            raise ValueError("the file was cut off")
        return {n: tuple(v["shape"]) for n, v in values.items() if n != "__metadata__"}
    except (struct.error, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(
            f"the file is not whole safetensors ({str(error)[:80]})", where=str(file),
            fix="Copy or export it again",
        ) from error  # fmt: skip


def read_json(file: Path) -> dict[str, Any]:
    """Return a JSON object; raise ModelError if it can't be read."""
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(
            f"{file.name} can't be read as JSON", where=str(file), fix="Copy or export it again"
        ) from error
    if not isinstance(values, dict):
        raise ModelError(f"{file.name} is no JSON object", where=str(file), fix="Export it again")
    return values


def _no_safetensors(folder: Path, what: str) -> ModelError:
    pickled = [f.name for kind in ("*.bin", "*.pt", "*.pth", "*.pkl") for f in folder.glob(kind)]
    if pickled:
        return ModelError(
            f"the weights are pickled ({pickled[0]}); a pickle can run code and is not opened",
            where=str(folder), fix="Save them as safetensors where they were made",
        )  # fmt: skip
    return ModelError(what, where=str(folder), fix="Name the folder that training wrote")


def _check_layers(folder: Path, shapes: Shapes, base: Shapes) -> None:
    """Raise ModelError if the adapter is for a layer that the base lacks or has in another shape.

    LoRA's A is (rank, inputs) and its B (outputs, rank) beside a weight of (outputs, inputs).
    """
    for name, shape in sorted(shapes.items()):
        plain = name.removeprefix(_PREFIX)
        for part, axis, at in ((".lora_A", 1, 1), (".lora_B", 0, 0)):
            layer, sign, _ = plain.partition(part)
            if not sign:
                continue
            weight = _weight(base, f"{layer}.weight")
            if weight is None:
                raise ModelError(
                    f"the adapter is for the layer {layer}, which the base model has not",
                    where=str(folder), fix="Set `model` to the base it was trained on",
                )  # fmt: skip
            if len(weight) == 2 and len(shape) == 2 and weight[axis] != shape[at]:
                side = "inputs" if axis == 1 else "outputs"
                raise ModelError(
                    f"the adapter's layer {layer} has {shape[at]} {side}, the base model's "
                    f"{weight[axis]}",
                    where=str(folder), fix="Set `model` to the base it was trained on",
                )  # fmt: skip


def _check_weights(folder: Path, theirs: Shapes, ours: Shapes) -> None:
    for name, shape in ours.items():
        found = _weight(theirs, name)
        if found != shape:
            have = f"has the shape {list(found)}" if found else "is missing"
            raise ModelError(
                f"the weight {name} {have}, the base model's is {list(shape)}",
                where=str(folder), fix=_AS_BASE,
            )  # fmt: skip
    more = [name for name in theirs if _weight(ours, name) is None and "rotary_emb" not in name]
    if more:
        raise ModelError(f"the base model has no weight {more[0]}", where=str(folder), fix=_AS_BASE)


def _weight(shapes: Shapes, name: str) -> tuple[int, ...] | None:
    """Return a weight's shape; a head that is tied to the embeddings has theirs."""
    if name in shapes or name != "lm_head.weight":
        return shapes.get(name)
    return shapes.get("model.embed_tokens.weight")


def _check_answerer(folder: Path) -> None:
    info = read_json(folder / INFO) if (folder / INFO).is_file() else {}
    if info.get("answerer", "") not in _ANSWERERS:
        raise ModelError(
            f"{INFO} asks for the answerer {info['answerer']!r}, which is not known",
            where=str(folder), fix="Update tutelage, or export it again",
        )  # fmt: skip


def _check_base(folder: Path, config: Mapping[str, Any], digest: str, found: Findings) -> None:
    """Hold the adapter to the base it says it was trained on, as far as it says so."""
    export = folder / "export.json"
    if export.is_file():
        said = str((read_json(export).get("base") or {}).get("digest") or "")
        if said and said != digest:
            raise ModelError(
                f"the adapter was trained on another base model (SHA-256 {said[:12]}…) than the "
                f"project's ({digest[:12]}…)",
                where=str(export), fix="Set `model` to that one",
            )  # fmt: skip
        return
    named = str(config.get("base_model_name_or_path") or "")
    if named:
        found.notes.append(
            f"it names {named.rstrip('/').split('/')[-1]} as its base model; layers and shapes "
            "fit, the weights themselves can't be compared"
        )


def _vocabulary(values: Mapping[str, Any], size: int | None) -> dict[Any, Any]:
    """Return ids by token, below `size`, added tokens too; pieces of a Unigram by their place."""
    vocab = (values.get("model") or {}).get("vocab") or {}
    if isinstance(vocab, list):
        found = {piece[0]: index for index, piece in enumerate(vocab)}
    else:
        found = dict(vocab)
    found |= {t.get("content"): t.get("id") for t in values.get("added_tokens") or ()}
    return {t: i for t, i in found.items() if size is None or not isinstance(i, int) or i < size}
