"""A PEFT adapter becomes a GGUF one that means the same, or is refused with a reason."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from tests.fakes.small_llama import LAYERS, TEXTS, first_layers, strong_adapter, write_adapter

from tutelage.core.errors import ModelError
from tutelage.core.example import Message
from tutelage.inference.base import Decoding, Prompt
from tutelage.inference.gguf_header import GgufHeader, read_header
from tutelage.inference.lora_gguf import (
    convert,
    ensure_apart,
    ensure_lora_gguf,
    permute_rows,
    read_safetensors,
)

HEADER = GgufHeader(
    {
        "general.architecture": "llama",
        "llama.block_count": 1,
        "llama.attention.head_count": 2,
        "llama.attention.head_count_kv": 1,
    },
    {"blk.0.attn_q.weight": (8, 6), "blk.0.attn_k.weight": (4, 6), "blk.0.attn_v.weight": (4, 6)},
)
Q, K, V = (f"model.layers.0.self_attn.{part}_proj" for part in "qkv")


def _adapter(folder: Path, dtype: str = "float32", **config: Any) -> Path:
    random = np.random.default_rng(0)
    tensors = {}
    for name, rows in ((Q, 8), (K, 4), (V, 4)):
        tensors[f"{name}.lora_A"] = random.normal(size=(2, 6)).astype(dtype)
        tensors[f"{name}.lora_B"] = random.normal(size=(rows, 2)).astype(dtype)
    return write_adapter(folder, tensors, **config)


def _tensors(path: Path) -> dict[str, Any]:
    return {tensor.name: np.array(tensor.data) for tensor in gguf.GGUFReader(path).tensors}


def test_names_metadata_and_row_order(tmp_path: Path) -> None:
    adapter = _adapter(tmp_path / "adapter")
    convert(adapter, HEADER, tmp_path / "lora.gguf", dtype="float32")
    peft = read_safetensors(adapter / "adapter_model.safetensors")
    made = _tensors(tmp_path / "lora.gguf")
    metadata = read_header(tmp_path / "lora.gguf").metadata
    assert metadata["general.architecture"] == "llama"
    assert metadata["general.type"] == "adapter"
    assert metadata["adapter.type"] == "lora"
    assert metadata["adapter.lora.alpha"] == 4.0
    assert len(made) == 6
    # two heads of width 4: row i and row i + 2 of a head rotate together and become neighbours
    b = peft[f"base_model.model.{Q}.lora_B.weight"]
    np.testing.assert_array_equal(made["blk.0.attn_q.weight.lora_b"], b[[0, 2, 1, 3, 4, 6, 5, 7]])
    b = peft[f"base_model.model.{K}.lora_B.weight"]
    np.testing.assert_array_equal(made["blk.0.attn_k.weight.lora_b"], b[[0, 2, 1, 3]])
    for part, side in (("v", "A"), ("v", "B"), ("q", "A")):
        name = {"q": Q, "v": V}[part]
        np.testing.assert_array_equal(
            made[f"blk.0.attn_{part}.weight.lora_{side.lower()}"],
            peft[f"base_model.model.{name}.lora_{side}.weight"],
        )


def test_permuted_rows_rotate_by_neighbours_as_the_halves_did() -> None:
    """Rotary embedding by halves (PEFT's order) equals rotation of neighbours (GGUF's order)."""
    width, heads = 8, 2
    angles = np.linspace(0.1, 1.0, width // 2)
    x = np.random.default_rng(1).normal(size=(heads * width, 1)).astype(np.float32)

    def by_halves(v: Any) -> Any:
        a, b = v[: width // 2], v[width // 2 :]
        return np.concatenate([a * np.cos(angles) - b * np.sin(angles),
                               b * np.cos(angles) + a * np.sin(angles)])  # fmt: skip

    def by_neighbours(v: Any) -> Any:
        a, b = v[0::2], v[1::2]
        out = np.empty_like(v)
        out[0::2] = a * np.cos(angles) - b * np.sin(angles)
        out[1::2] = b * np.cos(angles) + a * np.sin(angles)
        return out

    halves = np.concatenate([by_halves(h) for h in x[:, 0].reshape(heads, width)])
    paired = permute_rows(x, heads)[:, 0].reshape(heads, width)
    neighbours = np.concatenate([by_neighbours(h) for h in paired])
    np.testing.assert_allclose(permute_rows(halves[:, None], heads)[:, 0], neighbours, rtol=1e-6)


def test_rank_stabilised_and_per_module_alphas_are_folded_into_b(tmp_path: Path) -> None:
    """llama.cpp knows one alpha and divides by the rank; PEFT's product must come out."""
    adapter = _adapter(tmp_path / "a", use_rslora=True, alpha_pattern={"v_proj": 10})
    convert(adapter, HEADER, tmp_path / "lora.gguf", permute=False, dtype="float32")
    peft = read_safetensors(adapter / "adapter_model.safetensors")
    made = _tensors(tmp_path / "lora.gguf")
    for part, name, alpha in (("q", Q, 4), ("v", V, 10)):
        a, b = (peft[f"base_model.model.{name}.lora_{side}.weight"] for side in "AB")
        ours = [made[f"blk.0.attn_{part}.weight.lora_{side}"] for side in "ab"]
        np.testing.assert_allclose(
            (4 / 2) * ours[1] @ ours[0], alpha / np.sqrt(2) * b @ a, rtol=1e-5
        )


def test_bfloat16_and_float16_weights_are_read(tmp_path: Path) -> None:
    one = np.array([[1.5, -2.0]], dtype=np.float32)
    half = (one.view(np.uint32) >> 16).astype(np.uint16)
    folder = write_adapter(tmp_path, {"x.lora_A": half, "y.lora_A": one.astype(np.float16)})
    read = read_safetensors(folder / "adapter_model.safetensors")
    assert [value.tolist() for value in read.values()] == [[[1.5, -2.0]], [[1.5, -2.0]]]


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"use_dora": True}, "llama.cpp can't apply this adapter (use_dora=True)"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save=['lm_head']"),
        ({"peft_type": "IA3"}, "peft_type='IA3'"),
        ({"lora_alpha": None}, "no lora_alpha"),
    ],
)
def test_what_llama_cpp_cannot_apply_is_refused(
    tmp_path: Path, config: dict[str, Any], said: str
) -> None:
    with pytest.raises(ModelError) as caught:
        convert(_adapter(tmp_path / "a", **config), HEADER, tmp_path / "lora.gguf")
    assert said in str(caught.value)
    assert "deploy.backend: transformers" in str(caught.value)


def test_an_adapter_of_another_model_is_refused(tmp_path: Path) -> None:
    other = GgufHeader(HEADER.metadata, {**HEADER.shapes, "blk.0.attn_v.weight": (4, 9)})
    with pytest.raises(ModelError, match=r"v_proj is \(4, 6\), there it is \(4, 9\)"):
        convert(_adapter(tmp_path / "a"), other, tmp_path / "lora.gguf")
    unknown = GgufHeader({"general.architecture": "mamba"}, {})
    with pytest.raises(ModelError, match="architecture 'mamba' can't be converted"):
        convert(_adapter(tmp_path / "a"), unknown, tmp_path / "lora.gguf")
    assert not list(tmp_path.glob("*.gguf"))


def test_broken_files_are_named(tmp_path: Path) -> None:
    adapter = _adapter(tmp_path / "a")
    weights = adapter / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-40])
    with pytest.raises(ModelError, match="weights can't be read"):
        convert(adapter, HEADER, tmp_path / "lora.gguf")
    weights.unlink()
    with pytest.raises(ModelError, match=r"adapter_model\.safetensors: .*can't be read"):
        convert(adapter, HEADER, tmp_path / "lora.gguf")
    cut = tmp_path / "cut.gguf"
    cut.write_bytes(b"GGUF\x03\0\0\0" + b"\x05" * 20)
    with pytest.raises(ModelError, match="not a complete GGUF file"):
        read_header(cut)


def test_a_converted_adapter_is_kept_until_its_weights_change(tmp_path: Path) -> None:
    base = tmp_path / "base.gguf"
    writer = gguf.GGUFWriter(base, "llama")
    writer.add_block_count(1)
    writer.add_head_count(2)
    writer.add_head_count_kv(1)
    for name, shape in HEADER.shapes.items():
        writer.add_tensor(name, np.zeros(shape, dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    adapter = _adapter(tmp_path / "a")
    first = ensure_lora_gguf(adapter, base, tmp_path / "cache")
    made = first.stat().st_mtime_ns
    moved = adapter.rename(tmp_path / "moved")
    assert ensure_apart(moved, base, tmp_path / "cache") == first
    assert first.stat().st_mtime_ns == made
    _adapter(moved, lora_alpha=8)
    second = ensure_apart(moved, base, tmp_path / "cache")  # in a process of its own
    assert second != first
    assert read_header(second).metadata["adapter.lora.alpha"] == 8
    _adapter(moved, use_dora=True)
    with pytest.raises(ModelError, match="use_dora=True"):
        ensure_apart(moved, base, tmp_path / "cache")


@pytest.mark.model
def test_both_engines_write_the_same_and_a_wrong_row_order_does_not(tmp_path: Path) -> None:
    """Float32 weights on both sides, so all ten answers must be equal, base and tuned."""
    pytest.importorskip("torch")
    from tutelage.inference.engine_llamacpp import LlamaCppBackend
    from tutelage.inference.models import locate_model
    from tutelage.inference.transformers import (
        TransformersGenerator,
        load_model,
        load_tokenizer,
    )

    demo = locate_model("demo")
    model = first_layers(demo.path, tmp_path / "small.gguf")
    header = read_header(model)
    adapter = strong_adapter(tmp_path / "adapter", header.shapes, layers=LAYERS)
    convert(adapter, header, tmp_path / "right.gguf")
    convert(adapter, header, tmp_path / "wrong.gguf", permute=False)

    whole = load_model(demo)
    whole.model.layers = whole.model.layers[:LAYERS]
    whole.config.num_hidden_layers = LAYERS
    reference = TransformersGenerator.over(whole, load_tokenizer(demo))
    prompts = [_prompt(place, text) for place, text in enumerate(TEXTS)]
    expected = {"base": reference.generate(prompts)}
    reference.set_adapter(adapter)
    expected["tuned"] = reference.generate(prompts)
    backend = LlamaCppBackend(model, cache=tmp_path, context=256)
    assert expected["tuned"] != expected["base"]
    for lora, want, low, high in (
        (None, "base", 10, 10),
        (tmp_path / "right.gguf", "tuned", 10, 10),
        (tmp_path / "wrong.gguf", "tuned", 0, 5),
    ):
        seat = backend.open_lora(lora)
        same = [_same(seat, p, c) for p, c in zip(prompts, expected[want], strict=True)]
        seat.close()
        assert low <= sum(same) <= high, (lora, same)


def _prompt(place: int, text: str) -> Prompt:
    """Return a prompt with or without a system message, with or without earlier turns."""
    turns = [Message(role="user", content=text)]
    if place % 2:
        turns.insert(0, Message(role="system", content="You are a medical coder."))
    if place % 3 == 0:
        turns += [Message(role="assistant", content="Why?"), Message(role="user", content="So!")]
    return Prompt(tuple(turns), Decoding(max_tokens=8))


def _same(seat: Any, prompt: Prompt, completion: Any) -> bool:
    from tutelage.inference.engine_request import ChatRequest

    texts: list[str] = []
    messages = tuple(m.model_dump() for m in prompt.messages)
    ending = seat.answer(
        ChatRequest("r", messages, prompt.decoding), lambda piece: texts.append(piece.text) or False
    )
    assert ending.usage.prompt_tokens == completion.usage.prompt_tokens  # the same rendering
    return "".join(texts) == completion.text
