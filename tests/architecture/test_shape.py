"""Size caps, public surface and what start-up may import: the rules that keep the house small."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SOURCES = sorted((ROOT / "src" / "tutelage").rglob("*.py"))
OWN = [path for path in SOURCES if "migrations" not in path.parts]


def _functions(tree: ast.AST) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            yield node


def test_no_file_is_longer_than_400_lines() -> None:
    long = {
        str(path.relative_to(ROOT)): count
        for path in SOURCES
        if (count := len(path.read_text().splitlines())) > 400
    }
    assert long == {}


def test_functions_stay_under_60_lines_and_7_parameters() -> None:
    found = []
    for path in OWN:
        for function in _functions(ast.parse(path.read_text())):
            length = (function.end_lineno or 0) - function.lineno + 1
            arguments = function.args
            count = len(arguments.args) + len(arguments.kwonlyargs) + len(arguments.posonlyargs)
            named = {a.arg for a in [*arguments.args, *arguments.posonlyargs]}
            count -= len({"self", "cls"} & named)
            is_command = "cli" in path.parts  # a command's parameters are its options
            if length > 60 or (count > 7 and not is_command):
                found.append(f"{path.name}:{function.lineno} {function.name} {length}/{count}")
    assert found == []


def test_classes_have_at_most_12_public_methods() -> None:
    found = []
    for path in OWN:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ClassDef):
                public = [
                    member
                    for member in node.body
                    if isinstance(member, (ast.FunctionDef, ast.AsyncFunctionDef))
                    and not member.name.startswith("_")
                ]
                if len(public) > 12:
                    found.append(f"{path.name}:{node.name} {len(public)}")
    assert found == []


def test_every_module_says_what_it_is_for() -> None:
    silent = [
        str(path.relative_to(ROOT))
        for path in OWN
        if not ast.get_docstring(ast.parse(path.read_text()))
    ]
    assert silent == []


def test_every_folder_of_the_source_is_a_package_and_gets_into_the_wheel() -> None:
    folders = {path.parent for path in OWN}
    assert sorted(str(one) for one in folders if not (one / "__init__.py").exists()) == []
    if not (ROOT / ".git").exists():
        pytest.skip("no git checkout")
    names = "\n".join(str(path.relative_to(ROOT)) for path in SOURCES)
    ignored = ["git", "check-ignore", "--no-index", "--stdin"]  # hatch leaves out what git ignores
    done = subprocess.run(ignored, input=names, cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (1, "")


def test_the_public_surface_is_what_the_docs_name() -> None:
    import tutelage

    assert tutelage.__all__ == ["Project", "leak_certificate", "open"]
    for name in tutelage.__all__:
        assert getattr(tutelage, name) is not None


def test_every_entry_point_loads() -> None:
    from tutelage.core import plugins

    for group in plugins.GROUPS:
        for name in plugins.available(group):
            assert plugins.load(group, name) is not None


@pytest.mark.parametrize("module", ["tutelage", "tutelage.cli.main", "tutelage.serving.app"])
def test_start_up_imports_no_heavy_library(module: str) -> None:
    code = f"import {module}, sys, json; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(json.loads(done.stdout))
    assert not loaded & {"torch", "transformers", "peft", "mlflow", "sklearn", "scipy"}


def test_help_imports_little() -> None:
    code = (
        "import sys, json\nfrom tutelage.cli.main import app\n"
        "try: app(['--help'])\nexcept SystemExit: pass\n"
        "sys.stderr.write(json.dumps(sorted(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(json.loads(done.stderr))
    assert "quickstart" in done.stdout
    assert not loaded & {"torch", "pydantic", "sqlalchemy", "numpy", "aiohttp", "rich.console"}


def test_no_finding_is_defined_twice() -> None:
    text = (ROOT / "src" / "tutelage" / "data" / "findings.yaml").read_text()
    ids = [line.split(":")[0] for line in text.splitlines() if line and not line.startswith("#")]
    assert len(ids) == len(set(ids))
