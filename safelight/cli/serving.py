"""A server with a worker in the foreground, and the deployments on any server."""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, cast

import yaml
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.exceptions import ObjectNotFound
from prefect.settings import PREFECT_API_URL, temporary_settings

from safelight.cli.printing import CONSOLE
from safelight.cli.server import QUIET, answers, configured_api_url, embedded_server, stop_process
from safelight.cli.slots import apply_limits, read_limits
from safelight.errors import (
    DependencyMissingError,
    EngineOfflineError,
    InvalidFieldValueError,
    UnknownError,
)
from safelight.pool.configuration import POOL_TYPE
from safelight.store.results import register_results

CHECKOUT = Path(__file__).resolve().parents[2]
PREFECT_FILE = CHECKOUT / "deployments" / "prefect.yaml"
LIMITS_FILE = CHECKOUT / "deployments" / "concurrency-limits.yaml"
POOL = "gpu"
BATCHES = "batches"
"""Stock process pool: its runs wait for runs in the other pool, whose places they must not take."""
CHECK_SECONDS = 2.0


def serve(host: str, port: int) -> None:
    """Start server, deployments and a worker; stop all of them at Ctrl-C or SIGTERM.

    Raises:
        EngineOfflineError: a part did not start, or ended by itself.
    """
    with (
        embedded_server(port, ui=True, host=host) as url,
        temporary_settings({PREFECT_API_URL: url}),
    ):
        deploy(POOL)
        workers = [_start_worker(pool, url) for pool in (POOL, BATCHES)]
        CONSOLE.print(f"Prefect UI and API: http://{host}:{port}   (Ctrl-C stops)")
        try:
            while all(worker.poll() is None for worker in workers):
                time.sleep(CHECK_SECONDS)
                if not (answers(url) or answers(url)):
                    raise EngineOfflineError("the Prefect server ended", "start safelight up again")
            codes = ", ".join(str(worker.returncode) for worker in workers if worker.returncode)
            raise EngineOfflineError(f"a worker ended with {codes}", "read its output above")
        except KeyboardInterrupt:
            CONSOLE.print("stopping")
        finally:
            for worker in reversed(workers):
                stop_process(worker, grace_seconds=60.0)


def _start_worker(pool: str, url: str) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(
        [sys.executable, "-m", "prefect", "worker", "start", "--pool", pool],
        env={**os.environ, **QUIET, "PREFECT_API_URL": url},
        start_new_session=True,
    )


def deploy(pool: str) -> None:
    """Make work pools, result block, limits and one deployment per flow on the configured server.

    Args:
        pool: of all flows but batches, which wait for them in a pool of their own.

    Raises:
        DependencyMissingError: no server is configured, or this is no checkout.
        InvalidFieldValueError: the file of limits is not as it should be.
        UnknownError: Prefect refused the deployments.
    """
    url = configured_api_url()
    if url is None:
        raise DependencyMissingError(
            "no Prefect server is configured",
            "set PREFECT_API_URL, or run: safelight up",
        )
    if not PREFECT_FILE.is_file():
        raise DependencyMissingError(
            f"there is no {PREFECT_FILE}", "install Safelight from a checkout"
        )
    limits = read_limits(LIMITS_FILE)
    register_results()
    if pool == BATCHES:
        raise InvalidFieldValueError(
            f"pool is {BATCHES}, which is kept for batches: they would wait for their own places",
            "choose another name",
        )
    make_pool(pool, POOL_TYPE)
    make_pool(BATCHES, "process")
    described = cast("dict[str, Any]", yaml.safe_load(PREFECT_FILE.read_text()))
    for deployment in described["deployments"]:
        if deployment["work_pool"]["name"] != BATCHES:
            deployment["work_pool"]["name"] = pool
    with tempfile.TemporaryDirectory() as folder:
        prefect_file = Path(folder) / "prefect.yaml"
        prefect_file.write_text(yaml.safe_dump(described))
        done = subprocess.run(
            [
                *(sys.executable, "-m", "prefect", "--no-prompt", "deploy", "--all"),
                *("--prefect-file", str(prefect_file)),
            ],
            cwd=CHECKOUT,
            env={**os.environ, **QUIET, "PREFECT_API_URL": url},
            capture_output=True,
            text=True,
            check=False,
        )
    if done.returncode:
        said = (done.stdout + done.stderr)[-1000:]
        raise UnknownError(
            f"prefect deploy ended with {done.returncode}: {said}",
            "correct deployments/prefect.yaml",
        )
    with get_client(sync_client=True) as client:
        apply_limits(client, limits, pool)
    CONSOLE.print(f"{len(described['deployments'])} deployments on pool {pool}")


def make_pool(pool: str, pool_type: str) -> None:
    """Create a work pool of this type unless it is there."""
    with get_client(sync_client=True) as client:
        try:
            client.read_work_pool(pool)
        except ObjectNotFound:
            client.create_work_pool(WorkPoolCreate(name=pool, type=pool_type))
