"""Fixtures: a real Prefect server, real workers and warm processes, flows of a test project."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar
from uuid import UUID, uuid4

import psutil
import pytest
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterFlowRunId
from prefect.client.schemas.objects import Artifact, FlowRun, State
from prefect.events.worker import EventsWorker
from prefect.logging.handlers import APILogWorker
from prefect.settings import PREFECT_API_AUTH_STRING, PREFECT_API_URL, temporary_settings

from safelight.cli.server import free_port, running_server
from safelight.cli.server_login import basic
from safelight.pool.configuration import BATCH_TYPE, POOL_TYPE
from safelight.settings import reload_settings
from safelight.store.results import register_results
from safelight.store.store import current_store
from tests.prefect_database import put_database

T = TypeVar("T")
PATIENCE = 120.0
"""Seconds until a test gives up; none of them measures time."""
FLOWS = """
    import os, sys, threading, time
    from pathlib import Path
    from prefect import flow, task
    from flows.running.recorded import recorded_flow
    from safelight.progress import step

    VALUE = 1

    @flow
    def pid() -> int:
        print(f"here is process {os.getpid()}")
        return note(os.getpid())

    def note(value):
        Path(os.environ["NOTES"]).open("a").write(f"{value}\\n")
        return value

    @flow
    def environment(name: str):
        note(f"{os.environ.get(name)} {os.getcwd()}")

    @flow
    def value():
        note(VALUE)

    @recorded_flow
    def steps(count: int):
        note("begin")
        for done in range(count):
            step(done, count)
            time.sleep(0.05)
        note("end")

    @recorded_flow
    def looks(image: str, number: int = 3):
        from tasks.base.ingest import ingest
        from tasks.base.recorder import recorder
        from tasks.grade import GradeParams, grade
        recorder().expected_stages = number
        look = ingest(image, ("image",))
        for turn in range(1, number):
            look = grade(look, GradeParams(grain=turn / 10, seed=turn))
        os.kill(os.getpid(), 9)

    @flow
    def outer(count: int):
        steps(count)

    @flow
    def stubborn():
        note("begin")
        time.sleep(600)

    @flow
    def suicide(times: int):
        note("begin")
        if Path(os.environ["NOTES"]).read_text().count("begin") <= times:
            os.kill(os.getpid(), 9)

    @flow(retries=3, retry_delay_seconds=600)
    def failing():
        note("begin")
        raise ValueError("always")

    @flow
    def greedy(mebibytes: int):
        global kept
        kept = bytearray(os.urandom(2**20) * mebibytes)
        note(os.getpid())

    @flow
    def broken():
        raise SystemExit(3)
"""


def eventually(what: Callable[[], T], seconds: float = PATIENCE) -> T:
    """Ask until the answer is true, less often the longer it takes: questions cost the server."""
    begun = time.monotonic()
    while (waited := time.monotonic() - begun) < seconds:
        answer = what()
        if answer:
            return answer
        time.sleep(min(max(0.05, waited / 8), 0.5))
    raise AssertionError(f"{what} was never true")


def let_go_of_server() -> None:
    """Send what this process still has for the server of the settings, before that one ends.

    Prefect keeps one sender of events for all servers: later ones would wait for the first.
    """
    for worker in (APILogWorker, EventsWorker):
        worker.drain_all()


class Resting:
    """Has the server of this session stand still while tests of files run that do not ask it.

    Its services alone take a fortieth of a processor, and each process of a session has a server.
    """

    def __init__(self) -> None:
        self._server: subprocess.Popen[bytes] | None = None
        self._rests = False

    @contextmanager
    def of(self, server: "subprocess.Popen[bytes]") -> Iterator[None]:
        """Meanwhile this is the server; it is awake at the end, to hear that it shall stop."""
        self._server = server
        try:
            yield
        finally:
            self.wake()
            self._server = None

    def rest(self) -> None:
        if self._server is not None and not self._rests:
            let_go_of_server()
            self._server.send_signal(signal.SIGSTOP)
            self._rests = True

    def wake(self) -> None:
        if self._server is not None and self._rests:
            self._server.send_signal(signal.SIGCONT)
            self._rests = False


RESTING = Resting()


class Project:
    """Flows in a folder, a volume, and a file that the flows write to."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.notes_file = folder / "notes.txt"
        self.module = folder / "project_flows.py"
        self.module.write_text(textwrap.dedent(FLOWS))
        os.utime(self.module, (1, 1))
        self.notes_file.touch()
        self.environment = {
            "PYTHONPATH": str(folder),
            "NOTES": str(self.notes_file),
            "VOLUME_ROOT": str(folder / "volume"),
            "SAFELIGHT_POOL_DEVICES": "cpu:1",
            "SAFELIGHT_POOL_RUN_ENV": "COLOUR",
            "PYTHONDONTWRITEBYTECODE": "1",
        }

    @property
    def notes(self) -> list[str]:
        return self.notes_file.read_text().split("\n")[:-1]


class Pool:
    """A work pool with workers that the test starts."""

    def __init__(
        self, client: SyncPrefectClient, project: Project, pool_type: str = POOL_TYPE
    ) -> None:
        self.client = client
        self.project = project
        self.name = f"pool-{uuid4().hex[:8]}"
        self.workers: list[subprocess.Popen[bytes]] = []
        self.warm = pool_type == POOL_TYPE
        """Whether its workers have processes before they have runs."""
        client.create_work_pool(WorkPoolCreate(name=self.name, type=pool_type))

    def start_worker(
        self, name: str = "one", *, prefix: Sequence[str] = (), **environment: str
    ) -> "subprocess.Popen[bytes]":
        log = (self.project.folder / f"{name}.log").open("ab")
        with log:
            worker = subprocess.Popen(
                [
                    *prefix,
                    *(sys.executable, "-m", "prefect", "worker", "start"),
                    *("--pool", self.name, "--name", name),
                ],
                env={**os.environ, **self.project.environment, **environment},
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self.workers.append(worker)
        cold = prefix or not self.warm
        eventually(lambda: "started!" in self.log(name) and (cold or children(worker)))
        return worker

    def log(self, name: str = "one") -> str:
        return (self.project.folder / f"{name}.log").read_text()

    def deploy(self, flow: str, version: str | None = None, **job_variables: object) -> UUID:
        flow_id = self.client.create_flow_from_name(flow)
        return self.client.create_deployment(
            flow_id,
            name=f"{flow}-{self.name}",
            version=version,
            entrypoint=f"project_flows.{flow}",
            work_pool_name=self.name,
            job_variables=job_variables,
            enforce_parameter_schema=False,
        )

    def create(self, flow: str, _variables: dict | None = None, **parameters: object) -> UUID:
        return self.client.create_flow_run_from_deployment(
            self.deploy(flow), parameters=parameters, job_variables=_variables
        ).id

    def read(self, run: UUID) -> FlowRun:
        return self.client.read_flow_run(run)

    def state(self, run: UUID) -> State:
        state = self.read(run).state
        assert state is not None
        return state

    def end(self, run: UUID) -> State:
        return eventually(lambda: state if (state := self.state(run)).is_final() else None)

    def page(self, run: UUID) -> list[Artifact]:
        only = ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[run]))
        return self.client.read_artifacts(artifact_filter=only)

    def cancel(self, run: UUID) -> None:
        from prefect.states import Cancelling

        self.client.set_flow_run_state(run, Cancelling())

    def stop(self) -> None:
        for worker in self.workers:
            family = children(worker)
            if worker.poll() is None:
                worker.send_signal(signal.SIGTERM)
                time.sleep(0.3)
                if worker.poll() is None:
                    worker.send_signal(signal.SIGTERM)
                try:
                    worker.wait(30)
                except subprocess.TimeoutExpired:
                    worker.kill()
                    worker.wait()
            for child in family:
                if child.is_running():
                    child.kill()


def credentials() -> dict[str, str]:
    """The header by which a plain client shows the password of the server of the settings."""
    password = PREFECT_API_AUTH_STRING.value()
    return {"Authorization": basic(password)} if password else {}


def begun(pool: Pool) -> None:
    """Wait until a flow of the project has noted that it began."""
    eventually(lambda: "begin" in pool.project.notes)


def artifacts_of(run: str) -> list[Artifact]:
    """What a flow run left on its page, on the server of the settings."""
    only = ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[UUID(run)]))
    with get_client(sync_client=True) as client:
        return client.read_artifacts(artifact_filter=only)


def children(worker: "subprocess.Popen[bytes]") -> list[psutil.Process]:
    """The warm processes of a worker."""
    try:
        found = psutil.Process(worker.pid).children()
        return [child for child in found if "safelight.pool.child" in child.cmdline()]
    except (psutil.NoSuchProcess, psutil.ZombieProcess):
        return []


@pytest.fixture(scope="session")
def prefect_server(tmp_path_factory: pytest.TempPathFactory, database: Path) -> Iterator[str]:
    """Address of a Prefect server in a process of its own."""
    root = tmp_path_factory.mktemp("server")
    put_database(database, root)
    before = os.environ.get("VOLUME_ROOT")
    os.environ["VOLUME_ROOT"] = str(root)
    reload_settings()
    try:
        with running_server(free_port(), ui=False) as server:
            if before is None:
                del os.environ["VOLUME_ROOT"]
            else:
                os.environ["VOLUME_ROOT"] = before
            reload_settings()
            with RESTING.of(server.process):
                yield server.url
    finally:
        reload_settings()


@pytest.fixture
def api(prefect_server: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[SyncPrefectClient]:
    """A client of that server, which child processes use too."""
    monkeypatch.setenv("PREFECT_API_URL", prefect_server)
    with temporary_settings({PREFECT_API_URL: prefect_server}):
        register_results()
        with get_client(sync_client=True) as client:
            yield client


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Project]:
    """A folder with flows."""
    made = Project(tmp_path)
    for name, value in made.environment.items():
        monkeypatch.setenv(name, value)
    reload_settings()
    current_store.cache_clear()
    yield made
    reload_settings()
    current_store.cache_clear()


@pytest.fixture
def pool(api: SyncPrefectClient, project: Project) -> Iterator[Pool]:
    """A work pool; its workers and their processes are gone afterwards."""
    made = Pool(api, project)
    yield made
    made.stop()


@pytest.fixture
def batches(api: SyncPrefectClient, project: Project) -> Iterator[Pool]:
    """A work pool of the type for batches."""
    made = Pool(api, project, BATCH_TYPE)
    yield made
    made.stop()


@pytest.fixture(scope="module")
def pool_environment() -> dict[str, str]:
    """What else the environment of a file's shared pool has."""
    return {}


@pytest.fixture(scope="module")
def shared_pool(
    prefect_server: str, tmp_path_factory: pytest.TempPathFactory, pool_environment: dict[str, str]
) -> Iterator[Pool]:
    """A work pool with one worker for all tests of a file."""
    project = Project(tmp_path_factory.mktemp("shared"))
    project.environment |= pool_environment
    with (
        temporary_settings({PREFECT_API_URL: prefect_server}),
        get_client(sync_client=True) as client,
    ):
        register_results()
        made = Pool(client, project)
        made.start_worker(PREFECT_API_URL=prefect_server)
        yield made
        made.stop()
