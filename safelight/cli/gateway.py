"""Becomes the gateway or the MCP server, with address and password of the server that it asks."""

import os
import sys

from safelight.children import safe_path
from safelight.cli.addresses import API_URL, configured_api_url, refuse_taken, spare_loopback
from safelight.cli.page import GATEWAY
from safelight.cli.server import prefect_home, silence
from safelight.cli.server_password import FOR_CLIENTS, in_use, password_of
from safelight.cli.serving import served_here
from safelight.errors import DependencyMissingError, EngineOfflineError
from safelight.private import keep_private
from safelight.settings import settings

MCP = "safelight.mcp.serving"
"""Module that serves it; the command stands beside it and does not import it."""


def become_gateway(host: str, port: int) -> None:
    """Go on as the gateway of the configured Prefect server, or of the one that runs here.

    Raises:
        DependencyMissingError: there is none.
        EngineOfflineError: it does not answer.
        InvalidFieldValueError: the port is taken.
    """
    refuse_taken(host, port)
    _become(GATEWAY, host, str(port))


def become_mcp(host: str | None, port: int) -> None:
    """The same for the MCP server; None speaks over standard input and output.

    Raises:
        PipelineError: as `become_gateway`.
    """
    if host is None:
        _become(MCP, "stdio")
        return
    refuse_taken(host, port)
    _become(MCP, "http", host, str(port))


def _become(module: str, *arguments: str) -> None:
    spare_loopback(os.environ)
    url = configured_api_url() or served_here()
    if url is None:
        raise DependencyMissingError(
            f"no Prefect server is configured, and none runs on {settings().volume_root.resolve()}",
            "run: safelight up, or set PREFECT_API_URL",
        )
    password = os.environ.get(FOR_CLIENTS) or password_of(prefect_home(settings().volume_root), url)
    with in_use(password):
        problem = silence(url)
        if problem is not None:
            raise EngineOfflineError(f"no Prefect server answers at {url}: {problem}", "start it")
        keep_private()
        environment = safe_path({**os.environ, API_URL: url})
        os.execve(sys.executable, [sys.executable, "-m", module, *arguments], environment)
