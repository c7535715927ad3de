"""A server with its workers in the foreground, and the deployments on any server."""

import os
import subprocess
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import httpx
import yaml
from filelock import FileLock, Timeout
from prefect.client.schemas.responses import DeploymentResponse
from prefect.settings import PREFECT_API_URL, get_current_settings, temporary_settings

from safelight.children import start_child, stop_child
from safelight.cli.addresses import configured_api_url, spare_loopback, web_url
from safelight.cli.deployment_file import CHECKOUT, described_deployments
from safelight.cli.left_deployments import is_ours, without_flow
from safelight.cli.page import PORT, page_beside
from safelight.cli.pools import BATCHES, Change, change_embedded, make_batches_pool, make_pool
from safelight.cli.printing import CONSOLE, show_line
from safelight.cli.schedule_health import refused_schedules
from safelight.cli.server import ANSWER_SECONDS, QUIET, make_home, prefect_home, running_server
from safelight.cli.server_login import NEW_LINK, PATH, basic
from safelight.cli.server_password import password_of
from safelight.cli.slots import apply_limits, read_limits
from safelight.cli.supervising import counted_signals, stop_workers, supervise
from safelight.cli.workflow_deployments import deploy_workflows
from safelight.client.asking import patient_client, refusal
from safelight.client.paging import every_deployment
from safelight.errors import (
    DependencyMissingError,
    InvalidFieldValueError,
    UnknownError,
)
from safelight.pool.configuration import POOL_TYPE
from safelight.settings import settings
from safelight.store.results import register_results
from safelight.weights.offered import offered_models

LIMITS_FILE = CHECKOUT / "deployments" / "concurrency-limits.yaml"
POOL = "gpu"


def serve(host: str, port: int, page_port: int = PORT) -> None:
    """Start server, deployments, workers and page; end all when this process is told to stop.

    Args:
        host: where the server listens.
        port: of the server.
        page_port: of the page, on loopback; 0 serves none.

    Raises:
        EngineOfflineError: a part did not start, or ended by itself.
        InvalidFieldValueError: the port is taken, or this volume has a server of its own already.
    """
    address = web_url(host, port)
    with (
        only_one(address),
        running_server(port, ui=True, host=host) as server,
        temporary_settings({PREFECT_API_URL: server.url}),
    ):
        deploy(POOL, change_embedded)
        with counted_signals() as signals:
            workers = {pool: _start_worker(pool, server.url) for pool in (POOL, BATCHES)}
            try:
                CONSOLE.print(f"Prefect UI and API: {address}   (Ctrl-C stops)")
                if server.password is not None:
                    link = login_link(server.url, server.password)
                    show_line(f"Open the UI (this link works once): {link}")
                    show_line("For another link: safelight login")
                with page_beside(server.url, page_port):
                    supervise(server, workers, signals)
            finally:
                stop_workers(workers)


def login_link(api: str, password: str) -> str:
    """A link that opens the UI of an embedded server once.

    Args:
        api: address of its API.
        password: its password.

    Raises:
        EngineOfflineError: it does not answer.
        PipelineError: it refused, or is no embedded server.
    """
    told = {"Authorization": basic(password)}
    page = api.removesuffix("/api")
    try:
        answer = httpx.post(f"{page}{NEW_LINK}", headers=told, timeout=ANSWER_SECONDS)
        answer.raise_for_status()
    except httpx.HTTPError as error:
        raise refusal(error, "a link to its UI") from error
    public = os.environ.get("PREFECT_SERVER_UI_API_URL", "")  # where its operator has it reached
    seen = public.removesuffix("/api") if "//" in public else page
    return f"{seen}{PATH}?token={answer.json()['token']}"


def new_login_link() -> str:
    """A link to the UI of the configured server, or of the one that `safelight up` runs here.

    Raises:
        DependencyMissingError: there is none, or it gives no links.
        EngineOfflineError: it does not answer.
    """
    spare_loopback(os.environ)
    home = prefect_home(settings().volume_root)
    api = configured_api_url() or served_here() or ""
    known = get_current_settings().api.auth_string or get_current_settings().server.api.auth_string
    password = (known.get_secret_value() if known else "") or password_of(home, api)
    if password is None:
        raise DependencyMissingError(
            f"no server with a password runs on {settings().volume_root.resolve()}, as far as "
            "this user may see",
            "run: safelight up, or set PREFECT_API_URL and PREFECT_API_AUTH_STRING",
        )
    return login_link(api, password)


def served_here() -> str | None:
    """Address of the API of the server that `safelight up` runs, or last ran, on this volume."""
    note = _read(prefect_home(settings().volume_root) / "up.txt")
    _, known, address = note.rpartition(" at ")
    return f"{address}/api" if known else None


@contextmanager
def only_one(address: str) -> Generator[None]:
    """Refuse a second `safelight up` on this volume for as long as the block runs.

    Raises:
        InvalidFieldValueError: there is one already.
    """
    home = prefect_home(settings().volume_root)
    make_home(home)
    lock, note = FileLock(home / "up.lock"), home / "up.txt"
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise InvalidFieldValueError(
            f"safelight up runs on {settings().volume_root.resolve()} already: {_read(note)}",
            "stop that, or set VOLUME_ROOT to another folder",
        ) from error
    try:
        note.write_text(f"process {os.getpid()} at {address}")
        yield
    finally:
        lock.release()


def _read(note: Path) -> str:
    try:
        return note.read_text()
    except OSError:  # it is about to be written
        return "it has just started"


def _start_worker(pool: str, url: str) -> "subprocess.Popen[bytes]":
    return start_child(
        "prefect",
        ("worker", "start", "--pool", pool),
        environment={**os.environ, **QUIET, "PREFECT_API_URL": url},
    )


def deploy(pool: str, change: Change | None = None) -> None:
    """Make work pools, result block, limits and one deployment per flow on the configured server.

    Args:
        pool: of all flows but batches, which wait for them in a pool of their own.
        change: changes the type of a pool in place, where that is possible.

    Raises:
        ContractMismatchError: the pool of batches has another type, and is in use.
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
    described = described_deployments()
    limits = read_limits(LIMITS_FILE)
    register_results()
    if pool == BATCHES:
        raise InvalidFieldValueError(
            f"pool is {BATCHES}, which is kept for batches: they would wait for their own places",
            "choose another name",
        )
    make_pool(pool, POOL_TYPE)
    make_batches_pool(change)
    for deployment in described["deployments"]:
        if deployment["work_pool"]["name"] != BATCHES:
            deployment["work_pool"]["name"] = pool
    with tempfile.TemporaryDirectory() as folder:
        prefect_file = Path(folder) / "prefect.yaml"
        prefect_file.write_text(yaml.safe_dump(described))
        log = Path(folder) / "log"
        with log.open("wb") as output:
            deploying = start_child(
                "prefect",
                ("--no-prompt", "deploy", "--all", "--prefect-file", str(prefect_file)),
                environment={**os.environ, **QUIET, "PREFECT_API_URL": url, **offered_models()},
                folder=CHECKOUT,
                output=output,
            )
            try:
                code = deploying.wait()
            finally:
                stop_child(deploying, 0.0)
        if code:
            raise UnknownError(
                f"prefect deploy ended with {code}: {log.read_text(errors='replace')[-1000:]}",
                "correct deployments/prefect.yaml",
            )
    with patient_client() as client:
        workflows = deploy_workflows(client, pool)
        apply_limits(client, limits, pool)
        _say_what_is_wrong([found for found in every_deployment(client) if is_ours(found)])
    CONSOLE.print(f"{len(described['deployments']) + workflows} deployments on pool {pool}")


def _say_what_is_wrong(deployments: list[DeploymentResponse]) -> None:
    for left in without_flow(deployments):
        CONSOLE.print(
            f"{left.name}: this checkout has no {left.entrypoint}, so its runs crash; "
            f"to remove it: prefect deployment delete {left.name}/{left.name}",
            markup=False,
        )
    for refused in refused_schedules(deployments):
        CONSOLE.print(f"{refused.what}: {refused.found}. Fix: {refused.remedy}", markup=False)
