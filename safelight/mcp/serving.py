"""`python -m safelight.mcp.serving stdio`, or `http HOST PORT` with a key: the MCP server."""

import secrets
import sys

import anyio
import uvicorn
from mcp.server.transport_security import TransportSecuritySettings
from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from safelight.client.asking import patient_client
from safelight.errors import AuthMissingError, PipelineError
from safelight.gateway.app import PATIENCE_SECONDS
from safelight.gateway.correlating import Correlated
from safelight.gateway.signin.recognising import Recognising, sign_in_wanted
from safelight.loopback import is_loopback
from safelight.mcp.tools import server_of
from safelight.observing.logs import begin_log
from safelight.settings import settings

BYTES = 24
"""Of randomness in a key that is made here."""


class KeyRequired:
    """An ASGI app that answers only who shows the key.

    Args:
        app: what answers.
        key: shown as `Authorization: Bearer KEY`.
    """

    def __init__(self, app: ASGIApp, key: str) -> None:
        self._app = app
        self._wanted = f"Bearer {key}".encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it."""
        if scope["type"] == "http":
            given = Headers(scope=scope).get("Authorization", "").encode("latin-1", "replace")
            if not secrets.compare_digest(given, self._wanted):
                refused = JSONResponse(
                    {
                        "ok": False,
                        "error_code": "AUTH_INVALID" if given else "AUTH_MISSING",
                        "message": "no key, or another one",
                        "remediation": ["send the header Authorization: Bearer KEY"],
                    },
                    401,
                    {"WWW-Authenticate": "Bearer"},
                )
                await refused(scope, receive, send)
                return
        await self._app(scope, receive, send)


def behind_keys(app: ASGIApp) -> tuple[ASGIApp, str | None]:
    """An app that asks who somebody is; and the key that was made for it, where none is known.

    `SAFELIGHT_MCP_KEY` is the only key where it is set. Else the gateway's keys open it, for
    whoever may submit jobs, once there are any.
    """
    known = settings().mcp_key
    if known is None and sign_in_wanted():
        return Correlated(Recognising(app, always=True)), None
    key = known.get_secret_value() if known else secrets.token_urlsafe(BYTES)
    return KeyRequired(app, key), key if known is None else None


def serve_http(host: str, port: int) -> None:
    """Serve over HTTP until SIGTERM or Ctrl-C.

    Raises:
        AuthMissingError: others could reach it, and no key is set.
    """
    if settings().mcp_key is None and not sign_in_wanted() and not is_loopback(host):
        raise AuthMissingError(
            f"the MCP server is to listen on {host[:80]}, and there is no key",
            "make one with: safelight keys create NAME, or set SAFELIGHT_MCP_KEY; or listen on "
            "127.0.0.1",
        )
    shown = f"[{host.strip('[]')}]" if ":" in host else host
    with patient_client(PATIENCE_SECONDS, stops=False) as client:
        app = server_of(client).streamable_http_app(
            host=host,
            transport_security=TransportSecuritySettings(
                enable_dns_rebinding_protection=is_loopback(host),
                allowed_hosts=[f"127.0.0.1:{port}", f"localhost:{port}", f"[::1]:{port}"],
            ),
        )
        asking, made = behind_keys(app)
        sys.stderr.write(f"MCP: http://{shown}:{port}/mcp   (Ctrl-C stops)\n")
        if made is not None:
            sys.stderr.write(f"Key, good until it stops: {made}\n")
        sys.stderr.flush()
        uvicorn.run(
            asking,
            host=host.strip("[]"),
            port=port,
            log_level="warning",
            access_log=False,
            server_header=False,
            proxy_headers=False,
        )


def serve_stdio() -> None:
    """Serve whoever started this process, over its standard input and output."""
    with patient_client(PATIENCE_SECONDS, stops=False) as client:
        anyio.run(server_of(client).run_stdio_async)


def main() -> None:
    """Entry point."""
    transport, *where = sys.argv[1:]
    try:
        begin_log("mcp")
        if transport == "stdio":
            serve_stdio()
        else:
            serve_http(where[0], int(where[1]))
    except PipelineError as error:
        sys.exit(f"{error.code} {error.problem}\nFix: {error.remedy}")


if __name__ == "__main__":
    main()
