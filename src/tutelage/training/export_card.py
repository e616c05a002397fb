"""Writes the two files that go with every export: export.json for programs, README.md for people.

Only facts that are known are written; no path of this machine is.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tutelage.core.artifact import hash_file, library_versions
from tutelage.core.workspace import atomic_write

FACTS, CARD = "export.json", "README.md"
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


def write_card(folder: Path, facts: Mapping[str, Any]) -> dict[str, str]:
    """Write export.json and README.md; return the SHA-256 of every file exported, by name."""
    files = {
        file.name: hash_file(file)
        for file in sorted(folder.iterdir())
        if file.is_file() and file.name not in (FACTS, CARD)
    }
    whole = {**facts, "files": files, "versions": library_versions()}
    text = json.dumps(whole, indent=2, ensure_ascii=False, sort_keys=True)
    atomic_write(folder / FACTS, (text + "\n").encode())
    atomic_write(folder / CARD, _card(facts, files).encode())
    for name in (*files, FACTS, CARD):
        (folder / name).chmod(_READABLE)
    return files


def _card(facts: Mapping[str, Any], files: Mapping[str, str]) -> str:
    form = facts["format"]
    head = [f"library_name: {_LIBRARY[form]}"]
    if facts["base"].get("hub"):
        head.insert(0, f"base_model: {facts['base']['hub']}")
    file = next((name for name in files if name.endswith(".gguf")), "")
    lines = ["---", *head, "---", "", f"# {facts['name']}", "", _USE[form].format(file=file), ""]
    lines += ["| | |", "|---|---|", *(f"| {k} | {v} |" for k, v in _rows(facts)), ""]
    if facts.get("prompt"):
        quoted = [f"> {line}" for line in facts["prompt"].splitlines()]
        lines += ["The system message it was tuned with:", "", *quoted, ""]
    parity = facts.get("parity")
    if parity:
        lines += ["Checked before it was written: " + parity["sentence"] + ".", ""]
    return "\n".join(lines)


def _rows(facts: Mapping[str, Any]) -> list[tuple[str, str]]:
    base = facts["base"]
    rows = [("format", facts["format"]), ("weights", facts.get("dtype") or "as trained")]
    rows.append(("base model", f"{base['name']}, SHA-256 `{base['digest']}`"))
    for name in ("release", "adapter", "dataset"):
        if facts.get(name):
            rows.append((name, f"`{facts[name]}`"))
    recipe = facts.get("recipe") or {}
    if recipe:
        told = ("method", "rank", "alpha", "learning_rate", "epochs", "batch_size", "seed")
        known = [f"{key} {recipe[key]}" for key in told if recipe.get(key) is not None]
        rows.append(("recipe", ", ".join(known)))
    return rows
