"""A model tuned elsewhere: checked, copied by hash, evaluated on the same rows, released by force.

The adapter is trained by plain PEFT, the merged model is what PEFT merges it into.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.fakes.tiny_llama import build_tiny_model
from tests.unit.evaluation.evaluation_rows import examples
from typer.testing import CliRunner

from tutelage.cli.main import app
from tutelage.core.artifact import describe
from tutelage.core.errors import DataError, ModelError
from tutelage.core.events import Event
from tutelage.data.version import VersionDraft, write_version
from tutelage.inference.tuned import read_tuned
from tutelage.release.bundle import get_release, manifest_of
from tutelage.store.artifacts import ArtifactRow, StageRow
from tutelage.workflows.context import Context, open_context, register
from tutelage.workflows.release.import_model import import_model

CONFIG = """\
name: colours
task: classification
model: {model}
prompt: Name the colour family of the thing.
output: {{field: family, labels: [warm, cold]}}
data: {{sources: [data/*]}}
evaluate: {{few_shot: 0, max_new_tokens: 4}}
train: {{tracker: none}}
"""


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A base model, an adapter that plain PEFT trained on it, and the two merged."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    root = tmp_path_factory.mktemp("elsewhere")
    base = build_tiny_model(root / "base")
    torch.manual_seed(3)
    model = get_peft_model(
        AutoModelForCausalLM.from_pretrained(base),
        LoraConfig(r=4, lora_alpha=8, target_modules="all-linear", task_type="CAUSAL_LM"),
    )
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    tokens = torch.randint(0, 250, (2, 24))
    for _ in range(3):
        model(input_ids=tokens, labels=tokens).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    model.save_pretrained(root / "adapter")
    model.merge_and_unload().save_pretrained(root / "merged")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(base / name, root / "merged" / name)
    return {name: root / name for name in ("base", "adapter", "merged")}


@pytest.fixture
def ctx(
    make_project: Callable[..., Path],
    elsewhere: dict[str, Path],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> Context:
    monkeypatch.setenv("TUTELAGE_CACHE", str(tmp_path / "cache"))
    root = make_project(config=CONFIG.format(model=elsewhere["base"]))
    opened = open_context(root)
    splits = {"train": examples("old", 6), "validation": [], "test": examples("new", 6)}
    clusters = {row.id: row.id for rows in splits.values() for row in rows}
    draft = VersionDraft(splits, clusters)  # type: ignore[arg-type]
    version = write_version(opened.workspace.artifacts / "datasets", draft)
    path = opened.workspace.relative(version.directory)
    register(opened.store, describe("dataset", version.hash, path))
    with opened.store.begin() as session:
        session.add(StageRow(stage="curate", input_hash="x", output=version.hash, seconds=0.0))
    return opened


def call(ctx: Context, *arguments: str) -> tuple[int, Any, str]:
    where = ["--project", str(ctx.workspace.root), "--json"]
    done = CliRunner().invoke(app, ["release", *arguments, *where])
    return done.exit_code, json.loads(done.stdout) if done.stdout else None, done.stderr


def changed(folder: Path, target: Path, **values: Any) -> Path:
    """Return a copy of a folder with fields of its config.json (or adapter's) changed."""
    shutil.copytree(folder, target)
    name = "adapter_config.json" if (target / "adapter_config.json").exists() else "config.json"
    config = json.loads((target / name).read_text())
    (target / name).write_text(json.dumps(config | values))
    return target


def test_an_adapter_is_imported_evaluated_and_released(
    ctx: Context, elsewhere: dict[str, Path]
) -> None:
    code, data, _ = call(ctx, "import", str(elsewhere["adapter"]), "--name", "from the vendor")
    assert code == 0
    assert (data["name"], data["form"], data["origin"]) == (
        "from the vendor",
        "adapter",
        "imported",
    )
    assert (data["peft_type"], data["r"]) == ("LORA", 4)
    evaluation = data["evaluation"]
    assert evaluation["rows"] == 6 and evaluation["primary"]["tuned"] is not None
    assert evaluation["verdict"] in ("fail", "not_enough_evidence")  # three steps on noise
    code, _, err = call(ctx, "create", data["adapter"][:8])
    assert code in (1, 3) and "verdict is" in err
    code, made, _ = call(ctx, "create", data["adapter"][:8], "--force")
    assert code == 0
    row = get_release(ctx.store, made["release"])
    assert manifest_of(row).kind == "imported"
    card = (ctx.workspace.home / row.path / "README.md").read_text()
    assert "A model tuned elsewhere from base" in card
    assert "which rows it has seen is not known" in card
    assert str(ctx.workspace.root) not in card and str(elsewhere["base"].parent) not in card
    code, found, _ = call(ctx, "verify")
    assert code == 0 and found["ok"]


def test_an_adapter_that_was_trained_here_is_told(ctx: Context, elsewhere: dict[str, Path]) -> None:
    artifact = import_model(ctx, elsewhere["adapter"])
    with ctx.store.begin() as session:
        session.get_one(ArtifactRow, artifact.hash).meta = {}  # as training keeps it
    asked = ["release", "import", str(elsewhere["adapter"]), "--no-evaluate"]
    done = CliRunner().invoke(app, [*asked, "--project", str(ctx.workspace.root)])
    assert done.exit_code == 0, done.output
    assert f"{artifact.short} was trained here, so nothing had to be imported" in done.stdout


def test_a_merged_model_is_imported_as_a_whole_model(
    ctx: Context, elsewhere: dict[str, Path]
) -> None:
    events: list[Event] = []
    opened = open_context(ctx.workspace.root, events.append)
    artifact = import_model(opened, elsewhere["merged"])
    folder = opened.path_of(artifact)
    assert read_tuned(folder).kind == "model"
    assert not (folder / "tokenizer.json").exists()  # the base's is used, and was compared
    assert import_model(opened, elsewhere["merged"]).hash == artifact.hash
    assert [e.kind for e in events] == ["start", "done"] * 2


def test_a_gguf_file_is_imported_as_the_model_it_was_made_from(
    ctx: Context, tmp_path: Path, make_project: Callable[..., Path]
) -> None:
    from tests.fakes.tiny_bpe import build_bpe_model

    from tutelage.inference.gguf_model import write_from_folder

    base = build_bpe_model(tmp_path / "bpe")
    write_from_folder(base, tmp_path / "tuned.gguf", dtype="f32", name="tiny")
    opened = open_context(make_project(config=CONFIG.format(model=base)))
    artifact = import_model(opened, tmp_path / "tuned.gguf")
    assert (artifact.meta["name"], artifact.meta["form"]) == ("tuned", "model")
    assert read_tuned(opened.path_of(artifact)).kind == "model"
    with pytest.raises(ModelError, match=r"the model.s \w+ is \d+, that of the base model"):
        import_model(ctx, tmp_path / "tuned.gguf")


def test_what_does_not_fit_is_refused_in_a_sentence(
    ctx: Context, elsewhere: dict[str, Path], tmp_path: Path
) -> None:
    other = build_tiny_model(tmp_path / "other", hidden_size=32)
    deeper = changed(elsewhere["adapter"], tmp_path / "foreign")
    from safetensors.torch import load_file, save_file

    weights = load_file(deeper / "adapter_model.safetensors")
    renamed = {k.replace("layers.0", "layers.9"): v for k, v in weights.items()}
    save_file(renamed, deeper / "adapter_model.safetensors")
    narrow = changed(elsewhere["adapter"], tmp_path / "narrow")
    cut = {k: v[:, :16].contiguous() if "lora_A" in k else v for k, v in weights.items()}
    save_file(cut, narrow / "adapter_model.safetensors")
    for folder, says in [
        (other, "hidden_size is 32, that of the base model 64"),
        (deeper, r"for the layer model.layers.9.\S+, which the base model has not"),
        (narrow, r"has 16 inputs, the base model's (64|96)"),
        (changed(elsewhere["merged"], tmp_path / "kind", model_type="qwen2"),
         "is a qwen2, the project's base model a llama"),
        (changed(elsewhere["merged"], tmp_path / "code", auto_map={"AutoModel": "x.Y"}),
         "brings its own Python code, which is never run"),
        (changed(elsewhere["merged"], tmp_path / "packed", quantization_config={"bits": 4}),
         "weights are packed"),
        (changed(elsewhere["adapter"], tmp_path / "lib", auto_mapping={"parent_library": "evil"}),
         "asks for code of 'evil'"),
    ]:  # fmt: skip
        with pytest.raises(ModelError, match=says):
            import_model(ctx, folder)


def test_pickles_damage_and_strange_tokenizers_are_refused(
    ctx: Context, elsewhere: dict[str, Path], tmp_path: Path
) -> None:
    pickled = tmp_path / "pickled"
    pickled.mkdir()
    shutil.copyfile(elsewhere["adapter"] / "adapter_config.json", pickled / "adapter_config.json")
    (pickled / "adapter_model.bin").write_bytes(b"\x80\x04")
    with pytest.raises(ModelError, match="a pickle can run code and is not opened"):
        import_model(ctx, pickled)
    torn = changed(elsewhere["merged"], tmp_path / "torn")
    whole = (torn / "model.safetensors").read_bytes()
    (torn / "model.safetensors").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ModelError, match="not whole safetensors"):
        import_model(ctx, torn)
    strange = changed(elsewhere["merged"], tmp_path / "strange")
    tokenizer = json.loads((strange / "tokenizer.json").read_text())
    tokenizer["model"]["vocab"]["A"], tokenizer["model"]["vocab"]["B"] = 34, 33
    (strange / "tokenizer.json").write_text(json.dumps(tokenizer))
    with pytest.raises(ModelError, match="the tokenizers differ: 'A' is 34"):
        import_model(ctx, strange)
    exported = changed(elsewhere["adapter"], tmp_path / "exported")
    (exported / "export.json").write_text(json.dumps({"base": {"digest": "f" * 64}}))
    with pytest.raises(ModelError, match=r"trained on another base model .SHA-256 ffffffffffff"):
        import_model(ctx, exported)
    with pytest.raises(DataError, match="there is no such folder or file"):
        import_model(ctx, tmp_path / "nowhere")
    with pytest.raises(ModelError, match=r"the file is no \.gguf model"):
        import_model(ctx, elsewhere["adapter"] / "adapter_config.json")
    assert not list(ctx.workspace.artifacts.glob("adapters/*"))
