"""What stands before the embedded server: no foreign page, no body that would stop its queue.

A page of any web site may send requests to loopback, and a name of its own may be made to resolve
to it (DNS rebinding). Browsers say where a request comes from in `Origin`, what it was called in
`Host`, and ask first (preflight) before they send JSON to somewhere else.
"""

import ipaddress
import json
import socket
from collections.abc import Iterator
from contextlib import nullcontext
from typing import Any, cast
from urllib.parse import urlsplit

import anyio
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from safelight.cli.server_login import Logins
from safelight.cli.server_turns import arrived
from safelight.loopback import LOOPBACK, is_loopback

LONGEST_BYTES = 64 * 2**20
"""Of a request; Prefect's own are far shorter."""
NAMES = frozenset(LOOPBACK)
OF_SCHEDULES = "/api/deployments"
OF_TEXTS = ("/api/logs", "/api/events")
"""What comes here is printed by programs: a NUL in it is no reason to lose it."""


class ServerGuard:
    """An ASGI app in front of Prefect's.

    Args:
        app: Prefect's server.
        hosts: names it may be called by, besides loopback, addresses in numbers and the machine's.
        origins: origins that may ask besides its own, as the operator lists them.
        logins: lets browsers past the password; None when there is no password.
    """

    def __init__(
        self,
        app: ASGIApp,
        hosts: frozenset[str],
        origins: frozenset[str],
        logins: Logins | None = None,
    ) -> None:
        self._app = app
        self._logins = logins
        self._hosts = NAMES | hosts | {socket.gethostname().lower(), socket.getfqdn().lower()}
        self._origins = origins

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        with arrived() if scope["type"] == "http" else nullcontext():
            await self._answer(scope, receive, send)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = {name.lower(): value.decode("latin-1") for name, value in scope["headers"]}
        problem = self._who_asks(headers) or self._whom_it_reaches(scope)
        if problem is not None:
            await _refuse(scope, send, 403, f"[PERMISSION_DENIED] {problem}")
            return
        if self._logins is not None and await self._logins.answer(scope, headers, send):
            return
        if scope["type"] == "websocket" or scope["method"] not in ("POST", "PUT", "PATCH"):
            await self._pass_on(scope, headers, receive, send)
            return
        body = await _body(receive)
        if body is None:
            await _refuse(
                scope,
                send,
                413,
                f"[INVALID_FIELD_VALUE] the request is longer than {LONGEST_BYTES} bytes. "
                "Fix: send less at a time.",
            )
            return
        kind = headers.get(b"content-type", "").partition(";")[0].strip().lower()
        if body and kind != "application/json":
            await _refuse(
                scope,
                send,
                415,
                f"[CONTRACT_MISMATCH] the content type is {kind or 'not given'}, expected "
                "application/json. Fix: send the header Content-Type: application/json.",
            )
            return
        field = _unkept(body, nul=not scope["path"].startswith(OF_TEXTS))
        if field is not None:
            await _refuse(scope, send, 422, f"[INVALID_FIELD_VALUE] {field}")
            return
        rule = await _endless(scope["path"], body)
        if rule is not None:
            await _refuse(scope, send, 422, f"[INVALID_FIELD_VALUE] {rule}")
            return
        await self._pass_on(scope, headers, _again(body, receive), send)

    async def _pass_on(
        self, scope: Scope, headers: dict[bytes, str], receive: Receive, send: Send
    ) -> None:
        if self._logins is not None and self._logins.knows(scope, headers):
            await self._logins.pass_on(self._app, scope, receive, send)
            return
        await self._app(scope, receive, send)

    def _whom_it_reaches(self, scope: Scope) -> str | None:
        address = str((scope.get("server") or ("127.0.0.1",))[0])
        if self._logins is not None or is_loopback(address):
            return None
        return (
            f"this server asks for no password and is reached at {address}. Fix: set "
            "PREFECT_SERVER_API_AUTH_STRING, or listen on 127.0.0.1."
        )

    def _who_asks(self, headers: dict[bytes, str]) -> str | None:
        called = headers.get(b"host", "")
        host, port = _split(f"//{called}")
        if not (host in self._hosts or _is_address(host)):
            return (
                f"this server is not called {host or 'nothing'}. Fix: use its address in numbers, "
                "or set PREFECT_SERVER_UI_API_URL to the address it is reached by."
            )
        origin = headers.get(b"origin")
        if origin is None or origin in self._origins:
            return None
        its_host, its_port = _split(origin)
        same = its_host == host or {its_host, host} <= NAMES
        if same and its_port == port and origin.startswith(("http://", "https://")):
            return None
        return (
            f"pages of {origin} may not use this server. Fix: open its own UI, or list the origin "
            "in PREFECT_SERVER_CORS_ALLOWED_ORIGINS."
        )


def _split(address: str) -> tuple[str, int | None]:
    """Host and port, lower case; nothing where it cannot be read."""
    try:
        parts = urlsplit(address)
        return (parts.hostname or "").rstrip("."), parts.port
    except ValueError:
        return "", None


def _is_address(host: str) -> bool:
    """Whether it is written in numbers, which no name of anybody's resolves to."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


async def _body(receive: Receive) -> bytes | None:
    """All of a request's body; None when it is too long."""
    parts: list[bytes] = []
    length = 0
    while True:
        message = await receive()
        if message["type"] != "http.request":  # the client is gone
            return b""
        part = cast("bytes", message.get("body", b""))
        parts.append(part)
        length += len(part)
        if length > LONGEST_BYTES:
            return None
        if not message.get("more_body", False):
            return b"".join(parts)


def _again(body: bytes, receive: Receive) -> Receive:
    """Give a body that was read once more, then whatever comes after it."""
    given = False

    async def read() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return read


async def _endless(path: str, body: bytes) -> str | None:
    """What a body says of a schedule that would keep the server from everything else."""
    if not path.startswith(OF_SCHEDULES) or b'"rrule"' not in body:
        return None
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        return None  # Prefect says what is wrong with it
    from safelight.cli.schedule_rules import endless_rule  # with numpy, which few requests need

    return await anyio.to_thread.run_sync(endless_rule, value)


def _unkept(body: bytes, *, nul: bool) -> str | None:
    """What of a JSON body no database keeps; None when nothing.

    Half a surrogate pair is stored and can never be read again, so that every list with the row in
    it fails; PostgreSQL keeps no NUL.
    """
    seen = body.lower()
    if b"\\ud" not in seen and not (nul and b"\\u0000" in seen):
        return None
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        return None  # Prefect says what is wrong with it
    for where, text in _texts(value):
        if nul and "\0" in text:
            return f"{where} holds a NUL character. Fix: take it out."
        try:
            text.encode()
        except UnicodeEncodeError as error:
            return (
                f"{where} holds half a character, {text[error.start]!a}, at {error.start}. "
                "Fix: send the whole of it, or take it out."
            )
    return None


def _texts(value: Any) -> Iterator[tuple[str, str]]:  # noqa: ANN401  (any JSON)
    """Every text in a JSON value, keys too, and where it stands."""
    waiting: list[tuple[str, Any]] = [("the body", value)]
    while waiting:
        where, one = waiting.pop()
        if isinstance(one, str):
            yield where, one
        elif isinstance(one, dict):
            for key, inner in cast("dict[str, Any]", one).items():
                yield f"a name in {where}", key
                waiting.append((key if where == "the body" else f"{where}.{key}", inner))
        elif isinstance(one, list):
            waiting += [(f"{where}[{at}]", inner) for at, inner in enumerate(cast("Any", one))]


async def _refuse(scope: Scope, send: Send, status: int, said: str) -> None:
    if scope["type"] == "websocket":
        await send({"type": "websocket.close", "code": 1008, "reason": said[:120]})
        return
    body = json.dumps({"detail": said, "exception_message": said}).encode()
    kind = (b"content-type", b"application/json")
    length = (b"content-length", str(len(body)).encode())
    start = {"type": "http.response.start", "status": status, "headers": [kind, length]}
    await send(start)
    await send({"type": "http.response.body", "body": body})
