"""Alerts in the store: what fires, what has ended, and a notice for each webhook that shall hear.

An alert and its notices change in one transaction. The database lets one alert of a key fire at a
time, so several gateways tell once, and a gateway killed in between tells after its restart.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from fnmatch import fnmatchcase
from typing import Any

from sqlalchemy import Select, select
from sqlalchemy.orm import Session

from tutelage.core.artifact import utc_now
from tutelage.core.config_alerts import AlertRule, Alerts, Level, Webhook
from tutelage.core.durations import seconds
from tutelage.serving.monitoring.alerts import ENDS, Finding, Look, matching, patience_s
from tutelage.serving.monitoring.events import Happening, add_event
from tutelage.store.alerts import AlertRow, EventRow, NoticeRow, SilenceRow
from tutelage.store.base import Store

_RANK = {"info": 0, "warning": 1, "error": 2}
_BATCH = 500  # events weighed in one transaction


class AlertBook:
    """One project's alerts. Every method is a database call: use it off the hot path."""

    def __init__(
        self, store: Store, project: str, alerts: Alerts, rules: Sequence[AlertRule]
    ) -> None:
        self.store, self.project, self.alerts = store, project, alerts
        self.rules = {rule.name: rule for rule in rules}

    def settle(self, look: Look, now: datetime | None = None) -> list[AlertRow]:
        """Bring the alerts in step with a look at the metrics and with new events.

        Returns those that fire. Nothing is written while nothing has changed.
        """
        now = now or utc_now()
        if not self._changes(look):
            return []
        with self.store.begin() as session:
            for event in _unweighed(session):
                self._weigh(session, event, now)
            for finding in look.holds:
                self._raise(session, finding, now)
            session.flush()
            for row in _firing(session, lock=True):
                self._end_or_repeat(session, row, look, now)
            return _firing(session)

    def _changes(self, look: Look) -> bool:
        with self.store.session() as session:
            new = session.scalars(select(EventRow.id).where(EventRow.weighed.is_(False)).limit(1))
            return bool(look.holds or new.first() or _firing(session))

    def _weigh(self, session: Session, event: EventRow, now: datetime) -> None:
        event.weighed = True
        for kind in ENDS.get(event.kind, ()):
            for row in _firing(session, lock=True):
                if row.labels.get("kind") == kind and _same(row, event):
                    self._end(session, row, event.message, now)
        for finding in matching(self.rules.values(), event):
            self._raise(session, finding, now, seen=event.at)

    def _raise(
        self, session: Session, finding: Finding, now: datetime, seen: datetime | None = None
    ) -> None:
        """Open an alert and tell, or note that one which is open still holds."""
        row = session.scalars(_firing_query().where(AlertRow.key == finding.key)).first()
        if row is not None:
            row.count += 1
            row.seen_at, row.value, row.message = now, finding.value, finding.message
            return
        row = AlertRow(
            key=finding.key,
            rule=finding.rule.name,
            labels=dict(finding.labels),
            state="resolved" if finding.noted else "firing",
            level=finding.rule.level,
            message=finding.message,
            value=finding.value,
            threshold=finding.threshold,
            since=seen or now,
            seen_at=now,
            ended_at=now if finding.noted else None,
        )
        session.add(row)
        session.flush()
        self._tell(session, row, "noted" if finding.noted else "firing", now)
        if not finding.noted:
            _keep_event(session, row, "alert.firing", finding.message, row.level, now)

    def _end_or_repeat(self, session: Session, row: AlertRow, look: Look, now: datetime) -> None:
        rule = self.rules.get(row.rule)
        unseen = now - row.seen_at
        allowed = patience_s(
            rule, self.alerts.every, fine=row.key in look.fine, kind=row.labels.get("kind")
        )
        if unseen > timedelta(seconds=allowed):
            why = "the rule is no longer in force" if rule is None else ""
            self._end(session, row, why, now)
            return
        repeat = timedelta(seconds=seconds(self.alerts.repeat))
        if row.told_at is None or now - row.told_at >= repeat:
            self._tell(session, row, "firing", now)

    def _end(self, session: Session, row: AlertRow, why: str, now: datetime) -> None:
        row.state, row.ended_at = "resolved", now
        if row.told_at is not None:
            self._tell(session, row, "resolved", now)
        text = f"{row.rule} has ended: {why or f'it was: {row.message}'}"
        _keep_event(session, row, "alert.resolved", text, "info", now)

    def _tell(self, session: Session, row: AlertRow, status: str, now: datetime) -> None:
        """Queue a notice for each webhook that listens, unless the alert is silenced.

        The end of what was told is told all the same.
        """
        deployment = row.labels.get("deployment")
        if status != "resolved" and silenced(session, row.rule, deployment, now):
            return
        row.told_at = now
        for hook in self.alerts.webhooks:
            if _RANK[row.level] >= _RANK[hook.level]:
                session.add(notice(row, hook, status, self.project, now))
        session.flush()


def notice(row: AlertRow, hook: Webhook, status: str, project: str, now: datetime) -> NoticeRow:
    """Return the message about an alert for one webhook."""
    name = f"ntc_{secrets.token_hex(12)}"
    return NoticeRow(
        id=name,
        alert=row.id,
        webhook=hook.name,
        status=status,
        body={"id": name, **message(row, status, project), "at": now.isoformat()},
        next_at=now,
        created_at=now,
    )


def message(row: AlertRow, status: str, project: str) -> dict[str, Any]:
    """Return what a webhook is told; `text` is one sentence for people."""
    word = {"firing": "firing", "resolved": "resolved"}.get(status, row.level)
    return {
        "status": status,
        "alert": row.rule,
        "level": row.level,
        "text": f"[{word}] {project}, {row.rule}: {row.message}",
        "message": row.message,
        "project": project,
        "deployment": row.labels.get("deployment"),
        "labels": dict(row.labels),
        "value": row.value,
        "threshold": row.threshold,
        "count": row.count,
        "since": row.since.isoformat(),
        "ended_at": row.ended_at.isoformat() if row.ended_at else None,
    }


def silenced(session: Session, rule: str, deployment: str | None, now: datetime) -> bool:
    """Return whether a silence covers this rule and deployment now."""
    rows = session.scalars(select(SilenceRow).where(SilenceRow.until > now))
    return any(fnmatchcase(rule, row.rule) and row.deployment in (None, deployment) for row in rows)


def silence(
    store: Store, rule: str, until: datetime, *, deployment: str | None = None, **by: str
) -> SilenceRow:
    """Tell nobody of alerts whose rule matches `rule` until then; `by`: author, reason."""
    with store.begin() as session:
        row = SilenceRow(rule=rule[:64], deployment=deployment, until=until, **by)
        session.add(row)
        session.flush()
        return row


def unsilence(store: Store, rule: str, now: datetime | None = None) -> int:
    """End the silences of this rule or pattern now; return how many there were."""
    now = now or utc_now()
    with store.begin() as session:
        query = select(SilenceRow).where(SilenceRow.rule == rule, SilenceRow.until > now)
        rows = list(session.scalars(query))
        for row in rows:
            row.until = now
        return len(rows)


def list_alerts(store: Store, *, ended: bool = False, limit: int = 50) -> list[AlertRow]:
    """Return the alerts that fire, newest first; with `ended`, those that have ended too."""
    query = select(AlertRow) if ended else _firing_query()
    with store.session() as session:
        return list(session.scalars(query.order_by(AlertRow.id.desc()).limit(limit)))


def list_notices(store: Store, limit: int = 50) -> list[NoticeRow]:
    """Return the newest notices, newest first."""
    query = select(NoticeRow).order_by(NoticeRow.created_at.desc(), NoticeRow.id).limit(limit)
    with store.session() as session:
        return list(session.scalars(query))


def list_silences(store: Store, now: datetime | None = None) -> list[SilenceRow]:
    """Return the silences in force."""
    query = select(SilenceRow).where(SilenceRow.until > (now or utc_now()))
    with store.session() as session:
        return list(session.scalars(query.order_by(SilenceRow.until)))


def _same(row: AlertRow, event: EventRow) -> bool:
    """Return whether an event speaks of what an alert is about."""
    mine = (row.labels.get("subject", ""), row.labels.get("deployment"))
    return mine == (event.subject, event.deployment)


def _firing_query() -> Select[AlertRow]:
    return select(AlertRow).where(AlertRow.state == "firing")


def _firing(session: Session, *, lock: bool = False) -> list[AlertRow]:
    """Return the alerts that fire; with `lock`, as nobody else can change them meanwhile."""
    query = _firing_query().order_by(AlertRow.id)
    if lock:
        query = query.with_for_update().execution_options(populate_existing=True)
    return list(session.scalars(query))


def _unweighed(session: Session) -> list[EventRow]:
    """Return new events that no other gateway is weighing."""
    query = select(EventRow).where(EventRow.weighed.is_(False)).order_by(EventRow.id)
    return list(session.scalars(query.limit(_BATCH).with_for_update(skip_locked=True)))


def _keep_event(
    session: Session, row: AlertRow, kind: str, text: str, level: str, now: datetime
) -> None:
    severity: Level = "error" if level == "error" else "warning" if level == "warning" else "info"
    data: Mapping[str, Any] = {"rule": row.rule, "value": row.value, "threshold": row.threshold}
    happening = Happening(
        kind, text, severity, row.labels.get("deployment"), row.rule, data, at=now
    )
    add_event(session, happening, weighed=True)
