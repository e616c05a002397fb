"""Every metric of /metrics, measure, kind of event and built-in alert rule, from the code."""

from __future__ import annotations

from reference_pages.markdown import code, table


def metrics() -> str:
    """Return the page of what a gateway measures and tells."""
    from tutelage.core.config_alerts import Alerts
    from tutelage.serving.monitoring.alerts import rules_of
    from tutelage.serving.monitoring.event_kinds import EVENTS
    from tutelage.serving.monitoring.measures import MEASURES
    from tutelage.serving.monitoring.monitor_views import condition
    from tutelage.serving.monitoring.telemetry_catalog import catalog

    parts = [
        "# Metrics, events and alerts\n",
        "This page is made from the code. [Monitor what you serve](../how-to/monitor.md) says "
        "how they are used.\n",
        "## Metrics\n",
        "Shown at `/metrics` in Prometheus' format. Names that begin with `gen_ai` are "
        "OpenTelemetry's, with `_` for `.` and the unit at the end. `release` is the first 12 "
        "digits of a release's id, `arm` is stable, canary or shadow, and `key` is the name of an "
        "API key, or `(local)`. Python's own process metrics (`process_…`) are there too.\n",
        table(
            ("metric", "type", "series by", "what it says"),
            [
                (code(m.name), m.kind, ", ".join(code(label) for label in m.labels), m.help)
                for m in catalog()
            ],
        ),
        "## Measures\n",
        "What a rule may name besides a metric: figures over the rule's window. Rules on a metric "
        "take a counter's growth in the window, a gauge's newest value, or the `quantile` of a "
        "histogram in the window.\n",
        table(("measure", "what it is"), [(code(name), says) for name, says in MEASURES.items()]),
        "## Events\n",
        table(("kind", "what happened"), [(code(kind), says) for kind, says in EVENTS.items()]),
        "## Built-in rules\n",
        table(
            ("rule", "level", "it fires on"),
            [(code(r.name), r.level, code(condition(r))) for r in rules_of(Alerts())],
        ),
    ]
    return "\n".join(parts)
