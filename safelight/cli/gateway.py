"""Becomes the gateway, with the address and the password of the Prefect server it asks."""

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


def become_gateway(host: str, port: int) -> None:
    """Go on as the gateway of the configured Prefect server, or of the one that runs here.

    Raises:
        DependencyMissingError: there is none.
        EngineOfflineError: it does not answer.
        InvalidFieldValueError: the port is taken.
    """
    refuse_taken(host, port)
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
        os.execve(sys.executable, [sys.executable, "-m", GATEWAY, host, str(port)], environment)
