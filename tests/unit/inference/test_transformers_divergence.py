"""The KL divergence from base to tuned: the definition by hand, nothing for no change, windows."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tests.fakes.tiny_llama import build_tiny_model

from tutelage.inference import transformers_divergence
from tutelage.inference.models import locate_model
from tutelage.inference.transformers import TransformersGenerator, load_model, load_tokenizer
from tutelage.inference.transformers_divergence import divergence

TEXTS = ["The tenant pays on the first.", "Short.", "A longer text about nothing in particular."]


def write_adapter(model_folder: Path, folder: Path, scale: float) -> Path:
    """A LoRA adapter whose B is random with deviation `scale`; 0 changes nothing."""
    from peft import LoraConfig, get_peft_model

    model = load_model(locate_model(str(model_folder)), dtype="float32")
    torch.manual_seed(3)
    tuned = get_peft_model(model, LoraConfig(r=2, target_modules=["q_proj", "v_proj"]))
    with torch.no_grad():
        for name, parameter in tuned.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=scale) if scale else parameter.zero_()
    tuned.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_model(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def adapter(model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_adapter(model_folder, tmp_path_factory.mktemp("adapter"), 0.5)


def test_it_is_the_forward_divergence_summed_over_positions(
    model_folder: Path, adapter: Path
) -> None:
    from peft import PeftModel

    source = locate_model(str(model_folder))
    found = divergence(TransformersGenerator(source), TEXTS, adapter)
    tokenizer, base = load_tokenizer(source), load_model(source, dtype="float32").eval()
    tuned = PeftModel.from_pretrained(load_model(source, dtype="float32"), adapter).eval()
    for text, (nats, positions) in zip(TEXTS, found, strict=True):
        ids = torch.tensor([tokenizer(text)["input_ids"]])
        with torch.inference_mode():
            p, q = base(input_ids=ids).logits, tuned(input_ids=ids).logits
        expected = torch.nn.functional.kl_div(
            q.log_softmax(-1), p.log_softmax(-1), log_target=True, reduction="sum"
        )
        assert positions == ids.shape[1]
        assert nats == pytest.approx(float(expected), rel=1e-3) and nats > 0.01


def test_an_adapter_without_effect_moves_nothing(model_folder: Path, tmp_path: Path) -> None:
    still = write_adapter(model_folder, tmp_path / "still", 0.0)
    engine = TransformersGenerator(locate_model(str(model_folder)))
    assert [nats for nats, _ in divergence(engine, TEXTS, still)] == pytest.approx([0.0] * 3)


def test_long_texts_are_read_in_windows_and_the_base_is_left_in_use(
    model_folder: Path, adapter: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = TransformersGenerator(locate_model(str(model_folder)))
    before = engine.mean_nll(TEXTS)
    whole = divergence(engine, TEXTS, adapter)
    monkeypatch.setattr(transformers_divergence, "_WINDOW", 8)
    cut = divergence(engine, TEXTS, adapter)
    assert [n for _, n in cut] == [n for _, n in whole]
    assert cut[0][0] != pytest.approx(whole[0][0])
    assert engine.mean_nll(TEXTS) == before
