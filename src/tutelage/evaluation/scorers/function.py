"""Any Python function as a scorer, from a file of the project's folder.

It takes what it names: `text`, `reference`, `input`, `row`, and the arguments of the config. It
runs with all rights of this process, like any code of the project.
"""

from __future__ import annotations

import hashlib
import importlib.util
import inspect
import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pydantic import field_validator

from tutelage.core.config_base import Section
from tutelage.core.example import Example
from tutelage.evaluation.scorers.base import HERE, Place, Score
from tutelage.evaluation.scorers.project_file import project_file

_GIVEN = ("text", "reference", "input", "row")


class FunctionOptions(Section):
    """Which function, and what else it is called with."""

    call: str  # file.py:function or package.module:function, in the project's folder
    arguments: dict[str, Any] = {}  # more keyword arguments

    @field_validator("call")
    @classmethod
    def _names_both(cls, value: str) -> str:
        module, _, name = value.partition(":")
        if not module or not name.isidentifier():
            raise ValueError("write it as file.py:function or package.module:function")
        return value


class Function:
    """What a Python function of the project returns: a number, a truth value, or a Score."""

    Options = FunctionOptions
    rule = True

    def __init__(self, options: FunctionOptions, place: Place = HERE) -> None:
        """Import the function. Raises ConfigError if that fails, or if it asks for the unknown."""
        module, _, name = options.call.partition(":")
        file = module if module.endswith(".py") else module.replace(".", "/") + ".py"
        path = project_file(file, place, "call")
        self.fingerprint = hashlib.sha256(path.read_bytes()).hexdigest()
        self._call = _load(path, name, place)
        self._arguments = options.arguments
        self._wanted = _wanted(self._call, options, place)

    def score(self, row: Example, text: str) -> Score:
        """Call it. An error, None, or what is no number leaves the row open, with the reason."""
        every = {"text": text, "reference": row.answer, "input": row.input_text, "row": row}
        chosen = {name: every[name] for name in self._wanted}
        if "reference" in chosen and row.answer is None:
            return Score(None, {"why": "the row has no reference answer"})
        try:
            return _as_score(self._call(**chosen, **self._arguments))
        except Exception as error:
            return Score(None, {"why": f"{type(error).__name__}: {error}"[:300]})


def _load(path: Path, name: str, place: Place) -> Callable[..., Any]:
    """Return the function of a file, which may import its neighbours."""
    digest = hashlib.sha256(str(path).encode() + path.read_bytes()).hexdigest()[:12]
    known = f"tutelage_project_{path.stem}_{digest}"
    spec = importlib.util.spec_from_file_location(known, path)
    if spec is None or spec.loader is None:
        raise place.wrong(f"call: {path} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[known] = module
    neighbours = [str(path.parent), str((place.root or Path.cwd()).resolve())]
    before = list(sys.path)
    sys.path[:0] = neighbours
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        sys.modules.pop(known, None)
        raise place.wrong(f"call: {path.name} can't be imported ({error!r})") from error
    finally:
        sys.path[:] = before
    function = getattr(module, name, None)
    if not callable(function):
        raise place.wrong(f"call: {path.name} has no function {name!r}")
    found: Callable[..., Any] = function
    return found


def _wanted(call: Callable[..., Any], options: FunctionOptions, place: Place) -> list[str]:
    """Return which of the given values the function names."""
    parameters = inspect.signature(call).parameters.values()
    takes_all = any(p.kind is p.VAR_KEYWORD for p in parameters)
    named = [p for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    names = {p.name for p in named}
    needed = {p.name for p in named if p.default is p.empty}
    unknown = sorted(needed - set(_GIVEN) - set(options.arguments))
    if unknown:
        raise place.wrong(
            f"call: the function needs {unknown[0]!r}",
            f"It may name {', '.join(_GIVEN)}; give anything else in arguments",
        )
    spare = sorted(set(options.arguments) - names)
    if spare and not takes_all:
        raise place.wrong(f"arguments: the function takes no {spare[0]!r}")
    return [name for name in _GIVEN if name in names and name not in options.arguments]


def _as_score(value: Any) -> Score:
    if isinstance(value, Score):
        return value
    evidence: dict[str, Any] = {}
    if isinstance(value, tuple) and len(value) == 2 and isinstance(value[1], dict):
        value, evidence = value
    if value is None:
        return Score(None, {"why": "the function gave None", **evidence})
    number = float(value)
    if not math.isfinite(number):
        return Score(None, {"why": f"the function gave {number}", **evidence})
    return Score(number, evidence)
