"""Budgets on the way of a request: its accounts are asked before the engine, charged after it.

The sums and the waiting are the ledger's (ledger.py). A request is held at what it may use at
most, and charged what the engine counted.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import select
from sqlalchemy.exc import SQLAlchemyError

from tutelage.core.artifact import utc_now
from tutelage.core.config_usage import UsageBudget
from tutelage.serving.access.accounts import (
    Account,
    accounts_of,
    most_prompt_tokens,
    period_end,
    period_of,
)
from tutelage.serving.access.keys import LOCAL, Caller
from tutelage.serving.access.ledger import BudgetInUse, BudgetSpent, Ledger
from tutelage.serving.access.ledger_book import Claim
from tutelage.serving.access.pricing import Pricing
from tutelage.serving.hooks import Ask, Hook, Outcome
from tutelage.serving.monitoring.events import Happening
from tutelage.serving.state import GatewayState
from tutelage.serving.wire.wire import HttpError
from tutelage.store.base import Store
from tutelage.store.records import RecordRow
from tutelage.store.releases import ReleaseRow
from tutelage.store.usage import BudgetRow

_log = logging.getLogger(__name__)
_RETRY_S = 60  # a client library should wait for no longer than this by itself
Clock = Callable[[], datetime]


class Budgets(Hook):
    """Refuses requests whose budget is used up: 429 until the period ends."""

    def __init__(self, state: GatewayState, *, clock: Clock = utc_now) -> None:
        self._state, self._clock = state, clock
        self._pricing = Pricing(state.project)
        self.ledger = Ledger(state.store, self._kept)
        self._accounts: dict[tuple[str | None, str], tuple[Account, ...]] = {}
        self._unpriced: set[str] = set()  # releases that were warned of
        self._version = -1  # of the keys that the accounts were made from

    async def start(self) -> None:
        """Start the ledger."""
        self.ledger.start()

    async def close(self) -> None:
        """Charge what has ended."""
        await asyncio.to_thread(self.ledger.close)

    async def admit(self, ask: Ask) -> None:
        """Hold what the request may use at most; raise HttpError 429 if nothing is left."""
        accounts = self._accounts_of(ask)
        if not accounts:
            return
        self._warn_unpriced(ask, accounts)
        now = self._clock()
        most = self._most(ask)
        claims = [Claim(a, period_of(a.per, now), most.get(a.unit, 0.0)) for a in accounts]
        try:
            await self.ledger.reserve(ask.record, claims)
        except BudgetSpent as error:
            self._tell(error.account, now)
            raise _spent(error.account, now, ask) from error
        except BudgetInUse as error:
            raise HttpError(
                429,
                f"What is left of {error.account.words} is held by requests under way.",
                code="budget_in_use",
                retry_after=1,
            ) from error
        except SQLAlchemyError as error:
            raise HttpError(
                503, "The budgets can't be read now; try again.", code="store_error", retry_after=5
            ) from error

    def finished(self, ask: Ask, outcome: Outcome) -> None:
        """Charge what was used. Requests that never reached the engine cost nothing."""
        if not self.ledger.holds(ask.record):
            return
        asked, answered = outcome.prompt_tokens, outcome.completion_tokens
        seconds = outcome.latency_ms / 1000
        self.ledger.settle(ask.record, self._units(ask, (asked, answered), seconds, outcome))

    def _warn_unpriced(self, ask: Ask, accounts: Sequence[Account]) -> None:
        """Say once a release that a budget of money can't hold it."""
        known = ask.release_name in self._unpriced
        if known or self._pricing.rate(ask.release_name, ask.tuned) is not None:
            return
        account = next((account for account in accounts if account.unit == "cost"), None)
        if account is not None:
            self._unpriced.add(ask.release_name)
            _log.warning(
                "%s has no price, so its requests count nothing in %s; "
                "name it, 'tuned' or 'base' under prices.tokens, or set prices.hour",
                ask.release_name, account.words,
            )  # fmt: skip

    def _tell(self, account: Account, now: datetime) -> None:
        """Keep that a budget was used up, once a period."""
        period = period_of(account.per, now)
        self._state.events.tell(
            Happening(
                kind="budget.spent",
                message=f"{account.words[0].upper()}{account.words[1:]} is used up",
                level="warning",
                deployment=account.deployment,
                subject=account.key or "",
                data={"unit": account.unit, "per": account.per, "limit": account.limit},
                once=hashlib.sha256(
                    f"{account.id} {period} {account.limit:g}".encode()
                ).hexdigest(),
            )
        )

    def _accounts_of(self, ask: Ask) -> tuple[Account, ...]:
        keys = self._state.keys
        if self._version != keys.version:
            self._accounts, self._version = {}, keys.version
        name = (ask.key, ask.deployment)
        found = self._accounts.get(name)
        if found is None:
            caller = keys.named(ask.key) if ask.key is not None else LOCAL
            found = accounts_of(self._state.project.budgets, caller, ask.deployment)
            self._accounts[name] = found
        return found

    def _most(self, ask: Ask) -> Mapping[str, float]:
        tokens = most_prompt_tokens(ask.body()), ask.max_tokens
        cost = self._cost(ask, tokens, self._state.project.deploy.timeout)
        return {"requests": 1.0, "tokens": float(sum(tokens)), "cost": cost}

    def _units(
        self,
        ask: Ask,
        tokens: tuple[int, int],
        seconds: float,
        outcome: Outcome,
    ) -> Mapping[str, float]:
        if outcome.status != 200 and not sum(tokens):
            return {}
        cost = self._cost(ask, tokens, seconds)
        return {"requests": 1.0, "tokens": float(sum(tokens)), "cost": cost}

    def _cost(self, ask: Ask, tokens: tuple[int, int], seconds: float) -> float:
        return self._pricing.cost(ask.release_name, ask.tuned, tokens, seconds) or 0.0

    def _kept(self, row: RecordRow) -> Mapping[str, float]:
        """Return what a record of a gateway that died used."""
        tokens = (row.prompt_tokens, row.completion_tokens)
        if row.status != 200 and not sum(tokens):
            return {"requests": 0.0, "tokens": 0.0, "cost": 0.0}
        with self._state.store.session() as session:
            release = session.get(ReleaseRow, row.release)
        name = release.name if release else ""
        tuned = bool(release and release.manifest.get("adapter"))
        cost = self._pricing.cost(name, tuned, tokens, row.latency_ms / 1000)
        return {"requests": 1.0, "tokens": float(sum(tokens)), "cost": cost or 0.0}


def levels(
    store: Store, accounts: Sequence[Account], now: datetime | None = None
) -> list[dict[str, Any]]:
    """Return how far each account is used in its present period, as plain data."""
    now = now or utc_now()
    periods = {account.id: period_of(account.per, now) for account in accounts}
    with store.session() as session:
        mine = select(BudgetRow).where(BudgetRow.account.in_(list(periods)))
        rows = {(row.account, row.period): row for row in session.scalars(mine)}
    found = []
    for account in accounts:
        row = rows.get((account.id, periods[account.id]))
        ends = period_end(account.per, now)
        used = row.spent if row else 0.0
        found.append(
            {
                "key": account.key,
                "deployment": account.deployment,
                "unit": account.unit,
                "per": account.per,
                "limit": account.limit,
                "spent": used,
                "held": row.held if row else 0.0,
                "left": max(0.0, account.limit - used),
                "ends_at": ends,
            }
        )
    return found


def all_accounts(
    budgets: Sequence[UsageBudget], callers: Sequence[Caller], deployments: Sequence[str]
) -> list[Account]:
    """Return every account that `callers` and the local user draw on, each once."""
    found: dict[str, Account] = {}
    for caller in [*callers, LOCAL]:
        for deployment in caller.visible(deployments):
            for account in accounts_of(budgets, caller, deployment):
                found.setdefault(account.id, account)
    return list(found.values())


def _spent(account: Account, now: datetime, ask: Ask) -> HttpError:
    ends = period_end(account.per, now)
    wait = (ends - now).total_seconds() if ends else None
    if wait is None or wait > _RETRY_S:
        ask.reply_headers["x-should-retry"] = "false"  # OpenAI's SDKs would try again by themselves
    until = f" It starts anew at {ends:%Y-%m-%d %H:%M} UTC." if ends else ""
    return HttpError(
        429,
        f"{account.words[0].upper()}{account.words[1:]} is used up.{until}",
        code="insufficient_quota",
        retry_after=wait,
    )
