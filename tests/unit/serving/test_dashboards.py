"""The dashboard and the alert rules that are shipped name metrics and labels that there are."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tutelage.serving.monitoring.telemetry_catalog import catalog

DEPLOY = Path(__file__).resolve().parents[3] / "deploy"
_USED = re.compile(r"\b((?:tutelage|gen_ai|process)_\w+)(?:\{([^}]*)\})?")
_BY = re.compile(r"by \(([^)]*)\)")
_LABEL = re.compile(r"(\w+)(?:=~|!=|=)")
OF_PROMETHEUS = {"instance", "le", "job"}


def expressions() -> Iterator[tuple[str, str]]:
    """Yield (where, expression) of the dashboard and the rules."""
    board = json.loads((DEPLOY / "grafana" / "tutelage.json").read_text())
    for panel in board["panels"]:
        for target in panel.get("targets", ()):
            yield panel["title"], target["expr"]
    yield "annotation", board["annotations"]["list"][0]["expr"]
    rules = yaml.safe_load((DEPLOY / "prometheus" / "alerts.yml").read_text())
    for rule in rules["groups"][0]["rules"]:
        yield rule["alert"], rule["expr"]


ALL = list(expressions())


def known() -> dict[str, set[str]]:
    """Return the labels of every sample's name."""
    found: dict[str, set[str]] = {"process_resident_memory_bytes": set()}
    for metric in catalog():
        ends = ("_bucket", "_sum", "_count") if metric.kind == "histogram" else ("",)
        for end in ends:
            found[f"{metric.name}{end}"] = set(metric.labels)
    return found


@pytest.mark.parametrize(("where", "expression"), ALL, ids=[where for where, _ in ALL])
def test_what_is_asked_for_is_there(where: str, expression: str) -> None:
    names = known()
    # A label named "job" or the like is no metric, and values of labels hold none.
    plain = re.sub(r'"[^"]*"', '""', expression)
    labels: set[str] = set()
    for name, selector in _USED.findall(plain.replace("gen_ai_token_type", "token_type")):
        assert name in names, f"{where}: {name}"
        of = {label.replace("gen_ai_token_type", "token_type") for label in names[name]}
        labels |= of
        assert set(_LABEL.findall(selector)) <= of, f"{where}: {selector}"
    for group in _BY.findall(plain.replace("gen_ai_token_type", "token_type")):
        assert {label.strip() for label in group.split(",")} <= labels | OF_PROMETHEUS, where


def test_every_metric_but_a_few_is_on_the_dashboard() -> None:
    board = (DEPLOY / "grafana" / "tutelage.json").read_text()
    left_out = {
        "tutelage_build_info", "tutelage_feedback_total", "tutelage_releases_served",
        "tutelage_rollout_step", "tutelage_events_lost", "tutelage_disk_free_ratio",
        "tutelage_records_recovered_total", "tutelage_records_unguarded_total",
        "tutelage_feedback_left_out_total",
        "tutelage_log_ahead_bytes", "tutelage_backend_requests_running",
        "tutelage_backend_preemptions", "tutelage_drift_found", "tutelage_drift_skipped_total",
    }  # fmt: skip
    missing = {metric.name for metric in catalog() if metric.name not in board}
    assert missing <= left_out


def test_panels_do_not_lie_on_each_other() -> None:
    board: dict[str, Any] = json.loads((DEPLOY / "grafana" / "tutelage.json").read_text())
    taken: set[tuple[int, int]] = set()
    for panel in board["panels"]:
        at = panel["gridPos"]
        cells = {(at["x"] + x, at["y"] + y) for x in range(at["w"]) for y in range(at["h"])}
        assert at["x"] + at["w"] <= 24
        assert not taken & cells
        taken |= cells
    assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])
