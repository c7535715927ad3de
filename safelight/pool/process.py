"""A warm process as its worker sees it."""

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from typing import TYPE_CHECKING
from uuid import UUID

from prefect.logging import get_logger
from pydantic_core import PydanticSerializationError

from safelight.children import safe_path
from safelight.observing.correlating import correlated
from safelight.observing.logs import seen
from safelight.pool.devices import GIB, Device, machine_memory
from safelight.pool.freshness import Stamp, changed_since, code_stamps
from safelight.pool.messages import (
    Ended,
    FromProcess,
    Owned,
    Pulse,
    Ready,
    Run,
    Stale,
    Stop,
    lines_of,
)
from safelight.progress import StopReason
from safelight.settings import absolute_paths, settings

if TYPE_CHECKING:
    from safelight.pool.metering import Meter

LOG = get_logger("safelight.pool")  # below Prefect's own logger, so a worker shows it
MEMORY_SHARE = 0.8
CLOSE_SECONDS = 25.0
"""A process whose socket was closed has this long to stop its run and end."""
UNLESS_SET = {"OMP_WAIT_POLICY": "PASSIVE"}
"""Environment of a process where the worker's own says nothing else.

Threads that wait for one another sleep. Spinning, the default, gains nothing on idle cores; on two
cores that three processes shared, all took 2.4 times as long.
"""


@dataclass(frozen=True)
class Died:
    """The process ended in the middle of a run."""

    returncode: int
    """As `subprocess` tells it: -9 after SIGKILL."""
    why: str = ""
    """Why the worker ended it; empty when it did not."""


Outcome = Ended | Died


def outcome_of(outcome: Outcome) -> str:
    """How a run left its process, in a few words."""
    if isinstance(outcome, Died):
        return f"process ended with {outcome.returncode} {outcome.why}".rstrip()
    return outcome.outcome


class WarmProcess:
    """One long-lived process on one device; started when first needed, replaced when it must be.

    Args:
        device: what it runs on.
        environment: added to the worker's own.
        devices: processes that share this machine's memory.
        meter: counts what it tells; None counts nothing.
    """

    def __init__(
        self,
        device: Device,
        environment: Mapping[str, str] | None = None,
        devices: int = 1,
        meter: "Meter | None" = None,
    ) -> None:
        self.device = device
        self._meter = meter
        self.warm: list[str] = []
        """What its last runs were about, the latest last; see `routing`."""
        self.runs = 0
        """Flow runs since the process started."""
        self.starts = 0
        """Processes started so far."""
        self.pulses = 0
        """Signs of life of the process."""
        self.still_seconds = 0.0
        """Since the last step of its stage, as of its last sign of life."""
        self._why = ""
        self._environment = {**(environment or {}), **dict(device.environment)}
        self._devices = devices
        self._process: subprocess.Popen[bytes] | None = None
        self._socket: socket.socket | None = None
        self._stamps: dict[str, Stamp] = {}
        self._lock = threading.RLock()
        self._pending: tuple[Run, Future[Outcome]] | None = None
        self._bloated = False

    @property
    def pid(self) -> int | None:
        """Process id; None while there is no process."""
        return self._process.pid if self._process else None

    @property
    def alive(self) -> bool:
        """Whether there is a process."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Start the process unless it runs; what is sent meanwhile waits until it is ready."""
        with self._lock:
            if not self.alive:
                self._spawn()

    def run(self, command: Run) -> "Future[Outcome]":
        """Have a flow run executed; only one at a time. Waits for a process that is replaced.

        Returns:
            A future of how it ended; it never raises.
        """
        with self._lock:
            self.refresh()
            self.start()
            future: Future[Outcome] = Future()
            self._pending = (command, future)
            self._seen("run is handed to a process", command)
            if self._meter is not None:
                self._meter.has_run(self.device.name)
            self._send(command)
            return future

    def stop(self, flow_run_id: UUID, reason: StopReason) -> None:
        """Ask a run to stop at its next step."""
        with self._lock:
            if self._pending and self._pending[0].flow_run_id == flow_run_id:
                number = self._pending[0].number
                self._send(Stop(flow_run_id=flow_run_id, number=number, reason=reason))

    def confirm(self, flow_run_id: UUID, asked: float) -> None:
        """Tell the process that the server has its run as ours.

        Args:
            flow_run_id: of the run.
            asked: `fencing.awake()` when the server was asked.
        """
        with self._lock:
            if self._pending and self._pending[0].flow_run_id == flow_run_id:
                self._send(Owned(flow_run_id=flow_run_id, asked=asked))

    def kill(self, why: str = "") -> None:
        """End the process at once, and the run in it.

        Args:
            why: told of the run, when nobody asked for it.
        """
        with self._lock:
            self._why = why
            if self._process is not None:
                self._process.kill()

    def close(self) -> None:
        """End the process: at once when it is idle, else after its run has stopped."""
        with self._lock:
            process, connection = self._process, self._socket
            self._socket = None
        if connection is not None:
            connection.shutdown(socket.SHUT_RDWR)
            connection.close()
        if process is not None:
            try:
                process.wait(CLOSE_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def _spawn(self) -> None:
        ours, theirs = socket.socketpair()
        self._stamps = code_stamps()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "safelight.pool.child", str(theirs.fileno())],
                env=safe_path(
                    {**UNLESS_SET, **os.environ, **absolute_paths(), **self._environment}
                ),
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                start_new_session=True,  # Ctrl-C goes to the worker alone
            )
        self._socket = ours
        self.warm, self.runs, self._bloated = [], 0, False
        self.still_seconds, self._why = 0.0, ""
        self.starts += 1
        if self._meter is not None:
            self._meter.started(self.device.name)
        threading.Thread(
            target=self._listen,
            args=(self._process, ours),
            name=f"process {self._process.pid}",
            daemon=True,
        ).start()
        LOG.info("process %d on %s started", self._process.pid, self.device.name)

    def refresh(self) -> None:
        """End an idle process that should not run anything any more."""
        with self._lock:
            if self._pending or not self.alive:
                return
            changed = changed_since(self._stamps)
            if changed is not None:
                LOG.info("process %s is replaced: %s changed", self.pid, changed)
            elif self.runs >= settings().pool_recycle_after:
                LOG.info("process %s is replaced after %d runs", self.pid, self.runs)
            elif not self._bloated:
                return
            self.close()

    def _send(self, message: Run | Stop | Owned) -> None:
        try:
            if self._socket is not None:
                self._socket.sendall(_line(message))
        except OSError:  # it died; the listening thread says so
            return

    def _listen(self, process: "subprocess.Popen[bytes]", connection: socket.socket) -> None:
        for line in lines_of(connection):
            self._hear(FromProcess.validate_json(line))
        returncode = process.wait()
        with self._lock:
            if self._process is process:
                self._process, self._socket, self.warm = None, None, []
                if self._meter is not None:
                    self._meter.gone(self.device.name, had_run=self._pending is not None)
                self._finish(Died(returncode, self._why))

    def _hear(self, message: Ready | Pulse | Stale | Ended) -> None:
        if self._meter is not None:
            self._meter.heard(self.device.name, message)
        if isinstance(message, Pulse):
            self.pulses += 1
            self.still_seconds = message.still_seconds
        elif isinstance(message, Ready):
            LOG.info("process %s is ready, %.1f s of preloading", self.pid, message.seconds)
        elif isinstance(message, Stale):
            threading.Thread(target=self._again, args=(message,), daemon=True).start()
        else:
            self.runs += 1
            self._finish(message)
            if message.memory_bytes > self._most_bytes():
                LOG.info(
                    "process %s is replaced: it holds %.1f GiB, %.1f GiB of it models",
                    self.pid,
                    message.memory_bytes / GIB,
                    message.models_bytes / GIB,
                )
                self._bloated = True

    def _again(self, stale: Stale) -> None:
        LOG.info("process %s is replaced: %s changed", self.pid, stale.found)
        with self._lock:
            waiting = self._pending
            self._pending = None
            self.close()
            self._spawn()
            if waiting is not None:
                self._pending = waiting
                self._send(waiting[0])

    def _finish(self, outcome: Outcome) -> None:
        with self._lock:
            waiting, self._pending = self._pending, None
        if waiting is not None:
            self._seen("run left its process", waiting[0], outcome=outcome_of(outcome))
            waiting[1].set_result(outcome)

    def _seen(self, event: str, command: Run, **facts: str) -> None:
        with correlated(command.correlation or str(command.flow_run_id)):
            told = {"flow_run_id": str(command.flow_run_id), "device": self.device.name, **facts}
            seen(event, **told)

    def _most_bytes(self) -> float:
        limit = settings().pool_process_memory_gib
        if limit is not None:
            return limit * GIB
        return MEMORY_SHARE * machine_memory() / self._devices


def _line(message: Run | Stop | Owned) -> bytes:
    try:
        return message.model_dump_json().encode() + b"\n"
    except PydanticSerializationError:  # half a character among the parameters of a run
        if not isinstance(message, Run):
            raise
        return _line(message.model_copy(update={"flow_run": None}))
