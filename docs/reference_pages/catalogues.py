"""What curation can find, and the rules that the planner follows."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import inspect
import re
from typing import Any

from reference_pages.markdown import Cells, absent, code, sentence, table

_FAMILIES = {
    "D1-R": ("Reading", "A line could not be read as a row."),
    "D1-L": ("Logs", "Entries of a log export that can't become rows, through nobody's fault."),
    "D2-S": ("Shape", "A row does not have the form of a conversation, or of your answers."),
    "D2-C": ("Content", "A row has the right form and odd text."),
    "D2-T": ("The set", "The rows as a whole."),
    "D3": ("Cleaning", "What was tidied without changing the meaning."),
    "D4": ("Duplicates", "Rows that say the same."),
    "D5": ("Outliers", "Rows that stand apart from the others. None of them is left out."),
    "D12": ("Quality", "Labels in doubt, and rows that a selection left out."),
    "D6": ("Balance", "How the rows are spread, beside what production asks."),
    "D11": ("Augmentation", "What was thought of rows that a teacher wrote."),
    "D8": ("Experts", "Answers of annotators, and answers imported from other tools."),
    "D7": ("Privacy", "Personal and health identifiers, by the kinds of HIPAA's Safe Harbor."),
    "D10": ("Splits", "How the rows fell on the three sides."),
}
_SEVERITIES = {
    "error": "The row goes to quarantine. If it is about the set, nothing is frozen.",
    "warning": "The row is kept and counted. Look at it.",
    "note": "For your information.",
}


def findings() -> str:
    """Return the catalogue of what `tutelage data check` can find."""
    if importlib.util.find_spec("tutelage.data.findings") is None:
        return absent("Findings")
    known = importlib.import_module("tutelage.data.findings").catalogue()
    parts = [
        "# Findings\n",
        "What `tutelage data check` and `tutelage data split` can report. This page is made from "
        "the catalogue itself. An id never changes its meaning.\n",
        table(("severity", "what happens"), list(_SEVERITIES.items())),
    ]
    left = dict(known)
    for prefix, (title, purpose) in _FAMILIES.items():
        kinds = [left.pop(key) for key in list(left) if key.startswith(prefix)]
        rows = [(code(k.id), k.severity, k.what, sentence(k.fix)) for k in kinds]
        head = ("id", "severity", "what was found", "what to do")
        parts.append(f"## {title}\n\n{purpose}\n\n{table(head, rows)}")
    if left:
        raise ValueError(f"findings of no family: {', '.join(left)}")
    return "\n".join(parts)


_MODULE = "tutelage.training.planner_rules"
_WORDS = {
    "s.data.rows": "rows",
    "s.data.validation_rows": "validation rows",
    "s.data.answer_ratio": "answer tokens / prompt tokens",
    "s.data.shared": "share of common tokens",
    "s.data.row_max": "longest row",
    "s.model.context": "the model's context",
    "s.billions": "billions of weights",
    "s.closed": "one right answer (classification, extraction)",
    "s.method not in OBJECTIVES": "the method says what is trained",
    "s.method": "method",
    "s.data.task": "task",
    "FEW_ROWS": "100",
    "s.cloze_fits": "8 to 19 labelled rows of a classification",
    "s.too_large": "the weights crowd the GPU, and bitsandbytes is installed",
    "s.crowded": "weights, gradients and optimizer don't fit on one GPU",
    "s.preference": "dpo or kto",
    "s.spreads": "the method can do with spread weights, and the GPU has bf16",
    "SPREAD": "(zero2, zero3, fsdp2)",
    "s.full": "all weights are trained",
    "s.chosen.get('strategy')": "strategy",
    "s.machine.gpus": "GPUs",
    "'flash_attn' in s.machine.packages": "flash-attn is installed",
    "'deepspeed' in s.machine.packages": "deepspeed is installed",
    "s.machine.gpu is not None": "a GPU",
    "s.machine.bf16": "bf16 in hardware",
    "_power_of_two": "next power of two",
    ">=": "≥",
}


def planner_rules() -> str:
    """Return the planner's table of rules, read from its source."""
    if importlib.util.find_spec(_MODULE) is None:
        return absent("Planner rules")
    module = importlib.import_module(_MODULE)
    parts = [
        "# Planner rules\n",
        "For each choice the first rule whose condition holds decides. This page is made from "
        f"the table in `{_MODULE}`. Any of them can be overridden under `train:` in the "
        "[settings](configuration.md#train); `tutelage train --plan` shows what was chosen for "
        "your rows, and why.\n",
        f"With fewer than {module.LEAST_ROWS} training rows the planner steps down to a cloze "
        f"where that can be, and refuses otherwise. With fewer than {module.FEW_ROWS} it warns.\n",
    ]
    rules = _rules(inspect.getsource(module))
    for choice in module.choices():
        own = [rule for rule in rules if rule[0].value == choice]
        rows = [_row(rule, position, module) for position, rule in enumerate(own)]
        parts.append(f"## {choice}\n")
        parts.append(table(("when", "then", "why", "source"), rows))
    return "\n".join([*parts, _FOLLOWING])


_FOLLOWING = """\
## What follows from these

| choice | rule |
|---|---|
| `alpha` | twice the rank |
| `micro_batch` | the whole batch, halved until the memory estimate fits into what is free |
| `checkpointing` | on where one row a pass still does not fit |
| `eval_every`, `checkpoint_every` | twice an epoch |
"""


def _rules(source: str) -> list[list[Any]]:
    """Return the arguments of each Rule(...) in the table, as syntax trees."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.AnnAssign) and ast.unparse(node.target) == "RULES":
            found = [call.args for call in ast.walk(node) if isinstance(call, ast.Call)]
    return [args for args in found if len(args) == 5]


def _row(rule: list[Any], position: int, module: Any) -> Cells:
    return _condition(rule, position), code(_value(rule[2])), _reason(rule), _source(rule, module)


def _condition(rule: list[Any], position: int) -> str:
    when = rule[1]
    if isinstance(when, ast.Lambda):
        return _in_words(ast.unparse(when.body))
    return "otherwise" if position else "always"


def _value(node: Any) -> str:
    if isinstance(node, ast.Lambda):
        return _in_words(ast.unparse(node.body))
    value = node.args[0].value
    return str(value).lower() if isinstance(value, bool) else str(value)


def _reason(rule: list[Any]) -> str:
    return re.sub(r"\{(\w+)\}", lambda m: "the GPU" if m[1] == "gpu" else "N", rule[3].value)


def _source(rule: list[Any], module: Any) -> str:
    node = rule[4]
    return str(getattr(module, node.id) if isinstance(node, ast.Name) else node.value)


def _in_words(text: str) -> str:
    for name, words in _WORDS.items():
        text = text.replace(name, words)
    return re.sub(r"\d{4,}", lambda m: f"{int(m[0]):,}", text)
