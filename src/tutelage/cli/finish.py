"""The last screens: the verdict, where the time went, how the loop stands."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from tutelage.cli.screens import duration, indented, time_table, verdict_panel, verdict_text

_BAR = 30
_LINE = 21  # characters of an interval from 0 to 100 %
_READING = {1: ("green", "better"), 0: ("yellow", "open"), -1: ("red", "worse")}
_MARK = {"pass": "✓", "fail": "✗", "not_enough_evidence": "?"}


def _scores(primary: Mapping[str, Any]) -> Table:
    """Return the three candidates' scores with a bar each."""
    table = Table(box=None, pad_edge=False, show_header=False, padding=(0, 2, 0, 0))
    table.add_column(style="dim")
    table.add_column(justify="right")
    table.add_column()
    names = {"base": "base model, zero-shot", "few_shot": "base model, few-shot", "tuned": "tuned"}
    for key, name in names.items():
        value = primary.get(key)
        if value is None:
            continue
        style = "green" if key == "tuned" else "bright_black"
        bar = Text("█" * round(_BAR * value), style=style)
        bar.append("░" * (_BAR - round(_BAR * value)), style="bright_black")
        table.add_row(name, f"{value:.1%}", bar)
    return table


def _difference(primary: Mapping[str, Any]) -> str:
    low, high = primary["difference_low"] * 100, primary["difference_high"] * 100
    metric = primary["metric"]
    return f"{metric}: the tuned model gains {low:+.0f} to {high:+.0f} points (95 % interval)"


def evaluation_view(data: Mapping[str, Any], home: Path) -> RenderableType:
    """Return every candidate's scores with intervals, the verdict, and what to do next."""
    report = _document(home / data["report"])
    found = data.get("criteria", ())
    lines = [data["sentence"]] if data.get("sentence") else []
    lines += [f"{_MARK.get(c.get('outcome'), '·')} {c['sentence']}" for c in found]
    parts: list[RenderableType] = [
        indented(_intervals(report) if report else _scores(data["primary"]))
    ]
    if report and report.get("comparisons"):
        parts += [Text(), indented(_differences(report))]
    parts += [Text(), verdict_panel("verdict", lines, data["verdict"])]
    if report:
        parts += [*_next(report), Text()]
    parts.append(Text(f"report  {home / data['report']}", style="dim"))
    return Group(*parts)


def _document(page: Path) -> dict[str, Any] | None:
    """Return the report document beside the page, or None where it is not there any more."""
    path = page.with_name("evaluation.json")
    if not path.is_file():
        return None
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


def _intervals(report: Mapping[str, Any]) -> Table:
    """Return the primary score of each candidate, in words and drawn; the page has the others."""
    from tutelage.evaluation import report_words as words

    metric = report["primary"]["metric"]
    share = words.is_share(report, metric)
    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0))
    table.add_column("candidate")
    table.add_column(words.metric_name(metric), justify="right")
    table.add_column("interval", justify="right", no_wrap=True)
    if share:
        table.add_column(f"0 %{'100 %':>{_LINE - 3}}", no_wrap=True)
    for candidate in report["candidates"]:
        score = candidate.get("metrics", {}).get(metric, {})
        ours = candidate["name"] == words.subject(report)
        low, middle, high = (score.get(key) for key in ("low", "estimate", "high"))
        cells = [words.amount(middle, share), words.between(low, high, share)]
        style = "green" if ours else "bright_black"
        drawn = [_drawn(low, middle, high, style=style)] if share else []
        table.add_row(Text(candidate["title"], style="bold" if ours else ""), *cells, *drawn)
    return table


def _drawn(low: float | None, middle: float | None, high: float | None, *, style: str) -> Text:
    """Return an interval of a ratio as characters: ├──●──┤ on a line from 0 to 100 %."""
    line = ["·"] * _LINE
    if low is not None and middle is not None and high is not None:
        a, x, z = (min(_LINE - 1, max(0, round(v * (_LINE - 1)))) for v in (low, middle, high))
        line[a : z + 1] = ["─"] * (z + 1 - a)
        line[a], line[z] = "├", "┤"
        line[x] = "●"
    return Text("".join(line), style=style)


def _differences(report: Mapping[str, Any]) -> Table:
    """Return the candidate on trial against every other: points, interval, rows, reading."""
    from tutelage.cli.screens import simple_table
    from tutelage.evaluation import report_words as words

    rows = []
    for c in report["comparisons"]:
        low, high = c.get("low"), c.get("high")
        if low is None or high is None:
            continue
        share = words.is_share(report, c.get("metric", report["primary"]["metric"]))
        style, word = _READING[(low > 0) - (high < 0)]
        title = c.get("title", c.get("other"))
        ends = f"{words.change(low, share)} to {words.change(high, share)}"
        sides = f"{c.get('wins', '–')} / {c.get('losses', '–')}"
        gain = words.change(c.get("estimate"), share)
        rows.append((title, gain, ends, sides, Text(word, style=style)))
    ours = words.title_of(report, words.subject(report))
    headers = (f"{ours} against", "points", "interval", "better / worse rows", "reading")
    return simple_table(headers, rows)


def _next(report: Mapping[str, Any]) -> list[RenderableType]:
    """Return what to do now, a line a step."""
    from tutelage.evaluation.report_verdict import next_steps

    steps = [Text.assemble((f"{i}. ", "dim"), step) for i, step in enumerate(next_steps(report), 1)]
    return [Text("what now", style="bold"), *(indented(step) for step in steps)]


def run_view(data: Mapping[str, Any], home: Path) -> RenderableType:
    """Return the end of `tutelage run`."""
    lines = [_difference(data["primary"])]
    lines.append(f"release {data['release']}" if data["release"] else "no release was made")
    return Group(
        Text(),
        indented(_scores(data["primary"])),
        verdict_panel("verdict", lines, data["verdict"]),
        Text(f"report  {home / data['report']}", style="dim"),
    )


def quickstart_view(data: Mapping[str, Any], directory: Path) -> RenderableType:
    """Return the demo's last screen."""
    body: list[RenderableType] = [
        Text.assemble(verdict_text(data["verdict"]), "  ", _difference(data["primary"])),
        Text(),
        _scores(data["primary"]),
        Text(),
    ]
    if data["rollout"]:
        body.append(Text.assemble(("serving   ", "dim"), data["rollout"]["sentence"]))
    if data["learned"]:
        learned = data["learned"]
        body.append(
            Text.assemble(
                ("learning  ", "dim"),
                f"{learned['feedback']} answers looked at, {learned['edits']} corrected",
            )
        )
    body.append(Text.assemble(("report    ", "dim"), str(directory / ".tutelage" / data["report"])))
    seconds = sum(data["seconds"].values())
    where = Group(
        Text.assemble(
            ("where the time went  ", "bold"),
            (f"{duration(seconds)}, at most {data['peak_memory_mb']:,} MB of memory", "dim"),
        ),
        indented(time_table(data["seconds"])),
    )
    here = str(directory)
    then = Text.assemble(
        ("what now   ", "bold"),
        (f"tutelage up --project {here}", "cyan"), "       serve it again\n           ",
        (f"tutelage status --project {here}", "cyan"), "   where the loop stands\n           ",
        ("tutelage init DIR --data your.csv", "cyan"), "   your own rows",
    )  # fmt: skip
    panel = Panel(
        Group(*body),
        title="[bold]The loop, closed once[/]",
        title_align="left",
        border_style="cyan",
    )
    return Group(Text(), panel, Text(), where, Text(), then)


def _pulse(kept: Mapping[str, Any]) -> str:
    """Return when a model that is kept alive last answered, and when it is called again."""
    last, due = kept["last_success"], kept["due_at"]
    told = f"last answered {last}, due {due}" if last else "not called yet"
    problem = f"; {kept['problem']}" if kept["problem"] else ""
    return f"{kept['name']}, every {kept['every']}: {told}{problem}"


def status_view(data: Mapping[str, Any]) -> RenderableType:
    """Return where the loop stands."""
    table = Table(box=None, pad_edge=False, show_header=False, padding=(0, 2, 0, 0))
    for name, stage in data["stages"].items():
        if stage is None:
            table.add_row(Text("○", style="dim"), name, Text("not yet", style="dim"))
        else:
            table.add_row(Text("●", style="green"), name, stage["summary"])
    learning = data["learning"]
    table.add_row(Text("●", style="cyan"), "serve", data["serving"]["sentence"])
    table.add_row(Text("●", style="cyan"), "learn", learning["sentence"])
    for alert in data["alerts"]:
        style = "red" if alert["level"] == "error" else "yellow"
        table.add_row(Text("●", style=style), "alert", Text(alert["message"]))
    for kept in data["keep_alive"]:
        style = "red" if kept["problem"] else "green" if kept["last_success"] else "dim"
        table.add_row(Text("●", style=style), "kept alive", Text(_pulse(kept)))
    return Group(Text(data["project"], style="bold"), indented(table), Text(data["next"]))
