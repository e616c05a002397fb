"""Every section and field of tutelage.yaml, from the pydantic models and their comments."""

from __future__ import annotations

import ast
import inspect
import io
import tokenize
import types
from collections.abc import Iterator, Sequence
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from reference_pages.markdown import Cells, code, sentence, table

UNSET = "*unset*"


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
            _field(path, name, field, notes.get(name, "")) for name, field in _own_fields(section)
        ]
        parts.append(table(("key", "value", "default", "meaning"), rows))
    return "\n".join(parts)


def _sections(model: type[BaseModel], path: str) -> Iterator[tuple[str, type[BaseModel]]]:
    yield path, model
    for name, field in _own_fields(model):
        inner = _model_in(field.annotation)
        if inner is not None:
            yield from _sections(inner, f"{path}.{field.alias or name}".strip("."))


def _own_fields(model: type[BaseModel]) -> list[tuple[str, FieldInfo]]:
    """Return the fields that a section's own class names, not those it takes from another's."""
    own = vars(model).get("__annotations__", {})
    return [(name, field) for name, field in model.model_fields.items() if name in own]


def _model_in(annotation: Any) -> type[BaseModel] | None:
    for kind in (annotation, *get_args(annotation)):
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            return kind
    return None


def _field(path: str, name: str, field: FieldInfo, comment: str) -> Cells:
    name = field.alias or name
    section = _model_in(field.annotation)
    meaning = sentence(comment or field.description or "") if comment or field.description else ""
    if section is not None:
        anchor = f"{path}.{name}".strip(".").replace(".", "")
        about = f"{_first(section)} {sentence(comment)}" if comment else _first(section)
        return (code(name), f"[section](#{anchor})", _default(field), about)
    return (code(name), _kind(field.annotation, field.metadata), _default(field), meaning)


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
        return code(str(value).lower())
    if isinstance(value, dict):
        return code("{" + ", ".join(f"{k}: {v}" for k, v in value.items()) + "}")
    if isinstance(value, list):
        return code("[" + ", ".join(str(v) for v in value) + "]")
    if isinstance(value, str):
        return code(value) if value else "*empty*"
    return code(f"{value:_}" if isinstance(value, int) and value >= 100_000 else value)


_NAMES = {str: "text", int: "whole number", float: "number", bool: "true or false"}


def _kind(annotation: Any, metadata: Sequence[Any] = ()) -> str:
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _kind(inner[0], [*_constraints(inner[1:]), *metadata])
    if origin in (Union, types.UnionType):
        return " or ".join(_kind(kind, metadata) for kind in inner if kind is not type(None))
    if origin is Literal:
        return ", ".join(code(value) for value in inner)
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
