"""What curation can find, and the rules that the planner follows."""

from __future__ import annotations

import importlib
import importlib.util

from reference_pages.markdown import absent, code, sentence, table

_FAMILIES = {
    "D1-R": ("Reading", "A line could not be read as a row."),
    "D2-S": ("Shape", "A row does not have the form of a conversation, or of your answers."),
    "D2-C": ("Content", "A row has the right form and odd text."),
    "D2-T": ("The set", "The rows as a whole."),
    "D3": ("Cleaning", "What was tidied without changing the meaning."),
    "D4": ("Duplicates", "Rows that say the same."),
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


def planner_rules() -> str:
    """Return the table of the planner's rules."""
    return absent("Planner rules")
