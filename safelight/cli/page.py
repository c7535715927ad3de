"""The page beside a server of `safelight up`: its gateway, which comes back when it ends."""

import os
import subprocess
import threading
from collections.abc import Generator
from contextlib import contextmanager

from safelight.children import start_child, stop_child
from safelight.cli.addresses import API_URL, refuse_taken
from safelight.cli.printing import show_line
from safelight.cli.server import QUIET
from safelight.errors import InvalidFieldValueError
from safelight.loopback import free_port

GATEWAY = "safelight.gateway.serving"
"""Module that serves it; the command stands beside the gateway and does not import it."""
HOST = "127.0.0.1"
"""The page has no sign-in of its own: whoever else is to reach it runs `safelight gateway`."""
PORT = 4300
AGAIN_SECONDS = 1.0
"""Before a gateway that ended is started again."""
GRACE_SECONDS = 5.0


@contextmanager
def page_beside(api: str, port: int) -> Generator[None]:
    """Serve the page of a Prefect server for as long as the block runs.

    Args:
        api: address of the server.
        port: of the page; where another program has it, one that is free. 0 serves none.
    """
    if not port:
        yield
        return
    page = _Page(api, _free(port))
    page.start()
    try:
        yield
    finally:
        page.stop()


def _free(port: int) -> int:
    try:
        refuse_taken(HOST, port)
    except InvalidFieldValueError as taken:
        other = free_port()
        show_line(f"{taken.problem}: the page listens on {other}")
        return other
    return port


class _Page(threading.Thread):
    """Keeps the gateway's process going."""

    def __init__(self, api: str, port: int) -> None:
        super().__init__(name="page", daemon=True)
        self._api = api
        self._port = port
        self._over = threading.Event()
        self._lock = threading.Lock()
        self._child: subprocess.Popen[bytes] | None = None

    def run(self) -> None:
        """Start it, and again whenever it ends by itself."""
        while not self._over.is_set():
            with self._lock:
                if self._over.is_set():
                    return
                self._child = start_child(
                    GATEWAY,
                    (HOST, str(self._port)),
                    environment={**os.environ, **QUIET, API_URL: self._api},
                )
            self._child.wait()
            self._over.wait(AGAIN_SECONDS)

    def stop(self) -> None:
        """End it."""
        with self._lock:
            self._over.set()
        if self._child is not None:
            stop_child(self._child, GRACE_SECONDS)
        self.join(GRACE_SECONDS)
