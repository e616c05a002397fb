"""What budgets have spent and hold, exact over gateways that share a store and over kill -9.

A request takes a hold on all its accounts in one transaction before it is answered, and the hold
becomes what it used when it ends. A request that certainly fits is let in; while others are under
way one that may not fit waits for them; alone, the last one may run over. So a budget is used up,
and passed by less than one request. One thread commits the claims of all requests that wait.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from sqlalchemy.exc import SQLAlchemyError

from tutelage.serving.access.accounts import Account
from tutelage.serving.access.ledger_book import Answer, Book, Charge, Claim, End, Pair, Wish
from tutelage.store.base import Store

HOLD_S = 60.0  # a hold that nobody renewed for so long belonged to a gateway that died
PATIENCE_S = 5.0  # how long a request waits for others to end
_POLL_S = 0.1  # between looks at what other gateways' requests gave back
_LINGER_S = 0.05  # ended requests wait this long for company
_MOST_WAITING = 1024
_SPENT_S = 1.0  # a spent budget is not asked about again for so long
_log = logging.getLogger(__name__)


class BudgetSpent(Exception):
    """Nothing is left of `account` in this period."""

    def __init__(self, account: Account) -> None:
        super().__init__(account.words)
        self.account = account


class BudgetInUse(Exception):
    """What is left of `account` is held by requests under way."""

    def __init__(self, account: Account) -> None:
        super().__init__(account.words)
        self.account = account


@dataclass(eq=False, slots=True)
class _Ask:
    wish: Wish
    loop: asyncio.AbstractEventLoop
    future: asyncio.Future[None]
    since: float = field(default_factory=time.monotonic)

    def answer(self, error: Exception | None = None) -> None:
        def settle() -> None:
            if self.future.done():
                return
            if error is None:
                self.future.set_result(None)
            else:
                self.future.set_exception(error)

        try:
            self.loop.call_soon_threadsafe(settle)
        except RuntimeError:
            _log.debug("nobody waits for this answer any more: the loop is closed")


class Ledger:
    """The holds of one gateway. `charge` tells what a kept record of a dead gateway used."""

    def __init__(self, store: Store, charge: Charge, *, hold_s: float = HOLD_S) -> None:
        self.store, self.hold_s = store, hold_s
        self.holder = secrets.token_hex(8)
        self._book = Book(store, charge, self.holder, hold_s)
        self._open: dict[str, tuple[Pair, ...]] = {}  # requests under way, on the loop's side
        self._spent: dict[tuple[str, str, float], tuple[float, Account]] = {}
        self._asks: deque[_Ask] = deque()
        self._ends: deque[End] = deque()
        self._waiting: list[_Ask] = []
        self._renewed = 0.0
        self._wake = threading.Condition()
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="budgets", daemon=True)

    def start(self) -> None:
        """Start the thread that commits."""
        self._thread.start()

    def close(self, timeout: float = 10.0) -> None:
        """Charge what has ended, then stop."""
        with self._wake:
            self._closing = True
            self._wake.notify_all()
        if self._thread.is_alive():
            self._thread.join(timeout)
        self._book.close()

    async def reserve(self, record: str, claims: Sequence[Claim]) -> None:
        """Return once `record` holds all it claims.

        Raises BudgetSpent, BudgetInUse when others did not end in time, or the store's error.
        """
        for claim in claims:
            known = self._spent.get((*claim.pair, claim.account.limit))
            if known is not None and known[0] > time.monotonic():
                raise BudgetSpent(claim.account)
        loop = asyncio.get_running_loop()
        ask = _Ask(Wish(record, claims), loop, loop.create_future())
        self._open[record] = tuple(claim.pair for claim in claims)
        with self._wake:
            self._asks.append(ask)
            self._wake.notify()
        try:
            await ask.future
        except asyncio.CancelledError:
            raise  # it may hold something by now: settle ends that
        except BudgetSpent as error:
            self._open.pop(record, None)
            pair = next(claim.pair for claim in claims if claim.account is error.account)
            self._remember((*pair, error.account.limit), error.account)
            raise
        except (BudgetInUse, SQLAlchemyError):
            self._open.pop(record, None)
            raise

    def holds(self, record: str) -> bool:
        """Return whether `record` has asked for something that is not settled."""
        return record in self._open

    def settle(self, record: str, units: Mapping[str, float]) -> None:
        """Charge `units` to what `record` held; nothing happens if it held nothing."""
        pairs = self._open.pop(record, None)
        if pairs is None:
            return
        with self._wake:
            self._ends.append(End(record, pairs, units))
            self._wake.notify()

    def flush(self, timeout: float = 10.0) -> bool:
        """Wait until everything that ended so far is charged; False after `timeout` seconds."""
        with self._wake:
            return self._wake.wait_for(lambda: not self._ends, timeout)

    def _remember(self, key: tuple[str, str, float], account: Account) -> None:
        now = time.monotonic()
        self._spent = {k: v for k, v in self._spent.items() if v[0] > now}
        self._spent[key] = now + _SPENT_S, account

    def _run(self) -> None:
        self._turn([], [])  # settles the dead, and opens the store before somebody waits for it
        while True:
            with self._wake:
                self._wake.wait_for(self._pressing, _POLL_S if self._waiting else self.hold_s / 3)
                if self._ends and not self._asks and not self._waiting and not self._closing:
                    self._wake.wait_for(lambda: bool(self._asks) or self._closing, _LINGER_S)
                asks, ends = [*self._waiting, *self._asks], list(self._ends)
                self._asks.clear()
                stop = self._closing and not asks
            self._waiting = []
            self._turn(asks, ends)
            if stop and not self._asks:
                return

    def _pressing(self) -> bool:
        return bool(self._asks or self._ends) or self._closing

    def _turn(self, asks: list[_Ask], ends: list[End]) -> None:
        """Commit once; then tell who was let in, who waits and who is refused."""
        gone = {end.record for end in ends}
        asks = [ask for ask in asks if ask.wish.record not in gone and not ask.future.cancelled()]
        try:
            if time.monotonic() - self._renewed > self.hold_s / 3:
                self._book.renew()
                self._book.reclaim()
                self._renewed = time.monotonic()
            wishes = [ask.wish for ask in asks]
            answers = self._book.commit(ends, wishes) if asks or ends else []
        except SQLAlchemyError as error:
            _log.warning("budgets can't be kept now: %s", error)
            for ask in asks:
                ask.answer(error)
            time.sleep(0.0 if self._closing else _POLL_S)
            return
        except Exception as error:  # the thread must outlive what is wrong with one request
            _log.exception("budgets failed on %d requests", len(asks) + len(ends))
            for ask in asks:
                ask.answer(error)
            asks, answers = [], []  # what ended is charged in full once its holds expire
        with self._wake:
            for _ in ends:
                self._ends.popleft()
            self._wake.notify_all()
        for ask, (answer, account) in zip(asks, answers, strict=True):
            self._tell(ask, answer, account)

    def _tell(self, ask: _Ask, answer: Answer, account: Account | None) -> None:
        if account is None:
            ask.answer()
        elif answer == "spent":
            ask.answer(BudgetSpent(account))
        elif (
            self._closing
            or len(self._waiting) >= _MOST_WAITING
            or time.monotonic() - ask.since > PATIENCE_S
        ):
            ask.answer(BudgetInUse(account))
        else:
            self._waiting.append(ask)
