"""A Prefect API for the command: the configured one, or one of its own for its duration."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import httpx
from prefect.settings import PREFECT_API_URL, get_current_settings, temporary_settings

from safelight.errors import EngineOfflineError
from safelight.settings import settings

START_SECONDS = 120.0
SERVER = "safelight.cli.prefect_server"
"""Module that is Prefect's command, at ease with SQLite."""
QUIET = {
    "DO_NOT_TRACK": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_SERVER_LOGGING_LEVEL": "ERROR",
    "PREFECT_API_BLOCKS_REGISTER_ON_START": "false",
    "PREFECT_SERVER_SERVICES_LATE_RUNS_LOOP_SECONDS": "300",
    "PREFECT_SERVER_SERVICES_LATE_RUNS_AFTER_SECONDS": "300",
}
"""Environment of an embedded server: no telemetry, no chatter, no collections to look for.

Runs are called late after 5 minutes, not 15 s: in a batch most wait longer, and marking them every
5 s took SQLite more than running them.
"""


def configured_api_url() -> str | None:
    """Address of the Prefect server that the environment or the profile names, if any."""
    return get_current_settings().api.url


@contextmanager
def prefect_api() -> Generator[str]:
    """The address of a Prefect API that answers; an embedded server is stopped at the end.

    Raises:
        EngineOfflineError: the configured server does not answer, or ours did not start.
    """
    configured = configured_api_url()
    if configured is not None:
        if not answers(configured):
            raise EngineOfflineError(
                f"no Prefect server answers at {configured}",
                "start it, or unset PREFECT_API_URL to use an embedded one",
            )
        yield configured
        return
    with embedded_server(free_port(), ui=False) as url, temporary_settings({PREFECT_API_URL: url}):
        yield url


@contextmanager
def embedded_server(port: int, *, ui: bool, host: str = "127.0.0.1") -> Generator[str]:
    """A Prefect server with SQLite under the volume root, for as long as the block runs."""
    home = prefect_home(settings().volume_root)
    home.mkdir(parents=True, exist_ok=True)
    environment = {
        **os.environ,
        **QUIET,
        "PREFECT_HOME": str(home),
        "PREFECT_SERVER_UI_ENABLED": "true" if ui else "false",
        "PREFECT_SERVER_UI_API_URL": f"http://{host}:{port}/api",
    }
    log = (home / "server.log").open("ab")
    command = [sys.executable, "-m", SERVER, "server", "start", "--host", host]
    with log:
        process = subprocess.Popen(
            [*command, "--port", str(port)],
            env=environment,
            stdout=log,
            stderr=log,
            start_new_session=True,  # Ctrl-C must reach the run first, the server last
        )
    url = f"http://{host}:{port}/api"
    try:
        _wait_for(process, url, home / "server.log")
        yield url
    finally:
        stop_process(process)


def prefect_home(volume_root: Path) -> Path:
    """Where an embedded server keeps its database."""
    return volume_root.resolve() / "cache" / "prefect"


def free_port() -> int:
    """A TCP port that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def stop_process(process: "subprocess.Popen[bytes]", grace_seconds: float = 20.0) -> None:
    """Ask a process that we started to end, and kill it when it does not."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(grace_seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def answers(url: str) -> bool:
    """Whether a Prefect API answers at this address."""
    try:
        return httpx.get(f"{url}/health", timeout=5.0).is_success
    except httpx.HTTPError:
        return False


def _wait_for(process: "subprocess.Popen[bytes]", url: str, log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            break
        if answers(url):
            return
        time.sleep(0.1)
    tail = log.read_text(errors="replace")[-500:]
    raise EngineOfflineError(
        f"the embedded Prefect server did not start within {START_SECONDS:.0f} s: {tail}",
        f"read {log}, or set PREFECT_API_URL to a running server",
    )
