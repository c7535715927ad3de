"""The work that runs now, by a name under which an engine elsewhere goes on with it."""

from collections.abc import Callable, Generator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from uuid import uuid4


@dataclass(frozen=True)
class Work:
    """One call of a stage."""

    run: str
    """The run that pays for it."""
    name: Callable[[], str]
    """The same for every try of the same work in one flow run, whichever process makes it."""


_payer: ContextVar[str] = ContextVar("payer", default="")
_current: ContextVar[Work | None] = ContextVar("work", default=None)


def current_work() -> Work:
    """The work that runs; outside of one, a name that nothing else has."""
    known = _current.get()
    if known is not None:
        return known
    alone = str(uuid4())
    return Work(alone, lambda: alone)


def payer() -> str:
    """The run that pays for the parts of which it is made; empty where each pays for itself."""
    return _payer.get()


@contextmanager
def paying(run: str) -> Generator[None]:
    """Flows that are called inside are parts of a run, which pays for them."""
    token = _payer.set(run)
    try:
        yield
    finally:
        _payer.reset(token)


@contextmanager
def working(work: Work) -> Generator[None]:
    """Engines that are asked inside do this work."""
    token = _current.set(work)
    try:
        yield
    finally:
        _current.reset(token)
