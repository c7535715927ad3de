"""Faults at random moments while real runs go through real workers, then a look at what is left.

The seed decides which faults come, in which order, how long they last and how far apart they are;
when exactly one hits is up to the machine, so a seed is repeated in kind, not to the millisecond.
"""

import logging
import os
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar, get_args
from uuid import UUID, uuid4

import httpx
import numpy as np
import psutil
from PIL import Image
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.settings import PREFECT_API_URL, PREFECT_CLIENT_MAX_RETRIES, temporary_settings

from safelight.store.results import register_results
from tests.chaos.faults import WEIGHTS, Fault, fault
from tests.chaos.load import EXECUTIONS
from tests.chaos.machines import Gate, Server, Worker, can_contain
from tests.store.servers import ACCESS_KEY, SECRET_KEY, S3Server, moto_server

T = TypeVar("T")
WORKERS = 2
UNFINISHED = 8
"""Runs that wait or run at any time."""
PICTURES = 4
PREFIX = "volume"
CALM_SECONDS = 60.0
"""So long after the last fault, or after the last run that ended, another one must have ended."""
MARK = "CHAOS_CAMPAIGN"
"""Environment variable that every process of a campaign carries."""


@dataclass(frozen=True)
class Pace:
    """How fast faults follow and how long they last."""

    faults: int
    seed: int
    apart_seconds: tuple[float, float] = (0.4, 2.6)
    """Between one fault and the next."""
    outage_seconds: tuple[float, float] = (0.5, 4.0)
    """Of the store."""
    sleep_seconds: tuple[float, float] = (1.0, 8.0)
    """Of a machine; over 90 s its runs are taken over meanwhile."""
    silence_seconds: tuple[float, float] = (1.0, 6.0)
    """Of the Prefect server."""


@dataclass
class Report:
    """What happened, and what should not have."""

    seed: int
    faults: Counter[str] = field(default_factory=Counter)
    ends: Counter[str] = field(default_factory=Counter)
    facts: dict[str, str] = field(default_factory=dict)
    violations: list[str] = field(default_factory=list)

    def table(self) -> str:
        """For people."""
        rows = [("seed", str(self.seed))]
        rows += [(f"fault: {name}", str(count)) for name, count in sorted(self.faults.items())]
        rows += [(f"runs: {name}", str(count)) for name, count in sorted(self.ends.items())]
        rows += [*self.facts.items(), ("violations", str(len(self.violations)))]
        width = max(len(name) for name, _ in rows)
        return "\n".join(f"{name:<{width}}  {value}" for name, value in rows)


class Campaign:
    """Everything that runs, and what is known about it."""

    def __init__(
        self,
        pace: Pace,
        folder: Path,
        s3: S3Server,
        gate: Gate,
        server: Server,
        line: Gate,
        mark: str,
    ) -> None:
        self.pace = pace
        self.folder = folder
        self.s3 = s3
        self.gate = gate
        self.server = server
        self.line = line
        """Between the workers and the server."""
        self.containers = can_contain()
        """Whether every second worker has a process table of its own."""
        self.random = random.Random(pace.seed)
        self.report = Report(pace.seed)
        self.pool = "chaos"
        self.mark = mark
        self.executions = folder / "executions.jsonl"
        self.executions.touch()
        self.volume = folder / "volume"
        self.temporary = folder / "tmp"
        self.temporary.mkdir()
        self.workers: list[Worker] = []
        self.runs: list[UUID] = []
        self.asked: set[UUID] = set()
        """Runs that were asked to stop."""
        self.deleted: set[UUID] = set()
        self.by_hand: dict[UUID, StateType] = {}
        """Runs that somebody gave a final state."""
        self.ended: dict[UUID, FlowRun] = {}
        self.killed: list[Worker] = []
        """Workers that are not started again."""
        self.gave_up = 0
        """Workers that ended though nobody told them to."""
        self.over = threading.Event()
        """Set when workers may end."""
        self.client: SyncPrefectClient | None = None
        self.deployment: UUID | None = None
        self.faulting = threading.Event()
        """Set until the last fault is over."""
        self.faulting.set()
        self._names = 0
        self._touched: set[UUID] = set()
        self._lock = threading.Lock()
        self._busy = {kind: threading.Lock() for kind in get_args(Fault)}
        self.started = time.monotonic()

    @property
    def environment(self) -> dict[str, str]:
        """Of workers and their processes."""
        return {
            MARK: self.mark,
            EXECUTIONS: str(self.executions),
            "TMPDIR": str(self.temporary),
            "PREFECT_API_URL": f"{self.line.url}/api",
            "PREFECT_HOME": str(self.folder / "home"),
            "VOLUME_ROOT": str(self.volume),
            "SAFELIGHT_POOL_DEVICES": "cpu:1",
            "SAFELIGHT_STORE": f"s3://{self.s3.bucket}/{PREFIX}",
            "SAFELIGHT_S3_ENDPOINT_URL": self.gate.url,
            "SAFELIGHT_S3_ACCESS_KEY": ACCESS_KEY,
            "SAFELIGHT_S3_SECRET_KEY": SECRET_KEY,
            "PYTHONDONTWRITEBYTECODE": "1",
            "OMP_NUM_THREADS": "1",
        }

    def say(self, text: str) -> None:
        """Write a line of the campaign's own log."""
        with (self.folder / "campaign.log").open("a") as log:
            log.write(f"{time.monotonic() - self.started:8.2f} {time.time():.3f} {text}\n")

    def ask(self, what: Callable[[SyncPrefectClient], T]) -> T:
        """Ask the server until it answers."""
        assert self.client is not None
        while True:
            try:
                return what(self.client)
            except httpx.HTTPError:
                time.sleep(0.3)

    def start_worker(self, name: str | None = None, contained: bool = False) -> Worker:
        """Start one, as a service manager does after a crash."""
        with self._lock:
            self._names += 1
            name = name or f"w{self._names}"
            worker = Worker(name, self.pool, self.folder, self.environment, contained)
            self.workers.append(worker)
            return worker

    def alive(self) -> list[Worker]:
        """Workers that run and that no fault has in hand."""
        with self._lock:
            return [worker for worker in self.workers if worker.alive and worker not in self.killed]

    def claim(self, worker: Worker) -> bool:
        """Take a worker into the hand of one fault; whether no other one has it."""
        with self._lock:
            if worker in self.killed:
                return False
            self.killed.append(worker)
            return True

    def release(self, worker: Worker) -> None:
        """Leave a worker to the others again."""
        with self._lock:
            self.killed.remove(worker)

    def touch(self, draw: random.Random) -> UUID | None:
        """A run that is not over and in nobody's hand, put into the caller's; None without any."""
        found = self.look()
        with self._lock:
            touched = self.asked | self.deleted | set(self.by_hand) | self._touched
            waiting = [run for run in found if run not in touched]
            if not waiting:
                return None
            run = draw.choice(waiting)
            self._touched.add(run)
            return run

    def supervise(self) -> None:
        """Start workers again that ended by themselves, as a service manager does."""
        while not self.over.wait(0.5):
            with self._lock:
                ended = [w for w in self.workers if not w.alive and w not in self.killed]
                self.killed += ended
            for worker in ended:
                self.gave_up += 1
                self.say(f"worker {worker.name} gave up with {worker.process.returncode}")
                self.start_worker(worker.name, worker.contained)

    def create_run(self) -> None:
        """One more run, whatever the server goes through meanwhile."""
        number = len(self.runs)
        name = f"{self.mark}-{number}"
        image = self.volume / "uploads" / f"{number % PICTURES}.png"
        run = self.ask(
            lambda client: client.create_flow_run_from_deployment(
                self.deployment,
                parameters={"image": str(image), "number": number},
                idempotency_key=name,
                job_variables={"restarts": 1000, "grace_seconds": 5},
            )
        )
        with self._lock:
            self.runs.append(run.id)

    def look(self) -> list[UUID]:
        """Runs that are not over yet."""
        with self._lock:
            over = self.deleted | set(self.ended)
            waiting = [run for run in self.runs if run not in over]
        for start in range(0, len(waiting), 100):
            some = FlowRunFilter(id=FlowRunFilterId(any_=waiting[start : start + 100]))
            for found in self.ask(
                lambda client, some=some: client.read_flow_runs(flow_run_filter=some)
            ):
                if found.state is not None and found.state.is_final():
                    self.ended[found.id] = found
        return [run for run in waiting if run not in self.ended and run not in self.deleted]

    def feed(self) -> None:
        """Keep runs coming while there are faults."""
        while self.faulting.is_set():
            for _ in range(UNFINISHED - len(self.look())):
                self.create_run()
            time.sleep(0.4)

    def inject(self) -> None:
        """All faults, one after the other; some last while the next ones come."""
        kinds = list(get_args(Fault))
        weights = [WEIGHTS[kind] for kind in kinds]
        with ThreadPoolExecutor(16) as lasting:
            going = []
            try:
                for number in range(self.pace.faults):
                    time.sleep(self.random.uniform(*self.pace.apart_seconds))
                    (kind,) = self.random.choices(kinds, weights)
                    self.report.faults[kind] += 1
                    going.append(lasting.submit(self._fault(number, kind)))
                for job in going:
                    job.result()
            except BaseException:
                lasting.shutdown(wait=False, cancel_futures=True)
                raise
            finally:
                self.faulting.clear()

    def _fault(self, number: int, kind: Fault) -> Callable[[], None]:
        # all that is drawn is drawn here, in order, so that a seed means the same faults
        draw = random.Random(self.random.random())

        def run() -> None:
            with self._busy[kind]:
                self.say(f"fault {number} {kind}: {fault(self, kind, draw)}")

        return run

    def calm_down(self) -> None:
        """Let everything come to its end; give up when no run ends for too long."""
        began = since = time.monotonic()
        left = len(self.look())
        while left and time.monotonic() - since < CALM_SECONDS:
            time.sleep(0.3)
            now = len(self.look())
            if now < left:
                left, since = now, time.monotonic()
        self.report.facts["calm after"] = f"{time.monotonic() - began:.1f} s"


def run_campaign(pace: Pace, folder: Path, database: Path | None = None) -> Report:
    """Run one, and check what it left behind.

    Args:
        pace: how many faults of which seed.
        folder: fresh; logs and the record of executions stay in it.
        database: with Prefect's tables, to start from; None to have them made.
    """
    from tests.chaos.checks import check

    with campaign(pace, folder, database) as going:
        feeding = threading.Thread(target=going.feed)
        supervising = threading.Thread(target=going.supervise)
        feeding.start()
        supervising.start()
        try:
            going.inject()
        except BaseException:
            going.over.set()
            raise
        finally:
            going.faulting.clear()
            feeding.join()
        going.report.facts["faults took"] = f"{time.monotonic() - going.started:.0f} s"
        try:
            going.calm_down()
        finally:
            going.over.set()
            supervising.join()
        going.report.facts["workers that gave up"] = str(going.gave_up)
        check(going)
        going.report.facts["all took"] = f"{time.monotonic() - going.started:.0f} s"
        return going.report


@contextmanager
def campaign(pace: Pace, folder: Path, database: Path | None = None) -> Iterator[Campaign]:
    """A server, a store, workers and a deployment; all gone afterwards."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # moto names every request
    with ExitStack() as stack:
        s3 = stack.enter_context(moto_server())
        s3.client().put_bucket_versioning(
            Bucket=s3.bucket, VersioningConfiguration={"Status": "Enabled"}
        )
        gate = stack.enter_context(Gate(s3.port))
        mark = uuid4().hex
        server = Server(folder, {MARK: mark}, database)
        line = stack.enter_context(Gate(server.port))
        made = Campaign(pace, folder, s3, gate, server, line, mark)
        _draw_pictures(made.volume / "uploads")
        stack.callback(server.stop, signal.SIGKILL)
        server.start()
        stack.enter_context(
            temporary_settings({PREFECT_API_URL: server.url, PREFECT_CLIENT_MAX_RETRIES: 0})
        )
        register_results()
        made.client = stack.enter_context(get_client(sync_client=True))
        made.client.create_work_pool(WorkPoolCreate(name=made.pool, type="safelight-gpu"))
        made.deployment = made.client.create_deployment(
            made.client.create_flow_from_name("develop"),
            name="develop",
            entrypoint="tests.chaos.load.develop",
            work_pool_name=made.pool,
            enforce_parameter_schema=False,
        )
        stack.callback(_kill_all, made)
        for number in range(WORKERS):
            made.start_worker(contained=made.containers and number % 2 == 1)
        while made.executions.stat().st_size == 0:  # faults begin when everything works
            if len(made.runs) < WORKERS:
                made.create_run()
            time.sleep(0.2)
        made.started = time.monotonic()
        yield made


def marked(mark: str) -> list[psutil.Process]:
    """Processes of a campaign: workers, warm processes and whatever they started."""
    found: list[psutil.Process] = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.pid != os.getpid() and process.environ().get(MARK) == mark:
                found.append(process)
    return found


def _kill_all(made: Campaign) -> None:
    for process in marked(made.mark):
        with suppress(psutil.Error):
            process.kill()
    for worker in made.workers:
        worker.process.wait()


def _draw_pictures(folder: Path) -> None:
    folder.mkdir(parents=True)
    for number in range(PICTURES):
        pixels = np.random.default_rng(number).integers(0, 256, (24, 32, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
