"""What curation can find wrong, by id: severity, sentence and remedy live in findings.yaml."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any, Literal

import yaml

Severity = Literal["error", "warning", "note"]
_ORDER = {"error": 0, "warning": 1, "note": 2}


@dataclass(frozen=True)
class Kind:
    """One entry of the catalogue."""

    id: str
    severity: Severity
    what: str
    fix: str
    option: str = ""  # the remedy of a command that needs no project, where it is another


@dataclass(frozen=True)
class Finding:
    """One thing found: `where` is file:line, `example` an example id; both empty for a set."""

    id: str
    detail: str
    where: str = ""
    example: str = ""

    @property
    def kind(self) -> Kind:
        """The catalogue's entry."""
        return catalogue()[self.id]

    def as_dict(self) -> dict[str, str]:
        """Return the JSON form kept in findings.jsonl."""
        return {
            "id": self.example,
            "finding": self.id,
            "severity": self.kind.severity,
            "where": self.where,
            "detail": self.detail,
        }


@cache
def catalogue() -> dict[str, Kind]:
    """Return every kind of finding by id."""
    text = files("tutelage.data").joinpath("findings.yaml").read_text(encoding="utf-8")
    return {key: Kind(id=key, **entry) for key, entry in yaml.safe_load(text).items()}


def reason(finding_id: str, detail: str) -> str:
    """Return the sentence kept with a row that was left out."""
    return f"{detail} [{finding_id}]"


def summarise(found: Iterable[Finding], shown: int = 5) -> list[dict[str, Any]]:
    """Return one entry a kind, worst first: id, severity, count, what, fix, examples."""
    grouped: dict[str, list[Finding]] = {}
    for finding in found:
        grouped.setdefault(finding.id, []).append(finding)
    kinds = sorted(grouped, key=lambda key: (_ORDER[catalogue()[key].severity], key))
    return [
        {
            "id": key,
            "severity": catalogue()[key].severity,
            "count": len(grouped[key]),
            "what": catalogue()[key].what,
            "fix": catalogue()[key].fix,
            "examples": [
                {"where": f.where, "example": f.example, "detail": f.detail}
                for f in grouped[key][:shown]
            ],
        }
        for key in kinds
    ]
