"""The public Python surface, from signatures and docstrings."""

from __future__ import annotations

import importlib
import inspect
import re
from typing import Any

_CLASSES = ("Project", "Output", "Dataset", "Evaluation")
_DESKS = (
    "data.desk",
    "training.training_desk",
    "training.hosted_jobs",
    "release.prompt_desk",
    "release.release_desk",
    "evaluation.judge_desk",
    "evaluation.human_desk",
    "release.rollout_desk",
    "release.deploy",
    "serving.keys",
    "serving.usage",
    "feedback.logs_desk",
    "feedback.forget",
    "feedback.ab",
    "feedback.dashboard",
    "serving.guards_desk",
    "serving.monitor_desk",
)


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
    for thing in (*(getattr(module, n) for n in _CLASSES), *_desks()):
        name = thing.__name__
        parts.append(f"## {name}\n\n{inspect.getdoc(thing)}\n")
        for member, value in _members(thing).items():
            if not member.startswith("_") and (inspect.isfunction(value) or _is_property(value)):
                parts.append(_signature(f"{name}.{member}", value, "###"))
    return "\n".join(parts)


def _desks() -> list[type]:
    """Return the classes that a project's properties give."""
    found = []
    for name in _DESKS:
        module = importlib.import_module(f"tutelage.workflows.{name}")
        own = [thing for thing in vars(module).values() if inspect.isclass(thing)]
        found += [thing for thing in own if thing.__module__ == module.__name__]
    return found


def _members(thing: type) -> dict[str, object]:
    """Return what a class and the classes of ours above it define, the lowest first."""
    own = [base for base in thing.__mro__ if base.__module__.startswith("tutelage.")]
    return {name: value for base in own for name, value in vars(base).items()}


def _is_property(value: object) -> bool:
    return isinstance(value, property)


def _signature(name: str, thing: Any, level: str) -> str:
    short = name.rpartition(".")[2]
    if isinstance(thing, property):
        kind = thing.fget.__annotations__.get("return", "Any") if thing.fget else "Any"
        line = f"{short}: {kind}"
    else:
        text = re.sub(r"<function (\w+) at 0x\w+>", r"\1", str(inspect.signature(thing)))
        line = f"{short}{text}".replace("'", "").replace("(self, ", "(")
        line = line.replace("(self)", "()")
    return f"{level} {name}\n\n```python\n{line}\n```\n\n{inspect.getdoc(thing) or ''}\n"
