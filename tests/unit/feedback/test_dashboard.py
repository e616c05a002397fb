"""The dashboard: its figures against the log, its gaps and small numbers, and its page."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import html5lib
import pytest
from sqlalchemy import insert
from tests.fakes.split_traffic import Traffic, split_project
from tests.fakes.web_process import CHROMIUM
from typer.testing import CliRunner

from tutelage.cli.main import app
from tutelage.core.artifact import utc_now
from tutelage.core.config_prices import Prices
from tutelage.core.html_time import Axis, Band, Mark, Moment, time_chart
from tutelage.feedback.dashboard.stretches import stretches
from tutelage.serving.records.retention import delete_old
from tutelage.store.records import RecordRow, SignalRow
from tutelage.store.releases import RolloutRow
from tutelage.workflows.context import Context
from tutelage.workflows.feedback.ab import AbDesk
from tutelage.workflows.feedback.dashboard import DashboardDesk

RUN = CliRunner()


TRAFFIC = Traffic(requests=900, users=200, liked=(0.5, 0.9), slower=2.0)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Context]:
    """A project that tests only read."""
    ctx, _ = split_project(tmp_path_factory.mktemp("board") / "project", TRAFFIC)
    yield ctx
    ctx.store.close()


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Context]:
    """A project that a test changes."""
    ctx, _ = split_project(tmp_path / "project", TRAFFIC)
    yield ctx
    ctx.store.close()


def call(ctx: Context, *words: str) -> tuple[int, str]:
    result = RUN.invoke(app, ["dashboard", *words, "--project", str(ctx.workspace.root)])
    return result.exit_code, result.output


def test_the_figures_are_those_of_the_log(project: Context) -> None:
    found = DashboardDesk(project).report()
    with project.store.session() as session:
        rows = session.query(RecordRow).all()
        told = session.query(SignalRow).where(SignalRow.kind == "rating").count()
    stable, candidate = found["releases"]
    assert (stable["name"], stable["serves"]) == ("colours-base", True)
    assert stable["requests"] + candidate["requests"] == len(rows) == 900
    of_candidate = sorted(r.latency_ms for r in rows if r.arm == "canary" and r.status == 200)
    middle = of_candidate[len(of_candidate) // 2]
    assert candidate["latency_p50_ms"]["value"] == pytest.approx(middle, rel=0.02)
    assert stable["signals"]["rating"]["n"] + candidate["signals"]["rating"]["n"] <= told
    rating = candidate["signals"]["rating"]
    assert rating["low"] < 0.9 < rating["high"] <= 1
    assert candidate["signals"]["escalated"]["n"] > rating["n"]  # a share of all answers
    points = [p for p in found["points"] if p["release"] == candidate["id"]]
    assert sum(p["requests"] for p in points) == candidate["requests"]
    (change,) = found["changes"]
    assert (change["number"], change["text"]) == (1, "colours-base-v2 gets 50 %")
    assert found["sentence"].startswith(f"colours-base answered {stable['requests']:,} of 900")


def test_gaps_and_small_numbers_are_said(own: Context) -> None:
    with own.store.begin() as session:
        gone = utc_now() - timedelta(days=5)
        for row in session.query(RecordRow).where(
            RecordRow.at > gone, RecordRow.at < gone + timedelta(days=2)
        ):
            session.delete(row)
    found = DashboardDesk(own).report(every="hour", since="12d")
    text = " ".join(found["notes"])
    assert "No request came in" in text and "and are drawn faint; `--every day` is steadier" in text
    assert "The last hour is not over" in text
    few = [p for p in found["points"] if p["requests"] < 40]
    assert few and all(p["latency_p95_ms"]["value"] is None for p in few)


def test_deleted_days_keep_their_counts(own: Context) -> None:
    before = DashboardDesk(own).report()
    with own.store.begin() as session:
        for row in session.query(RolloutRow):
            row.state = "aborted"
    delete_old(own.store, utc_now() - timedelta(days=4))
    after = DashboardDesk(own).report()
    count = sum(one["requests"] for one in before["releases"])
    assert sum(one["requests"] for one in after["releases"]) == count
    assert sum(one["failed"]["n"] for one in after["releases"]) < count
    assert any(note.startswith("Records of ") for note in after["notes"])


def test_what_reached_no_release_is_left_out_and_told(own: Context) -> None:
    with own.store.begin() as session:
        one = session.query(RecordRow).first()
        assert one is not None
        values = {c.name: getattr(one, c.name) for c in RecordRow.__table__.columns}
        session.execute(
            insert(RecordRow),
            [values | {"id": "x", "status": 429}, values | {"id": "y", "arm": "shadow"}],
        )
    found = DashboardDesk(own).report()
    assert sum(one["requests"] for one in found["releases"]) == 900
    text = " ".join(found["notes"])
    assert "1 request turned away" in text and "1 copy of requests" in text


def test_the_command_prints_and_writes_a_page(project: Context, tmp_path: Path) -> None:
    page = tmp_path / "board.html"
    code, text = call(project, "--html", str(page))
    assert code == 0 and "colours-base-v2 gets 50 %" in text and "verdict" in text, text
    markup = page.read_text(encoding="utf-8")
    html5lib.HTMLParser(strict=True).parse(markup)
    for heading in ("What users think", "Signal: escalated", "Time of an answer", "Requests"):
        assert f"<h2>{heading}</h2>" in markup
    assert "Flagged answers" not in markup  # nothing but zeros
    code, text = call(project, "--json", "--every", "week")
    assert code == 0 and json.loads(text)["every"] == "week"


def test_what_has_a_price_has_a_cost(project: Context) -> None:
    priced = project.config.model_copy(update={"prices": Prices(currency="EUR", hour=3.6)})
    ctx = replace(project, config=priced)
    found = DashboardDesk(ctx).report()
    with ctx.store.session() as session:
        spent = sum(row.latency_ms for row in session.query(RecordRow)) / 1000 * 0.001
    assert found["currency"] == "EUR"
    assert sum(one["cost"] for one in found["releases"]) == pytest.approx(spent)
    cost = AbDesk(ctx).report(metrics=["cost"])["metrics"][0]
    assert (cost["outcome"], cost["unit"]) == ("worse", "EUR")
    assert DashboardDesk(project).report()["releases"][0]["cost"] is None


def test_an_empty_time_is_said(project: Context) -> None:
    code, text = call(project, "--since", "2020-01-01", "--until", "2020-02-01")
    assert code == 0 and "No request came in this time" in text
    found = DashboardDesk(project).report(since="2020-01-01", until="2020-02-01")
    assert found["releases"] == [] and found["points"] == []


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--every", "dya"), "Did you mean 'day'"),
        (("--every", "hour", "--since", "2020-01-01"), "too many to show"),
        (("--since", "soon"), "'soon' is no time"),
        (("--deployment", "colour"), "Did you mean 'colours'"),
    ],
)
def test_bad_input_is_one_sentence(project: Context, words: tuple[str, ...], says: str) -> None:
    code, text = call(project, *words)
    assert code == 2, text
    (line,) = [line for line in text.splitlines() if line.strip()]
    assert says in line


def test_stretches_begin_on_the_hour_at_midnight_and_on_monday() -> None:
    since = datetime(2026, 11, 26, 13, 20, tzinfo=UTC)  # a Thursday
    until = since + timedelta(days=20)
    assert stretches(since, until).every == "day"
    assert stretches(since, until).begin(0) == datetime(2026, 11, 26, tzinfo=UTC)
    assert stretches(since, until, "week").begin(0) == datetime(2026, 11, 23, tzinfo=UTC)
    hours = stretches(since, since + timedelta(hours=30))
    assert (hours.every, hours.count, hours.begin(0).hour) == ("hour", 31, 13)
    assert hours.place(until.timestamp()) is None


def test_a_chart_breaks_at_gaps_and_fades_where_little_is_known() -> None:
    line = [Moment(3600.0 * i, v, faint=i > 5) for i, v in enumerate([1, 2, None, 3, 4, 4, 5])]
    drawn = time_chart(
        {"<b>": line, "two": line[:2]},
        label="a & b",
        marks=[Mark(3600.0, 1, "<x>"), Mark(3700.0, 2, "y"), Mark(-5.0, 3, "outside")],
        band=Band(((0.0, 0.5, 2.0), (3600.0, 1.0, 2.5), (7200.0, None, None))),
        reference=0.0,
        axis=Axis(floor=-1.0),
    )
    assert drawn.count("<polyline") == 4 and drawn.count("stroke-dasharray='3 4'") == 1
    assert drawn.count("<circle") == 8 and "outside" not in drawn
    assert "<b>" not in drawn and "&lt;x&gt;" in drawn and "a &amp; b" in drawn
    assert "nothing to show" in time_chart({"a": [Moment(0.0, None)]}, label="")


@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")
def test_the_pages_open_alone_without_a_barrier(project: Context, tmp_path: Path) -> None:
    api = pytest.importorskip("playwright.sync_api", reason="needs playwright")
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="needs axe")
    pages = [tmp_path / "board.html", tmp_path / "ab.html"]
    DashboardDesk(project).report(html=pages[0])
    AbDesk(project).report(html=pages[1])
    with api.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        for path, width, scheme in ((pages[0], 390, "dark"), (pages[1], 1280, "light")):
            context = browser.new_context(
                offline=True, bypass_csp=True, color_scheme=scheme,
                viewport={"width": width, "height": 900},
            )  # fmt: skip
            page, asked = context.new_page(), list[Any]()
            page.on("request", lambda request, asked=asked: asked.append(request.url))
            page.goto(path.as_uri())
            assert page.evaluate("document.documentElement.scrollWidth") <= width
            assert asked == [path.as_uri()]
            found = axe.Axe().run(page).response["violations"]
            assert [v["id"] for v in found if v["impact"] in ("serious", "critical")] == []
        browser.close()
