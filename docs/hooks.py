"""Writes the reference pages from the code while the site is built; nothing it makes is committed.

Settings come from the pydantic models of core.config and the comments beside their fields,
commands from the Typer application, plug-ins from their entry points. A part whose module is not
there yet becomes a page that says so.
"""

from __future__ import annotations

import ast
import importlib
import importlib.util
import inspect
import io
import tokenize
import tomllib
import types
from collections.abc import Callable, Iterator, Sequence
from enum import Enum
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from pydantic import BaseModel
from pydantic.fields import FieldInfo

ROOT = Path(__file__).resolve().parents[1]
UNSET = "*unset*"
Cells = Sequence[str]


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Put pages into the navigation that are not always there."""
    nav: list[Any] = list(config.nav or [])
    if (ROOT / "docs" / "status.md").is_file() and {"Status": "status.md"} not in nav:
        nav.append({"Status": "status.md"})
    config.nav = nav
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the generated pages to the site."""
    for name, make in PAGES.items():
        files.append(File.generated(config, f"reference/{name}.md", content=make()))
    return files


def _table(head: Cells, rows: Sequence[Cells]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(_cell(c) for c in line) + " |" for line in lines) + "\n"


def _cell(text: str) -> str:
    return " ".join(str(text).split()).replace("|", "\\|") or " "


def _code(text: object) -> str:
    return f"`{text}`"


def _sentence(text: str) -> str:
    text = " ".join(text.split())
    return text[:1].upper() + text[1:] + ("" if text.endswith((".", ":", ")", "?")) else ".")


# Configuration


def configuration() -> str:
    """Return the page of every section and field of tutelage.yaml."""
    from tutelage.core.config import Project

    parts = [
        "# Configuration\n",
        "`tutelage.yaml` is the only settings file. This page is made from the code that reads "
        "it. Everything but `name` and `model` may be left out.\n",
        "An unknown key is an error that names its line and the nearest valid key, and all "
        "problems of a file are told at once.\n",
    ]
    for path, section in _sections(Project, ""):
        parts.append(f"## {path or 'The top level'}\n")
        parts.append(f"{inspect.getdoc(section) or ''}\n")
        notes = _comments(section)
        rows = [
            _field(path, name, field, notes.get(name, ""))
            for name, field in section.model_fields.items()
        ]
        parts.append(_table(("key", "value", "default", "meaning"), rows))
    return "\n".join(parts)


def _sections(model: type[BaseModel], path: str) -> Iterator[tuple[str, type[BaseModel]]]:
    yield path, model
    for name, field in model.model_fields.items():
        inner = _model_in(field.annotation)
        if inner is not None:
            yield from _sections(inner, f"{path}.{name}".strip("."))


def _model_in(annotation: Any) -> type[BaseModel] | None:
    for kind in (annotation, *get_args(annotation)):
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            return kind
    return None


def _field(path: str, name: str, field: FieldInfo, comment: str) -> Cells:
    section = _model_in(field.annotation)
    meaning = _sentence(comment or field.description or "") if comment or field.description else ""
    if section is not None:
        anchor = f"{path}.{name}".strip(".").replace(".", "")
        return (_code(name), f"[section](#{anchor})", _default(field), _first(section))
    return (_code(name), _kind(field.annotation, field.metadata), _default(field), meaning)


def _first(thing: object) -> str:
    return (inspect.getdoc(thing) or "").split("\n\n")[0].replace("\n", " ")


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "**required**"
    value = field.get_default(call_default_factory=True)
    if value is None:
        return UNSET
    if isinstance(value, BaseModel):
        return " "
    if isinstance(value, bool):
        return _code(str(value).lower())
    if isinstance(value, dict):
        return _code("{" + ", ".join(f"{k}: {v}" for k, v in value.items()) + "}")
    if isinstance(value, list):
        return _code("[" + ", ".join(str(v) for v in value) + "]")
    if isinstance(value, str):
        return _code(value) if value else "*empty*"
    return _code(f"{value:_}" if isinstance(value, int) and value >= 100_000 else value)


_NAMES = {str: "text", int: "whole number", float: "number", bool: "true or false"}


def _kind(annotation: Any, metadata: Sequence[Any] = ()) -> str:
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _kind(inner[0], [*_constraints(inner[1:]), *metadata])
    if origin in (Union, types.UnionType):
        return " or ".join(_kind(kind, metadata) for kind in inner if kind is not type(None))
    if origin is Literal:
        return ", ".join(_code(value) for value in inner)
    if origin is list:
        return f"list of: {_kind(inner[0])}"
    if origin is dict:
        return f"mapping to {_kind(inner[1])}"
    if annotation is Any:
        return "anything"
    name = _NAMES.get(annotation, getattr(annotation, "__name__", str(annotation)))
    limits = _limits(_constraints(metadata))
    return f"{name}, {limits}" if limits else name


def _constraints(metadata: Sequence[Any]) -> list[Any]:
    flat: list[Any] = []
    for item in metadata:
        flat += item.metadata if isinstance(item, FieldInfo) else [item]
    return flat


def _limits(metadata: Sequence[Any]) -> str:
    found = {
        key: getattr(item, key)
        for item in metadata
        for key in ("ge", "gt", "le", "lt")
        if getattr(item, key, None) is not None
    }
    words = {"ge": "at least {:g}", "gt": "over {:g}", "le": "at most {:g}", "lt": "under {:g}"}
    return ", ".join(words[key].format(found[key]) for key in words if key in found)


def _comments(model: type[BaseModel]) -> dict[str, str]:
    """Return the comment beside each field of a class, or on the line above it, by field."""
    text = inspect.getsource(model)
    tree = ast.parse(text)
    lines = {
        node.end_lineno or 0: node.target.id
        for node in ast.walk(tree)
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)
    }
    found: dict[str, str] = {}
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT:
            alone = token.line.strip() == token.string
            name = lines.get(token.start[0] + alone)
            if name:
                found.setdefault(name, token.string.lstrip("# "))
    return found


# Command line


def command_line() -> str:
    """Return the page of every command, argument and option."""
    import typer

    from tutelage.cli.main import app

    root = typer.main.get_command(app)
    parts = [
        "# Command line\n",
        "This page is made from the commands themselves. Every command prints its result to "
        "stdout and its progress to stderr; `--json` makes the result one JSON document.\n",
        _table(
            ("exit code", "meaning"),
            [
                ("0", "done, or the verdict is a pass"),
                ("1", "the answer is no: a failing verdict, a refused plan, leaks found"),
                ("2", "something for you to correct: settings, rows, model, machine"),
                ("3", "not enough evidence for a verdict"),
                ("130", "interrupted; run the same command again to go on"),
            ],
        ),
    ]
    for name, command in _commands(root, ()):
        parts.append(f"## {name}\n" if " " not in name else f"### {name}\n")
        parts.append(_command(name, command))
    return "\n".join(parts)


def _commands(group: Any, above: tuple[str, ...]) -> Iterator[tuple[str, Any]]:
    for name, command in group.commands.items():
        yield " ".join((*above, name)), command
        if hasattr(command, "commands"):
            yield from _commands(command, (*above, name))


def _command(name: str, command: Any) -> str:
    text = _plain(command.help or "")
    if hasattr(command, "commands"):
        return text + "\n"
    words = ["tutelage", name]
    rows: list[Cells] = []
    for param in command.params:
        if param.param_type_name == "argument":
            label = param.name.upper()
            words.append(label if param.required else f"[{label}]")
            rows.append((_code(label), _shown_default(param), _plain(param.help or "")))
        else:
            names = ", ".join(_code(option) for option in param.opts)
            rows.append((names, _shown_default(param), _plain(param.help or "")))
    usage = " ".join([*words, "[OPTIONS]"])
    return f"{text}\n\n```text\n{usage}\n```\n\n{_table(('', 'default', ''), rows)}"


def _plain(text: str) -> str:
    return " ".join(text.split())


def _shown_default(param: Any) -> str:
    value = param.default
    if isinstance(param.show_default, str):
        return param.show_default
    if param.required or value is None or value is False or str(value) == ".":
        return "here" if str(value) == "." else ("required" if param.required else " ")
    return _code(value.value if isinstance(value, Enum) else value)


# Plug-ins, findings, planner rules, Python API

_GROUPS = {
    "readers": ("Turns a file into rows.", "tutelage.data.readers.base"),
    "filters": ("Keeps a row, or gives the reason why not.", "tutelage.data.filters.base"),
    "dedup": ("Finds rows that say the same.", "tutelage.data.dedup.base"),
    "methods": ("Makes a model trainable.", "tutelage.training.methods.base"),
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
        rows = [(_code(name), _code(spec), _doc_of(spec)) for name, spec in points.items()]
        parts.append(_table(("name", "class", "what it does"), rows))
    return "\n".join(parts)


def _protocol(module: str) -> str:
    """Return where the group's protocol stands, if it stands somewhere."""
    found = [
        node.name
        for node in _tree(module).body
        if isinstance(node, ast.ClassDef)
        and any("Protocol" in ast.unparse(base) for base in node.bases)
    ]
    names = " and ".join(_code(f"{module}.{name}") for name in found)
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


def _absent(title: str) -> str:
    return f"# {title}\n\nThis part is not in this version yet.\n"


def findings() -> str:
    """Return the catalogue of what `tutelage data check` can find."""
    return _absent("Findings")


def planner_rules() -> str:
    """Return the table of the planner's rules."""
    return _absent("Planner rules")


def python_api() -> str:
    """Return the page of the public Python surface."""
    import tutelage

    parts = [
        "# Python API\n",
        "`import tutelage` costs next to nothing: what is heavy is loaded when it is used. The "
        "methods of a project are the commands of the command line.\n",
        '```python\nimport tutelage\n\nproject = tutelage.open("my-domain")\n'
        "dataset = project.curate()\nadapter = project.train(dataset)\n"
        "evaluation = project.evaluate(adapter)\nprint(evaluation.verdict, evaluation.report)\n"
        'if evaluation.verdict == "pass":\n    release = project.release(adapter)\n```\n',
    ]
    module = importlib.import_module("tutelage.workflows.project")
    for name in tutelage.__all__:
        try:
            thing = getattr(tutelage, name)
        except ImportError:
            continue
        if not inspect.isclass(thing):
            parts.append(_signature(f"tutelage.{name}", thing, "##"))
    for name in ("Project", "Output", "Dataset", "Evaluation"):
        thing = getattr(module, name)
        parts.append(f"## {name}\n\n{inspect.getdoc(thing)}\n")
        for member, value in vars(thing).items():
            if not member.startswith("_") and (inspect.isfunction(value) or _is_property(value)):
                parts.append(_signature(f"{name}.{member}", value, "###"))
    return "\n".join(parts)


def _is_property(value: object) -> bool:
    return isinstance(value, property)


def _signature(name: str, thing: Any, level: str) -> str:
    short = name.rpartition(".")[2]
    if isinstance(thing, property):
        kind = thing.fget.__annotations__.get("return", "Any") if thing.fget else "Any"
        line = f"{short}: {kind}"
    else:
        line = f"{short}{inspect.signature(thing)}".replace("'", "").replace("(self, ", "(")
        line = line.replace("(self)", "()")
    return f"{level} {name}\n\n```python\n{line}\n```\n\n{inspect.getdoc(thing) or ''}\n"


PAGES: dict[str, Callable[[], str]] = {
    "configuration": configuration,
    "command-line": command_line,
    "plug-ins": plug_ins,
    "findings": findings,
    "planner-rules": planner_rules,
    "python": python_api,
}
