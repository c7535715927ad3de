"""Lines of the log for requests that name the id of what caused them."""

import time
from collections.abc import Callable

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from safelight.observing.correlating import HEADER, correlated, is_plain
from safelight.observing.logs import seen


class SeenRequests:
    """An ASGI app that writes a line for each request with an id; others are too many.

    Args:
        app: what answers.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on."""
        given = Headers(scope=scope).get(HEADER, "") if scope["type"] == "http" else ""
        if not is_plain(given):
            await self._app(scope, receive, send)
            return
        with correlated(given):
            await answered(self._app, scope, receive, send)


Counted = Callable[[str, str, int, float], None]
"""Is told method, route, status and seconds; the route is empty where none took the request."""


async def answered(
    app: ASGIApp, scope: Scope, receive: Receive, send: Send, count: Counted | None = None
) -> None:
    """Have a request answered, and write a line with the status and how long it took."""
    began, status = time.perf_counter(), 0

    async def watched(message: Message) -> None:
        nonlocal status
        if message["type"] == "http.response.start":
            status = message["status"]
        await send(message)

    try:
        await app(scope, receive, watched)
    finally:
        seconds = round(time.perf_counter() - began, 4)
        if count is not None:
            count(scope["method"], getattr(scope.get("route"), "path", ""), status, seconds)
        seen(f"{scope['method']} {scope['path']}", status=status, seconds=seconds)
