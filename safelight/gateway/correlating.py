"""The id by which a caller finds its request again in answers and logs."""

from collections.abc import MutableMapping
from typing import Any
from uuid import uuid4

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from safelight.gateway.counting import count_request
from safelight.observing.correlating import HEADER, correlated, is_plain
from safelight.observing.requests import answered

__all__ = ["HEADER", "Correlated", "correlation_id"]
_KEY = "safelight.correlation_id"


def correlation_id(scope: MutableMapping[str, Any]) -> str:
    """That of a request: the caller's own where it is plain text, else one that is made here."""
    known = scope.get(_KEY)
    if not isinstance(known, str):
        given = Headers(scope=scope).get(HEADER, "")
        known = scope[_KEY] = given if is_plain(given) else str(uuid4())
    return known


class Correlated:
    """An ASGI app whose answers name the id of their request."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        known = correlation_id(scope)

        async def named(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers[HEADER] = known
                headers.setdefault("X-Content-Type-Options", "nosniff")
                headers.setdefault("Cross-Origin-Resource-Policy", "same-origin")
                headers.setdefault("Cache-Control", "no-store")
            await send(message)

        with correlated(known):
            await answered(self._app, scope, receive, named, count_request)
