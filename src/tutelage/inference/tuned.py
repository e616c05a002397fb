"""What lies in a folder that training gave: an adapter or a whole model, and how it answers.

Most answer as any language model does. Those that pick a label (a classification head, a cloze)
say so in tutelage.json, which names the answerer and what it needs. No torch here.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from tutelage.core.artifact import MANIFEST
from tutelage.core.errors import ModelError
from tutelage.core.workspace import atomic_write

INFO = "tutelage.json"
ADAPTER = ("adapter_config.json", "adapter_model.safetensors")
_BESIDES = (MANIFEST, "plan.json", "history.json", "README.md")  # lie there, are no part of it
Kind = Literal["adapter", "model"]
_MORE_THAN_LORA = (  # fields of PEFT's LoRA that add what a pair of matrices can't say
    "use_dora", "lora_bias", "modules_to_save", "trainable_token_indices", "layer_replication",
    "alora_invocation_tokens", "use_bdlora", "use_qalora", "kasa_config", "monteclora_config",
    "velora_config", "arrow_config",
)  # fmt: skip


@dataclass(frozen=True)
class Tuned:
    """`answerer` is empty for what writes text; `settings` are the answerer's own."""

    folder: Path
    kind: Kind
    answerer: str = ""
    settings: dict[str, Any] = field(default_factory=dict)

    @property
    def is_plain_lora(self) -> bool:
        """Whether any engine that takes LoRA adapters can serve it."""
        if self.kind != "adapter" or self.answerer:
            return False
        config = json.loads((self.folder / ADAPTER[0]).read_text("utf-8"))
        if config.get("peft_type") != "LORA" or config.get("bias", "none") != "none":
            return False
        return not any(config.get(field) for field in _MORE_THAN_LORA)


def read_tuned(folder: Path) -> Tuned:
    """Return what `folder` holds. Raises ModelError if a part is missing."""
    info: dict[str, Any] = {}
    if (folder / INFO).is_file():
        info = json.loads((folder / INFO).read_text("utf-8"))
    if (folder / "config.json").is_file():
        kind: Kind = "model"
        missing = [] if any(folder.glob("*.safetensors")) else ["weights (*.safetensors)"]
    else:
        kind = "adapter"
        missing = [name for name in ADAPTER if not (folder / name).is_file()]
    if missing:
        raise ModelError(
            f"the adapter has no {missing[0]}", where=str(folder), fix="Run `tutelage train` again"
        )
    return Tuned(folder, kind, str(info.get("answerer", "")), info.get("settings", {}))


def tuned_files(folder: Path) -> list[str]:
    """Return the names of the files that make up what was trained, sorted."""
    return sorted(f.name for f in folder.iterdir() if f.is_file() and f.name not in _BESIDES)


def write_info(folder: Path, info: dict[str, Any]) -> None:
    """Keep what inference must know; nothing is written if there is nothing to say."""
    if info:
        atomic_write(folder / INFO, (json.dumps(info, indent=1, sort_keys=True) + "\n").encode())
