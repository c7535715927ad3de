"""What stands before the gateway: no foreign page, and without a sign-in this machine alone.

A page of any web site may send requests to loopback, and a name of its own may be made to resolve
to it (DNS rebinding). Browsers say in `Host` what they called the gateway and in `Origin` which
page asks.
"""

import ipaddress
import re
import socket
from contextlib import suppress
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from safelight.client.requests import LARGEST_FILE
from safelight.errors import PipelineError
from safelight.gateway.correlating import correlation_id
from safelight.gateway.problems import (
    BodyTooLongError,
    ContentTypeError,
    ForeignRequestError,
    answer_to,
)
from safelight.gateway.signin.recognising import sign_in_wanted
from safelight.loopback import LOOPBACK, is_loopback
from safelight.settings import settings

JSON_BYTES = 4 * 2**20
"""Of a JSON body; a pipeline of 200 stages has far fewer."""
PICTURES_BYTES = 64 * 2**20
"""Of a JSON body with pictures in base64."""
PICTURES = re.compile(r"/sdapi/v1/.*|/v1/jobs")
"""Paths whose bodies hold pictures."""
UPLOAD_BYTES = 8 * 2**30
"""Of an uploaded file."""
FILES = re.compile(r"/api/uploads(/resumable/[^/]+)?|/api/characters/[^/]+/images")
"""Paths that take files."""
TABLES = "/api/batches/tables"
"""Path that takes tables of requests."""
FORMS = frozenset({"/signin", "/signout"})
"""Paths that take forms of pages without scripts; those pages must be our own."""
FORM = "application/x-www-form-urlencoded"
PICTURE_FORMS = re.compile(r"/v1/images/edits|/v1/videos")
"""Paths that take forms with pictures."""
WRITES = frozenset({"POST", "PUT", "PATCH", "DELETE"})


class Guard:
    """An ASGI app in front of the gateway's.

    Args:
        app: the gateway's.
        signed_in: whether there is a sign-in behind it whatever is configured.
    """

    def __init__(self, app: ASGIApp, *, signed_in: bool = False) -> None:
        self._app = app
        self._signed_in = signed_in

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1008, "reason": "no web sockets"})
            return
        headers = Headers(scope=scope)
        most = _most(scope["path"])
        signed_in = self._signed_in or sign_in_wanted()
        refused = (
            (None if signed_in else _from_elsewhere(scope))
            or _by_another_name(headers, signed_in=signed_in)
            or _from_a_foreign_page(scope, headers)
            or _of_another_kind(scope, headers)
            or _too_long(headers.get("content-length", "0"), most)
        )
        if refused is not None:
            await answer_to(refused, correlation_id(scope))(scope, receive, send)
            return
        await self._app(scope, _counted(receive, most), send)


def _most(path: str) -> int:
    """Bytes that a body may have there."""
    if FILES.fullmatch(path):
        return UPLOAD_BYTES
    if path == TABLES:
        return LARGEST_FILE
    with_pictures = PICTURES.fullmatch(path) or PICTURE_FORMS.fullmatch(path)
    return PICTURES_BYTES if with_pictures else JSON_BYTES


def _from_elsewhere(scope: Scope) -> PipelineError | None:
    ends = [scope.get("server"), scope.get("client")]
    for end in ends:
        if end is not None and not is_loopback(str(end[0])):
            return ForeignRequestError(
                f"the gateway is reached at {end[0]}, and has no sign-in",
                "make a key with: safelight keys create, or ask it from this machine",
            )
    return None


def _by_another_name(headers: Headers, *, signed_in: bool) -> PipelineError | None:
    called = headers.getlist("host")
    host, _ = _split(f"//{called[0]}") if len(called) == 1 and "@" not in called[0] else ("", None)
    if host in LOOPBACK or (signed_in and host and _is_ours(host)):
        return None
    return ForeignRequestError(
        f"the gateway is not called {host[:80] or 'nothing'}",
        "call it by its address in numbers, or set SAFELIGHT_GATEWAY_URL to its name"
        if signed_in
        else "call it 127.0.0.1 or localhost",
    )


def _is_ours(host: str) -> bool:
    """Whether a gateway with a sign-in may be called so: no foreign name leads to it by DNS."""
    with suppress(ValueError):
        ipaddress.ip_address(host)
        return True
    public = _split(settings().gateway_url or "")[0]
    return host in {socket.gethostname().lower(), public}


def _from_a_foreign_page(scope: Scope, headers: Headers) -> PipelineError | None:
    origins = headers.getlist("origin")
    if not origins and scope["method"] in WRITES and scope["path"] in FORMS:
        form = headers.get("content-type", "").startswith(FORM)
        if form and headers.get("sec-fetch-site") != "same-origin":
            return ForeignRequestError(
                "the form does not say which page it stands on", "open /signin in a browser"
            )
    for origin in origins:
        kind, _, _ = origin.partition("://")
        secure = (settings().gateway_url or "").startswith("https://")
        ours = kind == "http" or (kind == "https" and secure)
        if not ours or _split(origin) != _split(f"{kind}://{headers['host']}"):
            return ForeignRequestError(
                f"pages of {origin[:80]} may not use the gateway", "ask from its own address"
            )
    return None


def _of_another_kind(scope: Scope, headers: Headers) -> PipelineError | None:
    """A body that is no JSON, which a browser sends anywhere without asking first."""
    path = scope["path"]
    if scope["method"] not in WRITES or path == TABLES or FILES.fullmatch(path):
        return None
    has_body = headers.get("content-length", "0") != "0" or "transfer-encoding" in headers
    kind = headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == FORM and scope["path"] in FORMS:
        return None
    if kind == "multipart/form-data" and PICTURE_FORMS.fullmatch(scope["path"]):
        return None
    if (has_body or kind) and kind != "application/json":
        return ContentTypeError(
            f"the content type is {kind[:80] or 'not given'}, expected application/json",
            "send the header Content-Type: application/json",
        )
    return None


def _too_long(length: str, most: int) -> PipelineError | None:
    if length.isdecimal() and len(length) < 20 and int(length) <= most:
        return None
    return BodyTooLongError(
        f"the body has {length[:20]} bytes, at most {most} are taken", "send less at a time"
    )


def _counted(receive: Receive, most: int) -> Receive:
    """Refuse a body that turns out longer than its kind may be, whatever its headers said."""
    seen = 0

    async def read() -> Message:
        nonlocal seen
        message = await receive()
        if message["type"] == "http.request":
            seen += len(message.get("body", b""))
            refused = _too_long(str(seen), most)
            if refused is not None:
                raise refused
        return message

    return read


def _split(address: str) -> tuple[str, int | None]:
    """Host and port; nothing where it cannot be read."""
    try:
        parts = urlsplit(address)
        host, port = parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)
    except ValueError:
        return "", None
    return host, port
