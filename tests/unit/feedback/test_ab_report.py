"""An A/B test from the log to a verdict: CLI, Python, HTTP and the page say the same."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import html5lib
import pytest
from sqlalchemy import delete, insert, update
from tests.fakes.openai_backend import FakeBackend
from tests.fakes.split_traffic import Traffic, split_project
from typer.testing import CliRunner

from tutelage.cli.main import app
from tutelage.core.errors import DataError
from tutelage.feedback.ab.study import split_of
from tutelage.release.rollout import RolloutPlan
from tutelage.store.records import RecordRow, SignalRow
from tutelage.store.scores import ScoreRow
from tutelage.workflows.context import Context
from tutelage.workflows.feedback.ab import AbDesk
from tutelage.workflows.feedback.dashboard import DashboardDesk
from tutelage.workflows.serving.serve import Serving

RUN = CliRunner()
BETTER = Traffic(liked=(0.5, 0.8), rated=(0.5, 0.5), slower=1.3)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Context]:
    ctx, _ = split_project(tmp_path_factory.mktemp("ab") / "project", BETTER)
    yield ctx
    ctx.store.close()


def call(ctx: Context, *words: str) -> tuple[int, str]:
    result = RUN.invoke(app, ["ab", *words, "--project", str(ctx.workspace.root)])
    return result.exit_code, result.output


def outcomes(found: dict[str, Any]) -> dict[str, str]:
    return {one["name"]: one["outcome"] for one in [found["primary"], *found["metrics"]]}


def test_the_verdict_weighs_what_is_better_and_worse(project: Context) -> None:
    found = AbDesk(project).report()
    assert found["verdict"] == "mixed"
    assert found["sentence"].startswith("colours-base-v2 is better than colours-base by feedback")
    assert "but worse by latency" in found["sentence"]
    said = outcomes(found)
    assert (said["rating"], said["latency"], said["tokens"]) == ("better", "worse", "open")
    latency = next(one for one in found["metrics"] if one["name"] == "latency")
    assert latency["low"] < 0.3 < latency["high"]
    rating = next(one for one in found["metrics"] if one["name"] == "rating")
    assert rating["low"] < 0.3 < rating["high"] and rating["candidate"]["users"] > 150
    assert 450 < sum(found["balance"]["users"].values()) <= 500
    assert [look["users"] for look in found["path"]] == sorted(
        look["users"] for look in found["path"]
    )


def test_fewer_metrics_make_sharper_intervals(project: Context) -> None:
    wide = AbDesk(project).report()["primary"]
    alone = AbDesk(project).report(metrics=[])
    assert alone["verdict"] == "better" and alone["primary"]["alpha"] == 0.05
    assert alone["primary"]["high"] - alone["primary"]["low"] < wide["high"] - wide["low"]


def test_the_command_prints_the_verdict_and_gates(project: Context, tmp_path: Path) -> None:
    page = tmp_path / "ab.html"
    code, text = call(project, "report", "--metrics", "escalated", "--gate", "--html", str(page))
    assert code == 0, text
    assert "is better than" in text and "The split: " in text and "escalated" in text
    html5lib.HTMLParser(strict=True).parse(page.read_text(encoding="utf-8"))
    code, text = call(project, "report", "--gate", "--json")
    assert code == 1 and json.loads(text)["verdict"] == "mixed"
    code, text = call(project, "list", "--json")
    (row,) = json.loads(text)["tests"]
    assert (row["candidate"], row["split"], row["state"]) == ("colours-base-v2", 0.5, "running")
    assert call(project, "list")[1].count("colours-bas") >= 2


def test_a_plan_tells_users_and_days(project: Context) -> None:
    code, text = call(project, "plan", "--difference", "0.1", "--metrics", "", "--json")
    assert code == 0, text
    found = json.loads(text)
    assert found["metric"] == "feedback" and found["difference"] == 0.1
    assert found["users"] > found["users_if_looked_once"] > 100
    assert found["days"] == pytest.approx(found["users"] / found["users_a_day"])
    smaller = AbDesk(project).plan(difference=0.05, metrics=[])
    assert 3 < smaller["users"] / found["users"] < 6
    assert "users, looked at whenever you like" in call(project, "plan")[1]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("report", "--primary", "escaleted"), "Did you mean 'escalated'"),
        (("report", "--primary", "tokens"), "neither more nor less of it is better"),
        (("report", "--metrics", "latncy"), "Did you mean 'latency'"),
        (("report", "--rollout", "nope"), "there is no rollout 'nope'"),
        (("report", "--deployment", "colour"), "Did you mean 'colours'"),
        (("report", "--alpha", "2"), "alpha is 2"),
        (("report", "--margin", "0"), "the margin is 0"),
        (("report", "--horizon", "1"), "the horizon is 1"),
        (("plan", "--split", "100"), "not between 0 and 100 %"),
        (("plan", "--difference", "0"), "a difference of 0 can't be found"),
        (("plan", "--primary", "latency", "--difference", "-2"), "a difference of -2"),
        (("plan", "--days", "1e9"), "1e+09 days can't be looked back"),
        (("plan", "--primary", "resolved"), "0 users of the last 30 days"),
    ],
)
def test_bad_input_is_one_sentence(project: Context, words: tuple[str, ...], says: str) -> None:
    code, text = call(project, *words)
    assert code == 2, text
    (line,) = [line for line in text.splitlines() if line.strip()]
    assert says in line


def test_an_edit_that_confirms_the_answer_is_no_correction(tmp_path: Path) -> None:
    """Of one author's edits the newest counts, in the test and on the dashboard."""
    ctx, _ = split_project(tmp_path / "p", Traffic(requests=40, rated=(0, 0)))
    with ctx.store.begin() as session:
        session.execute(update(RecordRow).values(response='{"family": "warm"}', status=200))
        for number, edit in ((0, "warm"), (1, "cold"), (2, "cold")):
            row = session.get_one(RecordRow, f"rec_{number}")
            said = {"value": json.dumps({"family": edit}, indent=1)}
            session.add(SignalRow(key=f"x{number}", record=row.id, kind="edit", explicit=True,
                                  author="eve", value=said, at=row.at))  # fmt: skip
        kept = {"value": '{"family": "warm"}'}
        session.add(SignalRow(key="y2", record="rec_2", kind="edit", explicit=True, author="eve",
                              value=kept, at=row.at + timedelta(hours=1)))  # fmt: skip
    found = AbDesk(ctx).report(metrics=["edit"])
    (edits,) = found["metrics"]
    corrected = sum(edits[arm]["mean"] * edits[arm]["answers"] for arm in ("stable", "candidate"))
    assert corrected == pytest.approx(1)
    shown = DashboardDesk(ctx).report()["releases"]
    shares = [one["signals"]["edit"] for one in shown]
    assert sum(one["value"] * one["n"] for one in shares) == pytest.approx(1)
    ctx.store.close()


def test_the_gateway_answers_with_the_same(tmp_path: Path) -> None:
    with FakeBackend() as backend:
        ctx, rollout = split_project(tmp_path / "p", Traffic(requests=300), url=backend.url)
        with Serving(ctx, port=0) as serving:
            url = f"{serving.base_url}/admin/ab"
            asked = f"{url}?metrics=escalated,%20&horizon=500"
            with urllib.request.urlopen(asked, timeout=60) as response:
                found = json.loads(response.read())
            with urllib.request.urlopen(f"{url}/tests", timeout=60) as response:
                listed = json.loads(response.read())["data"]
            board = f"{serving.base_url}/admin/dashboard?since=20d&every=week"
            with urllib.request.urlopen(board, timeout=60) as response:
                weeks = json.loads(response.read())
            with pytest.raises(urllib.error.HTTPError) as bad:
                urllib.request.urlopen(f"{url}?alpha=x", timeout=60)
            assert bad.value.code == 400 and "no number" in bad.value.read().decode()
    assert (weeks["every"], sum(one["requests"] for one in weeks["releases"])) == ("week", 300)
    assert found["asked"]["horizon"] == 500
    assert found["rollout"] == rollout == listed[0]["rollout"]
    assert set(outcomes(found)) == {"feedback", "escalated"}
    ctx.store.close()


def test_what_the_router_did_is_what_the_report_counts(tmp_path: Path) -> None:
    """Sticky users of a real gateway, with feedback through its own endpoint."""
    with FakeBackend() as backend:
        ctx, _ = split_project(tmp_path / "p", Traffic(requests=0), url=backend.url)
        arms: dict[str, set[str]] = {}
        with Serving(ctx, port=0) as serving:
            for i in range(48):
                user = f"visitor {i % 24}"
                body = {"model": "colours", "user": user,
                        "messages": [{"role": "user", "content": f"thing {i}"}]}  # fmt: skip
                answer, arm = post(f"{serving.base_url}/v1/chat/completions", body)
                arms.setdefault(user, set()).add(arm)
                note = {"record_id": answer["id"], "rating": "up", "signals": {"resolved": i < 24}}
                post(f"{serving.base_url}/v1/feedback", note)
        found = AbDesk(ctx).report()
        ctx.store.close()
    assert all(len(met) == 1 for met in arms.values())
    ours = sum(met == {"canary"} for met in arms.values())
    assert 0 < ours < 24
    assert found["balance"]["users"] == {"stable": 24 - ours, "candidate": ours}
    assert found["balance"]["requests"] == {"stable": 48 - 2 * ours, "candidate": 2 * ours}
    assert found["balance"]["crossed"] == 0
    resolved = next(one for one in found["metrics"] if one["name"] == "resolved")
    assert resolved["stable"]["mean"] == resolved["candidate"]["mean"] == 0.5
    assert found["primary"]["candidate"]["mean"] < 1.0


def post(url: str, body: dict[str, Any]) -> tuple[Any, str]:
    """Return the answer and the arm that gave it."""
    request = urllib.request.Request(
        url, json.dumps(body).encode(), {"content-type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=60) as response:
        return json.loads(response.read()), response.headers.get("x-tutelage-arm", "")


def test_a_broken_split_stops_every_comparison(tmp_path: Path) -> None:
    ctx, _ = split_project(tmp_path / "p", Traffic(split=0.4, liked=(0.2, 0.9)))
    found = AbDesk(ctx).report()
    assert found["verdict"] == "broken"
    assert found["sentence"].startswith("No comparison can be trusted: ")
    code, _ = call(ctx, "report", "--gate")
    assert code == 2
    ctx.store.close()


def test_what_is_missing_is_said(tmp_path: Path) -> None:
    ctx, rollout = split_project(tmp_path / "p", Traffic(days=3.0, liked=(0.6, 0.62)))
    found = AbDesk(ctx).report()
    assert found["verdict"] == "not_enough_evidence"
    assert len(found["needed"]) == 2 and "more users" in found["needed"][0]
    assert found["primary"]["for_margin"]["users"] > 1000
    assert any("a week shows every weekday once" in note for note in found["caveats"])
    code, _ = call(ctx, "report", "--gate")
    assert code == 3
    with ctx.store.begin() as session:
        session.execute(update(RecordRow).where(RecordRow.id == "rec_0").values(user="user1"))
        session.execute(update(RecordRow).where(RecordRow.id == "rec_1").values(user="user2"))
        session.execute(delete(SignalRow))
        session.execute(
            insert(ScoreRow),
            [
                {"item": f"rec_{i}", "candidate": "r", "metric": "format", "value": i % 2,
                 "evidence": {}, "source": "rule"}
                for i in range(400)
            ],
        )  # fmt: skip
    found = AbDesk(ctx).report(rollout=rollout)
    assert found["verdict"] == "no_data" and "nothing is known" in found["sentence"]
    assert AbDesk(ctx).report(primary="score.format")["primary"]["stable"]["answers"] > 100
    ctx.store.close()


def test_requests_without_a_user_are_users_of_their_own(tmp_path: Path) -> None:
    ctx, _ = split_project(tmp_path / "p", Traffic(requests=600, named=False))
    found = AbDesk(ctx).report()
    assert sum(found["balance"]["users"].values()) == 600
    assert any(note.startswith("100% of the requests name no user") for note in found["caveats"])
    ctx.store.close()


def test_a_charm_that_fades_is_told(tmp_path: Path) -> None:
    ctx, _ = split_project(tmp_path / "p", Traffic(requests=4000, users=300, rated=(0.0, 0.0)))
    signals = []
    with ctx.store.begin() as session:
        rows = session.query(RecordRow).order_by(RecordRow.at).all()
        first: dict[str, Any] = {}
        for i, row in enumerate(rows):
            fresh = row.at - first.setdefault(row.user, row.at) < timedelta(days=1)
            good = (row.arm == "canary" and fresh) or i % 2 == 0
            signals.append(
                {"key": f"n{i}", "record": row.id, "kind": "rating", "explicit": True,
                 "value": {"value": float(good)}, "author": None, "at": row.at}
            )  # fmt: skip
        session.execute(insert(SignalRow), signals)
    found = AbDesk(ctx).report()
    assert found["novelty"]["fades"]
    assert found["novelty"]["first_day"] > 0.3 > abs(found["novelty"]["later_days"])
    assert any("The difference fades" in note for note in found["caveats"])
    ctx.store.close()


def test_only_one_share_for_good_is_an_ab_test(project: Context) -> None:
    assert split_of(RolloutPlan((20.0,), end="stay")) == 0.2
    assert split_of(RolloutPlan((5.0, 20.0), shadow=1, end="stay")) == 0.2
    for plan in (RolloutPlan(), RolloutPlan((100.0,)), RolloutPlan((50.0,), replicas=2)):
        assert split_of(plan) is None
    with pytest.raises(DataError, match="there is no deployment"):
        AbDesk(project).report("elsewhere")
