"""Who acts: the account of this process, unless somebody else was recognised."""

from collections.abc import Generator
from contextlib import contextmanager
from contextvars import ContextVar

from safelight.account import person

_acting: ContextVar[str | None] = ContextVar("acting", default=None)


def actor() -> str:
    """Who acts now: `key:ID NAME`, `oidc:NAME`, `anonymous`, or `account:NAME` of this process."""
    return _acting.get() or f"account:{person()}"


@contextmanager
def acting_as(name: str) -> Generator[None]:
    """Let what is done inside be of somebody else."""
    token = _acting.set(name)
    try:
        yield
    finally:
        _acting.reset(token)
