"""What stands between the guard and the routes: who asks, whether they may, and how often."""

import base64
import binascii
import hmac
from collections.abc import Iterable
from http.cookies import CookieError, SimpleCookie
from urllib.parse import quote

from anyio.to_thread import run_sync
from starlette.datastructures import Headers
from starlette.responses import RedirectResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from safelight.access.keys import any_key, recognised
from safelight.errors import AuthInvalidError, PipelineError
from safelight.gateway.correlating import correlation_id
from safelight.gateway.problems import (
    ForgedRequestError,
    KeyMissingError,
    KeyRefusedError,
    ScopeError,
    answer_to,
)
from safelight.gateway.signin.caller import ANYBODY, NOBODY, Caller, asking, of_key
from safelight.gateway.signin.rates import Rates
from safelight.gateway.signin.refusals import flood
from safelight.gateway.signin.scopes import READS, wanted_scope
from safelight.gateway.signin.sessions import COOKIE, of_session
from safelight.params import shown
from safelight.settings import settings

CSRF = "x-csrf-token"
OWN_CHECK = frozenset({"/signin", "/signout"})
"""Paths that take forms of pages without scripts, which hold the token in a field."""
LONGEST_HEADER = 1000


def sign_in_wanted() -> bool:
    """Whether callers have to say who they are: a key was made, a provider or a setting says so."""
    known = settings()
    return known.gateway_sign_in == "always" or known.oidc_issuer is not None or any_key()


class Recognising:
    """An ASGI app in front of the routes.

    Args:
        app: the routes.
        always: whether to want a sign-in whatever is configured.
    """

    def __init__(self, app: ASGIApp, *, always: bool = False) -> None:
        self._app = app
        self._always = always
        self._rates = Rates()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on with its caller, or refuse it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        known = NOBODY
        try:
            if not (self._always or sign_in_wanted()):
                known = ANYBODY
            else:
                known = await run_sync(recognise, scope)
                self._require(scope, known)
        except PipelineError as refused:
            unknown = isinstance(refused, KeyMissingError | KeyRefusedError)
            told = (flood(scope) if unknown else None) or refused
            if told is refused and unknown and _is_page(scope):
                answer: Response = RedirectResponse(f"/signin?next={quote(scope['path'])}", 303)
            else:
                answer = answer_to(told, correlation_id(scope))
            with asking(scope, known):
                await answer(scope, receive, send)
            return
        with asking(scope, known):
            await self._app(scope, receive, send)

    def _require(self, scope: Scope, caller: Caller) -> None:
        method, path = scope["method"], scope["path"]
        wanted = wanted_scope(method, path)
        if wanted is None:
            return
        if caller.scope is None:
            raise KeyMissingError(
                "no key was sent, and this gateway wants one",
                "send the header Authorization: Bearer KEY, or sign in at /signin",
            )
        limit = caller.limits.requests_per_minute or settings().key_requests_per_minute
        self._rates.require(caller.actor, limit)
        if not caller.scope.covers(wanted):
            raise ScopeError(
                f"{method} {shown(path)} needs the scope {wanted}, and this is {caller.scope}",
                f"use a key of the scope {wanted}",
            )
        if caller.session and method not in READS and path not in OWN_CHECK:
            given = Headers(scope=scope).getlist(CSRF)
            if len(given) != 1 or not same(given[0], caller.csrf):
                raise ForgedRequestError(
                    "the request changes something and has not the token of its session",
                    "load the page again, or send it in the header X-CSRF-Token",
                )


def recognise(scope: Scope) -> Caller:
    """Who sent a request: by its key, else by its session; nobody where it has neither.

    Raises:
        KeyRefusedError: what it has is not good.
    """
    headers = Headers(scope=scope)
    given = headers.getlist("authorization")
    wanted = wanted_scope(scope["method"], scope["path"])
    try:
        if given:
            return _by_key(given)
        token = _cookie(headers.getlist("cookie"))
        return NOBODY if token is None else of_session(token)
    except KeyRefusedError:
        if wanted is None:  # who comes to sign in may have an old one
            return NOBODY
        raise


def same(given: str, expected: str) -> bool:
    """Whether a secret is the expected one, which nobody learns from the time it takes."""
    return bool(expected) and hmac.compare_digest(given.encode(), expected.encode())


def _by_key(given: list[str]) -> Caller:
    kind, _, value = given[0].strip().partition(" ")
    token = value.strip()
    if len(given) != 1 or len(given[0]) > LONGEST_HEADER:
        raise KeyRefusedError("the header Authorization is sent twice or too long", "send one key")
    if kind.lower() == "basic":  # what programs for other systems send: any name, and the key
        try:
            token = base64.b64decode(token, validate=True).decode().partition(":")[2]
        except (binascii.Error, UnicodeDecodeError):
            token = ""
    elif kind.lower() != "bearer":
        token = ""
    try:
        return of_key(recognised(token))
    except AuthInvalidError as error:
        raise KeyRefusedError(error.problem, error.remedy) from error


def _cookie(lines: Iterable[str]) -> str | None:
    """The session that a browser sends; None where it sends none.

    Raises:
        KeyRefusedError: it sends several.
    """
    found: list[str] = []
    for line in lines:
        for part in line.split(";"):
            name, _, value = part.strip().partition("=")
            if name == COOKIE:
                found.append(_unquoted(value))
    if len(found) > 1:
        raise KeyRefusedError("several sessions are sent at once", "send one cookie")
    return found[0] if found else None


def _unquoted(value: str) -> str:
    try:
        return SimpleCookie(f"{COOKIE}={value}")[COOKIE].value
    except (CookieError, KeyError):
        return value


def _is_page(scope: Scope) -> bool:
    """Whether a browser goes to a page, which is to lead to the sign-in."""
    headers = Headers(scope=scope)
    path: str = scope["path"]
    reads = scope["method"] == "GET" and "text/html" in headers.get("accept", "")
    return (
        reads and not path.startswith(("/api", "/sdapi", "/v1")) and "authorization" not in headers
    )
