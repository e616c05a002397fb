"""Which budgets a request falls under, and how large it can get: no store, no clock of its own.

An account is what one budget counts for one subject: a key, a deployment or everybody. The most
particular limit holds: a key's own over a budget that names the key, and that one over "*".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from tutelage.core.config_usage import UsageBudget
from tutelage.core.example import Message
from tutelage.serving.access.keys import UNITS, Caller
from tutelage.serving.wire.fast_json import encode

LOCAL_NAME = "(local)"  # stands for requests without a key, from this machine
_TURN_TOKENS = 16  # what a chat template puts around a turn, at most
_PROMPT_TOKENS = 64  # and around the whole
_LETTERS_A_TOKEN = 4  # of ordinary text; only for what an engine did not count


@dataclass(frozen=True)
class Account:
    """At most `limit` of `unit` in each period, for `key` and `deployment` (None: all)."""

    key: str | None
    deployment: str | None
    unit: str
    per: str
    limit: float

    @property
    def id(self) -> str:
        """Return the name under which its use is kept; the limit is no part of it."""
        return f"{self.unit}/{self.per} key={self.key or '*'} deployment={self.deployment or '*'}"

    @property
    def words(self) -> str:
        """Return whose budget it is, for messages."""
        of = f"of the key '{self.key}'" if self.key else "of this gateway"
        on = f" for '{self.deployment}'" if self.deployment else ""
        length = "in all" if self.per == "total" else f"a {self.per}"
        return f"the budget {of}{on} ({number(self.limit)} {self.unit} {length})"


def idle(
    budgets: Sequence[UsageBudget], callers: Sequence[Caller], deployments: Sequence[str]
) -> list[str]:
    """Return, for each budget of the settings that holds nobody, whom it names in vain."""
    keys = [caller.name for caller in callers]
    found = []
    for budget in budgets:
        if budget.key not in (None, "*", LOCAL_NAME, *keys):
            found.append(f"no active key is called {budget.key!r}")
        elif budget.deployment not in (None, *deployments):
            found.append(f"there is no deployment {budget.deployment!r}")
    return found


def number(value: float) -> str:
    """Return an amount as people write it: 1,000,000 or 0.25."""
    return f"{value:,.0f}" if value == int(value) else f"{value:,.6f}".rstrip("0")


def accounts_of(
    budgets: Sequence[UsageBudget], caller: Caller, deployment: str
) -> tuple[Account, ...]:
    """Return the accounts that a request of `caller` to `deployment` draws on."""
    name = caller.name or LOCAL_NAME
    found: dict[str, tuple[int, Account]] = {}  # id -> how particular, account

    def add(rank: int, account: Account) -> None:
        before = found.get(account.id)
        if before is None or (-rank, account.limit) < (-before[0], before[1].limit):
            found[account.id] = rank, account

    for budget in budgets:
        if budget.deployment not in (None, deployment) or budget.key not in (None, "*", name):
            continue
        subject = name if budget.key else None
        rank = 1 if budget.key == "*" else 2
        for unit in UNITS:
            limit = getattr(budget, unit)
            if limit is not None:
                add(rank, Account(subject, budget.deployment, unit, budget.per, float(limit)))
    for own in caller.budgets:
        add(3, Account(name, None, own.unit, own.per, float(own.limit)))
    return tuple(account for _, account in found.values())


def period_of(per: str, now: datetime) -> str:
    """Return the name of the period that `now` lies in, in UTC."""
    forms = {"minute": "%Y-%m-%dT%H:%M", "hour": "%Y-%m-%dT%H", "day": "%Y-%m-%d", "month": "%Y-%m"}
    return now.astimezone(UTC).strftime(forms[per]) if per in forms else "all"


def period_end(per: str, now: datetime) -> datetime | None:
    """Return when the period that `now` lies in ends; None for one that never does."""
    now = now.astimezone(UTC)
    if per == "minute":
        return now.replace(second=0, microsecond=0) + timedelta(minutes=1)
    if per == "hour":
        return now.replace(minute=0, second=0, microsecond=0) + timedelta(hours=1)
    midnight = now.replace(hour=0, minute=0, second=0, microsecond=0)
    if per == "day":
        return midnight + timedelta(days=1)
    if per == "month":
        return (midnight.replace(day=1) + timedelta(days=32)).replace(day=1)
    return None


def most_prompt_tokens(body: Mapping[str, Any]) -> int:
    """Return tokens that the prompt of an engine's request can't exceed.

    No token is shorter than a byte of the text, and JSON only makes texts longer.
    """
    told = {name: body[name] for name in ("messages", "tools") if name in body}
    return len(encode(told)) + _TURN_TOKENS * len(body["messages"]) + _PROMPT_TOKENS


def likely_prompt_tokens(messages: Sequence[Message], prompt: str = "") -> int:
    """Return about how many tokens the prompt has, for a request that nobody counted."""
    return likely_tokens(sum(len(turn.content) for turn in messages) + len(prompt))


def likely_tokens(letters: int) -> int:
    """Return about how many tokens a text of so many letters has."""
    return -(-letters // _LETTERS_A_TOKEN)
