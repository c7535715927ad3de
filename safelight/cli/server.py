"""A Prefect API for the command: the configured one, or one of its own for its duration."""

import os
import subprocess
import time
from collections.abc import Callable, Generator
from contextlib import (
    AbstractContextManager,
    ExitStack,
    contextmanager,
    nullcontext,
    suppress,
)
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout
from prefect.client.orchestration import get_client
from prefect.settings import (
    PREFECT_API_URL,
    PREFECT_CLIENT_MAX_RETRIES,
    temporary_settings,
)

from safelight.children import start_child, stop_child
from safelight.cli.addresses import (
    api_url,
    configured_api_url,
    listens,
    refuse_taken,
    source_of_api_url,
    spare_loopback,
)
from safelight.cli.server_password import FOR_SERVERS, choose_password, in_use, kept
from safelight.errors import EngineOfflineError
from safelight.loopback import free_port
from safelight.private import make_folder, mask
from safelight.settings import settings

__all__ = ["configured_api_url", "free_port"]  # who wants a server wants these too

Beside = Callable[[str], AbstractContextManager[object]]
"""From the address of a server that starts to what goes on while it starts and runs."""
START_SECONDS = 120.0
TURN_SECONDS = 600.0
"""How long a server waits for others on its volume that are starting."""
ANSWER_SECONDS = 5.0
SERVER = "safelight.cli.prefect_server"
"""Module that is Prefect's command, at ease with SQLite."""
QUIET = {
    "DO_NOT_TRACK": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_SERVER_LOGGING_LEVEL": "ERROR",
    "PREFECT_API_BLOCKS_REGISTER_ON_START": "false",
    "PREFECT_SERVER_MEMOIZE_BLOCK_AUTO_REGISTRATION": "false",
    "PREFECT_SERVER_SERVICES_LATE_RUNS_LOOP_SECONDS": "300",
    "PREFECT_SERVER_SERVICES_LATE_RUNS_AFTER_SECONDS": "300",
}
"""Environment of an embedded server: no telemetry, no chatter, no collections to look for.

To remember which collections it has registered, it would import all of them, ours with what they
stand on.

Runs are called late after 5 minutes, not 15 s: in a batch most wait longer, and marking them every
5 s took SQLite more than running them.
"""


@dataclass(frozen=True)
class Server:
    """A Prefect server that this process has started."""

    url: str
    """Address of its API."""
    process: "subprocess.Popen[bytes]"
    log: Path
    """Where it writes."""
    password: str | None = None
    """What it asks for; None when for nothing."""


@contextmanager
def prefect_api(beside: Beside = nullcontext) -> Generator[str]:
    """The address of a Prefect API that answers; an embedded server is stopped at the end.

    Args:
        beside: entered with the address of an embedded server while it starts, left before it ends.

    Raises:
        EngineOfflineError: the configured server does not answer, or ours did not start.
    """
    configured = configured_api_url()
    if configured is not None:
        spare_loopback(os.environ)
        problem = silence(configured)
        if problem is not None:
            raise EngineOfflineError(
                f"no Prefect server answers at {configured}, which comes from "
                f"{source_of_api_url()}: {problem}",
                "start it, or take the address away there to use an embedded server",
            )
        yield configured
        return
    with (
        running_server(free_port(), ui=False, beside=beside) as server,
        temporary_settings({PREFECT_API_URL: server.url}),
    ):
        yield server.url


@contextmanager
def embedded_server(port: int, *, ui: bool, host: str = "127.0.0.1") -> Generator[str]:
    """Address of a Prefect server under the volume root, for as long as the block runs."""
    with running_server(port, ui=ui, host=host) as server:
        yield server.url


@contextmanager
def running_server(
    port: int, *, ui: bool, host: str = "127.0.0.1", beside: Beside = nullcontext
) -> Generator[Server]:
    """A Prefect server with SQLite under the volume root, for as long as the block runs.

    Meanwhile this process and all that it starts know its password. `beside` is entered with its
    address while it starts, and left before it ends.

    Raises:
        EngineOfflineError: it did not start.
        InvalidFieldValueError: it cannot listen there, or would let others in without a password.
    """
    password = choose_password(host)
    spare_loopback(os.environ)  # of this process, which asks it, and of all that it starts
    home = prefect_home(settings().volume_root)
    make_home(home)
    log, url = home / "server.log", api_url(host, port)
    with ExitStack() as stack:
        stack.enter_context(in_use(password))
        with _turn(home):
            with log.open("ab") as output:
                refuse_taken(host, port)
                process = start_child(
                    SERVER,
                    ("server", "start", "--host", host, "--port", str(port)),
                    environment=_environment(home, ui, host, port, password),
                    output=output,
                )
            stack.callback(stop_child, process)
            server = Server(url, process, log, password)
            stack.enter_context(beside(url))
            _wait_for(server, port)
        stack.enter_context(kept(home, url, password))
        yield server


def _environment(
    home: Path, ui: bool, host: str, port: int, password: str | None
) -> dict[str, str]:
    environment = {
        # a browser asks the address that it came to, and no page of another one may ask
        "PREFECT_SERVER_UI_API_URL": "/api",
        "PREFECT_SERVER_CORS_ALLOWED_ORIGINS": api_url(host, port).removesuffix("/api"),
        **os.environ,
        **QUIET,
        "PREFECT_HOME": str(home),
        "PREFECT_SERVER_UI_ENABLED": "true" if ui else "false",
    }
    environment.pop(FOR_SERVERS, None)  # Prefect takes an empty one for a password
    return environment | ({FOR_SERVERS: password} if password else {})


def make_home(home: Path) -> None:
    """Make the folder of the embedded server, which others may not look into.

    Its database holds parameters and variables of runs; those of older versions are readable.
    """
    make_folder(home)
    with suppress(PermissionError):  # another user's
        home.chmod(0o777 & ~mask())


def prefect_home(volume_root: Path) -> Path:
    """Where an embedded server keeps its database."""
    return volume_root.resolve() / "cache" / "prefect"


def answers(url: str) -> bool:
    """Whether a Prefect API answers at this address."""
    return silence(url) is None


def silence(url: str) -> str | None:
    """Why no Prefect API answers at this address; None when one does.

    Asked by Prefect's own client, so with its certificates, headers and credentials.
    """
    try:
        with (
            temporary_settings({PREFECT_API_URL: url, PREFECT_CLIENT_MAX_RETRIES: 0}),
            get_client(httpx_settings={"timeout": ANSWER_SECONDS}, sync_client=True) as client,
        ):
            error = client.api_healthcheck()
    except OSError as unreadable:  # a file of certificates
        error = unreadable
    return None if error is None else f"{type(error).__name__}: {error}".rstrip(": ")


@contextmanager
def _turn(home: Path) -> Generator[None]:
    """Wait until no other server on this volume is starting: only one may make the tables."""
    try:
        with FileLock(home / "start.lock", timeout=TURN_SECONDS):
            yield
    except Timeout as error:
        raise EngineOfflineError(
            f"other servers on {home} have been starting for {TURN_SECONDS:.0f} s",
            f"read {home / 'server.log'}, and end what holds {error.lock_file}",
        ) from error


def _wait_for(server: Server, port: int) -> None:
    deadline = time.monotonic() + START_SECONDS
    pid = server.process.pid
    while server.process.poll() is None and time.monotonic() < deadline:
        # whatever answers there, it is ours only when our process listens
        if listens(pid, port) and answers(server.url):
            return
        time.sleep(0.1)
    code = server.process.poll()
    what = f"did not start within {START_SECONDS:.0f} s" if code is None else f"ended with {code}"
    tail = server.log.read_text(errors="replace")[-500:]
    raise EngineOfflineError(
        f"the embedded Prefect server {what}: {tail}",
        f"read {server.log}, or set PREFECT_API_URL to a running server",
    )
