"""A gateway that is killed -9 while an alert fires: the next one tells what was not told, once."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

from tests.fakes.gateway_process import GatewayProcess
from tests.fakes.openai_backend import FakeBackend
from tests.fakes.webhook import Receiver
from tests.unit.serving.test_monitor import ERRORS, ask, with_alerts

from tutelage.serving.monitoring import webhooks
from tutelage.workflows.serving.monitor import alerts, events, notices


def impatient() -> None:
    """Let a notice that was being sent be tried again after a second."""
    webhooks._LEASE = timedelta(seconds=1)


def test_a_killed_gateway_s_notice_is_delivered_by_the_next_and_its_alert_ended(
    tmp_path: Path,
) -> None:
    with FakeBackend() as backend, Receiver() as receiver:
        hook = {"name": "ops", "url": receiver.url, "level": "warning"}
        rule = ERRORS | {"window": "2s"}
        ctx = with_alerts(tmp_path / "p", backend, webhooks=[hook], rules=[rule])
        backend.script.by_model["*"] = {"status": 500}
        receiver.answers = [(500, {})]
        with GatewayProcess(ctx.workspace.root, prepare=impatient) as gateway:
            for _ in range(4):
                assert ask(gateway.url)[0] == 502
            receiver.wait(1)
            gateway.kill()
        with GatewayProcess(ctx.workspace.root, prepare=impatient) as gateway:
            got = receiver.wait(3, timeout=60)
            gateway.stop()
        told = [(d.body["alert"], d.body["status"]) for d in got]
        assert told == [("errors", "firing"), ("errors", "firing"), ("errors", "resolved")]
        assert got[0].headers["webhook-id"] == got[1].headers["webhook-id"]
        assert alerts(ctx)["alerts"] == []
        assert {(n["status"], n["state"]) for n in notices(ctx)} == {
            ("firing", "sent"), ("resolved", "sent"),
        }  # fmt: skip
        assert len(events(ctx, kind="alert")) == 2
        ctx.store.close()
