"""Notices reach their webhook: signed, retried, in order, from one gateway at a time."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
from collections.abc import Iterator
from datetime import timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest
from tests.fakes.webhook import Receiver

from tutelage.core.artifact import utc_now
from tutelage.core.config_alerts import Webhook
from tutelage.serving.monitoring.webhooks import (
    Dispatcher,
    open_client,
    pause_s,
    post,
    signature,
)
from tutelage.store.alerts import AlertRow, NoticeRow
from tutelage.store.base import Store, open_store

NOW = utc_now()


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = open_store(f"sqlite:///{tmp_path}/store.db")
    yield opened
    opened.close()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as running:
        yield running


def put(store: Store, *statuses: str, webhook: str = "ops") -> None:
    """Queue one alert's notices, all made in the same moment."""
    with store.begin() as session:
        row = AlertRow(
            key="k", rule="slow", labels={}, state="resolved", level="error", message="m",
        )  # fmt: skip
        session.add(row)
        session.flush()
        for index, status in enumerate(statuses):
            name = f"ntc_{9 - index}" + ("" if webhook == "ops" else webhook)
            body = {"id": name, "status": status, "text": f"[{status}] slow"}
            session.add(
                NoticeRow(
                    id=name, alert=row.id, webhook=webhook, status=status, body=body,
                    next_at=NOW, created_at=NOW,
                )
            )  # fmt: skip


def rows(store: Store) -> list[NoticeRow]:
    with store.session() as session:
        return list(session.query(NoticeRow).order_by(NoticeRow.status))


async def deliver(store: Store, hook: Webhook, *seconds: float) -> list[int]:
    """Deliver at each of these moments, with a dispatcher of its own each time."""
    counts = []
    for second in seconds:
        dispatcher = Dispatcher(store, [hook])
        counts.append(await dispatcher.deliver(NOW + timedelta(seconds=second)))
        await dispatcher.close()
    return counts


def test_a_refused_notice_is_tried_again_with_the_same_id_until_it_is_taken(
    store: Store, receiver: Receiver
) -> None:
    receiver.answers = [(500, {}), (503, {"retry-after": "120"})]
    put(store, "firing")
    hook = Webhook(name="ops", url=receiver.url)
    # 0: refused. 1: too early. 5: refused, come back in 120 s. 100: too early. 126: taken.
    assert asyncio.run(deliver(store, hook, 0, 0.5, 5, 100, 126, 200)) == [0, 0, 0, 0, 1, 0]
    assert [d.headers["webhook-id"] for d in receiver.got] == ["ntc_9"] * 3
    (row,) = rows(store)
    assert (row.state, row.attempts, row.error) == ("sent", 3, None)


def test_a_receiver_may_name_the_date_to_come_back_at(store: Store, receiver: Receiver) -> None:
    receiver.answers = [(503, {"retry-after": format_datetime(utc_now() + timedelta(minutes=30))})]
    put(store, "firing")
    hook = Webhook(name="ops", url=receiver.url)
    assert asyncio.run(deliver(store, hook, 0, 1000, 1801)) == [0, 0, 1]


def test_a_resolved_notice_never_overtakes_its_firing_one(store: Store, receiver: Receiver) -> None:
    receiver.answers = [(500, {})]
    put(store, "firing", "resolved")
    hook = Webhook(name="ops", url=receiver.url)
    assert asyncio.run(deliver(store, hook, 0, 5, 6, 7)) == [0, 1, 1, 0]
    assert [d.body["status"] for d in receiver.got] == ["firing", "firing", "resolved"]


def test_two_gateways_deliver_a_notice_once(store: Store, receiver: Receiver) -> None:
    put(store, "firing")
    hook = Webhook(name="ops", url=receiver.url)

    async def both() -> list[int]:
        a, b = Dispatcher(store, [hook]), Dispatcher(store, [hook])
        counts = await asyncio.gather(a.deliver(NOW), b.deliver(NOW))
        await a.close()
        await b.close()
        return list(counts)

    assert sorted(asyncio.run(both())) == [0, 1]
    assert len(receiver.got) == 1


def test_a_gateway_killed_while_it_sends_leaves_the_notice_to_the_next(
    store: Store, receiver: Receiver
) -> None:
    put(store, "firing")
    hook = Webhook(name="ops", url=receiver.url)
    Dispatcher(store, [hook])._claim(NOW)  # and then it was killed
    assert asyncio.run(deliver(store, hook, 10, 21)) == [0, 1]


def test_a_clock_that_was_set_back_does_not_hold_notices_up(
    store: Store, receiver: Receiver
) -> None:
    put(store, "firing")
    hook = Webhook(name="ops", url=receiver.url)
    assert asyncio.run(deliver(store, hook, -86_400)) == [1]


def test_a_receiver_that_is_gone_or_no_longer_named_is_given_up(
    store: Store, receiver: Receiver
) -> None:
    receiver.answers = [(410, {})]
    put(store, "firing")
    assert asyncio.run(deliver(store, Webhook(name="ops", url=receiver.url), 0, 1000)) == [0, 0]
    assert rows(store)[0].state == "failed"
    put(store, "noted", webhook="old")
    asyncio.run(deliver(store, Webhook(name="ops", url=receiver.url), 0))
    assert {row.state for row in rows(store)} == {"failed"}
    assert len(receiver.got) == 1


def test_nothing_is_tried_for_longer_than_a_day(store: Store) -> None:
    put(store, "firing")
    hook = Webhook(name="ops", url_env="TUTELAGE_TEST_NO_SUCH_ADDRESS")
    asyncio.run(deliver(store, hook, 0))
    assert rows(store)[0].state == "waiting"
    assert rows(store)[0].error == (
        "the environment variable TUTELAGE_TEST_NO_SUCH_ADDRESS is not set"
    )
    asyncio.run(deliver(store, hook, 86_401))
    assert rows(store)[0].state == "failed"


def send(hook: Webhook, environment: dict[str, str]) -> Any:
    async def work() -> Any:
        async with open_client() as client:
            return await post(client, hook, "ntc_1", {"text": "hö", "id": "ntc_1"}, environment)

    return asyncio.run(work())


def test_bodies_are_signed_as_standard_webhooks_says(receiver: Receiver) -> None:
    secret = "whsec_" + base64.b64encode(b"a key of twenty-four b..").decode()
    hook = Webhook(name="ops", url_env="ADDRESS", secret_env="SECRET")
    reply = send(hook, {"ADDRESS": receiver.url, "SECRET": secret})
    assert reply.delivered
    (got,) = receiver.got
    signed = b".".join(
        [got.headers["webhook-id"].encode(), got.headers["webhook-timestamp"].encode(), got.raw]
    )
    expected = base64.b64encode(
        hmac.new(b"a key of twenty-four b..", signed, hashlib.sha256).digest()
    )
    assert got.headers["webhook-signature"] == f"v1,{expected.decode()}"
    assert got.body == {"text": "hö", "id": "ntc_1"}
    assert abs(int(got.headers["webhook-timestamp"]) - utc_now().timestamp()) < 300


def test_the_signature_is_the_specification_s_own_example() -> None:
    # The example of the Standard Webhooks specification and of its reference libraries' tests.
    secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
    body = b'{"test": 2432232314}'
    found = signature(secret, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, body)
    assert found == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_slack_gets_the_text_alone_and_redirects_are_not_followed(receiver: Receiver) -> None:
    receiver.answers = [(200, {}), (302, {"location": receiver.url})]
    hook = Webhook(name="chat", url=receiver.url, format="slack")
    assert send(hook, {}).delivered
    assert receiver.got[0].body == {"text": "hö"}
    reply = send(hook, {})
    assert (reply.delivered, reply.error) == (False, "the receiver said 302")
    assert len(receiver.got) == 2


def test_what_went_wrong_names_no_address() -> None:
    hook = Webhook(name="ops", url="http://127.0.0.1:9/secret-path")
    reply = send(hook, {})
    assert reply.status == 0
    assert "secret-path" not in str(reply.error) and "127.0.0.1" not in str(reply.error)


def test_pauses_double_to_a_cap_and_are_spread() -> None:
    assert [pause_s(n, 1.0) for n in (1, 2, 3)] == [2, 4, 8]
    assert pause_s(20, 1.0) == 900
    assert pause_s(20, 0.0) == 450
