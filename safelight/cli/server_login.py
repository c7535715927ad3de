"""How a browser gets past the password of the embedded server: a link that opens its UI once.

The link gives the browser a cookie, and the guard asks Prefect with the password in the place of
the cookie. So no page, no script of a page and no log ever holds the password.
"""

import base64
import hmac
import json
import secrets
import time
from collections.abc import Callable, Mapping
from http.cookies import CookieError, SimpleCookie
from typing import Any, cast
from urllib.parse import parse_qs

from starlette.types import ASGIApp, Message, Receive, Scope, Send

LINK_SECONDS = 600.0
"""A link that lies in a log is of no use afterwards."""
MOST = 1000
"""Links and browsers that are remembered; the oldest is forgotten first."""
PATH = "/login"
"""With `?token=` of a link. Without it, the page where the UI asks for the password."""
NEW_LINK = "/login/link"
"""Asked by POST with the password: answers with the token of a new link."""
OWN_PAGES = (None, "same-origin", "none")
"""Of Sec-Fetch-Site: other ports of this machine are the same site, and their pages get no use of
the cookie. Browsers leave it out where the address is not loopback and not https."""
Headers = Mapping[bytes, str]


class Logins:
    """Links that were given out, and the browsers that came by one.

    Args:
        password: of the server.
        home: path of the UI, where a browser is sent.
        clock: seconds that pass.
    """

    def __init__(
        self, password: str, home: str = "/", clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._password = password
        self._home = home
        self._clock = clock
        self._links: dict[str, float] = {}
        self._browsers: dict[str, None] = {}
        self._authorization = basic(password)

    def new_link(self) -> str:
        """A token that opens the UI once, for `LINK_SECONDS`."""
        return _remember(self._links, self._clock() + LINK_SECONDS)

    def use(self, token: str) -> str | None:
        """The cookie for a browser that came by a link; None when the link is no longer good."""
        end = self._links.pop(token, 0.0)
        return _remember(self._browsers, None) if self._clock() < end else None

    def knows(self, scope: Scope, headers: Headers) -> bool:
        """Whether a request comes from a page of ours in a browser that came by a link."""
        if b"cookie" not in headers or headers.get(b"sec-fetch-site") not in OWN_PAGES:
            return False
        try:
            cookies = SimpleCookie(headers[b"cookie"])
        except CookieError:
            return False
        found = cookies.get(_cookie(scope))
        return found is not None and found.value in self._browsers

    async def answer(self, scope: Scope, headers: Headers, send: Send) -> bool:
        """Answer what is asked of us; False when it is for Prefect."""
        if scope["type"] != "http":
            return False
        token = parse_qs(scope["query_string"].decode("latin-1")).get("token", [""])[0]
        if scope["path"] == PATH and scope["method"] == "GET" and token:
            await self._let_in(scope, headers, send, token)
            return True
        if scope["path"] == NEW_LINK and scope["method"] == "POST":
            told = headers.get(b"authorization", "")
            if hmac.compare_digest(told.encode(), self._authorization.encode()):
                await _send(send, 201, json.dumps({"token": self.new_link()}), b"application/json")
            else:
                await _send(send, 401, '{"detail": "Unauthorized"}', b"application/json")
            return True
        return False

    async def _let_in(self, scope: Scope, headers: Headers, send: Send, token: str) -> None:
        cookie = self.use(token)
        if cookie is None and not self.knows(scope, headers):
            said = (
                "[AUTH_INVALID] This link was used already, or is older than "
                f"{LINK_SECONDS / 60:.0f} minutes. Fix: safelight login prints a new one.\n"
            )
            await _send(send, 403, said, b"text/plain; charset=utf-8")
            return
        more = [(b"location", self._home.encode()), (b"referrer-policy", b"no-referrer")]
        if cookie is not None:
            set_it = f"{_cookie(scope)}={cookie}; Path=/; HttpOnly; SameSite=Strict"
            more.append((b"set-cookie", set_it.encode()))
        await _send(send, 303, "", b"text/plain", more)

    async def pass_on(self, app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
        """Ask Prefect with the password, for a browser that is known."""
        taken = (b"authorization", b"accept-encoding" if _of_settings(scope) else b"")
        headers = [entry for entry in scope["headers"] if entry[0].lower() not in taken]
        headers.append((b"authorization", self._authorization.encode()))
        known: Scope = {**scope, "headers": headers}
        if scope["type"] == "websocket":
            await app(known, self._presenting(receive), send)
        elif _of_settings(scope):
            await app(known, receive, _without_question(send))
        else:
            await app(known, receive, send)

    def _presenting(self, receive: Receive) -> Receive:
        """Put the password into the message by which Prefect's web sockets begin."""
        begun = False

        async def read() -> Message:
            nonlocal begun
            message = await receive()
            if begun or message["type"] != "websocket.receive":
                return message
            begun = True
            said = message.get("text") or (message.get("bytes") or b"").decode(errors="replace")
            try:
                first = json.loads(said)
            except ValueError:
                return message
            if not isinstance(first, dict) or cast("Any", first).get("type") != "auth":
                return message
            told = {**cast("dict[str, Any]", first), "token": self._password}
            return {"type": "websocket.receive", "text": json.dumps(told)}

        return read


def basic(password: str) -> str:
    """The header Authorization by which Prefect's clients send a password."""
    return f"Basic {base64.b64encode(password.encode()).decode()}"


def _remember(known: dict[str, Any], value: object) -> str:
    while len(known) >= MOST:
        del known[next(iter(known))]
    name = secrets.token_urlsafe(32)
    known[name] = value
    return name


def _cookie(scope: Scope) -> str:
    """Its name: browsers send the cookies of one port of this machine to all its ports."""
    server = scope.get("server") or ("", 0)
    return f"safelight-{server[1]}"


def _of_settings(scope: Scope) -> bool:
    return scope["type"] == "http" and str(scope["path"]).endswith("/ui-settings")


def _without_question(send: Send) -> Send:
    """Tell the UI that there is no password to ask the person for."""
    begun: list[Message] = []
    body: list[bytes] = []

    async def edit(message: Message) -> None:
        if message["type"] == "http.response.start":
            begun.append(message)
            return
        body.append(message.get("body", b""))
        if message.get("more_body"):
            return
        start, whole = begun[0], b"".join(body)
        if start["status"] == 200:
            whole = json.dumps({**json.loads(whole), "auth": None}).encode()
        changed = (b"content-length", b"cache-control")
        headers = [entry for entry in start["headers"] if entry[0].lower() not in changed]
        headers.append((b"content-length", str(len(whole)).encode()))
        headers.append((b"cache-control", b"no-store"))
        await send({**start, "headers": headers})
        await send({"type": "http.response.body", "body": whole})

    return edit


async def _send(
    send: Send, status: int, said: str, kind: bytes, more: list[tuple[bytes, bytes]] | None = None
) -> None:
    body = said.encode()
    headers = [
        *(more or []),
        (b"content-type", kind),
        (b"cache-control", b"no-store"),
        (b"content-length", str(len(body)).encode()),
    ]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
