"""Every plug-in of this distribution, from pyproject.toml and the classes' docstrings."""

from __future__ import annotations

import ast
import tomllib
from functools import cache
from pathlib import Path

from reference_pages.markdown import code, table

ROOT = Path(__file__).resolve().parents[2]

_GROUPS = {
    "readers": ("Turns a file into rows.", "tutelage.data.readers.base"),
    "filters": ("Keeps a row, or gives the reason why not.", "tutelage.data.filters.base"),
    "detectors": ("Finds personal and health identifiers.", "tutelage.data.privacy.detect"),
    "dedup": ("Finds rows that say the same.", "tutelage.data.dedup.base"),
    "embedders": ("Turns texts into vectors.", "tutelage.inference.base"),
    "methods": ("Makes a model trainable.", "tutelage.training.methods.base"),
    "trackers": ("Keeps a run's numbers.", "tutelage.training.trackers.base"),
    "hosted": ("Fine-tunes at a service.", "tutelage.training.hosted.base"),
    "generators": ("Writes answers.", "tutelage.inference.base"),
    "scorers": ("Scores one answer.", "tutelage.evaluation.scorers.base"),
    "strategies": ("Plans how traffic moves.", "tutelage.release.strategies.base"),
    "guards": ("Checks a request or an answer.", "tutelage.serving.guards.base"),
    "launchers": ("Starts an engine.", "tutelage.serving.launchers.base"),
}


def plug_ins() -> str:
    """Return the page of every plug-in of this distribution, by group."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    parts = [
        "# Plug-ins\n",
        "What Tutelage brings is registered the way yours would be: an entry point of the group, "
        "naming a class that meets the group's protocol. A name that is not known is an error "
        "that lists the known ones and the nearest.\n",
        '```toml title="pyproject.toml of your package"\n'
        '[project.entry-points."tutelage.scorers"]\n'
        'politeness = "my_package.scorers:Politeness"\n```\n',
    ]
    for group, points in project["entry-points"].items():
        short = group.removeprefix("tutelage.")
        purpose, protocol = _GROUPS.get(short, ("", ""))
        parts.append(f"## {short}\n")
        parts.append(f"{purpose} Entry-point group: `{group}`.{_protocol(protocol)}\n")
        rows = [(code(name), code(spec), _doc_of(spec)) for name, spec in points.items()]
        parts.append(table(("name", "class", "what it does"), rows))
    return "\n".join(parts)


def _protocol(module: str) -> str:
    """Return where the group's protocol stands, if it stands somewhere."""
    found = [
        node.name
        for node in _tree(module).body
        if isinstance(node, ast.ClassDef)
        and any("Protocol" in ast.unparse(base) for base in node.bases)
    ]
    names = " and ".join(code(f"{module}.{name}") for name in found)
    return f" Protocol: {names}." if names else ""


def _doc_of(spec: str) -> str:
    module, _, name = spec.partition(":")
    for node in _tree(module).body:
        if isinstance(node, ast.ClassDef) and node.name == name:
            return (ast.get_docstring(node) or "").split("\n\n")[0].replace("\n", " ")
    return "Not part of this version yet."


@cache
def _tree(module: str) -> ast.Module:
    """Return a module's syntax tree without importing it; empty if there is no such module."""
    path = ROOT.joinpath("src", *module.split("."))
    for file in (path.with_suffix(".py"), path / "__init__.py"):
        if file.is_file():
            return ast.parse(file.read_text(encoding="utf-8"))
    return ast.Module(body=[], type_ignores=[])
