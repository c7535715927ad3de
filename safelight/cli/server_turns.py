"""Whose turn it is to write to SQLite, when many want to.

Handed on by the age of the request, not of the transaction: a request of several transactions
waits about as long as one of a single one, and not as many times. One of very many, such as a
change of 200 runs, begins to wait anew now and then, so that it does not keep all others waiting.
"""

import asyncio
import heapq
import sqlite3
import time
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from itertools import count
from weakref import WeakKeyDictionary

from sqlalchemy.exc import OperationalError

TURN_SECONDS = 60.0
"""As long as Prefect has SQLite wait for a lock."""
MOST_AT_ONE_AGE = 8
"""Turns, after which a request counts as one that has just come."""


@dataclass
class Arrival:
    """When a request came, by the monotonic clock, and how many turns it has had since."""

    since: float = field(default_factory=time.monotonic)
    turns: int = 0

    def count(self) -> None:
        """One more turn."""
        self.turns += 1
        if self.turns % MOST_AT_ONE_AGE == 0:
            self.since = time.monotonic()


ARRIVAL: ContextVar[Arrival | None] = ContextVar("ARRIVAL", default=None)
"""Of the request that this context answers; None in services of the server."""


class Turns:
    """A lock of one event loop that goes to the oldest of those who wait."""

    def __init__(self) -> None:
        """Nobody's turn."""
        self._held = False
        self._numbers = count()
        self._waiting: list[tuple[float, int, asyncio.Future[None]]] = []

    async def acquire(self, since: float) -> None:
        """Wait for the turn of who came at `since`."""
        if not self._held:
            self._held = True
            return
        handed = asyncio.get_running_loop().create_future()
        heapq.heappush(self._waiting, (since, next(self._numbers), handed))
        try:
            await handed
        except asyncio.CancelledError:
            if handed.done() and not handed.cancelled():  # it came in the same moment
                self.release()
            raise

    def release(self) -> None:
        """Hand the turn on."""
        while self._waiting:
            *_, handed = heapq.heappop(self._waiting)
            if not handed.done():
                handed.set_result(None)
                return
        self._held = False


_TURNS: WeakKeyDictionary[asyncio.AbstractEventLoop, Turns] = WeakKeyDictionary()


@contextmanager
def arrived() -> Generator[None]:
    """What is done inside is done for one request, which came now."""
    token = ARRIVAL.set(Arrival())
    try:
        yield
    finally:
        ARRIVAL.reset(token)


@asynccontextmanager
async def turn() -> AsyncGenerator[None]:
    """Wait until no other has the turn; fails as SQLite does when its lock stays.

    Raises:
        OperationalError: the turn did not come within `TURN_SECONDS`.
    """
    turns = _TURNS.setdefault(asyncio.get_running_loop(), Turns())
    arrival = ARRIVAL.get() or Arrival()
    try:
        async with asyncio.timeout(TURN_SECONDS):
            await turns.acquire(arrival.since)
    except TimeoutError as error:
        locked = sqlite3.OperationalError("database is locked")
        locked.sqlite_errorname = "SQLITE_BUSY"
        raise OperationalError("BEGIN IMMEDIATE", None, locked) from error
    arrival.count()
    try:
        yield
    finally:
        turns.release()
