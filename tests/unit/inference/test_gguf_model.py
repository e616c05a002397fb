"""A model written as GGUF answers as transformers does, and a broken one is noticed."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("xllamacpp")

from tests.fakes.small_llama import write_adapter
from tests.fakes.tiny_bpe import build_bpe_model

from tutelage.core.errors import ModelError
from tutelage.core.example import Message
from tutelage.inference import gguf_model
from tutelage.inference.gguf_config import model_metadata, read_config
from tutelage.inference.gguf_header import read_header
from tutelage.inference.gguf_model import Layout, write_from_folder, write_from_template
from tutelage.inference.gguf_runner import run_gguf
from tutelage.inference.gguf_vocab import PROBES, vocabulary
from tutelage.inference.gguf_weights import Meta, SafeWeights, write_gguf
from tutelage.inference.lora_gguf import convert
from tutelage.inference.models import ModelSource
from tutelage.inference.parity import LIMITS, Parity, Reference, compare
from tutelage.inference.tuned import read_tuned
from tutelage.training.export import Export, Subject

PROMPTS = [
    (Message(role="system", content="Name the family."), Message(role="user", content=text))
    for text in ("the colour 12345", "you're cold", "warm  or\tcold?", "a thing", "1984")
]
LLAMA3 = {
    "rope_type": "llama3", "rope_theta": 10000.0, "factor": 8.0, "low_freq_factor": 1.0,
    "high_freq_factor": 4.0, "original_max_position_embeddings": 32,
}  # fmt: skip


def source(folder: Path) -> ModelSource:
    return ModelSource(str(folder), folder.name, "directory", folder, "0" * 64)


def reference(folder: Path, adapter: Path | None = None) -> list[Reference]:
    """Return the reference answers, and how the tokenizer cuts the probes."""
    loaded = Export(Subject(source(folder), read_tuned(adapter) if adapter else None))
    return [*loaded.reference(PROMPTS, max_tokens=12), *loaded.cuts(PROBES)]


def parity(model: Path, along: Sequence[Reference], kind: str, lora: Path | None = None) -> Parity:
    with run_gguf(model, lora, context=256, threads=1) as runner:
        return compare(model.name, along, runner.follow(along), LIMITS[kind])


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_bpe_model(tmp_path_factory.mktemp("bpe") / "tiny")


@pytest.fixture(scope="module")
def answers(tiny: Path) -> list[Reference]:
    return reference(tiny)


@pytest.mark.parametrize(
    ("kind", "rule", "settings"),
    [
        ("llama", "smollm", {"attention_bias": True, "mlp_bias": True}),
        ("llama", "llama-bpe", {"tie_word_embeddings": True, "rope_parameters": LLAMA3}),
        ("llama", "gpt-2", {"head_dim": 32, "rope_parameters": {
            "rope_type": "linear", "factor": 2.0, "rope_theta": 5000.0}}),
        ("mistral", "gpt-2", {"sliding_window": None}),
        ("granite", "smollm", {"attention_multiplier": 0.3, "embedding_multiplier": 1.5,
                               "residual_multiplier": 0.7, "logits_scaling": 2.0}),
        ("smollm3", "llama-bpe", {"num_hidden_layers": 4}),
        ("qwen2", "qwen2", {}),
        ("qwen3", "qwen2", {"head_dim": 32, "tie_word_embeddings": True}),
    ],
)  # fmt: skip
def test_a_folder_becomes_a_file_that_answers_alike(
    tmp_path: Path, kind: str, rule: str, settings: dict[str, Any]
) -> None:
    folder = build_bpe_model(tmp_path / "m", kind=kind, rule=rule, **settings)
    write_from_folder(folder, tmp_path / "m.gguf", dtype="f32", name="tiny")
    metadata = read_header(tmp_path / "m.gguf").metadata
    assert metadata["tokenizer.ggml.pre"] == rule
    along = reference(folder)
    found = parity(tmp_path / "m.gguf", along, "f32")
    assert found.problem is None, [found.sentence(), *(b.lines() for b in found.broken)]
    assert found.same + found.ties == found.tokens > 20
    assert found.ties <= 2


@pytest.mark.parametrize("dtype", ["f16", "bf16", "q8_0"])
def test_fewer_bits_stay_within_their_limits(
    tmp_path: Path, tiny: Path, answers: list[Reference], dtype: str
) -> None:
    target = tmp_path / "m.gguf"
    write_from_folder(tiny, target, dtype=dtype, name="tiny")
    kinds = {t.name: t.tensor_type.name for t in gguf.GGUFReader(target).tensors}
    assert kinds["blk.0.attn_q.weight"] == dtype.upper()
    assert kinds["blk.0.attn_norm.weight"] == "F32"
    found = parity(target, answers, dtype)
    assert found.problem is None, found.sentence()
    assert found.drift > 0


def test_rows_in_the_wrong_order_are_noticed(
    tmp_path: Path, tiny: Path, answers: list[Reference]
) -> None:
    write_from_folder(tiny, tmp_path / "m.gguf", dtype="f32", name="tiny", permute=False)
    found = parity(tmp_path / "m.gguf", answers, "f32")
    assert found.problem is not None
    assert "answered otherwise" in found.problem


def test_a_tokenizer_that_cuts_otherwise_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its digits are one token here and one each there."""
    from tutelage.inference import gguf_vocab

    folder = build_bpe_model(tmp_path / "m", rule="gpt-2")
    monkeypatch.setattr(gguf_vocab, "pre_tokenizer", lambda raw, folder: "smollm")
    write_from_folder(folder, tmp_path / "m.gguf", dtype="f32", name="tiny")
    found = parity(tmp_path / "m.gguf", reference(folder), "f32")
    assert any("the prompt is other tokens" in broken.reason for broken in found.broken)


@pytest.mark.parametrize(
    "name", ["blk.1.attn_v.weight", "output_norm.weight", "blk.0.ffn_up.weight"]
)
def test_a_lost_tensor_is_noticed(
    tmp_path: Path, tiny: Path, answers: list[Reference], name: str
) -> None:
    write_from_folder(tiny, tmp_path / "m.gguf", dtype="f32", name="tiny")
    for tensor in gguf.GGUFReader(tmp_path / "m.gguf", "r+").tensors:
        if tensor.name == name:
            tensor.data[:] = 0
    assert parity(tmp_path / "m.gguf", answers, "f32").problem is not None


def test_an_adapter_with_a_wrong_scale_is_noticed(tmp_path: Path, tiny: Path) -> None:
    write_from_folder(tiny, tmp_path / "base.gguf", dtype="f32", name="tiny")
    random = np.random.default_rng(2)
    tensors = {}
    for layer in range(2):
        for part, rows in (("q", 64), ("k", 32), ("v", 32)):
            name = f"model.layers.{layer}.self_attn.{part}_proj"
            tensors[f"{name}.lora_A"] = random.normal(0, 0.3, (4, 64)).astype(np.float32)
            tensors[f"{name}.lora_B"] = random.normal(0, 0.3, (rows, 4)).astype(np.float32)
    settings = {"r": 4, "target_modules": ["q_proj", "k_proj", "v_proj"]}
    adapter = write_adapter(tmp_path / "a", tensors, lora_alpha=8, **settings)
    along = reference(tiny, adapter)
    header = read_header(tmp_path / "base.gguf")
    convert(adapter, header, tmp_path / "right.gguf", dtype="float32")
    found = parity(tmp_path / "base.gguf", along, "f32", tmp_path / "right.gguf")
    assert found.problem is None, found.sentence()
    wrong = write_adapter(tmp_path / "b", tensors, lora_alpha=4, **settings)
    convert(wrong, header, tmp_path / "wrong.gguf", dtype="float32")
    assert parity(tmp_path / "base.gguf", along, "f32", tmp_path / "wrong.gguf").problem
    rough = tmp_path / "rough.gguf"
    write_from_folder(tiny, rough, dtype="q8_0", name="tiny")
    assert parity(rough, along, "q8_0", tmp_path / "right.gguf").problem is None
    assert parity(rough, along, "quantised", tmp_path / "wrong.gguf").problem
    convert(adapter, header, tmp_path / "rows.gguf", permute=False)
    assert parity(rough, along, "quantised", tmp_path / "rows.gguf").problem


def test_a_template_keeps_its_tokenizer_and_takes_the_folders_weights(
    tmp_path: Path, tiny: Path
) -> None:
    base = tmp_path / "base.gguf"
    write_from_folder(tiny, base, dtype="q8_0", name="tiny")
    tuned = build_bpe_model(tmp_path / "t", rule="smollm", initializer_range=0.5)
    _change(tuned / "model.safetensors")
    write_from_template(tuned, base, tmp_path / "m.gguf", dtype="f32")
    shutil.copyfile(tiny / "tokenizer.json", tuned / "tokenizer.json")
    along = reference(tuned)
    assert parity(tmp_path / "m.gguf", along, "f32").problem is None
    assert parity(base, along, "q8_0").problem is not None  # the weights did change
    before, after = read_header(base).metadata, read_header(tmp_path / "m.gguf").metadata
    assert {**before, "general.file_type": 0} == after


# What only a GGUF base brings: architectures whose metadata is not written from a config here.
ONLY_TEMPLATES: dict[str, tuple[str, dict[str, Any], dict[str, float]]] = {
    "gemma2": (
        "gemma2",
        {"head_dim": 16, "sliding_window": 64, "query_pre_attn_scalar": 16},
        {"attn_logit_softcapping": 50.0, "final_logit_softcapping": 30.0,
         "attention.sliding_window": 64},
    ),
    "gemma3_text": (
        "gemma3",
        {"head_dim": 16, "sliding_window": 64, "query_pre_attn_scalar": 16,
         "num_hidden_layers": 6},
        {"attention.sliding_window": 64},
    ),
    "phi3": (
        "phi3",
        {"sliding_window": None, "original_max_position_embeddings": 1024},
        {"attention.sliding_window": 0},
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", ONLY_TEMPLATES)
def test_other_architectures_are_written_over_their_gguf_base(tmp_path: Path, kind: str) -> None:
    """Gemma's norms are kept as 1 + w, Phi's queries, keys and values in one matrix."""
    architecture, settings, extra = ONLY_TEMPLATES[kind]
    outer = 0.08 if "gemma" in kind else 0.5  # gemma scales its embeddings up
    folder = build_bpe_model(tmp_path / "m", kind=kind, outer=outer, **settings)
    config = read_config(folder)
    rope = config["rope_parameters"]
    rope = rope.get("full_attention", rope)
    plain = {**config, "model_type": "llama", "sliding_window": None, "rope_parameters": rope}
    metadata = [
        replace(pair, key=pair.key.replace("llama.", f"{architecture}.", 1))
        for pair in model_metadata(plain | {"hidden_act": "silu"}, "tiny")
    ]
    for key, value in extra.items():
        metadata.append(Meta(f"{architecture}.{key}", value, 6 if isinstance(value, float) else 4))
    weights = SafeWeights(folder)
    rows = weights.shape("model.embed_tokens.weight")[0]
    layout = Layout(architecture, config["num_hidden_layers"], {})
    empty = [
        replace(tensor, load=lambda shape=tensor.shape: np.zeros(shape, np.float32))
        for tensor in layout.tensors(weights)
    ]
    base = tmp_path / "base.gguf"
    write_gguf(base, architecture, [*metadata, *vocabulary(folder, rows)], empty, "f16")
    write_from_template(folder, base, tmp_path / "m.gguf", dtype="f32")
    found = parity(tmp_path / "m.gguf", reference(folder), "f32")
    assert found.problem is None, found.sentence()


def test_a_folder_of_another_model_does_not_fit_the_template(tmp_path: Path, tiny: Path) -> None:
    write_from_folder(tiny, tmp_path / "base.gguf", dtype="f16", name="tiny")
    other = build_bpe_model(tmp_path / "o", intermediate_size=128)
    with pytest.raises(ModelError, match=r"does not fit the GGUF base: blk\.0\.ffn_down\.weight"):
        write_from_template(other, tmp_path / "base.gguf", tmp_path / "m.gguf", dtype="f16")
    deeper = build_bpe_model(tmp_path / "d", num_hidden_layers=3)
    with pytest.raises(ModelError, match="has no"):
        write_from_template(deeper, tmp_path / "base.gguf", tmp_path / "m.gguf", dtype="f16")
    assert not (tmp_path / "m.gguf").exists()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"model_type": "gpt2"}, r"a 'gpt2' model can't be written as GGUF.*qwen3.*merged"),
        (
            {"rope_parameters": {"rope_type": "yarn"}},
            r"compute this model alike \(rope_type='yarn'",
        ),
        ({"sliding_window": 256}, r"sliding_window=256"),
        ({"hidden_act": "gelu"}, r"hidden_act='gelu'"),
    ],
)
def test_what_llama_cpp_computes_otherwise_is_refused(
    tmp_path: Path, tiny: Path, change: dict[str, Any], said: str
) -> None:
    folder = shutil.copytree(tiny, tmp_path / "m")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | change))
    with pytest.raises(ModelError, match=said):
        gguf_model.check_writable(source(folder))


def test_tokenizers_without_a_known_rule_are_refused(tmp_path: Path, tiny: Path) -> None:
    unknown = build_bpe_model(tmp_path / "u", rule="other")
    with pytest.raises(ModelError, match=r"a rule that has no known name.*Llama 3 and Qwen 2"):
        gguf_model.check_writable(source(unknown))
    folder = shutil.copytree(tiny, tmp_path / "m")
    raw = json.loads((folder / "tokenizer.json").read_text())
    raw["model"]["type"] = "WordPiece"
    (folder / "tokenizer.json").write_text(json.dumps(raw))
    with pytest.raises(ModelError, match="the tokenizer is WordPiece"):
        gguf_model.check_writable(source(folder))


def test_weights_that_float16_cannot_hold_are_refused(tmp_path: Path, tiny: Path) -> None:
    folder = shutil.copytree(tiny, tmp_path / "m")
    _change(folder / "model.safetensors", factor=1e9)
    with pytest.raises(ModelError, match=r"holds values that float16 can't.*bf16 or f32"):
        write_from_folder(folder, tmp_path / "m.gguf", dtype="f16", name="tiny")
    assert list(tmp_path.iterdir()) == [folder]


def test_weights_are_read_one_by_one(tiny: Path) -> None:
    from safetensors.torch import load_file

    weights = SafeWeights(tiny)
    for name, tensor in load_file(tiny / "model.safetensors").items():
        np.testing.assert_array_equal(weights.load(name), tensor.float().numpy())


def _change(file: Path, factor: float = 1.0) -> None:
    """Give a model's first query matrix other values."""
    from safetensors.torch import load_file, save_file

    weights = load_file(file)
    name = "model.layers.0.self_attn.q_proj.weight"
    weights[name] = (weights[name].flip(0) * factor).contiguous()
    save_file(weights, file, metadata={"format": "pt"})
