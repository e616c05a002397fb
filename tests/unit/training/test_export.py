"""What is exported answers as what was trained, in every format; a broken export is never left."""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.fakes.tiny_bpe import build_bpe_model

from tutelage.core.artifact import describe, hash_file, hash_files
from tutelage.core.errors import DataError, EnvironmentProblem, ModelError
from tutelage.core.example import Message
from tutelage.inference import gguf_model
from tutelage.inference.base import Decoding
from tutelage.inference.models import ModelSource, locate_model
from tutelage.inference.parity import LIMITS, compare
from tutelage.inference.tuned import ADAPTER, read_tuned, write_info
from tutelage.release import bundle
from tutelage.training.export import Export, Subject, base_dtype, follow_folder
from tutelage.workflows.context import Context, last_output, open_context, register
from tutelage.workflows.curate import curate
from tutelage.workflows.release import export as exporting
from tutelage.workflows.release.export import ExportRefused, export

PROMPTS = [(Message(role="user", content=text),) for text in ("the colour", "1984", "warm or cold")]
CONFIG = """\
name: colours
task: classification
model: MODEL
prompt: Name the colour family.
output: {field: family, labels: [warm, cold]}
data:
  sources: [data/*]
  columns: {input: text, output: label}
evaluate: {max_new_tokens: 8}
"""


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model with a tokenizer that has a GGUF form."""
    return build_bpe_model(tmp_path_factory.mktemp("base") / "tiny")


def tuned(base: Path, folder: Path, kind: str = "lora") -> Path:
    """Write a PEFT folder with random weights, far from the base."""
    import peft
    from transformers import AutoModelForCausalLM

    linear = ["q_proj", "k_proj", "v_proj", "down_proj"]
    config: Any = {
        "lora": lambda: peft.LoraConfig(r=4, lora_alpha=8, target_modules=linear),
        "dora": lambda: peft.LoraConfig(
            r=4, lora_alpha=8, target_modules=linear, use_dora=True, use_rslora=True
        ),
        "ia3": lambda: peft.IA3Config(
            target_modules=["k_proj", "v_proj", "down_proj"], feedforward_modules=["down_proj"]
        ),
        "prompt": lambda: peft.PromptTuningConfig(num_virtual_tokens=4),
    }[kind]()
    config.task_type = "CAUSAL_LM"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = peft.get_peft_model(AutoModelForCausalLM.from_pretrained(base), config)
        torch.manual_seed(5)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if parameter.requires_grad and "magnitude" not in name:
                    parameter.normal_(mean=float(kind == "ia3"), std=0.2)
        model.save_pretrained(folder)
    return folder


def source(folder: Path) -> ModelSource:
    return ModelSource(str(folder), folder.name, "directory", folder, "0" * 64)


@pytest.mark.parametrize("kind", ["lora", "dora", "ia3"])
@pytest.mark.parametrize("dtype", ["f32", "bf16"])
def test_a_merged_model_loads_alone_and_answers_alike(
    tmp_path: Path, base: Path, kind: str, dtype: str
) -> None:
    loaded = Export(Subject(source(base), read_tuned(tuned(base, tmp_path / "a", kind))))
    along = loaded.reference(PROMPTS, max_tokens=12)
    loaded.save_merged(tmp_path / "m", dtype)
    found = compare("m", along, follow_folder(tmp_path / "m", PROMPTS, along), LIMITS[dtype])
    assert found.problem is None, found.sentence()
    assert found.drift < (1e-4 if dtype == "f32" else 0.05)
    plain = Export(Subject(source(base))).reference(PROMPTS, max_tokens=12)
    assert [r.tokens for r in plain] != [r.tokens for r in along]
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(tmp_path / "m")
    assert model.dtype == {"f32": torch.float32, "bf16": torch.bfloat16}[dtype]
    assert base_dtype(source(tmp_path / "m")) == dtype
    assert AutoTokenizer.from_pretrained(tmp_path / "m").chat_template


def test_what_cannot_be_merged_says_so(tmp_path: Path, base: Path) -> None:
    loaded = Export(Subject(source(base), read_tuned(tuned(base, tmp_path / "a", "prompt"))))
    with pytest.raises(ModelError, match=r"can't be merged into its base.*--format adapter"):
        loaded.save_merged(tmp_path / "m", "f32")


def test_a_weight_that_is_no_number_stops_the_merge(tmp_path: Path, base: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder = tuned(base, tmp_path / "a")
    weights = load_file(folder / ADAPTER[1])
    next(iter(weights.values()))[0, 0] = float("nan")
    save_file(weights, folder / ADAPTER[1], metadata={"format": "pt"})
    with pytest.raises(ModelError, match="can't be merged"):
        Export(Subject(source(base), read_tuned(folder))).save_merged(tmp_path / "m", "f32")


Make = Callable[..., Context]


@pytest.fixture(scope="session")
def curated(tmp_path_factory: pytest.TempPathFactory, base: Path) -> Path:
    """A project with a frozen dataset version, to be copied."""
    root = tmp_path_factory.mktemp("curated")
    (root / "data").mkdir()
    lines = ["text,label"]
    for place in range(40):
        lines.append(f"the colour number {place} {chr(97 + place % 26) * 3},{_side(place)}")
    (root / "data" / "rows.csv").write_text("\n".join(lines) + "\n")
    (root / "tutelage.yaml").write_text(CONFIG.replace("MODEL", str(base)))
    ctx = open_context(root)
    curate(ctx)
    ctx.store.close()
    return root


@pytest.fixture
def project(curated: Path, base: Path, tmp_path: Path) -> Make:
    """Return a function that opens a project whose only adapter is the given folder."""

    def make(folder: Path, model: Path = base) -> Context:
        root = shutil.copytree(curated, tmp_path / "project")
        (root / "tutelage.yaml").write_text(CONFIG.replace("MODEL", str(model)))
        ctx = open_context(root)
        dataset = last_output(ctx, "curate")
        assert dataset is not None
        digest = hash_files(folder, [f.name for f in folder.iterdir()])
        target = ctx.workspace.artifact_dir("adapters", digest)
        shutil.copytree(folder, target)
        meta = {"model": str(model), "recipe": {"method": "lora", "rank": 4}}
        path = ctx.workspace.relative(target)
        # what was replayed is a parent too, and one that may come first
        parents = [dataset.hash, register(ctx.store, describe("replay", "0" * 64, ".")).hash]
        register(ctx.store, describe("adapter", digest, path, parents=parents, meta=meta))
        return ctx

    return make


def _side(place: int) -> str:
    return "warm" if place % 2 else "cold"


def adapter_of(ctx: Context) -> str:
    """Return the first digits of the only adapter."""
    (folder,) = (ctx.workspace.artifacts / "adapters").iterdir()
    return folder.name


def test_every_format_of_an_adapter(tmp_path: Path, base: Path, project: Make) -> None:
    pytest.importorskip("xllamacpp")
    folder = tuned(base, tmp_path / "a")
    ctx = project(folder)
    what = adapter_of(ctx)
    for form, dtype in (
        ("adapter", "auto"), ("merged", "auto"), ("gguf", "f16"), ("gguf-adapter", "auto"),
    ):  # fmt: skip
        done = export(ctx, what, form, tmp_path / form, dtype=dtype, prompts=3)
        facts = json.loads((tmp_path / form / "export.json").read_text())
        assert facts["base"]["name"] == "tiny"
        assert facts["adapter"].startswith(what)
        assert facts["recipe"] == {"method": "lora", "rank": 4}
        assert set(done.files) == {
            f.name for f in (tmp_path / form).iterdir()
        } - {"export.json", "README.md"}  # fmt: skip
        assert str(tmp_path) not in (tmp_path / form / "README.md").read_text()
        if form == "adapter":
            assert done.parity is None
            assert hash_file(tmp_path / form / ADAPTER[1]) == hash_file(folder / ADAPTER[1])
        else:
            assert done.parity is not None
            assert done.parity.problem is None
            assert facts["parity"]["sentence"] == done.parity.sentence()
    assert not list(tmp_path.glob(".new*"))
    with pytest.raises(DataError, match="the folder is not empty"):
        export(ctx, what, "merged", tmp_path / "merged")


def test_a_whole_tuned_model_is_exported_without_an_adapter(
    tmp_path: Path, base: Path, project: Make
) -> None:
    """A full fine-tuning's folder brings weights and config, and here no tokenizer."""
    pytest.importorskip("xllamacpp")
    loaded = Export(Subject(source(base), read_tuned(tuned(base, tmp_path / "a"))))
    loaded.save_merged(tmp_path / "whole", "f32")
    for file in (tmp_path / "whole").iterdir():
        if "token" in file.name or file.suffix == ".jinja":
            file.unlink()
    ctx = project(tmp_path / "whole")
    for form in ("merged", "gguf"):
        done = export(ctx, adapter_of(ctx), form, tmp_path / form, prompts=3)
        assert done.parity is not None
        assert done.parity.problem is None
    with pytest.raises(ModelError, match="is a whole model, no adapter"):
        export(ctx, adapter_of(ctx), "gguf-adapter", tmp_path / "x")


def test_the_newest_release_is_exported_with_its_own_prompt_and_golden_rows(
    tmp_path: Path, base: Path, project: Make
) -> None:
    ctx = project(tuned(base, tmp_path / "a"))
    (folder,) = (ctx.workspace.artifacts / "adapters").iterdir()
    located = locate_model(str(base))
    golden = bundle.Golden(id="x", messages=({"role": "user", "content": "gold"},), expected="")
    reference = bundle.AdapterRef(
        hash=folder.name, path=ctx.workspace.relative(folder), files=bundle.adapter_files(folder)
    )
    manifest = bundle.ReleaseManifest(
        kind="tuned",
        base=bundle.BaseRef(spec=str(base), name=located.name, digest=located.digest),
        adapter=reference,
        prompt="Be brief.",
        decoding=Decoding(max_tokens=6),
        golden=(golden,),
    )
    alone = manifest.model_copy(update={"kind": "base", "adapter": None, "golden": ()})
    row = bundle.create_release(ctx.store, ctx.workspace, manifest, project="colours")
    bundle.create_release(ctx.store, ctx.workspace, alone, project="colours")
    done = export(ctx, None, "merged", tmp_path / "out", prompts=1)
    facts = json.loads((tmp_path / "out" / "export.json").read_text())
    assert (facts["release"], facts["name"]) == (row.id, "colours-v1")
    assert facts["prompt"] == "Be brief."
    assert done.parity is not None
    assert (done.parity.prompts, done.parity.problem) == (1, None)
    assert 1 <= done.parity.tokens <= 6
    done = export(ctx, "colours-base", "merged", tmp_path / "base-out", prompts=2)
    assert done.parity is not None
    assert done.parity.drift == 0
    with pytest.raises(ModelError, match="colours-base is the base model alone"):
        export(ctx, "colours-base", "adapter", tmp_path / "x")
    (folder / ADAPTER[1]).write_bytes(b"x")
    with pytest.raises(ModelError, match="was changed since it was released"):
        export(ctx, None, "adapter", tmp_path / "x")


def test_an_export_that_answers_otherwise_is_refused_and_removed(
    tmp_path: Path, base: Path, project: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("xllamacpp")
    ctx = project(tuned(base, tmp_path / "a"))
    right = gguf_model.write_from_folder
    monkeypatch.setattr(
        gguf_model,
        "write_from_folder",
        lambda *args, **kwargs: right(*args, **kwargs, permute=False),
    )
    with pytest.raises(ExportRefused) as caught:
        export(ctx, adapter_of(ctx), "gguf", tmp_path / "out", dtype="f32", prompts=3)
    assert caught.value.exit_code == 1
    text = str(caught.value)
    assert "prompts are answered otherwise" in text
    assert "expected" in text
    assert "got" in text
    assert caught.value.as_dict()["parity"]["broken"]
    assert not (tmp_path / "out").exists()
    assert not list(tmp_path.glob(".new*"))


def test_what_a_format_cannot_hold_is_refused_before_anything_is_loaded(
    tmp_path: Path, base: Path, project: Make
) -> None:
    dora = project(tuned(base, tmp_path / "a", "dora"))
    with pytest.raises(ModelError, match=r"use_dora=True.*export the merged model"):
        export(dora, adapter_of(dora), "gguf-adapter", tmp_path / "x")
    for bad, said in (
        ({"format": "gguff"}, r"no format 'gguff'. Did you mean 'gguf'\?"),
        ({"format": "merged", "dtype": "q8_0"}, "safetensors hold no q8_0"),
        ({"format": "adapter", "dtype": "f16"}, "takes no dtype"),
        ({"prompts": 0}, "at least one prompt"),
        ({"what": "nobody"}, "there is no release 'nobody'"),
    ):
        with pytest.raises(DataError, match=said):
            export(dora, **{"what": adapter_of(dora), "out": tmp_path / "x", **bad})


def test_a_prompt_that_is_too_long_is_left_out_and_counted(
    tmp_path: Path, base: Path, project: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    ctx = project(tuned(base, tmp_path / "a"))
    long = (Message(role="user", content="warm " * 3000),)
    monkeypatch.setattr(exporting, "choose", lambda what, count: [long, *PROMPTS])
    done = export(ctx, adapter_of(ctx), "merged", tmp_path / "merged")
    assert done.parity is not None
    assert (done.parity.prompts, done.parity.skipped) == (3, 1)
    assert done.parity.sentence().endswith("; 1 prompt is too long for the model and not compared")
    monkeypatch.setattr(exporting, "choose", lambda what, count: [long])
    with pytest.raises(DataError, match="no prompt leaves room for 8 more tokens"):
        export(ctx, adapter_of(ctx), "merged", tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_a_disk_without_room_is_told_before_anything_is_written(
    tmp_path: Path, base: Path, project: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    ctx = project(tuned(base, tmp_path / "a"))
    usage = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    with pytest.raises(EnvironmentProblem, match=r"the export needs .* GiB of disk"):
        export(ctx, adapter_of(ctx), "merged", tmp_path / "out")
    assert not list(tmp_path.glob("out*"))


def test_a_picker_of_labels_has_no_text_form(tmp_path: Path, base: Path, project: Make) -> None:
    folder = tuned(base, tmp_path / "a")
    write_info(folder, {"answerer": "head"})
    ctx = project(folder)
    with pytest.raises(ModelError, match="it answers by head, not by writing text"):
        export(ctx, adapter_of(ctx), "gguf", tmp_path / "x")
    done = export(ctx, adapter_of(ctx), "adapter", tmp_path / "y")
    assert "tutelage.json" in done.files


def test_the_command_prints_one_document(tmp_path: Path, base: Path, project: Make) -> None:
    from typer.testing import CliRunner

    from tutelage.cli.main import app

    ctx = project(tuned(base, tmp_path / "a"))
    command = ["release", "export", adapter_of(ctx), "--project", str(ctx.workspace.root)]
    command += ["--json", "--out", str(tmp_path / "out")]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 0, done.output
    answer = json.loads(done.stdout)
    assert set(answer["files"]) >= set(ADAPTER)
    assert answer["parity"] is None
    again = CliRunner().invoke(app, command)
    assert again.exit_code == 2
    assert "the folder is not empty" in again.stderr


@pytest.mark.model
def test_the_demo_models_gguf_and_lora_answer_alike(tmp_path: Path, project: Make) -> None:
    """The base is a 4-bit GGUF: the exported one holds the dequantised, merged weights in f16."""
    pytest.importorskip("xllamacpp")
    from tests.fakes.small_llama import strong_adapter

    from tutelage.inference.gguf_header import read_header

    demo = locate_model("demo")
    header = read_header(demo.path)
    folder = strong_adapter(tmp_path / "a", header.shapes, layers=30)
    ctx = project(folder, model=Path("demo"))
    what = adapter_of(ctx)
    done = export(ctx, what, "gguf", tmp_path / "gguf", dtype="f16", prompts=4)
    (file,) = (tmp_path / "gguf").glob("*.gguf")
    made = read_header(file)
    assert made.shapes == header.shapes
    assert made.metadata["general.file_type"] == 1
    assert made.metadata["tokenizer.chat_template"] == header.metadata["tokenizer.chat_template"]
    assert done.parity is not None
    assert done.parity.same + done.parity.ties == done.parity.tokens > 8
    assert 0 < done.parity.drift < LIMITS["f16"].drift
