"""Who asks: the one place that routes, the page and other interfaces ask for it."""

from collections.abc import Generator, MutableMapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from safelight.access.keys import Key, Limits, Scope
from safelight.audit.actors import acting_as

_ENTRY = "safelight.caller"
NO_LIMITS = Limits()


@dataclass(frozen=True)
class Caller:
    """Somebody who asks."""

    actor: str
    """How the audit calls them."""
    scope: Scope | None
    """What they may do; None is what everybody may."""
    id: str = ""
    """Of their key, or `oidc-...` for a person whom a provider names; empty for nobody known."""
    limits: Limits = NO_LIMITS
    """How much they may."""
    session: str = ""
    """Of a browser: the session, hashed."""
    csrf: str = ""
    """What a page has to send with changes in the header X-CSRF-Token; empty without a session."""

    @property
    def tags(self) -> list[str]:
        """Tags of the runs that they create."""
        return [f"key:{self.id}"] if self.id else []


ANYBODY = Caller("anonymous", Scope.ADMIN)
"""Asks a gateway of this machine alone that wants no sign-in."""
NOBODY = Caller("anonymous", None)
"""Has not signed in where that is wanted."""
_current: ContextVar[Caller] = ContextVar("caller", default=ANYBODY)


def caller_of(scope: MutableMapping[str, Any]) -> Caller:
    """Who sent a request, by its ASGI scope."""
    known = scope.get(_ENTRY)
    return known if isinstance(known, Caller) else NOBODY


def current_caller() -> Caller:
    """Who sent the request that is answered now; outside of one, this process itself."""
    return _current.get()


@contextmanager
def asking(scope: MutableMapping[str, Any], caller: Caller) -> Generator[None]:
    """Answer a request of somebody inside."""
    scope[_ENTRY] = caller
    token = _current.set(caller)
    try:
        with acting_as(caller.actor):
            yield
    finally:
        _current.reset(token)


def of_key(key: Key) -> Caller:
    """Who has a key."""
    return Caller(
        key.actor, key.scope, key.id, Limits.model_validate(key.model_dump(include=_LIMITS))
    )


_LIMITS = set(Limits.model_fields)
