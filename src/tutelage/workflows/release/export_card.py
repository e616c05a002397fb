"""Writes the two files that go with every export: export.json for programs, README.md for people.

The README is the model card (release/card.py) with how to load this form. No path of this
machine is in either.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from tutelage.core.artifact import hash_file, library_versions
from tutelage.core.workspace import atomic_write
from tutelage.release.card import CARD, render
from tutelage.workflows.context import Context
from tutelage.workflows.release.export_source import Wanted
from tutelage.workflows.release.release_card import about_base, gather

FACTS = "export.json"
_READABLE = 0o644  # temporary files are their owner's alone
_LIBRARY = {"adapter": "peft", "merged": "transformers", "gguf": "gguf", "gguf-adapter": "gguf"}
_USE = {
    "adapter": "Load it with PEFT on top of the base model: "
    '`PeftModel.from_pretrained(base, "this folder")`.',
    "merged": 'Load it with transformers: `AutoModelForCausalLM.from_pretrained("this folder")`.',
    "gguf": "Serve it with llama.cpp: `llama-server -m {file}`.",
    "gguf-adapter": "Serve it with llama.cpp on the GGUF file of the base model: "
    "`llama-server -m base.gguf --lora {file}`.",
}


def write_card(
    ctx: Context, what: Wanted, folder: Path, facts: Mapping[str, Any]
) -> dict[str, str]:
    """Write export.json and README.md; return the SHA-256 of every file exported, by name."""
    files = {
        file.name: hash_file(file)
        for file in sorted(folder.iterdir())
        if file.is_file() and file.name not in (FACTS, CARD)
    }
    whole = {**facts, "files": files, "versions": library_versions()}
    text = json.dumps(whole, indent=2, ensure_ascii=False, sort_keys=True)
    atomic_write(folder / FACTS, (text + "\n").encode())
    atomic_write(folder / CARD, _card(ctx, what, facts, files).encode())
    for name in (*files, FACTS, CARD):
        (folder / name).chmod(_READABLE)
    return files


def _card(ctx: Context, what: Wanted, facts: Mapping[str, Any], files: Mapping[str, str]) -> str:
    form = str(facts["format"])
    file = next((name for name in files if name.endswith(".gguf")), "")
    parity = facts.get("parity")
    known = gather(
        ctx, what.name, about_base(what.base), adapter=what.adapter, prompt=what.prompt,
        evaluation=what.evaluation, release=what.release,
    )  # fmt: skip
    export = {
        "library": _LIBRARY[form],
        "use": _USE[form].format(file=file),
        "format": form,
        "weights": facts.get("dtype") or "as trained",
        "parity": parity["sentence"] if parity else None,
    }
    return render(replace(known, export=export))
