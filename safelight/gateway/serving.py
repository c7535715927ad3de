"""`python -m safelight.gateway.serving HOST PORT`: the gateway, on an address of this machine."""

import socket
import sys

import uvicorn

from safelight.errors import ForbiddenPathError, PipelineError
from safelight.gateway.app import create_app
from safelight.gateway.signin.recognising import sign_in_wanted
from safelight.loopback import is_loopback
from safelight.observing.logs import begin_log

GRACE_SECONDS = 3
"""Time that open answers have when the gateway ends; those that follow a job have no end."""


class NoSignInError(ForbiddenPathError):
    """The gateway is to listen where others reach it."""


class Announced(uvicorn.Server):
    """Says where it listens once it does."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to listen."""
        await super().startup(sockets)
        if self.started:
            host = f"[{self.config.host}]" if ":" in self.config.host else self.config.host
            address = f"http://{host}:{self.config.port}"
            sys.stdout.write(f"Page: {address}/   Gateway: {address}/api   (Ctrl-C stops)\n")
            sys.stdout.flush()


def serve(host: str, port: int) -> None:
    """Serve until SIGTERM or Ctrl-C.

    Raises:
        NoSignInError: it is to listen where others reach it.
    """
    require_sign_in(host)
    begin_log("gateway")
    config = uvicorn.Config(
        create_app(signed_in=not is_loopback(host)),
        host=host.strip("[]"),
        port=port,
        log_level="warning",
        access_log=False,
        server_header=False,
        proxy_headers=False,  # who asks is who connects
        timeout_graceful_shutdown=GRACE_SECONDS,
    )
    Announced(config).run()


def require_sign_in(host: str) -> None:
    """Refuse an address that others reach while nobody would be asked who they are.

    Raises:
        NoSignInError: it is one.
    """
    if not is_loopback(host) and not sign_in_wanted():
        raise NoSignInError(
            f"the gateway is to listen on {host[:80]}, and has no sign-in: whoever reaches it "
            "could submit jobs and read their files",
            "make a key with: safelight keys create NAME, or set SAFELIGHT_OIDC_ISSUER; or listen "
            "on 127.0.0.1",
        )


def main() -> None:
    """Entry point."""
    host, port = sys.argv[1:]
    try:
        serve(host, int(port))
    except PipelineError as error:
        sys.exit(f"{error.code} {error.problem}\nFix: {error.remedy}")


if __name__ == "__main__":
    main()
