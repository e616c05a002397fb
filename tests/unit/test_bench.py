"""What a benchmark imports is there: scripts that run for hours are run seldom."""

from __future__ import annotations

import ast
import importlib
from collections.abc import Iterator
from pathlib import Path

import pytest

BENCH = Path(__file__).resolve().parents[2] / "bench"
SCRIPTS = sorted(BENCH.glob("**/*.py"))


def _imports(tree: ast.AST) -> Iterator[tuple[str, str]]:
    """Yield (module, name) of each import of a name."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module and not node.level:
            for alias in node.names:
                yield node.module, alias.name


def _defined(path: Path) -> set[str]:
    """Return the names that a script has at its top level."""
    found: set[str] = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            found.add(node.name)
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            found |= {alias.asname or alias.name for alias in node.names}
        elif isinstance(node, (ast.Assign, ast.AnnAssign)):
            found |= {n.id for n in ast.walk(node) if isinstance(n, ast.Name)}
    return found


def _lacks(module: str, name: str) -> bool:
    beside = BENCH / f"{module}.py"
    if beside.exists():
        return name not in _defined(beside)
    if module.partition(".")[0] != "tutelage":
        return False
    if hasattr(importlib.import_module(module), name):
        return False
    try:
        importlib.import_module(f"{module}.{name}")
    except ModuleNotFoundError:
        return True
    return False


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: str(path.relative_to(BENCH)))
def test_what_a_benchmark_imports_is_there(script: Path) -> None:
    tree = ast.parse(script.read_text(encoding="utf-8"))
    assert [f"{m}.{n}" for m, n in _imports(tree) if _lacks(m, n)] == []
