"""Writes what was refused into the audit log, whoever refused it."""

import json
import time
from contextlib import suppress

from anyio.to_thread import run_sync
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from safelight.audit.log import record
from safelight.errors import PipelineError
from safelight.gateway.correlating import correlation_id
from safelight.gateway.problems import SlowDownError
from safelight.gateway.signin.caller import caller_of

CODE = "safelight.refused"
"""Entry of the scope by which an answer that is no JSON tells its code."""
LONGEST_ANSWER = 16 * 2**10
REFUSED_PER_MINUTE = 300
"""That one address may cause: more leave no lines but one, and who is not known has to wait."""
FLOODS = "safelight.floods"
"""Entry of the scope of a request whose address has had so many refused."""
MOST_ADDRESSES = 10_000


class Refusals:
    """An ASGI app around the guard and all behind it."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._counts: dict[str, int] = {}
        self._minute = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, and look at its answer."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        address = str((scope.get("client") or ("",))[0])
        if self._count(address, 0) > REFUSED_PER_MINUTE:
            scope[FLOODS] = address
        status, body = 0, b""

        async def seen(message: Message) -> None:
            nonlocal status, body
            if message["type"] == "http.response.start":
                status = message["status"]
            elif 400 <= status < 500 and len(body) < LONGEST_ANSWER:
                body += message.get("body", b"")
            if (
                400 <= status < 500
                and message["type"] == "http.response.body"
                and not message.get("more_body", False)
            ):
                await run_sync(self._write, scope, address, status, body)  # before they hear of it
            await send(message)

        await self._app(scope, receive, seen)

    def _write(self, scope: Scope, address: str, status: int, body: bytes) -> None:
        times = self._count(address, 1)
        if times > REFUSED_PER_MINUTE + 1:
            return
        kind = "request.refused" if times <= REFUSED_PER_MINUTE else "requests.flooded"
        with suppress(PipelineError):  # the refusal stands, also where the disk is full
            record(
                kind,
                "",
                {
                    "method": scope["method"][:20],
                    "path": scope["path"][:500],
                    "status": status,
                    "code": scope.get(CODE) or _code_in(body),
                    "address": address,
                    "correlation_id": correlation_id(scope),
                },
                actor=caller_of(scope).actor,
            )

    def _count(self, address: str, more: int) -> int:
        minute = int(time.time() // 60)
        if minute != self._minute or len(self._counts) > MOST_ADDRESSES:
            self._minute, self._counts = minute, {}
        count = self._counts.get(address, 0) + more
        if more:
            self._counts[address] = count
        return count


def flood(scope: Scope) -> SlowDownError | None:
    """The refusal of somebody unknown whose address has had too many refused."""
    address = scope.get(FLOODS)
    if not isinstance(address, str):
        return None
    seconds = 60 - time.time() % 60
    return SlowDownError(
        f"more than {REFUSED_PER_MINUTE} requests of {address} were refused in a minute",
        f"wait {seconds:.0f} s, and send a key that is good",
        seconds,
    )


def _code_in(body: bytes) -> str:
    try:
        found = json.loads(body)
    except ValueError:
        return ""
    code = found.get("error_code") if isinstance(found, dict) else None
    return code if isinstance(code, str) else ""
